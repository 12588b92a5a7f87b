// SPDX-License-Identifier: Apache-2.0
// A whole broker over inproc sockets, driven turn by turn at a time that the test sets. Peers are
// plain DEALERs: what they send and get is headers and frames, as on any wire.
#ifndef SONIC_TESTS_UNIT_BROKER_FIXTURE_H
#define SONIC_TESTS_UNIT_BROKER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "common/zsock.h"

#define VALUES 16u // floats a row of the models here
#define BIG_VALUES 8192u

struct fixture {
    struct broker broker;
    struct broker_options options;
    struct wire_header *header;
    struct payload *payload;
    struct wire_decoder *decoder;
    struct message message;   // the last one received
    struct wire_message *got; // its header
    void *sockets[8];
    unsigned nsockets;
    uint64_t next_session;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char why[512] = "";
    if (!f)
        return -1;
    f->options = (struct broker_options){.client_endpoints = {"inproc://client"},
                                         .worker_endpoints = {"inproc://worker"},
                                         .nclient_endpoints = 1,
                                         .nworker_endpoints = 1,
                                         .name = "test",
                                         .farm_name = "test"};
    f->header = wire_header_new();
    f->payload = payload_new();
    f->decoder = wire_decoder_new();
    message_init(&f->message);
    *state = f;
    int rc = broker_open(&f->broker, &f->options, why, sizeof(why));
    if (rc != 0)
        print_error("%s\n", why);
    return rc;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    message_clear(&f->message);
    for (unsigned i = 0; i < f->nsockets; i++)
        zsock_close(f->sockets[i]);
    broker_close(&f->broker);
    wire_decoder_free(f->decoder);
    payload_free(f->payload);
    wire_header_free(f->header);
    free(f);
    return 0;
}

// ---- sockets ------------------------------------------------------------------------------------

static inline void *peer_open(struct fixture *f, enum peer_side side)
{
    char why[256];
    void *s =
        zsock_dealer(f->broker.ctx, side == PEER_CLIENT ? "inproc://client" : "inproc://worker", 0,
                     why, sizeof(why));
    assert_non_null(s);
    assert_true(f->nsockets < 8);
    f->sockets[f->nsockets++] = s;
    return s;
}

// Turns until nothing comes in any more and nothing is due.
static inline void settle(struct fixture *f)
{
    unsigned taken;
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t next_us = broker_turn(&f->broker, &taken);
        if (taken == 0 && next_us > f->broker.now_us)
            return;
    }
    fail_msg("a thousand turns, and still something to do");
}

static inline void after(struct fixture *f, uint64_t us)
{
    f->broker.now_us += us;
    settle(f);
}

// Ends a link as a process that dies does: neither side says a word.
static inline void cut(struct fixture *f, void *socket, enum peer_side side)
{
    assert_int_equal(
        zmq_disconnect(socket, side == PEER_CLIENT ? "inproc://client" : "inproc://worker"), 0);
    for (unsigned i = 0; i < 3; i++) { // both ends must process the pipe's last commands
        settle(f);
        zsock_events(socket);
    }
}

// Sends f->header and f->payload, and lets the broker work.
static inline void say(struct fixture *f, void *socket)
{
    assert_int_equal(message_send(socket, NULL, 0, f->header, f->payload), 0);
    settle(f);
}

static inline void say_raw(struct fixture *f, void *socket, const void *bytes, size_t n)
{
    assert_true(zmq_send(socket, bytes, n, ZMQ_DONTWAIT) >= 0);
    settle(f);
}

// The next message, BEATs passed over. False: there is none.
static inline bool hear(struct fixture *f, void *socket)
{
    do {
        message_clear(&f->message);
        if (message_receive(socket, false, &f->message) != 1)
            return false;
        assert_int_equal(wire_decode(f->decoder, zmq_msg_data(&f->message.frames[0]),
                                     zmq_msg_size(&f->message.frames[0]), WIRE_FROM_BROKER,
                                     &f->got),
                         WIRE_OK);
    } while (f->got->type == WIRE_BEAT);
    return true;
}

#define expect(f, socket, kind)                                                                    \
    do {                                                                                           \
        assert_true(hear((f), (socket)));                                                          \
        assert_string_equal(wire_type_name((f)->got->type), wire_type_name(kind));                 \
    } while (0)

// ---- what peers say -----------------------------------------------------------------------------

static inline void say_hello(struct fixture *f, void *client, uint64_t session)
{
    struct wire_hello m = {.version_min = SONIC_PROTOCOL_VERSION_MIN,
                           .version_max = SONIC_PROTOCOL_VERSION,
                           .session = session,
                           .tenant = wire_str("tests"),
                           .software = wire_str("unit/1"),
                           .want_requests = 4096,
                           .want_bytes = 64 << 20};
    wire_begin_hello(f->header, &m);
    say(f, client);
}

// A client with an open session.
static inline void *client_open(struct fixture *f)
{
    void *client = peer_open(f, PEER_CLIENT);
    say_hello(f, client, ++f->next_session);
    expect(f, client, WIRE_WELCOME);
    assert_int_equal(f->got->fields.welcome.epoch, f->broker.epoch);
    return client;
}

static inline struct model_config model_named(const char *name, uint32_t values)
{
    struct model_config c = {.version = 1, .batch_max = 64, .default_rows = 1};
    strcpy(c.name, name);
    struct tensor_spec x = {.name = "x", .dtype = SONIC_FP32, .ndim = 1, .dims = {values}};
    c.ninputs = c.noutputs = 1;
    c.inputs[0] = c.outputs[0] = x;
    strcpy(c.outputs[0].name, "y");
    return c;
}

static inline void say_join(struct fixture *f, void *worker, const char *name, uint64_t session,
                            const char *model, uint32_t values)
{
    static struct wire_join_item item;
    struct model_config config = model_named(model, values);
    struct wire_join m = {.version_min = SONIC_PROTOCOL_VERSION_MIN,
                          .version_max = SONIC_PROTOCOL_VERSION,
                          .session = session,
                          .name = wire_str(name),
                          .device_kind = wire_str("test"),
                          .device_name = wire_str("a test"),
                          .slots = 1,
                          .room_requests = 256,
                          .room_bytes = 64 << 20};
    model_config_to_wire(&config, &item);
    item.instances = 1;
    wire_begin_join(f->header, &m);
    assert_true(wire_add_join(f->header, &item));
    say(f, worker);
}

// A worker that offers one model and is in.
static inline void *worker_open(struct fixture *f, const char *name, const char *model,
                                uint32_t values)
{
    void *worker = peer_open(f, PEER_WORKER);
    say_join(f, worker, name, ++f->next_session, model, values);
    expect(f, worker, WIRE_ACCEPT);
    assert_int_equal(f->got->nitems, 0);
    return worker;
}

// A tensor of rows x values floats, each the number `fill`, put into the payload.
static inline struct tensor put_floats(struct fixture *f, uint32_t rows, uint32_t values,
                                       float fill)
{
    struct tensor t = {.dtype = SONIC_FP32, .ndim = 2, .dims = {rows, values}};
    assert_true(tensor_bytes(t.dtype, t.ndim, t.dims, &t.bytes));
    float *data = malloc(t.bytes + 1);
    for (uint64_t i = 0; i < t.bytes / sizeof(float); i++)
        data[i] = fill;
    if (t.bytes > SONIC_PACK_BYTES_MAX) {
        zmq_msg_t frame;
        zmq_msg_init_size(&frame, t.bytes);
        memcpy(zmq_msg_data(&frame), data, t.bytes);
        payload_attach(f->payload, &t, &frame);
        zmq_msg_close(&frame);
    } else {
        payload_pack(f->payload, &t, data);
    }
    free(data);
    return t;
}

// n requests of a row each, seq first, first + 1, ..., filled with their seq.
static inline void say_submit(struct fixture *f, void *client, const char *model, uint32_t values,
                              uint64_t first, unsigned n)
{
    static struct wire_submit_item item;
    struct wire_submit m = {.epoch = f->broker.epoch, .model = wire_str(model)};
    wire_begin_submit(f->header, &m);
    for (unsigned i = 0; i < n; i++) {
        item.seq = first + i;
        item.tensors.n = 1;
        item.tensors.at[0] = put_floats(f, 1, values, (float)(first + i));
        assert_true(wire_add_submit(f->header, &item));
    }
    say(f, client);
}

// The leases of a DISPATCH just heard, answered OK with one row of `values` each, filled with the
// first number of the request.
static inline void say_results(struct fixture *f, void *worker, uint32_t values)
{
    static struct wire_result_item item;
    struct wire_result m = {.epoch = f->broker.epoch};
    assert_int_equal(f->got->type, WIRE_DISPATCH);
    wire_begin_result(f->header, &m);
    for (uint32_t i = 0; i < f->got->nitems; i++) {
        const struct wire_dispatch_item *d = &f->got->items.dispatch[i];
        const float *x = message_tensor(&f->message, &d->tensors.at[0]);
        assert_non_null(x);
        item.lease = d->lease;
        item.status = SONIC_STATUS_OK;
        item.exec_us = 7;
        item.exec_rows = f->got->nitems;
        item.text = wire_str("");
        item.tensors.n = 1;
        item.tensors.at[0] = put_floats(f, 1, values, x[0]);
        assert_true(wire_add_result(f->header, &item));
    }
    say(f, worker);
}

static inline void say_heartbeat(struct fixture *f, void *worker)
{
    static uint64_t progress;
    struct wire_heartbeat m = {.epoch = f->broker.epoch, .progress = ++progress};
    wire_begin_heartbeat(f->header, &m);
    say(f, worker);
}

static inline void say_bye(struct fixture *f, void *socket)
{
    struct wire_bye m = {.epoch = f->broker.epoch};
    wire_begin_bye(f->header, &m);
    say(f, socket);
}

// ---- what is asserted often ---------------------------------------------------------------------

static inline struct farm_stats stats(const struct fixture *f)
{
    struct farm_stats s;
    const char *broken = farm_check(f->broker.farm);
    if (broken)
        fail_msg("the farm's books are wrong: %s", broken);
    farm_stats(f->broker.farm, &s);
    return s;
}

static inline void assert_says(struct wire_str text, const char *words)
{
    char buf[SONIC_TEXT_MAX + 1];
    snprintf(buf, sizeof(buf), "%.*s", (int)text.len, text.data);
    if (!strstr(buf, words))
        fail_msg("\"%s\" does not say \"%s\"", buf, words);
}

// The REFUSE just heard.
#define assert_refused(f, why, words)                                                              \
    do {                                                                                           \
        assert_int_equal((f)->got->type, WIRE_REFUSE);                                             \
        assert_int_equal((f)->got->fields.refuse.status, (why));                                   \
        assert_says((f)->got->fields.refuse.text, (words));                                        \
    } while (0)

#endif
