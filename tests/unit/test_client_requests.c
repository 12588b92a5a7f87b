// SPDX-License-Identifier: Apache-2.0
// libsonic against a broker that the test plays: requests, results, and what a caller may get
// wrong.
#include "tests/unit/client_fixture.h"

#include <errno.h>
#include <poll.h>

#include "common/side.h"
#include "common/slab.h"

#define LARGE (1u << 20)

static void start(struct stage *t)
{
    broker_up(t, 7);
    open_handle(t, (sonic_options_t){0});
    welcome(t, 1000, 64u << 20);
}

static void test_a_request_and_its_result(void **state)
{
    struct stage *t = *state;
    start(t);
    uint64_t id = submit(t, "echo");
    assert_int_equal(sonic_pending(t->sonic), 1);
    struct wire_message *m = expect(t, WIRE_SUBMIT);
    assert_int_equal(m->fields.submit.epoch, 7);
    assert_int_equal(m->fields.submit.received, 0);
    assert_memory_equal(m->fields.submit.model.data, "echo", 4);
    assert_int_equal(m->nitems, 1);
    const struct wire_submit_item *item = &m->items.submit[0];
    assert_int_equal(item->seq, id);
    assert_int_equal(item->tensors.n, 1);
    const void *data = message_tensor(&t->message, &item->tensors.at[0]);
    assert_non_null(data);
    assert_memory_equal(data, SMALL, sizeof(SMALL));
    assert_true(sonic_connected(t->sonic));
    answer(t, id, SONIC_STATUS_OK);
    wait_results(t, 1);
    assert_int_equal(t->results[0].id, id);
    assert_int_equal(t->results[0].status, SONIC_OK);
    assert_int_equal(t->results[0].attempts, 1);
    assert_int_equal(t->results[0].first, (uint8_t)id);
    assert_string_equal(t->results[0].text, "");
    assert_int_equal(sonic_pending(t->sonic), 0);
}

static void test_a_failure_says_why(void **state)
{
    struct stage *t = *state;
    start(t);
    uint64_t id = submit(t, "echo");
    expect(t, WIRE_SUBMIT);
    answer(t, id, SONIC_STATUS_EXEC_FAILED);
    wait_results(t, 1);
    assert_int_equal(t->results[0].status, SONIC_EXEC_FAILED);
    assert_int_equal(t->results[0].noutputs, 0);
    assert_string_equal(t->results[0].text, "because");
}

static void test_requests_of_a_turn_share_messages(void **state)
{
    struct stage *t = *state;
    start(t);
    for (unsigned i = 0; i < 30; i++)
        submit(t, i % 3 == 0 ? "one" : i % 3 == 1 ? "two" : "three");
    for (unsigned k = 0; k < 3; k++) {
        struct wire_message *m = expect(t, WIRE_SUBMIT);
        assert_int_equal(m->nitems, 10);
        for (unsigned i = 0; i < 10; i++)
            assert_int_equal(m->items.submit[i].seq, 1 + k + 3 * i);
    }
}

// The caller frees its data in the callback: no frame of it may be with libzmq then. (The address
// sanitizer watches.)
static void free_in_callback(const sonic_result_t *result, void *user)
{
    unsigned *left = user;
    assert_int_equal(result->status, SONIC_OK);
    (*left)--;
}

static void test_large_inputs_are_let_go_before_the_callback(void **state)
{
    struct stage *t = *state;
    unsigned left = 8;
    uint8_t *data[8];
    start(t);
    for (unsigned i = 0; i < 8; i++) {
        data[i] = malloc(LARGE);
        assert_non_null(data[i]);
        memset(data[i], (int)i, LARGE);
        sonic_tensor_t input = tensor_of(data[i], LARGE);
        sonic_request_t r = request_of(t, "echo", &input);
        r.callback = free_in_callback;
        r.user = &left;
        assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
    }
    // In several SUBMITs, so that the first are executed while the last are copied.
    unsigned messages = 0;
    for (unsigned seen = 0; seen < 8; messages++) {
        struct wire_message *m = expect(t, WIRE_SUBMIT);
        for (unsigned i = 0; i < m->nitems; i++, seen++) {
            const uint8_t *got = message_tensor(&t->message, &m->items.submit[i].tensors.at[0]);
            assert_non_null(got);
            assert_int_equal(got[0], seen);
            assert_int_equal(got[LARGE - 1], seen);
        }
    }
    assert_true(messages > 1);
    begin_answer(t);
    for (uint64_t seq = 1; seq <= 8; seq++)
        add_answer(t, seq, SONIC_STATUS_OK, 0);
    broker_send(t);
    for (uint64_t until_us = clock_now_us() + PATIENCE_US; left && clock_now_us() < until_us;)
        sonic_process(t->sonic, 10);
    assert_int_equal(left, 0);
    for (unsigned i = 0; i < 8; i++)
        free(data[i]);
}

static void test_in_flight_is_never_more_than_granted(void **state)
{
    struct stage *t = *state;
    broker_up(t, 7);
    open_handle(t, (sonic_options_t){.window_requests = 100});
    welcome(t, 3, 1000);
    for (unsigned i = 0; i < 10; i++)
        submit(t, "echo");
    uint64_t next = 1;
    struct wire_message *m = expect(t, WIRE_SUBMIT);
    assert_int_equal(m->nitems, 3);
    while (next <= 10) {
        answer(t, next++, SONIC_STATUS_OK);
        wait_results(t, (unsigned)next - 1);
        if (next + 2 > 10)
            continue;
        m = expect(t, WIRE_SUBMIT);
        assert_int_equal(m->nitems, 1);
        assert_int_equal(m->fields.submit.received, next - 1);
        assert_int_equal(m->items.submit[0].seq, next + 2);
    }
}

static void test_a_request_over_the_window_asks_for_more(void **state)
{
    struct stage *t = *state;
    uint8_t *data = calloc(1, LARGE);
    sonic_tensor_t input = tensor_of(data, LARGE);
    sonic_request_t r = request_of(t, "echo", &input);
    broker_up(t, 7);
    open_handle(t, (sonic_options_t){0});
    welcome(t, 10, 1000);
    assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
    struct wire_message *m = expect(t, WIRE_WANT);
    assert_int_equal(m->fields.want.need_bytes, LARGE);
    assert_true(m->fields.want.want_bytes >= LARGE);
    struct wire_credit none = {
        .epoch = 7, .grant_requests = 10, .grant_bytes = 1000, .retry_after_ms = 1};
    wire_begin_credit(t->header, &none);
    broker_send(t);
    expect(t, WIRE_WANT);
    assert_non_null(strstr(sonic_error(t->sonic), "1048576 bytes"));
    struct wire_credit credit = {.epoch = 7, .grant_requests = 10, .grant_bytes = LARGE};
    wire_begin_credit(t->header, &credit);
    broker_send(t);
    m = expect(t, WIRE_SUBMIT);
    answer(t, m->items.submit[0].seq, SONIC_STATUS_OK);
    wait_results(t, 1);
    free(data);
}

static void test_answers_are_acknowledged_without_submits(void **state)
{
    struct stage *t = *state;
    start(t);
    submit(t, "echo");
    submit(t, "echo");
    expect(t, WIRE_SUBMIT);
    answer(t, 1, SONIC_STATUS_OK); // the second stays out
    wait_results(t, 1);
    assert_int_equal(expect(t, WIRE_WANT)->fields.want.received, 1);
}

static void test_the_queue_is_bounded(void **state)
{
    struct stage *t = *state;
    sonic_tensor_t input = tensor_of(SMALL, sizeof(SMALL));
    sonic_request_t r = request_of(t, "echo", &input);
    open_handle(t, (sonic_options_t){.window_requests = 4});
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
    assert_int_equal(sonic_submit(t->sonic, &r, NULL), -EAGAIN);
    assert_int_equal(sonic_pending(t->sonic), 8);
}

static void check_refused(struct stage *t, const sonic_request_t *r, int error, const char *word)
{
    assert_int_equal(sonic_submit(t->sonic, r, NULL), -error);
    if (!strstr(sonic_error(t->sonic), word))
        fail_msg("\"%s\" does not say \"%s\"", sonic_error(t->sonic), word);
}

static void test_impossible_requests_are_refused_in_words(void **state)
{
    struct stage *t = *state;
    sonic_tensor_t input = tensor_of(SMALL, sizeof(SMALL));
    sonic_request_t r = request_of(t, NULL, &input);
    open_handle(t, (sonic_options_t){0});
    check_refused(t, &r, EINVAL, "name of a model");
    r.model = "../etc/passwd";
    check_refused(t, &r, EINVAL, "../etc/passwd");
    r.model = "echo";
    r.priority = 9;
    check_refused(t, &r, EINVAL, "priority 9");
    r.priority = 0;
    r.ninputs = 17;
    check_refused(t, &r, EINVAL, "17 inputs");
    r.ninputs = 1;
    input.bytes = 63;
    check_refused(t, &r, EINVAL, "63 bytes given");
    input = tensor_of(NULL, 64);
    check_refused(t, &r, EINVAL, "no data");
    input = tensor_of(SMALL, 64);
    input.type = (sonic_type_t)77;
    check_refused(t, &r, EINVAL, "unknown type");
    input = tensor_of(SMALL, 64);
    input.ndim = 9;
    check_refused(t, &r, EINVAL, "impossible shape");
    input.ndim = 2;
    input.dims[0] = input.dims[1] = UINT64_MAX;
    check_refused(t, &r, EINVAL, "impossible shape");
    input = tensor_of(SMALL, (256u << 20) + 1);
    check_refused(t, &r, EMSGSIZE, "fewer rows");
    assert_int_equal(sonic_pending(t->sonic), 0);
}

static bool readable(struct stage *t, int timeout_ms)
{
    struct pollfd p = {.fd = sonic_fd(t->sonic), .events = POLLIN};
    return poll(&p, 1, timeout_ms) == 1;
}

// Drives the handle by its fd alone, as a caller with a loop of its own does.
static void test_the_fd_tells_when_there_is_work(void **state)
{
    struct stage *t = *state;
    start(t);
    submit(t, "echo");
    assert_true(readable(t, 0)); // something to send
    expect(t, WIRE_SUBMIT);
    for (unsigned i = 0; i < 100 && readable(t, 0); i++)
        sonic_process(t->sonic, 0);
    assert_false(readable(t, 0)); // nothing to do: it must not keep a caller's loop spinning
    answer(t, 1, SONIC_STATUS_OK);
    for (uint64_t until_us = clock_now_us() + PATIENCE_US; t->nresults == 0;) {
        assert_true(clock_now_us() < until_us);
        assert_true(readable(t, PATIENCE_US / 1000));
        sonic_process(t->sonic, 0);
    }
    assert_int_equal(t->results[0].status, SONIC_OK);
}

static void submit_again(const sonic_result_t *result, void *user)
{
    struct stage *t = user;
    on_result(result, t);
    if (t->nresults < 3)
        submit(t, "echo");
    assert_int_equal(sonic_process(t->sonic, 0), -EBUSY);
}

static void test_a_callback_may_submit(void **state)
{
    struct stage *t = *state;
    sonic_tensor_t input = tensor_of(SMALL, sizeof(SMALL));
    sonic_request_t r = request_of(t, "echo", &input);
    start(t);
    r.callback = submit_again;
    assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        struct wire_message *m = expect(t, WIRE_SUBMIT);
        answer(t, m->items.submit[0].seq, SONIC_STATUS_OK);
        wait_results(t, i + 1);
    }
}

static void test_what_a_broker_should_not_send_is_passed_over(void **state)
{
    struct stage *t = *state;
    uint8_t bytes[64];
    unsigned seed = 1;
    start(t);
    uint64_t id = submit(t, "echo");
    expect(t, WIRE_SUBMIT);
    for (unsigned i = 0; i < 500; i++) {
        for (unsigned k = 0; k < sizeof(bytes); k++)
            bytes[k] = (uint8_t)rand_r(&seed);
        zmq_send(t->router, t->message.routing, t->message.routing_len, ZMQ_SNDMORE);
        zmq_send(t->router, bytes, (size_t)rand_r(&seed) % sizeof(bytes), 0);
    }
    // A result that points outside its message ends the request in words.
    struct wire_answer fields = {.epoch = t->epoch};
    struct wire_answer_item item = {.seq = id, .acknowledge = 1, .text = wire_str("")};
    item.tensors.n = 1;
    item.tensors.at[0] = (struct tensor){
        .dtype = SONIC_UINT8, .ndim = 1, .where = 1, .offset = 64, .bytes = 8, .dims = {8}};
    wire_begin_answer(t->header, &fields);
    assert_true(wire_add_answer(t->header, &item));
    broker_send(t);
    wait_results(t, 1);
    assert_int_equal(t->results[0].status, SONIC_PROTOCOL);
    assert_int_equal(t->results[0].noutputs, 0);
}

// ---- inputs in shared memory
// ---------------------------------------------------------------------

// Takes the slab that the client offers, as number 5, and maps it.
static struct slab *take_slab(struct stage *t, int listener)
{
    uint64_t until_us = clock_now_us() + PATIENCE_US;
    uint8_t packet[SIDE_PACKET_MAX];
    char why[256];
    size_t len;
    int fd = -1, connection = -1;
    while (fd < 0 && clock_now_us() < until_us) {
        sonic_process(t->sonic, 1);
        if (connection < 0)
            connection = side_accept(listener);
        else
            side_receive(connection, packet, sizeof(packet), &len, &fd);
    }
    struct wire_message *m;
    assert_true(fd >= 0);
    close(connection);
    assert_int_equal(wire_decode(t->decoder, packet, len, WIRE_FROM_CLIENT, &m), WIRE_OK);
    struct slab *slab = slab_map(fd, m->fields.offer.bytes, why, sizeof(why));
    assert_non_null(slab);
    struct wire_taken fields = {.epoch = t->epoch, .slab = 5};
    wire_begin_taken(t->header, &fields);
    broker_send(t);
    return slab;
}

static void submit_floats(struct stage *t, const float *data, uint64_t n)
{
    sonic_tensor_t input = {SONIC_TYPE_FP32, 2, {1, n}, data, n * sizeof(float)};
    sonic_request_t r = request_of(t, "echo", &input);
    assert_int_equal(sonic_submit(t->sonic, &r, NULL), 0);
}

static void test_inputs_laid_in_shared_memory_are_read_there(void **state)
{
    struct stage *t = *state;
    t->slab_bytes_max = 256u << 20;
    int listener = side_listen(t->endpoint);
    start(t);
    float *data = sonic_alloc(t->sonic, LARGE), *other = sonic_alloc(t->sonic, LARGE);
    assert_int_equal((uintptr_t)data % 4096, 0);
    assert_true(other >= data + LARGE / 4 || data >= other + LARGE / 4);
    data[0] = 1;
    submit_floats(t, data, LARGE / 4); // in a frame: nobody has taken the slab
    struct slab *slab = take_slab(t, listener);
    struct wire_message *m = expect(t, WIRE_SUBMIT);
    assert_int_not_equal(m->items.submit[0].tensors.at[0].place, TENSOR_IN_SLAB);
    idle(t, 20); // TAKEN
    data[16] = 2;
    submit_floats(t, data, LARGE / 4);
    submit_floats(t, data + 16, LARGE / 4 - 16); // a part of it, on a boundary
    submit_floats(t, data + 1, LARGE / 4 - 1);   // no place that could be told: copied
    for (unsigned i = 0; i < 3;) {
        m = expect(t, WIRE_SUBMIT);
        for (unsigned k = 0; k < m->nitems; k++, i++) {
            const struct tensor *in = &m->items.submit[k].tensors.at[0];
            const float *there = slab_tensor(slab, in);
            assert_int_equal(in->place, TENSOR_IN_SLAB);
            assert_non_null(there);
            data[16] = 3; // in place it is the caller's own memory, in a copy it is not
            assert_true(there[i == 0 ? 16 : i == 1 ? 0 : 15] == (i == 2 ? 2 : 3));
            data[16] = 2;
        }
    }
    for (uint64_t id = 1; id <= 4; id++)
        answer(t, id, SONIC_STATUS_OK);
    wait_results(t, 4);
    sonic_free(t->sonic, data, LARGE);
    assert_ptr_equal(sonic_alloc(t->sonic, LARGE), data); // lent again, not lost
    sonic_free(t->sonic, data, LARGE);
    sonic_free(t->sonic, other, LARGE);
    slab_unref(slab);
    side_close(listener, t->endpoint);
}

static void test_memory_for_inputs_has_no_end_at_the_window(void **state)
{
    struct stage *t = *state;
    float *at[4];
    broker_up(t, 7);
    open_handle(t, (sonic_options_t){.window_bytes = 2 * LARGE});
    for (unsigned i = 0; i < 4; i++) { // before any broker was heard, and twice what can be shared
        at[i] = sonic_alloc(t->sonic, LARGE);
        assert_non_null(at[i]);
        memset(at[i], (int)i, LARGE);
    }
    assert_null(sonic_alloc(t->sonic, SIZE_MAX));
    float *small = sonic_alloc(t->sonic, 4);
    assert_non_null(small);
    welcome(t, 1000, 64u << 20);
    submit_floats(t, at[3], LARGE / 4);
    struct wire_message *m = expect(t, WIRE_SUBMIT);
    const uint8_t *got = message_tensor(&t->message, &m->items.submit[0].tensors.at[0]);
    assert_int_equal(got[LARGE - 1], 3);
    answer(t, 1, SONIC_STATUS_OK);
    wait_results(t, 1);
    for (unsigned i = 0; i < 4; i++)
        sonic_free(t->sonic, at[i], LARGE);
    sonic_free(t->sonic, small, 4);
    sonic_free(t->sonic, NULL, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, stage_up, stage_down)
        TEST(test_a_request_and_its_result),
        TEST(test_a_failure_says_why),
        TEST(test_requests_of_a_turn_share_messages),
        TEST(test_large_inputs_are_let_go_before_the_callback),
        TEST(test_in_flight_is_never_more_than_granted),
        TEST(test_a_request_over_the_window_asks_for_more),
        TEST(test_answers_are_acknowledged_without_submits),
        TEST(test_the_queue_is_bounded),
        TEST(test_impossible_requests_are_refused_in_words),
        TEST(test_the_fd_tells_when_there_is_work),
        TEST(test_a_callback_may_submit),
        TEST(test_what_a_broker_should_not_send_is_passed_over),
        TEST(test_inputs_laid_in_shared_memory_are_read_there),
        TEST(test_memory_for_inputs_has_no_end_at_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
