// SPDX-License-Identifier: Apache-2.0
// libsonic when things go wrong: brokers that restart, refuse, forget or are silent; cancels,
// deadlines and closing; and the functions that wait.
#include "tests/unit/client_fixture.h"

#include <errno.h>

static void start(struct stage *t)
{
    broker_up(t, 7);
    open_handle(t, (sonic_options_t){0});
    welcome(t, 1000, 64u << 20);
}

static void check_submit(struct stage *t, uint64_t first, uint32_t n)
{
    struct wire_message *m = expect(t, WIRE_SUBMIT);
    assert_int_equal(m->fields.submit.epoch, t->epoch);
    assert_int_equal(m->nitems, n);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(m->items.submit[i].seq, first + i);
}

// ---- the session --------------------------------------------------------------------------------

static void test_a_broker_that_comes_later_is_found(void **state)
{
    struct stage *t = *state;
    open_handle(t, (sonic_options_t){0});
    submit(t, "echo");
    idle(t, 20);
    assert_false(sonic_connected(t->sonic));
    broker_up(t, 1);
    welcome(t, 10, 1000);
    check_submit(t, 1, 1);
}

static void test_register_again_sends_all_again(void **state)
{
    struct stage *t = *state;
    start(t);
    for (unsigned i = 0; i < 3; i++)
        submit(t, "echo");
    check_submit(t, 1, 3);
    answer(t, 2, SONIC_STATUS_OK);
    wait_results(t, 1);
    refuse(t, SONIC_STATUS_REGISTER_AGAIN, "who are you?");
    uint64_t session = t->session;
    welcome(t, 1000, 1u << 20);
    assert_int_equal(t->session, session);
    struct wire_message *m = expect(t, WIRE_SUBMIT);
    assert_int_equal(m->fields.submit.received, 0); // counted anew in the session that was opened
    assert_int_equal(m->nitems, 2);
    assert_int_equal(m->items.submit[0].seq, 1);
    assert_int_equal(m->items.submit[1].seq, 3);
    begin_answer(t);
    add_answer(t, 3, SONIC_STATUS_OK, 0);
    add_answer(t, 3, SONIC_STATUS_OK, 0);
    add_answer(t, 1, SONIC_STATUS_OK, 0);
    broker_send(t);
    wait_results(t, 3);
    assert_int_equal(t->results[1].attempts, 2);
    idle(t, 5);
    assert_int_equal(t->nresults, 3);
}

static void test_another_epoch_opens_the_session_again(void **state)
{
    struct stage *t = *state;
    start(t);
    submit(t, "echo");
    check_submit(t, 1, 1);
    struct wire_beat fields = {.epoch = 8};
    wire_begin_beat(t->header, &fields);
    broker_send(t);
    t->epoch = 8;
    welcome(t, 10, 1000);
    check_submit(t, 1, 1);
}

static void test_a_restarted_broker_gets_all_again(void **state)
{
    struct stage *t = *state;
    start(t);
    for (unsigned i = 0; i < 5; i++)
        submit(t, "echo");
    check_submit(t, 1, 5);
    answer(t, 1, SONIC_STATUS_OK);
    wait_results(t, 1);
    broker_down(t);
    idle(t, 50);
    submit(t, "echo");
    broker_up(t, 8);
    welcome(t, 100, 1u << 20);
    check_submit(t, 2, 5);
    begin_answer(t);
    for (uint64_t seq = 2; seq <= 6; seq++)
        add_answer(t, seq, SONIC_STATUS_OK, 0);
    broker_send(t);
    wait_results(t, 6);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(t->results[i].id, i + 1);
        assert_int_equal(t->results[i].status, SONIC_OK);
    }
}

// The first broker dies with the caller's large data unread in its link.
static void test_large_data_survives_a_broker(void **state)
{
    struct stage *t = *state;
    size_t bytes = 1u << 20; // four of them are one SUBMIT
    uint8_t *data = malloc(bytes);
    sonic_tensor_t input = tensor_of(data, bytes);
    sonic_request_t r = request_of(t, "echo", &input);
    memset(data, 5, bytes);
    start(t);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
    idle(t, 3);
    broker_down(t);
    idle(t, 50);
    broker_up(t, 8);
    welcome(t, 100, 64u << 20);
    check_submit(t, 1, 4);
    begin_answer(t);
    for (uint64_t seq = 1; seq <= 4; seq++)
        add_answer(t, seq, SONIC_STATUS_OK, 0);
    broker_send(t);
    wait_results(t, 4);
    free(data);
}

static void test_busy_is_tried_again(void **state)
{
    struct stage *t = *state;
    start(t);
    submit(t, "echo");
    for (unsigned i = 0; i < 3; i++) {
        check_submit(t, 1, 1);
        answer(t, 1, SONIC_STATUS_BUSY);
    }
    check_submit(t, 1, 1);
    answer(t, 1, SONIC_STATUS_OK);
    wait_results(t, 1);
    assert_int_equal(t->results[0].attempts, 4);
}

static void test_a_busy_broker_is_asked_again(void **state)
{
    struct stage *t = *state;
    broker_up(t, 7);
    open_handle(t, (sonic_options_t){0});
    submit(t, "echo");
    expect(t, WIRE_HELLO);
    refuse(t, SONIC_STATUS_BUSY, "granted out");
    welcome(t, 10, 1000);
    check_submit(t, 1, 1);
}

static void test_a_refusal_for_good_is_told(void **state)
{
    struct stage *t = *state;
    broker_up(t, 7);
    open_handle(t, (sonic_options_t){0});
    submit(t, "echo");
    expect(t, WIRE_HELLO);
    refuse(t, SONIC_STATUS_VERSION, "this broker speaks 9 to 11");
    int rc = 0;
    for (unsigned i = 0; i < 1000 && rc == 0; i++)
        rc = sonic_process(t->sonic, 10);
    assert_int_equal(rc, -EPROTO);
    assert_non_null(strstr(sonic_error(t->sonic), "this broker speaks 9 to 11"));
    assert_int_equal(t->nresults, 0); // the caller decides: sonic_close ends them
}

// ---- ends without an answer ---------------------------------------------------------------------

static void test_cancel_before_and_after_sending(void **state)
{
    struct stage *t = *state;
    open_handle(t, (sonic_options_t){0});
    uint64_t first = submit(t, "echo"), second = submit(t, "echo");
    assert_int_equal(sonic_cancel(t->sonic, first), 0);
    wait_results(t, 1);
    assert_int_equal(t->results[0].id, first);
    assert_int_equal(t->results[0].status, SONIC_CANCELLED);
    assert_int_equal(sonic_cancel(t->sonic, first), -ENOENT);
    broker_up(t, 7);
    welcome(t, 10, 1000);
    check_submit(t, second, 1);
    assert_int_equal(sonic_cancel(t->sonic, second), 0);
    struct wire_message *m = expect(t, WIRE_CANCEL);
    assert_int_equal(m->nitems, 1);
    assert_int_equal(m->items.cancel[0].seq, second);
    assert_int_equal(t->nresults, 1); // the broker's answer ends it
    answer(t, second, SONIC_STATUS_BUSY);
    wait_results(t, 2); // it is not sent again
    assert_int_equal(t->results[1].status, SONIC_CANCELLED);
}

static void test_a_cancelled_request_is_not_sent_again(void **state)
{
    struct stage *t = *state;
    start(t);
    submit(t, "echo");
    check_submit(t, 1, 1);
    assert_int_equal(sonic_cancel(t->sonic, 1), 0);
    expect(t, WIRE_CANCEL);
    refuse(t, SONIC_STATUS_REGISTER_AGAIN, "who are you?");
    welcome(t, 10, 1000);
    wait_results(t, 1);
    assert_int_equal(t->results[0].status, SONIC_CANCELLED);
}

static void submit_until(struct stage *t, uint64_t deadline_us)
{
    sonic_tensor_t input = tensor_of(SMALL, sizeof(SMALL));
    sonic_request_t r = request_of(t, "echo", &input);
    r.deadline_us = deadline_us;
    assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
}

static void test_deadlines_hold_without_a_broker(void **state)
{
    struct stage *t = *state;
    open_handle(t, (sonic_options_t){0});
    submit_until(t, 20000);
    submit_until(t, UINT64_MAX);
    wait_results(t, 1);
    assert_int_equal(t->results[0].id, 1);
    assert_int_equal(t->results[0].status, SONIC_DEADLINE);
    assert_int_equal(sonic_pending(t->sonic), 1);
}

static void test_deadlines_hold_when_a_broker_is_silent(void **state)
{
    struct stage *t = *state;
    start(t);
    submit_until(t, 2000000);
    struct wire_message *m = expect(t, WIRE_SUBMIT);
    assert_true(m->items.submit[0].deadline_us > 0 && m->items.submit[0].deadline_us <= 2000000);
    wait_results(t, 1);
    assert_int_equal(t->results[0].status, SONIC_DEADLINE);
    answer(t, 1, SONIC_STATUS_OK); // late
    idle(t, 20);
    assert_int_equal(t->nresults, 1);
}

static void resubmit_lost(const sonic_result_t *result, void *user)
{
    struct stage *t = user;
    on_result(result, t);
    submit(t, "echo");
}

static void test_lost_ends_what_was_there(void **state)
{
    struct stage *t = *state;
    sonic_tensor_t input = tensor_of(SMALL, sizeof(SMALL));
    sonic_request_t r = request_of(t, "echo", &input);
    open_handle(t, (sonic_options_t){.lost_after_ms = 200});
    r.callback = resubmit_lost;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
    wait_results(t, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(t->results[i].status, SONIC_LOST);
    assert_int_equal(sonic_pending(t->sonic),
                     3); // submitted by the callbacks: with a time of their own
    assert_non_null(strstr(sonic_error(t->sonic), "no broker answered"));
}

// A caller that was away for longer than lost_after_ms finds a living broker.
static void test_a_living_broker_is_not_lost(void **state)
{
    struct stage *t = *state;
    broker_up(t, 7);
    open_handle(t, (sonic_options_t){.lost_after_ms = 50});
    submit(t, "echo");
    usleep(400000);
    welcome(t, 10, 1000);
    check_submit(t, 1, 1);
    answer(t, 1, SONIC_STATUS_OK);
    wait_results(t, 1);
    assert_int_equal(t->results[0].status, SONIC_OK);
}

static int submitted_late;
static void submit_at_close(const sonic_result_t *result, void *user)
{
    struct stage *t = user;
    sonic_tensor_t input = tensor_of(SMALL, sizeof(SMALL));
    sonic_request_t r = request_of(t, "echo", &input);
    on_result(result, t);
    submitted_late = sonic_submit(t->sonic, &r, NULL);
}

static void test_close_ends_everything(void **state)
{
    struct stage *t = *state;
    size_t bytes = 1u << 20;
    uint8_t *data = calloc(1, bytes);
    sonic_tensor_t input = tensor_of(data, bytes);
    sonic_request_t r = request_of(t, "echo", &input);
    start(t);
    assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
    check_submit(t, 1, 1);
    assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
    r.callback = submit_at_close;
    assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
    sonic_close(t->sonic);
    t->sonic = NULL;
    assert_int_equal(t->nresults, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(t->results[i].status, SONIC_CANCELLED);
    assert_int_equal(submitted_late, -ESHUTDOWN);
    free(data);
}

static void test_a_bad_endpoint_is_told(void **state)
{
    struct stage *t = *state;
    sonic_options_t o = {.endpoint = "carrier-pigeon://roof"};
    assert_true(sonic_open(&t->sonic, &o) < 0);
    assert_non_null(strstr(sonic_error(t->sonic), "carrier-pigeon://roof"));
}

// ---- functions that wait ------------------------------------------------------------------------
// They do not return before the broker answers, so its answers are sent before it is asked.

static void test_infer_waits_for_its_result(void **state)
{
    struct stage *t = *state;
    sonic_tensor_t input = tensor_of(SMALL, sizeof(SMALL)), *outputs;
    sonic_request_t r = request_of(t, "echo", &input);
    sonic_status_t status;
    unsigned noutputs;
    start(t);
    submit(t, "echo"); // another's, answered meanwhile
    check_submit(t, 1, 1);
    answer(t, 1, SONIC_STATUS_OK);
    begin_answer(t);
    add_answer(t, 2, SONIC_STATUS_OK, 0);
    // The request is submitted, then the answer that already waits in the link is read.
    broker_send(t);
    assert_int_equal(sonic_infer(t->sonic, &r, 10000, &status, &outputs, &noutputs), 0);
    assert_int_equal(status, SONIC_OK);
    assert_int_equal(noutputs, 1);
    assert_int_equal(outputs[0].bytes, 1);
    assert_int_equal(*(const uint8_t *)outputs[0].data, 2);
    assert_int_equal((uintptr_t)outputs[0].data % 64, 0);
    sonic_outputs_free(outputs, noutputs);
    assert_int_equal(t->nresults, 1);
}

static void test_infer_that_gives_up_leaves_nothing_behind(void **state)
{
    struct stage *t = *state;
    size_t bytes = 32u << 20;
    uint8_t *data = calloc(1, bytes);
    sonic_tensor_t input = tensor_of(data, bytes), *outputs;
    sonic_request_t r = request_of(t, "echo", &input);
    sonic_status_t status;
    unsigned noutputs;
    start(t);
    assert_int_equal(sonic_infer(t->sonic, &r, 0, &status, &outputs, &noutputs), -ETIMEDOUT);
    free(data); // the caller's again, whatever libzmq still has to send
    check_submit(t, 1, 1);
    answer(t, 1, SONIC_STATUS_OK);
    idle(t, 20);
    assert_int_equal(sonic_pending(t->sonic), 0);
    input.bytes = 1;
    assert_int_equal(sonic_infer(t->sonic, &r, 20, &status, &outputs, &noutputs), -EINVAL);
}

static void send_catalog(struct stage *t, uint64_t id, const char *const *names, unsigned n)
{
    struct wire_catalog fields = {.id = id};
    struct wire_catalog_item *item = calloc(1, sizeof(*item));
    assert_non_null(item);
    wire_begin_catalog(t->header, &fields);
    for (unsigned i = 0; i < n; i++) {
        item->name = wire_str(names[i]);
        item->version = 1;
        item->batch_max = 8;
        item->inputs.n = item->outputs.n = 1;
        item->inputs.at[0] =
            (struct tensor_spec){.name = "x", .dtype = SONIC_FP32, .ndim = 1, .dims = {16}};
        item->outputs.at[0] = item->inputs.at[0];
        assert_true(wire_add_catalog(t->header, item));
    }
    free(item);
    broker_send(t);
}

static void test_models_come_in_several_messages(void **state)
{
    struct stage *t = *state;
    static const char *const names[] = {"one", "two", "three"};
    sonic_model_t *models;
    size_t n;
    start(t);
    submit(t, "echo");
    check_submit(t, 1, 1);
    // Ids rise from 1.
    send_catalog(t, 1, names, 2);
    send_catalog(t, 1, names + 2, 1);
    send_catalog(t, 1, NULL, 0);
    assert_int_equal(sonic_models(t->sonic, &models, &n, 10000), 0);
    assert_int_equal(n, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_string_equal(models[i].name, names[i]);
    assert_int_equal(models[2].ninputs, 1);
    assert_int_equal(models[2].inputs[0].type, SONIC_TYPE_FP32);
    assert_int_equal(models[2].inputs[0].dims[0], 16);
    free(models);
}

static void test_questions_and_their_ends(void **state)
{
    struct stage *t = *state;
    char *text;
    start(t);
    submit(t, "echo");
    check_submit(t, 1, 1);
    struct wire_reply fields = {.id = 1};
    struct tensor whole = {.dtype = SONIC_UINT8, .ndim = 1, .dims = {5}, .bytes = 5};
    wire_begin_reply(t->header, &fields);
    payload_pack(t->payload, &whole, "fine\n");
    broker_send(t);
    assert_int_equal(sonic_query(t->sonic, "status", &text, 10000), 0);
    assert_string_equal(text, "fine\n");
    free(text);
    assert_int_equal(sonic_query(t->sonic, "weather", &text, 10), -EINVAL);
    assert_int_equal(sonic_query(t->sonic, "placement", &text, 10), -ETIMEDOUT);
    assert_non_null(strstr(sonic_error(t->sonic), "is the farm running"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, stage_up, stage_down)
        TEST(test_a_broker_that_comes_later_is_found),
        TEST(test_register_again_sends_all_again),
        TEST(test_another_epoch_opens_the_session_again),
        TEST(test_a_restarted_broker_gets_all_again),
        TEST(test_large_data_survives_a_broker),
        TEST(test_busy_is_tried_again),
        TEST(test_a_busy_broker_is_asked_again),
        TEST(test_a_refusal_for_good_is_told),
        TEST(test_cancel_before_and_after_sending),
        TEST(test_a_cancelled_request_is_not_sent_again),
        TEST(test_deadlines_hold_without_a_broker),
        TEST(test_deadlines_hold_when_a_broker_is_silent),
        TEST(test_lost_ends_what_was_there),
        TEST(test_a_living_broker_is_not_lost),
        TEST(test_close_ends_everything),
        TEST(test_a_bad_endpoint_is_told),
        TEST(test_infer_waits_for_its_result),
        TEST(test_infer_that_gives_up_leaves_nothing_behind),
        TEST(test_models_come_in_several_messages),
        TEST(test_questions_and_their_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
