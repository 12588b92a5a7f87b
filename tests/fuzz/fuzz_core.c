// SPDX-License-Identifier: Apache-2.0
// The farm core under any sequence of events: every four bytes are one event (what, who, a, b) of a
// few clients and workers. After each the farm audits its books; at the end no payload may be left.
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/farm.h"

#define PEERS 8
#define MODELS 3
#define LEASES 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
    struct farm *f;
    uint64_t now_us, seq, live;
    farm_client_id clients[PEERS];
    farm_worker_id workers[PEERS];
    farm_model_id models[MODELS];
    struct {
        farm_worker_id worker;
        uint64_t lease;
    } leases[LEASES];
    uint32_t nleases;
};

struct event {
    uint8_t what, who, a, b;
};

static void payload_free(void *payload, void *user)
{
    struct fuzz *z = user;
    z->live--;
    free(payload);
}

static void *payload_new(struct fuzz *z)
{
    void *p = malloc(1);
    if (!p)
        abort();
    z->live++;
    return p;
}

static void client_event(struct fuzz *z, const struct event *e)
{
    farm_client_id *c = &z->clients[e->who % PEERS];
    struct farm_want want = {
        .requests = e->a, .bytes = e->b * 100u, .need_bytes = e->b & 1 ? e->a : 0};
    struct farm_grant grant;
    uint64_t retry_us;
    char tenant = (char)('a' + e->who % 3);
    struct farm_submit s = {.seq = z->seq,
                            .model = z->models[e->a % MODELS],
                            .rows = e->b % 10,
                            .bytes = e->b,
                            .priority = e->a >> 5,
                            .deadline_us = e->a & 16 ? e->b * 10u : 0};
    switch (e->what % 8) {
    case 0:
        farm_client_close(z->f, z->now_us, *c);
        farm_client_open(z->f, z->now_us, &tenant, 1, &want, z, c, &grant);
        return;
    case 1:
        farm_client_want(z->f, z->now_us, *c, &want, &grant);
        return;
    case 2:
        farm_client_received(z->f, *c, e->a);
        return;
    case 3:
        farm_cancel(z->f, z->now_us, *c, z->seq - e->a);
        return;
    case 4:
        farm_client_close(z->f, z->now_us, *c);
        return;
    default:
        s.payload = payload_new(z);
        z->seq += e->what >> 7; // half of them use a number again
        if (farm_submit(z->f, z->now_us, *c, &s, &retry_us) != SONIC_STATUS_OK)
            payload_free(s.payload, z);
    }
}

static void result_event(struct fuzz *z, const struct event *e)
{
    struct farm_result r = {.lease = z->leases[e->a % LEASES].lease,
                            .status = (enum sonic_status)(e->b % 16),
                            .exec_us = e->b * 1000u,
                            .exec_rows = e->b % 12,
                            .bytes = e->b,
                            .payload = payload_new(z)};
    farm_worker_id w = z->leases[e->a % LEASES].worker;
    if (e->what & 64) { // somebody else's, or nobody's
        w = z->workers[e->who % PEERS];
        r.lease += (uint64_t)e->b << (e->a & 63);
    }
    if (!farm_result(z->f, z->now_us, w, &r))
        payload_free(r.payload, z);
}

static void worker_event(struct fuzz *z, const struct event *e)
{
    farm_worker_id *w = &z->workers[e->who % PEERS];
    struct farm_worker_config c = {.name = "worker",
                                   .slots = e->a % 5,
                                   .room_requests = e->b,
                                   .room_bytes = e->b * 50u,
                                   .user = z};
    switch (e->what % 8) {
    case 0:
        farm_worker_close(z->f, z->now_us, *w, e->a & 1);
        *w = farm_worker_open(z->f, z->now_us, &c);
        return;
    case 1:
    case 2:
        farm_worker_model(z->f, z->now_us, *w, z->models[e->a % MODELS], e->b % 4);
        return;
    case 3:
        farm_worker_beat(z->f, z->now_us, *w, e->a);
        return;
    case 4:
        if (e->a & 1)
            farm_worker_drain(z->f, z->now_us, *w);
        else
            farm_worker_close(z->f, z->now_us, *w, e->a & 2);
        return;
    default:
        result_event(z, e);
    }
}

// Ticks, and lets up to `budget` messages out on each side.
static void turn(struct fuzz *z, const struct event *e)
{
    void *user;
    uint64_t id, lease;
    uint32_t budget = e->b;
    z->now_us += (uint64_t)e->a * e->a * (e->who & 1 ? 1000 : 1);
    farm_tick(z->f, z->now_us);
    while (farm_next_dead_worker(z->f, &user))
        ;
    while ((id = farm_next_worker(z->f, &user))) {
        struct farm_dispatch d;
        while (farm_revoke_pop(z->f, id, &lease))
            ;
        for (uint32_t n = 0; farm_dispatch_peek(z->f, id, &d); n++) {
            if (n == budget) {
                farm_worker_later(z->f, id);
                break;
            }
            *(volatile char *)d.payload = 1; // it is there
            z->leases[z->nleases % LEASES].worker = id;
            z->leases[z->nleases++ % LEASES].lease = d.lease;
            farm_dispatch_pop(z->f, id);
        }
    }
    while ((id = farm_next_client(z->f, &user))) {
        struct farm_answer a;
        for (uint32_t n = 0; farm_answer_peek(z->f, id, &a); n++) {
            if (n == budget) {
                farm_client_later(z->f, id);
                break;
            }
            farm_answer_pop(z->f, id);
            if (a.payload)
                payload_free(a.payload, z);
        }
    }
}

static void begin(struct fuzz *z)
{
    struct farm_config c;
    farm_config_default(&c);
    c.memory_bytes_max = 400000;
    c.workers_max = PEERS - 1;
    c.clients_max = PEERS - 1;
    c.grant_floor_bytes = 1000;
    c.grant_floor_requests = 4;
    c.payload_free = payload_free;
    c.user = z;
    *z = (struct fuzz){.f = farm_new(&c)};
    if (!z->f)
        abort();
    for (uint32_t i = 0; i < MODELS; i++) {
        struct farm_model_config m = {.name = {(char)('a' + i)},
                                      .version = 1,
                                      .batch_max = 1u << (2 * i),
                                      .queue_delay_us = i == 1 ? 500 : 0,
                                      .npreferred = i,
                                      .preferred = {3, 7},
                                      .priority_levels = (uint8_t)i,
                                      .default_deadline_us = i == 2 ? 100000 : 0,
                                      .queue_max = i == 0 ? 20 : 0};
        z->models[i] = farm_model_add(z->f, &m);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz z;
    begin(&z);
    for (size_t i = 0; i + 4 <= size && i < 4096; i += 4) {
        struct event e = {data[i], data[i + 1], data[i + 2], data[i + 3]};
        switch (e.what >> 3 & 3) {
        case 0:
            client_event(&z, &e);
            break;
        case 1:
            worker_event(&z, &e);
            break;
        default:
            turn(&z, &e);
        }
        const char *broken = farm_check(z.f);
        if (broken) {
            fprintf(stderr, "fuzz_core: event %zu: %s\n", i / 4, broken);
            abort();
        }
    }
    farm_free(z.f);
    if (z.live)
        abort();
    return 0;
}
