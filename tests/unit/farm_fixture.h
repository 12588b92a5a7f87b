// SPDX-License-Identifier: Apache-2.0
// What the farm's unit tests share: a farm whose payloads are counted, and short verbs to drive it.
// Every verb that changes something has the farm audit its books.
#ifndef SONIC_TESTS_UNIT_FARM_FIXTURE_H
#define SONIC_TESTS_UNIT_FARM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/core/farm.h"

#define FX_PAYLOADS 4096
#define FX_ROOM 1000

// A payload knows whose it is; one freed twice, or never, fails the test.
struct fx_payload {
    uint64_t seq;
    int live;
};

struct fx {
    struct farm *f;
    uint64_t now_us;
    struct fx_payload payloads[FX_PAYLOADS];
    uint32_t npayloads;
    int live;
};

struct fx_lease {
    uint64_t seq, lease;
};

static inline void fx_payload_free(void *payload, void *user)
{
    struct fx_payload *p = payload;
    struct fx *fx = user;
    assert_int_equal(p->live, 1);
    p->live = 0;
    fx->live--;
}

static inline struct fx_payload *fx_payload(struct fx *fx, uint64_t seq)
{
    assert_true(fx->npayloads < FX_PAYLOADS);
    struct fx_payload *p = &fx->payloads[fx->npayloads++];
    *p = (struct fx_payload){seq, 1};
    fx->live++;
    return p;
}

static inline void fx_check(const struct fx *fx)
{
    const char *broken = farm_check(fx->f);
    if (broken)
        fail_msg("farm_check: %s", broken);
}

static inline struct farm_config fx_config(struct fx *fx)
{
    struct farm_config c;
    farm_config_default(&c);
    c.payload_free = fx_payload_free;
    c.user = fx;
    return c;
}

static inline void fx_start(struct fx *fx, const struct farm_config *c)
{
    memset(fx, 0, sizeof *fx);
    fx->now_us = 1000;
    fx->f = farm_new(c);
    assert_non_null(fx->f);
}

static inline void fx_start_default(struct fx *fx)
{
    struct farm_config c = fx_config(fx);
    fx_start(fx, &c);
}

// Ends the farm: whatever it still holds must be released, and nothing twice.
static inline void fx_stop(struct fx *fx)
{
    fx_check(fx);
    farm_free(fx->f);
    assert_int_equal(fx->live, 0);
}

static inline uint64_t fx_tick(struct fx *fx)
{
    uint64_t next_us = farm_tick(fx->f, fx->now_us);
    fx_check(fx);
    return next_us;
}

static inline farm_model_id fx_model(struct fx *fx, const char *name, uint32_t batch_max)
{
    struct farm_model_config c = {.version = 1, .batch_max = batch_max};
    strncpy(c.name, name, SONIC_NAME_MAX);
    farm_model_id id = farm_model_add(fx->f, &c);
    assert_int_not_equal(id, FARM_NONE);
    return id;
}

static inline farm_client_id fx_client(struct fx *fx, const char *tenant)
{
    struct farm_want want = {.requests = FX_ROOM, .bytes = 1000000};
    struct farm_grant grant;
    farm_client_id id;
    assert_int_equal(
        farm_client_open(fx->f, fx->now_us, tenant, strlen(tenant), &want, fx, &id, &grant),
        SONIC_STATUS_OK);
    assert_int_equal(grant.requests, FX_ROOM);
    return id;
}

static inline farm_worker_id fx_worker(struct fx *fx, const char *name, uint32_t slots,
                                       uint32_t room, farm_model_id model)
{
    struct farm_worker_config c = {
        .name = name, .slots = slots, .room_requests = room, .room_bytes = 1000000, .user = fx};
    farm_worker_id id = farm_worker_open(fx->f, fx->now_us, &c);
    assert_int_not_equal(id, FARM_NONE);
    if (model != FARM_NONE)
        assert_true(farm_worker_model(fx->f, fx->now_us, id, model, slots));
    return id;
}

static inline enum sonic_status fx_submit_as(struct fx *fx, farm_client_id c, struct farm_submit s)
{
    uint64_t retry_us;
    struct fx_payload *p = fx_payload(fx, s.seq);
    s.payload = p;
    s.rows = s.rows ? s.rows : 1;
    enum sonic_status status = farm_submit(fx->f, fx->now_us, c, &s, &retry_us);
    assert_int_equal(status == SONIC_STATUS_BUSY, retry_us > 0);
    if (status != SONIC_STATUS_OK)
        fx_payload_free(p, fx); // refused: it stayed ours
    fx_check(fx);
    return status;
}

// n requests of one row and ten bytes, numbered from seq.
static inline void fx_submit(struct fx *fx, farm_client_id c, farm_model_id m, uint64_t seq,
                             uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(
            fx_submit_as(fx, c, (struct farm_submit){.seq = seq + i, .model = m, .bytes = 10}),
            SONIC_STATUS_OK);
}

// What is in this worker's outbox, taken.
static inline uint32_t fx_take(struct fx *fx, farm_worker_id w, struct fx_lease *leases,
                               uint32_t max)
{
    struct farm_dispatch d;
    uint32_t n = 0;
    while (farm_dispatch_peek(fx->f, w, &d)) {
        assert_true(n < max);
        const struct fx_payload *p = d.payload;
        assert_int_equal(p->live, 1);
        leases[n++] = (struct fx_lease){p->seq, d.lease};
        farm_dispatch_pop(fx->f, w);
    }
    fx_check(fx);
    return n;
}

// Returns a result that took exec_us for exec_rows; false: refused as stale.
static inline bool fx_result(struct fx *fx, farm_worker_id w, uint64_t lease,
                             enum sonic_status status, uint32_t exec_us, uint32_t exec_rows)
{
    struct fx_payload *p = fx_payload(fx, 0);
    struct farm_result r = {.lease = lease,
                            .status = status,
                            .exec_us = exec_us,
                            .exec_rows = exec_rows,
                            .bytes = 10,
                            .payload = p};
    bool taken = farm_result(fx->f, fx->now_us, w, &r);
    if (!taken)
        fx_payload_free(p, fx);
    fx_check(fx);
    return taken;
}

static inline bool fx_ok(struct fx *fx, farm_worker_id w, uint64_t lease)
{
    return fx_result(fx, w, lease, SONIC_STATUS_OK, 1000, 1);
}

// The next answer of this client, taken and its payload released; false when there is none.
static inline bool fx_answer(struct fx *fx, farm_client_id c, struct farm_answer *a)
{
    if (!farm_answer_peek(fx->f, c, a))
        return false;
    farm_answer_pop(fx->f, c);
    if (a->payload)
        fx_payload_free(a->payload, fx);
    fx_check(fx);
    return true;
}

static inline void fx_expect_answer(struct fx *fx, farm_client_id c, uint64_t seq,
                                    enum sonic_status status)
{
    struct farm_answer a;
    assert_true(fx_answer(fx, c, &a));
    assert_int_equal(a.seq, seq);
    assert_int_equal(a.status, status);
}

static inline struct farm_stats fx_stats(const struct fx *fx)
{
    struct farm_stats s;
    farm_stats(fx->f, &s);
    return s;
}

#endif
