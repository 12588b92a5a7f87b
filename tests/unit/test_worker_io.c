// SPDX-License-Identifier: Apache-2.0
// What a worker takes and what it gives: DISPATCH messages, sound and hostile, through inbox, slots
// and results, over real sockets. Every lease is answered once, with its own rows.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <poll.h>
#include <zmq.h>

#include "common/clock.h"
#include "worker/inbox.h"

#define PATIENCE_MS 60000
#define LEASES 4096

struct fx {
    void *ctx, *worker, *broker;
    struct fleet fleet;
    struct loaded_model model;
    struct model_entry entry;
    struct job_pool *pool;
    struct slots *slots;
    struct results *results;
    struct mappings *mappings;
    struct inbox inbox;
    struct wire_header *header;
    struct payload *payload;
    struct wire_decoder *decoder;
    struct message received;
    uint32_t values; // of a row
    uint32_t messages, answered;
    uint8_t status[LEASES]; // 255: not answered
    char text[SONIC_TEXT_MAX + 1];
};

static struct fx f;

static void open_sockets(void)
{
    f.ctx = zmq_ctx_new();
    f.broker = zmq_socket(f.ctx, ZMQ_PAIR);
    f.worker = zmq_socket(f.ctx, ZMQ_PAIR);
    assert_int_equal(zmq_bind(f.broker, "inproc://worker-io"), 0);
    assert_int_equal(zmq_connect(f.worker, "inproc://worker-io"), 0);
}

static void open_fx(const char *kind, const char *argument, uint32_t values, uint32_t batch_max,
                    const struct executor *executor)
{
    char why[512];
    uint64_t memory;
    memset(&f, 0, sizeof(f));
    memset(f.status, 255, sizeof(f.status));
    open_sockets();
    struct model_config *c = &f.entry.config;
    strcpy(c->name, "echo");
    c->version = 3;
    c->batch_max = batch_max;
    c->ninputs = c->noutputs = 1;
    c->inputs[0] = (struct tensor_spec){"x", SONIC_UINT32, 1, {values}};
    c->outputs[0] = c->inputs[0];
    f.values = values;
    f.fleet.executor = executor ? executor : executor_find(kind);
    assert_int_equal(f.fleet.executor->probe(argument, &f.fleet.info, why, sizeof(why)), 0);
    assert_int_equal(f.fleet.executor->open(argument, &f.fleet.device, why, sizeof(why)), 0);
    assert_int_equal(f.fleet.executor->load(f.fleet.device, &f.entry, &f.model.handle, &memory, why,
                                            sizeof(why)),
                     0);
    f.model.config = *c;
    f.model.instances = f.fleet.info.slots;
    f.fleet.models = &f.model;
    f.fleet.nmodels = 1;
    f.pool = job_pool_new(1, 4);
    f.slots = slots_new(&f.fleet, f.pool, LEASES, 1u << 30);
    f.results = results_new(&f.fleet, f.worker);
    slots_new_session(f.slots, 1);
    results_new_session(f.results, 1, 77);
    f.mappings = mappings_new();
    f.inbox = (struct inbox){.fleet = &f.fleet,
                             .pool = f.pool,
                             .slots = f.slots,
                             .results = f.results,
                             .mappings = f.mappings,
                             .session = 1};
    f.header = wire_header_new();
    f.payload = payload_new();
    f.decoder = wire_decoder_new();
}

static void close_fx(void)
{
    slots_free(f.slots);
    results_free(f.results);
    zmq_close(f.worker);
    zmq_close(f.broker);
    zmq_ctx_term(f.ctx); // lets go of what was being sent
    job_pool_free(f.pool);
    mappings_free(f.mappings);
    f.fleet.executor->unload(f.model.handle);
    f.fleet.executor->close(f.fleet.device);
    wire_header_free(f.header);
    payload_free(f.payload);
    wire_decoder_free(f.decoder);
}

// ---- the broker's side --------------------------------------------------------------------------

static void begin(const char *model)
{
    struct wire_dispatch d = {.epoch = 77, .model = wire_str(model)};
    wire_begin_dispatch(f.header, &d);
}

// A request of `rows` rows that say the lease. False: the message is full.
static bool add(uint64_t lease, uint32_t rows)
{
    static struct wire_dispatch_item item;
    struct tensor *t = &item.tensors.at[0];
    uint64_t bytes = (uint64_t)rows * f.values * 4;
    if (!payload_fits(f.payload, 1, &bytes))
        return false;
    item.lease = lease;
    item.tensors.n = 1;
    *t = (struct tensor){SONIC_UINT32, 2, 0, 0, 0, bytes, {rows, f.values}};
    uint32_t *data = malloc(bytes);
    for (uint64_t i = 0; i < bytes / 4; i++)
        data[i] = (uint32_t)(lease << 16 | (i & 0xffff));
    if (bytes <= SONIC_PACK_BYTES_MAX) {
        payload_pack(f.payload, t, data);
    } else {
        zmq_msg_t frame;
        zmq_msg_init_size(&frame, bytes);
        memcpy(zmq_msg_data(&frame), data, bytes);
        payload_attach(f.payload, t, &frame);
    }
    free(data);
    return wire_add_dispatch(f.header, &item);
}

static void send_dispatch(void)
{
    assert_int_equal(message_send(f.broker, NULL, 0, f.header, f.payload), 0);
}

static void take_result(const struct wire_result_item *item, uint32_t rows)
{
    assert_true(item->lease < LEASES);
    assert_int_equal(f.status[item->lease], 255); // once
    f.status[item->lease] = item->status;
    f.answered++;
    memcpy(f.text, item->text.data, item->text.len);
    f.text[item->text.len] = '\0';
    if (item->status != SONIC_STATUS_OK) {
        assert_int_equal(item->tensors.n, 0);
        assert_true(item->text.len > 0);
        return;
    }
    const struct tensor *t = &item->tensors.at[0];
    assert_int_equal(item->tensors.n, 1);
    assert_int_equal(t->dims[0], rows);
    const uint32_t *data = message_tensor(&f.received, t);
    assert_non_null(data);
    for (uint64_t i = 0; i < t->bytes / 4; i++)
        assert_int_equal(data[i], (uint32_t)(item->lease << 16 | (i & 0xffff)));
}

static void take_results(uint32_t rows)
{
    struct wire_message *m;
    while (message_receive(f.broker, false, &f.received) == 1) {
        assert_int_equal(wire_decode(f.decoder, zmq_msg_data(&f.received.frames[0]),
                                     zmq_msg_size(&f.received.frames[0]), WIRE_FROM_WORKER, &m),
                         WIRE_OK);
        assert_int_equal(m->type, WIRE_RESULT);
        assert_int_equal(m->fields.result.epoch, 77);
        f.messages++;
        for (uint32_t i = 0; i < m->nitems; i++)
            take_result(&m->items.result[i], rows);
        message_clear(&f.received);
    }
}

// ---- the worker's side, as the agent does it ----------------------------------------------------

static void worker_receives(void)
{
    struct wire_message *m;
    struct parcel *p = parcel_new();
    assert_int_equal(message_receive(f.worker, false, parcel_message(p)), 1);
    struct message *raw = parcel_message(p);
    assert_int_equal(wire_decode(f.decoder, zmq_msg_data(&raw->frames[0]),
                                 zmq_msg_size(&raw->frames[0]), WIRE_FROM_BROKER, &m),
                     WIRE_OK);
    assert_true(inbox_dispatch(&f.inbox, clock_now_us(), p, m));
    parcel_unref(p);
}

static void until_answered(uint32_t n, uint32_t rows)
{
    struct pollfd fd = {slots_fd(f.slots), POLLIN, 0};
    uint64_t until_us = clock_now_us() + PATIENCE_MS * 1000ull;
    while (f.answered < n) {
        assert_true(clock_now_us() < until_us);
        if (!f.fleet.executor->immediate)
            poll(&fd, 1, 10);
        for (struct job *j = slots_finished(f.slots), *next; j; j = next) {
            next = j->next;
            results_add(f.results, j);
        }
        assert_int_equal(results_send(f.results), 0);
        take_results(rows);
    }
}

static void all_ok(uint32_t n)
{
    assert_int_equal(f.answered, n);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(f.status[i], SONIC_STATUS_OK);
}

// ---- tests --------------------------------------------------------------------------------------

static void round_trips(const char *kind, const char *argument, uint32_t values, uint32_t rows,
                        uint32_t n)
{
    open_fx(kind, argument, values, 64, NULL);
    uint32_t next = 0;
    while (next < n) {
        begin("echo");
        while (next < n && add(next, rows))
            next++;
        send_dispatch();
        worker_receives();
    }
    until_answered(n, rows);
    all_ok(n);
    close_fx();
}

static void test_small_requests_share_a_few_messages(void **state)
{
    (void)state;
    round_trips("null", "", 16, 1, 3000);
    round_trips("delay", "0,0,3", 16, 1, 3000);
}

static void test_odd_sizes_are_gathered(void **state)
{
    (void)state;
    round_trips("delay", "0,0,2", 5, 3, 1000);
}

static void test_large_requests_keep_their_own_frames(void **state)
{
    (void)state;
    round_trips("null", "", 10000, 1, 300);
    round_trips("delay", "0,0,2", 3000, 7, 200);
}

static void test_results_of_one_turn_go_together(void **state)
{
    (void)state;
    open_fx("null", "", 16, 64, NULL);
    for (uint32_t k = 0; k < 5; k++) {
        begin("echo");
        for (uint32_t i = 0; i < 50; i++)
            assert_true(add(50 * k + i, 1));
        send_dispatch();
        worker_receives();
    }
    until_answered(250, 1);
    assert_int_equal(f.messages, 1);
    close_fx();
}

static void hostile(const char *model, const struct tensor *t, uint32_t ntensors,
                    enum sonic_status want)
{
    static struct wire_dispatch_item item;
    static uint64_t lease;
    f.answered = 0;
    item.lease = lease = (lease + 1) % LEASES;
    item.tensors.n = ntensors;
    for (uint32_t i = 0; i < ntensors; i++)
        item.tensors.at[i] = *t;
    begin(model);
    struct tensor filler = {SONIC_UINT8, 1, 0, 0, 0, 128, {128}};
    uint8_t bytes[128] = {0};
    payload_pack(f.payload, &filler, bytes); // frame 1: 128 bytes
    assert_true(wire_add_dispatch(f.header, &item));
    send_dispatch();
    worker_receives();
    until_answered(1, 1);
    assert_int_equal(f.status[lease], want);
}

static void test_hostile_dispatches_are_answered_not_executed(void **state)
{
    (void)state;
    open_fx("null", "", 16, 64, NULL);
    const struct tensor good = {SONIC_UINT32, 2, 0, 1, 0, 64, {1, 16}};
    struct tensor t = good;
    hostile("nothere", &t, 1, SONIC_STATUS_NOT_LOADED);
    hostile("echo", &t, 0, SONIC_STATUS_BAD_REQUEST);
    hostile("echo", &t, 2, SONIC_STATUS_BAD_REQUEST);
    t.dtype = SONIC_FP32;
    hostile("echo", &t, 1, SONIC_STATUS_BAD_REQUEST);
    t = good;
    t.dims[1] = 17;
    hostile("echo", &t, 1, SONIC_STATUS_BAD_REQUEST);
    t = good;
    t.dims[0] = 0;
    hostile("echo", &t, 1, SONIC_STATUS_BAD_REQUEST);
    t.dims[0] = 65;
    hostile("echo", &t, 1, SONIC_STATUS_BAD_REQUEST);
    t.dims[0] = 3; // 192 bytes of 128
    hostile("echo", &t, 1, SONIC_STATUS_BAD_REQUEST);
    t = good;
    t.offset = 128;
    hostile("echo", &t, 1, SONIC_STATUS_BAD_REQUEST);
    t.offset = 4; // not aligned
    hostile("echo", &t, 1, SONIC_STATUS_BAD_REQUEST);
    t.offset = UINT64_MAX - 63;
    hostile("echo", &t, 1, SONIC_STATUS_BAD_REQUEST);
    t = good;
    t.where = 0; // the header
    hostile("echo", &t, 1, SONIC_STATUS_BAD_REQUEST);
    t.where = 2;
    hostile("echo", &t, 1, SONIC_STATUS_BAD_REQUEST);
    t = good;
    t.place = TENSOR_IN_SLAB; // that is not mapped (any more)
    hostile("echo", &t, 1, SONIC_STATUS_BUSY);
    close_fx();
}

static void test_results_of_an_older_session_are_dropped(void **state)
{
    (void)state;
    open_fx("null", "", 16, 64, NULL);
    begin("echo");
    assert_true(add(1, 1));
    send_dispatch();
    worker_receives();
    struct job *j = slots_finished(f.slots);
    assert_non_null(j);
    results_new_session(f.results, 2, 78);
    results_add(f.results, j);
    assert_false(results_pending(f.results));
    close_fx();
}

// ---- a device that fails ------------------------------------------------------------------------

static enum executor_outcome next_outcome;

static enum executor_outcome fail_execute(struct executor_model *m, uint32_t slot,
                                          struct execution *x)
{
    (void)m;
    (void)slot;
    strcpy(x->error, "it is broken");
    return next_outcome;
}

static void test_a_failed_execution_fails_its_requests_in_words(void **state)
{
    (void)state;
    struct executor broken = *executor_find("delay");
    broken.execute = fail_execute;
    next_outcome = EXECUTOR_REQUEST_FAILED;
    open_fx(NULL, "0", 16, 64, &broken);
    begin("echo");
    for (uint32_t i = 0; i < 10; i++)
        assert_true(add(i, 1));
    send_dispatch();
    worker_receives();
    until_answered(10, 1);
    for (int i = 0; i < 10; i++)
        assert_int_equal(f.status[i], SONIC_STATUS_EXEC_FAILED);
    assert_string_equal(f.text, "it is broken");
    close_fx();
}

static void test_a_lost_device_executes_nothing_more(void **state)
{
    (void)state;
    struct executor broken = *executor_find("delay");
    broken.execute = fail_execute;
    next_outcome = EXECUTOR_DEVICE_LOST;
    open_fx(NULL, "0", 16, 4, &broken);
    begin("echo");
    for (uint32_t i = 0; i < 10; i++)
        assert_true(add(i, 1));
    send_dispatch();
    worker_receives();
    struct pollfd fd = {slots_fd(f.slots), POLLIN, 0};
    assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
    struct job *j = slots_finished(f.slots);
    assert_non_null(j);
    assert_true(j->device_lost);
    assert_null(j->next);
    uint32_t lost = j->batch.n;
    job_unref(j);
    j = slots_give_up(f.slots, true);
    assert_non_null(j);
    assert_int_equal(j->batch.n, 10 - lost);
    results_add(f.results, j);
    until_answered(10 - lost, 1);
    for (uint32_t i = lost; i < 10; i++)
        assert_int_equal(f.status[i], SONIC_STATUS_NOT_LOADED);
    close_fx();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_requests_share_a_few_messages),
        cmocka_unit_test(test_odd_sizes_are_gathered),
        cmocka_unit_test(test_large_requests_keep_their_own_frames),
        cmocka_unit_test(test_results_of_one_turn_go_together),
        cmocka_unit_test(test_hostile_dispatches_are_answered_not_executed),
        cmocka_unit_test(test_results_of_an_older_session_are_dropped),
        cmocka_unit_test(test_a_failed_execution_fails_its_requests_in_words),
        cmocka_unit_test(test_a_lost_device_executes_nothing_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
