// SPDX-License-Identifier: Apache-2.0
// Who is let in, and what is told to those who are not: versions, epochs, sessions, garbage.
#include "tests/unit/broker_fixture.h"

#include <signal.h>
#include <stdio.h>

#include "common/exitcode.h"

static void query(struct fixture *f, void *socket, uint64_t id, uint8_t what)
{
    struct wire_query m = {.id = id, .what = what};
    wire_begin_query(f->header, &m);
    say(f, socket);
}

// ---- strangers ----------------------------------------------------------------------------------

static void test_stranger_may_ask(void **state)
{
    struct fixture *f = *state;
    void *stranger = peer_open(f, PEER_CLIENT);
    query(f, stranger, 77, WIRE_QUERY_STATUS);
    expect(f, stranger, WIRE_REPLY);
    assert_int_equal(f->got->fields.reply.id, 77);
    assert_int_equal(f->message.nframes, 2);
    struct wire_str text = {zmq_msg_data(&f->message.frames[1]),
                            (uint32_t)zmq_msg_size(&f->message.frames[1])};
    assert_true(text.len > SONIC_TEXT_MAX); // more than is looked at here
    text.len = SONIC_TEXT_MAX;
    assert_says(text, "broker test\n");
    assert_says(text, "\nclients 0\n");
    query(f, stranger, 78, 200);
    expect(f, stranger, WIRE_REPLY);
    assert_int_equal(f->got->fields.reply.status, SONIC_STATUS_BAD_REQUEST);
    assert_int_equal(peers_count(f->broker.peers), 0);
}

static void test_questions_without_end_are_not_all_answered(void **state)
{
    struct fixture *f = *state;
    void *stranger = peer_open(f, PEER_CLIENT);
    unsigned asked = 0;
    for (; f->broker.counts.questions_dropped == 0 && asked < 100000; asked++) {
        query(f, stranger, asked, WIRE_QUERY_STATUS);
        if (f->broker.counts.questions_dropped == 0)
            expect(f, stranger, WIRE_REPLY);
    }
    assert_true(asked > 1000 && asked < 100000);
    after(f, 1000000);
    query(f, stranger, 7, WIRE_QUERY_STATUS);
    expect(f, stranger, WIRE_REPLY);
}

static void test_catalog_ends_with_an_empty_one(void **state)
{
    struct fixture *f = *state;
    char why[256], name[16];
    // More declarations than one header holds.
    for (unsigned i = 0; i < SONIC_MODELS_MAX; i++) {
        snprintf(name, sizeof(name), "model-%03u", i);
        struct model_config c = model_named(name, VALUES);
        strcpy(c.inputs[0].name, "an_input_whose_name_is_long");
        c.ninputs = c.noutputs = SONIC_TENSORS_MAX;
        for (unsigned k = 0; k < SONIC_TENSORS_MAX; k++)
            c.inputs[k] = c.outputs[k] = c.inputs[0];
        assert_int_not_equal(catalog_add(f->broker.catalog, &c, why, sizeof(why)), FARM_NONE);
    }
    void *client = peer_open(f, PEER_CLIENT);
    query(f, client, 5, WIRE_QUERY_MODELS);
    unsigned models = 0, messages = 0;
    do {
        expect(f, client, WIRE_CATALOG);
        assert_int_equal(f->got->fields.catalog.id, 5);
        models += f->got->nitems;
        messages++;
    } while (f->got->nitems > 0);
    assert_int_equal(models, SONIC_MODELS_MAX);
    assert_true(messages > 2);
    assert_false(hear(f, client));
}

static void test_models_that_nobody_has_any_more_make_room(void **state)
{
    struct fixture *f = *state;
    char why[256], name[16];
    worker_open(f, "w", "echo", VALUES);
    for (unsigned i = 1; i < SONIC_MODELS_MAX; i++) {
        snprintf(name, sizeof(name), "model-%03u", i);
        struct model_config c = model_named(name, VALUES);
        assert_int_not_equal(catalog_add(f->broker.catalog, &c, why, sizeof(why)), FARM_NONE);
    }
    struct model_config more = model_named("one-more", VALUES);
    farm_model_id id = catalog_add(f->broker.catalog, &more, why, sizeof(why));
    assert_int_not_equal(id, FARM_NONE);
    assert_string_equal(catalog_model(f->broker.catalog, id)->name, "one-more");
    assert_int_equal(farm_model_find(f->broker.farm, "one-more", 8, 0), id);
    assert_int_equal(farm_model_find(f->broker.farm, "model-001", 9, 0), FARM_NONE);
    assert_int_not_equal(farm_model_find(f->broker.farm, "echo", 4, 0),
                         FARM_NONE); // a worker has it
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 1);
    say_submit(f, client, "one-more", VALUES, 2, 1); // queued: it stays, although nobody has it
    struct model_config other = model_named("other", VALUES);
    assert_int_not_equal(catalog_add(f->broker.catalog, &other, why, sizeof(why)), id);
}

static void test_unknown_peer_is_told_to_register_again(void **state)
{
    struct fixture *f = *state;
    void *client = peer_open(f, PEER_CLIENT);
    void *worker = peer_open(f, PEER_WORKER);
    say_submit(f, client, "echo", VALUES, 1, 1);
    expect(f, client, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_REGISTER_AGAIN, "open your session again");
    say_heartbeat(f, worker);
    expect(f, worker, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_REGISTER_AGAIN, "open your session again");
    assert_int_equal(f->broker.counts.unknown_peers, 2);
}

static void test_wrong_epoch_is_told_to_register_again(void **state)
{
    struct fixture *f = *state;
    void *client = client_open(f);
    void *worker = worker_open(f, "w", "echo", VALUES);
    f->broker.epoch ^= 1; // as after a restart that both slept through
    struct wire_want want = {.epoch = f->broker.epoch ^ 1};
    wire_begin_want(f->header, &want);
    say(f, client);
    expect(f, client, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_REGISTER_AGAIN, "earlier life");
    struct wire_result result = {.epoch = f->broker.epoch ^ 1};
    wire_begin_result(f->header, &result);
    say(f, worker);
    expect(f, worker, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_REGISTER_AGAIN, "earlier life");
    assert_int_equal(f->broker.counts.wrong_epoch, 2);
}

static void test_no_common_version(void **state)
{
    struct fixture *f = *state;
    void *client = peer_open(f, PEER_CLIENT);
    struct wire_hello m = {
        .version_min = 41, .version_max = 43, .tenant = wire_str("t"), .software = wire_str("s")};
    wire_begin_hello(f->header, &m);
    say(f, client);
    expect(f, client, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_VERSION, "41 to 43");
    assert_refused(f, SONIC_STATUS_VERSION, "speaks 1 to 1");
    m.version_min = 9; // an empty range is no range
    m.version_max = 1;
    wire_begin_hello(f->header, &m);
    say(f, client);
    expect(f, client, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_VERSION, "9 to 1");
    assert_int_equal(f->broker.counts.version_refused, 2);
    assert_int_equal(stats(f).clients, 0);
}

static void test_names_that_would_spoil_a_log(void **state)
{
    struct fixture *f = *state;
    void *client = peer_open(f, PEER_CLIENT);
    struct wire_hello m = {
        .version_min = 1, .version_max = 1, .tenant = wire_str("a b"), .software = wire_str("s")};
    wire_begin_hello(f->header, &m);
    say(f, client);
    expect(f, client, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_PROTOCOL, "tenant");
    void *worker = peer_open(f, PEER_WORKER);
    say_join(f, worker, "w\n0", 1, "echo", VALUES);
    expect(f, worker, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_PROTOCOL, "name");
    assert_int_equal(peers_count(f->broker.peers), 0);
}

// ---- garbage ------------------------------------------------------------------------------------

static void test_each_kind_of_garbage_is_counted(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        enum wire_error kind;
    } cases[] = {
        {"", 0, WIRE_ERR_TRUNCATED},
        {"\x93\x08", 2, WIRE_ERR_TRUNCATED},
        {"\xdd\x10\x00\x00\x00", 5, WIRE_ERR_LIMIT},
        {"hello, broker", 13, WIRE_ERR_FORMAT},
        {"\x93\x7f\x90\x90", 4, WIRE_ERR_TYPE},
        {"\x93\x16\x90\x90", 4, WIRE_ERR_ROLE}, // DISPATCH is the broker's to send
    };
    struct fixture *f = *state;
    void *sockets[] = {peer_open(f, PEER_CLIENT), peer_open(f, PEER_WORKER)};
    for (size_t s = 0; s < 2; s++)
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            uint64_t before = f->broker.counts.wire_errors[cases[i].kind];
            say_raw(f, sockets[s], cases[i].bytes, cases[i].n);
            if (f->broker.counts.wire_errors[cases[i].kind] != before + 1)
                fail_msg("case %zu is not counted as %s", i, wire_error_name(cases[i].kind));
            expect(f, sockets[s], WIRE_REFUSE);
            assert_refused(f, SONIC_STATUS_PROTOCOL, wire_error_name(cases[i].kind));
        }
    assert_int_equal(peers_count(f->broker.peers), 0);
}

static void test_too_many_frames(void **state)
{
    struct fixture *f = *state;
    void *client = client_open(f);
    for (unsigned i = 0; i < SONIC_FRAMES_MAX; i++)
        assert_int_equal(zmq_send(client, "x", 1, ZMQ_SNDMORE | ZMQ_DONTWAIT), 1);
    say_raw(f, client, "x", 1);
    assert_int_equal(f->broker.counts.too_many_frames, 1);
    expect(f, client, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_PROTOCOL, "frames");
    query(f, client, 1, WIRE_QUERY_PLACEMENT); // the next message is read from its start
    expect(f, client, WIRE_REPLY);
}

static void test_refusals_are_one_a_second(void **state)
{
    struct fixture *f = *state;
    void *client = client_open(f);
    for (unsigned i = 0; i < 50; i++)
        say_raw(f, client, "garbage", 7);
    expect(f, client, WIRE_REFUSE);
    assert_false(hear(f, client));
    after(f, 1000000);
    say_raw(f, client, "garbage", 7);
    expect(f, client, WIRE_REFUSE);
    assert_int_equal(f->broker.counts.wire_errors[WIRE_ERR_FORMAT], 51);
}

static void test_garbage_takes_nobodys_refusals(void **state)
{
    struct fixture *f = *state;
    void *hostile = peer_open(f, PEER_CLIENT);
    void *honest = peer_open(f, PEER_CLIENT);
    for (unsigned i = 0; i < 30000; i++) {
        assert_true(zmq_send(hostile, "garbage", 7, ZMQ_DONTWAIT) > 0);
        if (i % 500 == 0) {
            settle(f);
            while (hear(f, hostile))
                ;
        }
    }
    settle(f);
    say_submit(f, honest, "echo", VALUES, 1, 1);
    expect(f, honest, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_REGISTER_AGAIN, "");
}

// ---- sessions -----------------------------------------------------------------------------------

static void test_same_session_from_elsewhere_closes_the_old_one(void **state)
{
    struct fixture *f = *state;
    void *first = peer_open(f, PEER_CLIENT), *second = peer_open(f, PEER_CLIENT);
    say_hello(f, first, 42);
    expect(f, first, WIRE_WELCOME);
    say_submit(f, first, "echo", VALUES, 1, 1);
    say_hello(f, second, 42);
    expect(f, second, WIRE_WELCOME);
    assert_int_equal(stats(f).clients, 1);
    while (hear(f, first))
        ;
    say_submit(f, first, "echo", VALUES, 2, 1);
    expect(f, first, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_REGISTER_AGAIN, "");
}

static void test_hello_again_starts_anew(void **state)
{
    struct fixture *f = *state;
    void *worker = worker_open(f, "w", "echo", VALUES);
    void *client = peer_open(f, PEER_CLIENT);
    say_hello(f, client, 42);
    expect(f, client, WIRE_WELCOME);
    say_submit(f, client, "echo", VALUES, 1, 4);
    assert_int_equal(stats(f).accepted, 4);
    say_hello(f, client, 43); // the same link, another session
    expect(f, client, WIRE_WELCOME);
    assert_int_equal(f->got->fields.welcome.session, 43);
    assert_int_equal(stats(f).clients, 1);
    assert_int_equal(stats(f).dropped, 4);
    expect(f, worker, WIRE_DISPATCH);
    say_results(f, worker, VALUES); // for nobody
    assert_false(hear(f, client));
}

static void test_client_that_is_gone_is_closed_by_a_beat(void **state)
{
    struct fixture *f = *state;
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 1);
    cut(f, client, PEER_CLIENT);
    assert_int_equal(stats(f).clients, 1); // nothing was sent, so nothing is known
    after(f, 3000000);
    assert_int_equal(stats(f).clients, 0);
    assert_int_equal(peers_count(f->broker.peers), 0);
    assert_int_equal(f->broker.counts.peers_lost, 1);
}

static void test_silent_peers_get_beats(void **state)
{
    struct fixture *f = *state;
    void *client = client_open(f);
    void *worker = worker_open(f, "w", "echo", VALUES);
    after(f, 2 * BROKER_BEAT_US);
    message_clear(&f->message);
    assert_int_equal(message_receive(worker, false, &f->message), 1);
    message_clear(&f->message);
    assert_int_equal(message_receive(client, false, &f->message), 0); // not so often
    after(f, 2000000);
    message_clear(&f->message);
    assert_int_equal(message_receive(client, false, &f->message), 1);
}

static void test_stopping_broker_takes_nothing_new(void **state)
{
    struct fixture *f = *state;
    void *worker = worker_open(f, "w", "echo", VALUES);
    void *client = client_open(f);
    say_submit(f, client, "echo", VALUES, 1, 1);
    f->broker.stopping = true;
    say_submit(f, client, "echo", VALUES, 2, 1);
    expect(f, client, WIRE_ANSWER);
    assert_int_equal(f->got->items.answer[0].seq, 2);
    assert_int_equal(f->got->items.answer[0].status, SONIC_STATUS_BUSY);
    assert_true(f->got->items.answer[0].retry_after_ms > 0);
    void *late = peer_open(f, PEER_CLIENT);
    say_hello(f, late, 99);
    expect(f, late, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_BUSY, "stopping");
    void *more = peer_open(f, PEER_WORKER);
    say_join(f, more, "x", 100, "echo", VALUES);
    expect(f, more, WIRE_REFUSE);
    assert_refused(f, SONIC_STATUS_BUSY, "stopping");
    expect(f, worker, WIRE_DISPATCH);
    say_results(f, worker, VALUES); // what was accepted goes on
    expect(f, client, WIRE_ANSWER);
    assert_int_equal(f->got->items.answer[0].status, SONIC_STATUS_OK);
}

// A turn that finds messages does not wait for events; signals are looked for all the same, not
// only when nothing is left to take.
static void test_stops_under_load(void **state)
{
    struct fixture *f = *state;
    void *client = client_open(f);
    uint64_t before = f->broker.counts.messages_in;
    for (unsigned i = 0; i < 5000; i++)
        assert_int_equal(zmq_send(client, "garbage", 7, ZMQ_DONTWAIT), 7);
    assert_int_equal(raise(SIGTERM), 0); // blocked: it waits in the broker's descriptor
    assert_int_equal(broker_run(&f->broker), EXIT_OK);
    assert_true(f->broker.counts.messages_in < before + 5000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_stranger_may_ask),
        TEST(test_questions_without_end_are_not_all_answered),
        TEST(test_catalog_ends_with_an_empty_one),
        TEST(test_models_that_nobody_has_any_more_make_room),
        TEST(test_unknown_peer_is_told_to_register_again),
        TEST(test_wrong_epoch_is_told_to_register_again),
        TEST(test_no_common_version),
        TEST(test_names_that_would_spoil_a_log),
        TEST(test_each_kind_of_garbage_is_counted),
        TEST(test_too_many_frames),
        TEST(test_refusals_are_one_a_second),
        TEST(test_garbage_takes_nobodys_refusals),
        TEST(test_same_session_from_elsewhere_closes_the_old_one),
        TEST(test_hello_again_starts_anew),
        TEST(test_client_that_is_gone_is_closed_by_a_beat),
        TEST(test_silent_peers_get_beats),
        TEST(test_stopping_broker_takes_nothing_new),
        TEST(test_stops_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
