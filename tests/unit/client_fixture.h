// SPDX-License-Identifier: Apache-2.0
// A handle of libsonic and the broker it talks to, both driven by the test's one thread: the broker
// is a bare ROUTER that says what the test wants it to say.
#ifndef SONIC_TESTS_CLIENT_FIXTURE_H
#define SONIC_TESTS_CLIENT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/sonic.h"
#include "common/clock.h"
#include "common/message.h"
#include "common/wire.h"
#include "common/zsock.h"

#define PATIENCE_US 10000000u
#define RESULTS_MAX 4096

struct stage {
    char folder[64], endpoint[96];
    void *ctx, *router;
    struct wire_decoder *decoder;
    struct wire_header *header;
    struct payload *payload;
    struct message message;
    uint64_t epoch, session, slab_bytes_max;
    sonic_t *sonic;
    // What the callbacks were given, in their order.
    unsigned nresults;
    struct {
        uint64_t id;
        sonic_status_t status;
        unsigned attempts, noutputs;
        uint8_t first; // byte of the first output
        char text[64];
    } results[RESULTS_MAX];
};

static inline void broker_up(struct stage *t, uint64_t epoch)
{
    char why[256];
    t->epoch = epoch;
    // An earlier one's socket closes in libzmq's own time.
    for (uint64_t until_us = clock_now_us() + PATIENCE_US;
         !(t->router = zsock_router(t->ctx, t->endpoint, why, sizeof(why))) &&
         clock_now_us() < until_us;)
        usleep(1000);
    if (!t->router)
        fail_msg("%s", why);
}

static inline void broker_down(struct stage *t)
{
    int none = 0;
    zmq_setsockopt(t->router, ZMQ_LINGER, &none, sizeof(none));
    zsock_close(t->router);
    t->router = NULL;
}

static inline void open_handle(struct stage *t, sonic_options_t o)
{
    o.endpoint = t->endpoint;
    o.tenant = "test";
    assert_int_equal(sonic_open(&t->sonic, &o), 0);
}

static inline int stage_up(void **state)
{
    struct stage *t = calloc(1, sizeof(*t));
    assert_non_null(t);
    snprintf(t->folder, sizeof(t->folder), "/tmp/sonic_test.XXXXXX");
    assert_non_null(mkdtemp(t->folder));
    snprintf(t->endpoint, sizeof(t->endpoint), "ipc://%s/b", t->folder);
    t->ctx = zctx_open(1);
    t->decoder = wire_decoder_new();
    t->header = wire_header_new();
    t->payload = payload_new();
    message_init(&t->message);
    *state = t;
    return 0;
}

static inline int stage_down(void **state)
{
    struct stage *t = *state;
    sonic_close(t->sonic);
    message_clear(&t->message);
    if (t->router)
        broker_down(t);
    zctx_close(t->ctx);
    payload_free(t->payload);
    wire_header_free(t->header);
    wire_decoder_free(t->decoder);
    unlink(t->endpoint + strlen("ipc://"));
    rmdir(t->folder);
    free(t);
    return 0;
}

// ---- the broker's side --------------------------------------------------------------------------

// Runs both sides until the client has sent a message of this type; others are passed over.
static inline struct wire_message *expect(struct stage *t, enum wire_type type)
{
    uint64_t until_us = clock_now_us() + PATIENCE_US;
    while (clock_now_us() < until_us) {
        struct wire_message *m;
        sonic_process(t->sonic, 1);
        message_clear(&t->message);
        while (t->router && message_receive(t->router, true, &t->message) == 1) {
            assert_int_equal(wire_decode(t->decoder, zmq_msg_data(&t->message.frames[0]),
                                         zmq_msg_size(&t->message.frames[0]), WIRE_FROM_CLIENT, &m),
                             WIRE_OK);
            if (m->type == type)
                return m;
            message_clear(&t->message);
        }
    }
    fail_msg("no %s came", wire_type_name(type));
    return NULL;
}

static inline void broker_send(struct stage *t)
{
    assert_int_equal(
        message_send(t->router, t->message.routing, t->message.routing_len, t->header, t->payload),
        0);
}

static inline void welcome(struct stage *t, uint32_t requests, uint64_t bytes)
{
    struct wire_message *m = expect(t, WIRE_HELLO);
    t->session = m->fields.hello.session;
    struct wire_welcome fields = {.version = 1,
                                  .epoch = t->epoch,
                                  .session = t->session,
                                  .grant_requests = requests,
                                  .grant_bytes = bytes,
                                  .request_bytes_max = UINT64_MAX,
                                  .slab_bytes_max = t->slab_bytes_max,
                                  .beat_ms = 2000};
    wire_begin_welcome(t->header, &fields);
    broker_send(t);
}

static inline void begin_answer(struct stage *t)
{
    struct wire_answer fields = {.epoch = t->epoch};
    wire_begin_answer(t->header, &fields);
}

static inline void add_answer(struct stage *t, uint64_t seq, enum sonic_status status,
                              uint32_t retry_ms)
{
    struct wire_answer_item item = {.seq = seq,
                                    .status = (uint8_t)status,
                                    .acknowledge = status != SONIC_STATUS_BUSY,
                                    .retry_after_ms = retry_ms,
                                    .text = wire_str(status ? "because" : "")};
    uint8_t byte = (uint8_t)seq;
    if (status == SONIC_STATUS_OK) {
        item.tensors.n = 1;
        item.tensors.at[0] =
            (struct tensor){.dtype = SONIC_UINT8, .ndim = 2, .dims = {1, 1}, .bytes = 1};
        payload_pack(t->payload, &item.tensors.at[0], &byte);
    }
    assert_true(wire_add_answer(t->header, &item));
}

static inline void answer(struct stage *t, uint64_t seq, enum sonic_status status)
{
    begin_answer(t);
    add_answer(t, seq, status, 1);
    broker_send(t);
}

static inline void refuse(struct stage *t, enum sonic_status status, const char *text)
{
    struct wire_refuse fields = {
        .epoch = t->epoch, .status = (uint8_t)status, .text = wire_str(text)};
    wire_begin_refuse(t->header, &fields);
    broker_send(t);
}

// ---- the client's side --------------------------------------------------------------------------

static inline void on_result(const sonic_result_t *result, void *user)
{
    struct stage *t = user;
    unsigned i = t->nresults++;
    assert_true(i < RESULTS_MAX);
    t->results[i].id = result->id;
    t->results[i].status = result->status;
    t->results[i].attempts = result->attempts;
    t->results[i].noutputs = result->noutputs;
    if (result->noutputs)
        t->results[i].first = *(const uint8_t *)result->outputs[0].data;
    snprintf(t->results[i].text, sizeof(t->results[i].text), "%s", result->text);
}

static const uint8_t SMALL[64] = {1, 2, 3};

static inline sonic_tensor_t tensor_of(const void *data, size_t bytes)
{
    return (sonic_tensor_t){SONIC_TYPE_UINT8, 2, {1, bytes}, data, bytes};
}

static inline sonic_request_t request_of(struct stage *t, const char *model,
                                         const sonic_tensor_t *input)
{
    return (sonic_request_t){
        .model = model, .ninputs = 1, .inputs = input, .callback = on_result, .user = t};
}

// Submits a request of 64 bytes; its id.
static inline uint64_t submit(struct stage *t, const char *model)
{
    uint64_t id;
    sonic_tensor_t input = tensor_of(SMALL, sizeof(SMALL));
    sonic_request_t r = request_of(t, model, &input);
    assert_int_equal(sonic_submit(t->sonic, &r, &id), 0);
    return id;
}

// Until so many callbacks have run in all.
static inline void wait_results(struct stage *t, unsigned n)
{
    uint64_t until_us = clock_now_us() + PATIENCE_US;
    while (t->nresults < n && clock_now_us() < until_us)
        sonic_process(t->sonic, 10);
    assert_int_equal(t->nresults, n);
}

// Turns the client for a while; for what must not happen.
static inline void idle(struct stage *t, unsigned turns)
{
    for (unsigned i = 0; i < turns; i++)
        sonic_process(t->sonic, 1);
}

#endif
