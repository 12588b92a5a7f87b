// SPDX-License-Identifier: Apache-2.0
// A request's way through the broker and back, and what becomes of it when workers die, leave, lie
// or disagree.
#include "tests/unit/broker_fixture.h"

#include <stdio.h>

// The next ANSWER's items all have this status, their row the number of their seq.
static unsigned expect_answers(struct fixture *f, void *client, uint32_t values)
{
    expect(f, client, WIRE_ANSWER);
    for (uint32_t i = 0; i < f->got->nitems; i++) {
        const struct wire_answer_item *item = &f->got->items.answer[i];
        assert_int_equal(item->status, SONIC_STATUS_OK);
        assert_int_equal(item->acknowledge, 1);
        assert_int_equal(item->tensors.n, 1);
        assert_int_equal(item->tensors.at[0].bytes, values * sizeof(float));
        const float *y = message_tensor(&f->message, &item->tensors.at[0]);
        assert_non_null(y);
        assert_true(y[0] == (float)item->seq && y[values - 1] == (float)item->seq);
    }
    return f->got->nitems;
}

// The next ANSWER is one refusal or failure in these words.
static void expect_no(struct fixture *f, void *client, uint64_t seq, enum sonic_status status,
                      const char *words)
{
    expect(f, client, WIRE_ANSWER);
    assert_int_equal(f->got->nitems, 1);
    const struct wire_answer_item *item = &f->got->items.answer[0];
    assert_int_equal(item->seq, seq);
    assert_string_equal(sonic_status_name(item->status), sonic_status_name(status));
    assert_int_equal(item->tensors.n, 0);
    assert_says(item->text, words);
}

static void test_there_and_back_in_one_message_each(void **state)
{
    struct fixture *f = *state;
    void *worker = worker_open(f, "w", "echo", VALUES);
    void *client = client_open(f);
    f->broker.now_us += 10;
    say_submit(f, client, "echo", VALUES, 1, 100);
    assert_int_equal(stats(f).leased, 100);
    expect(f, worker, WIRE_DISPATCH);
    assert_int_equal(f->got->nitems, 100);
    f->broker.now_us += 1000;
    say_results(f, worker, VALUES);
    assert_false(hear(f, worker));
    assert_int_equal(expect_answers(f, client, VALUES), 100);
    assert_int_equal(f->got->items.answer[0].exec_us, 7);
    assert_int_equal(f->got->items.answer[0].exec_rows, 100);
    assert_false(hear(f, client));
    assert_int_equal(stats(f).answered_ok, 100);
    assert_int_equal(stats(f).unacknowledged, 100);
    struct wire_want want = {.epoch = f->broker.epoch, .received = 100, .want_requests = 64};
    wire_begin_want(f->header, &want);
    say(f, client);
    expect(f, client, WIRE_CREDIT);
    assert_int_equal(stats(f).unacknowledged, 0);
}

static void test_large_tensors_pass_and_pass_again(void **state)
{
    struct fixture *f = *state;
    void *first = worker_open(f, "w1", "big", BIG_VALUES);
    void *client = client_open(f);
    say_submit(f, client, "big", BIG_VALUES, 1, 100);
    say_submit(f, client, "big", BIG_VALUES, 101, 100); // more frames than one message has
    void *second = worker_open(f, "w2", "big", BIG_VALUES);
    cut(f, first, PEER_WORKER);
    after(f, 2 * BROKER_BEAT_US); // a beat finds that the link is gone
    assert_int_equal(stats(f).workers, 1);
    unsigned answers = 0;
    for (unsigned turn = 0; turn < 1000 && answers < 200; turn++) {
        if (hear(f, second))
            say_results(f, second, BIG_VALUES);
        while (hear(f, client)) {
            assert_int_equal(f->got->type, WIRE_ANSWER);
            for (uint32_t i = 0; i < f->got->nitems; i++, answers++) {
                const struct wire_answer_item *item = &f->got->items.answer[i];
                const float *y = message_tensor(&f->message, &item->tensors.at[0]);
                assert_true(y && y[BIG_VALUES - 1] == (float)item->seq);
            }
        }
    }
    assert_int_equal(answers, 200);
    assert_true(stats(f).redispatched > 0);
}

// ---- what is refused ----------------------------------------------------------------------------

static void test_unknown_model_is_busy_at_first_then_unknown(void **state)
{
    struct fixture *f = *state;
    void *client = client_open(f);
    worker_open(f, "w", "echo", VALUES);
    say_submit(f, client, "nosuch", VALUES, 1, 1);
    expect_no(f, client, 1, SONIC_STATUS_BUSY, "just started");
    assert_true(f->got->items.answer[0].retry_after_ms > 0);
    assert_int_equal(f->got->items.answer[0].acknowledge, 0);
    after(f, 5000000);
    say_submit(f, client, "nosuch", VALUES, 2, 1);
    expect_no(f, client, 2, SONIC_STATUS_MODEL_UNKNOWN, "no model \"nosuch\" in this farm");
    assert_says(f->got->items.answer[0].text, "echo");
    assert_int_equal(f->broker.counts.unknown_models, 1);
    assert_int_equal(stats(f).accepted, 0);
}

static void test_request_of_the_wrong_shape(void **state)
{
    struct fixture *f = *state;
    void *client = client_open(f);
    worker_open(f, "w", "echo", VALUES);
    say_submit(f, client, "echo", VALUES + 1, 3, 1);
    expect_no(f, client, 3, SONIC_STATUS_BAD_REQUEST, "FP32[1,17]");
    assert_int_equal(f->got->items.answer[0].acknowledge, 0);
    assert_int_equal(f->broker.counts.bad_requests, 1);
    assert_int_equal(stats(f).accepted, 0);
}

static void test_request_that_is_not_where_it_says(void **state)
{
    static struct wire_submit_item item;
    struct fixture *f = *state;
    void *client = client_open(f);
    void *worker = worker_open(f, "w", "echo", VALUES);
    struct wire_submit m = {.epoch = f->broker.epoch, .model = wire_str("echo")};
    wire_begin_submit(f->header, &m);
    item.seq = 1;
    item.tensors.n = 1;
    item.tensors.at[0] = put_floats(f, 1, VALUES, 1);
    wire_add_submit(f->header, &item);
    item.seq = 2;
    item.tensors.at[0].offset = 1 << 20;
    wire_add_submit(f->header, &item);
    say(f, client);
    expect_no(f, client, 2, SONIC_STATUS_BAD_REQUEST, "does not lie in frame 1");
    expect(f, worker, WIRE_DISPATCH); // its neighbour is none the worse
    say_results(f, worker, VALUES);
    assert_int_equal(expect_answers(f, client, VALUES), 1);
}

static void test_acknowledging_what_was_never_sent(void **state)
{
    struct fixture *f = *state;
    void *client = client_open(f);
    struct wire_want want = {.epoch = f->broker.epoch, .received = 1};
    wire_begin_want(f->header, &want);
    say(f, client);
    expect(f, client, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_REGISTER_AGAIN, "acknowledge more");
}

// ---- results ------------------------------------------------------------------------------------

static void test_result_of_the_wrong_shape_is_no_answer(void **state)
{
    struct fixture *f = *state;
    void *worker = worker_open(f, "liar", "echo", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 1);
    expect(f, worker, WIRE_DISPATCH);
    say_results(f, worker, VALUES - 1);
    expect_no(f, client, 1, SONIC_STATUS_EXEC_FAILED, "worker liar answered nonsense");
    assert_int_equal(f->broker.counts.bad_results, 1);
    assert_int_equal(stats(f).answered_failed, 1);
}

static void test_result_with_other_rows_is_no_answer(void **state)
{
    static struct wire_result_item item;
    struct fixture *f = *state;
    void *worker = worker_open(f, "liar", "echo", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 1);
    expect(f, worker, WIRE_DISPATCH);
    struct wire_result m = {.epoch = f->broker.epoch};
    wire_begin_result(f->header, &m);
    item.lease = f->got->items.dispatch[0].lease;
    item.text = wire_str("");
    item.tensors.n = 1;
    item.tensors.at[0] = put_floats(f, 2, VALUES, 1);
    wire_add_result(f->header, &item);
    say(f, worker);
    expect_no(f, client, 1, SONIC_STATUS_EXEC_FAILED, "2 rows came back for 1");
}

static void test_failure_in_the_workers_words(void **state)
{
    static struct wire_result_item item;
    struct fixture *f = *state;
    void *worker = worker_open(f, "w", "echo", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 1);
    expect(f, worker, WIRE_DISPATCH);
    struct wire_result m = {.epoch = f->broker.epoch};
    wire_begin_result(f->header, &m);
    item.lease = f->got->items.dispatch[0].lease;
    item.status = SONIC_STATUS_QUEUE_FULL; // not a worker's to say
    item.text = wire_str("the device smells");
    wire_add_result(f->header, &item);
    say(f, worker);
    expect_no(f, client, 1, SONIC_STATUS_EXEC_FAILED, "the device smells (worker w)");
}

static void test_late_and_foreign_results_are_stale(void **state)
{
    static struct wire_result_item item;
    struct fixture *f = *state;
    void *worker = worker_open(f, "w", "echo", VALUES);
    void *thief = worker_open(f, "thief", "other", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 1);
    expect(f, worker, WIRE_DISPATCH);
    struct wire_result m = {.epoch = f->broker.epoch};
    item.lease = f->got->items.dispatch[0].lease;
    item.text = wire_str("");
    item.tensors.n = 1;
    wire_begin_result(f->header, &m);
    item.tensors.at[0] = put_floats(f, 1, VALUES, 666);
    wire_add_result(f->header, &item);
    say(f, thief);
    assert_int_equal(stats(f).stale_results, 1);
    say_results(f, worker, VALUES);
    assert_int_equal(expect_answers(f, client, VALUES), 1); // the first, and it is the worker's
    wire_begin_result(f->header, &m);
    item.tensors.at[0] = put_floats(f, 1, VALUES, 667);
    wire_add_result(f->header, &item);
    say(f, worker);
    assert_int_equal(stats(f).stale_results, 2);
    assert_false(hear(f, client));
}

// ---- workers come and go ------------------------------------------------------------------------

static void test_model_declared_otherwise_is_not_taken(void **state)
{
    struct fixture *f = *state;
    worker_open(f, "w1", "echo", VALUES);
    void *other = peer_open(f, PEER_WORKER);
    say_join(f, other, "w2", 77, "echo", VALUES + 1);
    expect(f, other, WIRE_ACCEPT);
    assert_int_equal(f->got->nitems, 1);
    assert_says(f->got->items.accept[0].model, "echo");
    assert_says(f->got->items.accept[0].text, "FP32[rows,16]");
    assert_int_equal(stats(f).workers, 2);
}

static void test_work_of_a_lost_worker_goes_on_at_once(void **state)
{
    struct fixture *f = *state;
    void *lost = worker_open(f, "w1", "echo", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 1);
    void *other = worker_open(f, "w2", "echo", VALUES);
    cut(f, lost, PEER_WORKER);
    after(f, 2 * BROKER_BEAT_US); // the beat that finds it comes after the turn's tick
    expect(f, other, WIRE_DISPATCH);
    say_results(f, other, VALUES);
    assert_int_equal(expect_answers(f, client, VALUES), 1);
}

static void test_joining_again_gives_up_what_was_held(void **state)
{
    struct fixture *f = *state;
    void *worker = worker_open(f, "w", "echo", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 3);
    expect(f, worker, WIRE_DISPATCH);
    say_join(f, worker, "w", 78, "echo", VALUES);
    expect(f, worker, WIRE_ACCEPT);
    assert_int_equal(stats(f).workers, 1);
    expect(f, worker, WIRE_DISPATCH);
    assert_int_equal(f->got->nitems, 3);
    say_results(f, worker, VALUES);
    assert_int_equal(expect_answers(f, client, VALUES), 3);
    assert_int_equal(stats(f).poisoned, 0);
}

static void test_silent_worker_is_dead_and_may_come_back(void **state)
{
    struct fixture *f = *state;
    void *worker = worker_open(f, "w", "echo", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 1);
    after(f, 6000000);
    assert_int_equal(stats(f).workers, 0);
    assert_int_equal(stats(f).queued, 1);
    expect(f, worker, WIRE_DISPATCH);
    say_results(f, worker, VALUES);
    expect(f, worker, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_REGISTER_AGAIN, "silent for too long");
    say_join(f, worker, "w", 79, "echo", VALUES);
    expect(f, worker, WIRE_ACCEPT);
    expect(f, worker, WIRE_DISPATCH);
    say_results(f, worker, VALUES);
    assert_int_equal(expect_answers(f, client, VALUES), 1);
}

static void test_silent_worker_whose_link_is_gone_is_forgotten_once(void **state)
{
    struct fixture *f = *state;
    void *worker = worker_open(f, "w", "echo", VALUES);
    struct peer *p = peers_first(f->broker.peers);
    struct outgoing *o = calloc(1, sizeof(*o)); // what its full socket did not take
    struct wire_beat beat = {.epoch = f->broker.epoch};
    o->header = wire_header_new();
    o->payload = payload_new();
    wire_begin_beat(o->header, &beat);
    *p->last = o;
    p->last = &o->next;
    p->nheld = 1;
    p->blocked = true;
    f->broker.blocked = p;
    assert_int_equal(zmq_disconnect(worker, "inproc://worker"), 0);
    after(f, 6000000); // in one turn: silent for too long, and gone
    assert_int_equal(stats(f).workers, 0);
    assert_int_equal(peers_count(f->broker.peers), 0);
}

static void test_leaving_worker_finishes_first(void **state)
{
    struct fixture *f = *state;
    void *leaving = worker_open(f, "twin", "echo", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 2);
    void *other = worker_open(f, "twin", "echo", VALUES); // names need not be unique to be safe
    say_bye(f, leaving);
    say_bye(f, other);
    assert_int_equal(stats(f).workers, 1); // the one that holds nothing is gone
    expect(f, leaving, WIRE_DISPATCH);
    say_results(f, leaving, VALUES);
    assert_int_equal(stats(f).workers, 0);
    assert_int_equal(expect_answers(f, client, VALUES), 2);
    say_submit(f, client, "echo", VALUES, 3, 1); // known, so it waits
    assert_int_equal(stats(f).queued, 1);
}

static void test_leaving_worker_whose_leases_are_revoked(void **state)
{
    struct fixture *f = *state;
    void *worker = worker_open(f, "w", "echo", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 1);
    expect(f, worker, WIRE_DISPATCH);
    say_bye(f, worker);
    say_bye(f, client);
    expect(f, worker, WIRE_REVOKE);
    say_heartbeat(f, worker);
    assert_int_equal(stats(f).workers, 0);
    assert_int_equal(f->broker.counts.peers_lost, 0);
}

static void test_cancel_queued_and_leased(void **state)
{
    struct fixture *f = *state;
    void *worker = worker_open(f, "w", "echo", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 5, 1);
    expect(f, worker, WIRE_DISPATCH);
    uint64_t lease = f->got->items.dispatch[0].lease;
    struct wire_cancel m = {.epoch = f->broker.epoch};
    struct wire_cancel_item item = {.seq = 5};
    wire_begin_cancel(f->header, &m);
    wire_add_cancel(f->header, &item);
    item.seq = 6; // nobody's
    wire_add_cancel(f->header, &item);
    say(f, client);
    expect_no(f, client, 5, SONIC_STATUS_CANCELLED, "");
    expect(f, worker, WIRE_REVOKE);
    assert_int_equal(f->got->items.revoke[0].lease, lease);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_there_and_back_in_one_message_each),
        TEST(test_large_tensors_pass_and_pass_again),
        TEST(test_unknown_model_is_busy_at_first_then_unknown),
        TEST(test_request_of_the_wrong_shape),
        TEST(test_request_that_is_not_where_it_says),
        TEST(test_acknowledging_what_was_never_sent),
        TEST(test_result_of_the_wrong_shape_is_no_answer),
        TEST(test_result_with_other_rows_is_no_answer),
        TEST(test_failure_in_the_workers_words),
        TEST(test_late_and_foreign_results_are_stale),
        TEST(test_model_declared_otherwise_is_not_taken),
        TEST(test_work_of_a_lost_worker_goes_on_at_once),
        TEST(test_joining_again_gives_up_what_was_held),
        TEST(test_silent_worker_is_dead_and_may_come_back),
        TEST(test_silent_worker_whose_link_is_gone_is_forgotten_once),
        TEST(test_leaving_worker_finishes_first),
        TEST(test_leaving_worker_whose_leases_are_revoked),
        TEST(test_cancel_queued_and_leased),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
