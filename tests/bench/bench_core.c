// SPDX-License-Identifier: Apache-2.0
// How many requests a second the core carries by itself on one core, no sockets: submit, tick,
// dispatch, result, answer, acknowledge, by processor time. Prints a table; asserts nothing.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "broker/core/farm.h"

#define PEERS_MAX 1024
#define TURN_MAX 1024 // requests one client submits in a turn, as one message could carry

struct setting {
    const char *name;
    uint32_t clients, tenants, models, workers, batch_max, window;
    uint64_t deadline_us;
};

struct bench {
    const struct setting *s;
    struct farm *f;
    farm_model_id models[SONIC_MODELS_MAX];
    farm_client_id clients[PEERS_MAX];
    uint64_t in_flight[PEERS_MAX], received[PEERS_MAX];
    uint64_t submitted, done, seq;
    uint64_t now_us;
};

static void payload_free(void *payload, void *user)
{
    (void)payload;
    (void)user;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void start(struct bench *b)
{
    struct farm_config config;
    farm_config_default(&config);
    config.payload_free = payload_free;
    b->f = farm_new(&config);
    for (uint32_t i = 0; i < b->s->models; i++) {
        struct farm_model_config m = {.version = 1, .batch_max = b->s->batch_max};
        snprintf(m.name, sizeof m.name, "model-%u", i);
        b->models[i] = farm_model_add(b->f, &m);
    }
    for (uint32_t i = 0; i < b->s->workers; i++) {
        struct farm_worker_config w = {
            .name = "worker", .slots = 2, .room_requests = 4096, .room_bytes = 1 << 30};
        farm_worker_id id = farm_worker_open(b->f, 0, &w);
        for (uint32_t k = 0; k < b->s->models; k++)
            farm_worker_model(b->f, 0, id, b->models[k], 2);
    }
    for (uint32_t i = 0; i < b->s->clients; i++) {
        struct farm_want want = {.requests = b->s->window, .bytes = 64ull * b->s->window};
        struct farm_grant grant;
        char tenant[16];
        int n = snprintf(tenant, sizeof tenant, "t%u", i % b->s->tenants);
        if (farm_client_open(b->f, 0, tenant, (size_t)n, &want, b, &b->clients[i], &grant) ||
            grant.requests < b->s->window) {
            fprintf(stderr, "bench_core: the farm grants less than the bench needs\n");
            exit(1);
        }
    }
}

static void submit(struct bench *b)
{
    static char input[64];
    uint64_t retry_us;
    for (uint32_t c = 0; c < b->s->clients; c++) {
        farm_client_received(b->f, b->clients[c], b->received[c]);
        for (uint32_t n = 0; n < TURN_MAX && b->in_flight[c] < b->s->window; n++) {
            struct farm_submit s = {.seq = b->seq++,
                                    .model = b->models[(b->seq >> 6) % b->s->models],
                                    .rows = 1,
                                    .bytes = sizeof input,
                                    .deadline_us = b->s->deadline_us,
                                    .payload = input};
            if (farm_submit(b->f, b->now_us, b->clients[c], &s, &retry_us))
                break;
            b->in_flight[c]++;
        }
    }
}

static void work(struct bench *b)
{
    static char output[64];
    static uint64_t leases[65536];
    farm_worker_id id;
    void *user;
    while ((id = farm_next_worker(b->f, &user))) {
        struct farm_dispatch d;
        uint32_t n = 0;
        for (; n < 65536 && farm_dispatch_peek(b->f, id, &d); n++) {
            leases[n] = d.lease;
            farm_dispatch_pop(b->f, id);
        }
        for (uint32_t i = 0; i < n; i++) {
            struct farm_result r = {.lease = leases[i],
                                    .exec_us = 20,
                                    .exec_rows = n < b->s->batch_max ? n : b->s->batch_max,
                                    .bytes = sizeof output,
                                    .payload = output};
            farm_result(b->f, b->now_us, id, &r);
        }
    }
}

static void answer(struct bench *b)
{
    farm_client_id id;
    void *user;
    while ((id = farm_next_client(b->f, &user))) {
        uint32_t c = (uint32_t)id - 1; // handles of the first clients are in order
        struct farm_answer a;
        while (farm_answer_peek(b->f, id, &a)) {
            farm_answer_pop(b->f, id);
            b->received[c]++;
            b->in_flight[c]--;
            b->done++;
        }
    }
}

static void run(const struct setting *s, double limit_s)
{
    static struct bench b;
    memset(&b, 0, sizeof b);
    b.s = s;
    start(&b);
    double t0 = seconds(), t = t0;
    uint64_t turns = 0;
    while (t - t0 < limit_s) {
        b.now_us += 50;
        submit(&b);
        farm_tick(b.f, b.now_us);
        work(&b);
        answer(&b);
        if (++turns % 16 == 0)
            t = seconds();
    }
    const char *broken = farm_check(b.f);
    if (broken) {
        fprintf(stderr, "bench_core: %s\n", broken);
        exit(1);
    }
    printf("%-34s %7u %7u %6u %7u %6u %7.2f %7.0f\n", s->name, s->clients, s->tenants, s->models,
           s->workers, s->batch_max, (double)b.done / (t - t0) * 1e-6,
           (double)b.done / (double)turns);
    fflush(stdout);
    farm_free(b.f);
}

int main(int argc, char **argv)
{
    static const struct setting settings[] = {
        {"1 client, window 1024", 1, 1, 1, 1, 64, 1024, 0},
        {"4 clients, window 1024", 4, 4, 1, 2, 64, 1024, 0},
        {"4 clients, window 1", 4, 4, 1, 2, 64, 1, 0},
        {"4 clients, deadlines", 4, 4, 1, 2, 64, 1024, 1000000},
        {"64 clients, 16 models, 16 workers", 64, 16, 16, 16, 64, 256, 0},
        {"256 clients, 64 models, 256 workers", 256, 256, 64, 256, 64, 256, 0},
        {"1024 clients, 4 models, 1024 workers", 1024, 64, 4, 1024, 16, 64, 0},
    };
    double limit_s = argc > 1 ? atof(argv[1]) : 1;
    printf("%-34s %7s %7s %6s %7s %6s %7s %7s\n", "core without sockets", "clients", "tenants",
           "models", "workers", "batch", "M req/s", "a turn");
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        run(&settings[i], limit_s > 0 ? limit_s : 1);
    return 0;
}
