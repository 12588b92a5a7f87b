// SPDX-License-Identifier: Apache-2.0
// The deterministic simulation: sim --seed N --steps M --clients C --workers W --models K --check E
// runs one seed; --seeds COUNT runs that many from --seed on, each twice the same (its digest).
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// splitmix64 (Steele, Lea, Flood 2014).
uint64_t sim_random(struct sim *s, uint64_t n)
{
    uint64_t z = s->random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return n ? z % n : 0;
}

bool sim_chance(struct sim *s, uint64_t n)
{
    return sim_random(s, n) == 0;
}

_Noreturn void sim_fail(const struct sim *s, const char *what)
{
    const struct sim_options *o = &s->o;
    fprintf(stderr,
            "sim: seed %llu, step %u, now %llu us: %s\n"
            "replay: sim --seed %llu --steps %u --clients %u --workers %u --models %u --check 1\n",
            (unsigned long long)o->seed, s->step, (unsigned long long)s->now_us, what,
            (unsigned long long)o->seed, o->steps, o->clients, o->workers, o->models);
    exit(1);
}

void *sim_grow(void *array, uint32_t *size, uint32_t need, size_t item_bytes)
{
    if (need <= *size)
        return array;
    *size = need < 64 ? 64 : need * 2;
    void *p = realloc(array, *size * item_bytes);
    if (!p) {
        fprintf(stderr, "sim: out of memory\n");
        exit(2);
    }
    return p;
}

// Each payload is an allocation of its own, so that the address sanitizer sees a use after release.
struct sim_payload *sim_payload_new(struct sim *s, uint32_t request, bool is_result)
{
    uint32_t size = 0;
    struct sim_payload *p = sim_grow(NULL, &size, 1, 1);
    *p = (struct sim_payload){request, is_result};
    s->live_payloads++;
    return p;
}

void sim_payload_free(void *payload, void *user)
{
    struct sim *s = user;
    if (s->live_payloads-- == 0)
        sim_fail(s, "more payloads were released than there were");
    free(payload);
}

void sim_digest(struct sim *s, uint64_t v)
{
    s->digest = (s->digest ^ v) * 0x100000001b3ull;
}

static void audit(struct sim *s)
{
    const char *broken = farm_check(s->f);
    if (broken)
        sim_fail(s, broken);
}

static void world_begin(struct sim *s, const struct sim_options *o)
{
    *s = (struct sim){.o = *o, .random = o->seed, .now_us = 1, .digest = 0xcbf29ce484222325ull};
    farm_config_default(&s->config);
    s->config.memory_bytes_max = 100000 + o->clients * sim_random(s, 200000);
    s->config.grant_floor_bytes = 4096;
    s->config.grant_floor_requests = 4;
    s->config.worker_silent_us = 500000;
    s->config.lease_us = 2000000;
    s->config.stock_us = sim_random(s, 4000);
    s->config.stock_batches = (uint32_t)sim_random(s, 4);
    s->config.workers_max = o->workers;
    s->config.payload_free = sim_payload_free;
    s->config.user = s;
    s->f = farm_new(&s->config);
    s->clients = calloc(o->clients, sizeof *s->clients);
    s->workers = calloc(o->workers, sizeof *s->workers);
    if (!s->f || !s->clients || !s->workers)
        sim_fail(s, "out of memory");
    for (uint32_t i = 0; i < o->models; i++) {
        struct farm_model_config *m = &s->model_configs[i];
        *m = (struct farm_model_config){
            .version = 1,
            .batch_max = 1u << sim_random(s, 7),
            .queue_delay_us = sim_chance(s, 3) ? sim_random(s, 5000) : 0,
            .npreferred = (uint32_t)sim_random(s, 3),
            .preferred = {1 + (uint32_t)sim_random(s, 8), 1 + (uint32_t)sim_random(s, 64)},
            .priority_levels = (uint8_t)sim_random(s, 4),
            .default_priority = (uint8_t)sim_random(s, 4),
            .queue_max = sim_chance(s, 3) ? 1 + (uint32_t)sim_random(s, 500) : 0};
        snprintf(m->name, sizeof m->name, "model-%u", i);
        s->models[i] = farm_model_add(s->f, m);
    }
}

static void world_step(struct sim *s)
{
    s->now_us += sim_chance(s, 100) ? sim_random(s, 50000) : sim_random(s, 1000);
    sim_workers_act(s);
    sim_clients_act(s);
    farm_tick(s->f, s->now_us);
    sim_workers_bury(s);
    sim_workers_take(s);
    sim_clients_read(s);
    s->step++;
    if (s->o.check && s->step % s->o.check == 0)
        audit(s);
}

// Everything accepted from a client that is still there must end in an answer, and soon.
static void world_settle(struct sim *s)
{
    s->calm = true;
    sim_workers_calm(s);
    uint64_t limit_us = s->now_us + 600 * UINT64_C(1000000);
    while (!sim_clients_done(s)) {
        if (s->now_us > limit_us)
            sim_fail(s, "a request of a live client was never answered");
        s->now_us += 2000;
        world_step(s);
    }
    audit(s);
    for (uint32_t i = 0; i < s->nrequests; i++)
        if (sim_request_open(s, &s->requests[i]))
            sim_fail(s, "a request was acknowledged without an answer");
    struct farm_stats stats;
    farm_stats(s->f, &stats);
    if (stats.used_bytes || stats.unacknowledged || stats.waiting_answers || stats.queued)
        sim_fail(s, "credit is in use though every client has received all");
}

static void world_end(struct sim *s)
{
    for (uint32_t i = 0; i < s->o.clients; i++)
        if (s->clients[i].id != FARM_NONE && sim_chance(s, 2))
            sim_client_close(s, &s->clients[i]);
    farm_free(s->f);
    if (s->live_payloads)
        sim_fail(s, "payloads leaked");
    for (uint32_t i = 0; i < s->o.clients; i++)
        free(s->clients[i].sent_bytes);
    for (uint32_t i = 0; i < s->o.workers; i++)
        free(s->workers[i].held);
    free(s->clients);
    free(s->workers);
    free(s->requests);
}

static uint64_t run(const struct sim_options *o)
{
    static struct sim s;
    world_begin(&s, o);
    while (s.step < o->steps)
        world_step(&s);
    world_settle(&s);
    struct farm_stats stats;
    farm_stats(s.f, &stats);
    if (o->print)
        printf("seed %llu: %.1f s, accepted %llu, ok %llu, failed %llu, cancelled %llu, late %llu, "
               "poisoned %llu, dropped %llu, refused %llu, redispatched %llu, stale %llu, "
               "killed %llu, hung %llu\n",
               (unsigned long long)o->seed, (double)s.now_us * 1e-6,
               (unsigned long long)stats.accepted, (unsigned long long)stats.answered_ok,
               (unsigned long long)s.by_status[SONIC_STATUS_EXEC_FAILED],
               (unsigned long long)stats.cancelled, (unsigned long long)stats.deadline_missed,
               (unsigned long long)stats.poisoned, (unsigned long long)stats.dropped,
               (unsigned long long)stats.refused, (unsigned long long)stats.redispatched,
               (unsigned long long)stats.stale_results, (unsigned long long)s.kills,
               (unsigned long long)s.hangs);
    world_end(&s);
    return s.digest;
}

static bool option(int argc, char **argv, const char *name, uint64_t *value)
{
    for (int i = 1; i + 1 < argc; i += 2)
        if (strcmp(argv[i], name) == 0) {
            *value = strtoull(argv[i + 1], NULL, 0);
            return true;
        }
    return false;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, seeds = 1, steps = 5000, clients = 10, workers = 6, models = 3, check = 1;
    bool many = option(argc, argv, "--seeds", &seeds);
    option(argc, argv, "--seed", &seed);
    option(argc, argv, "--steps", &steps);
    option(argc, argv, "--clients", &clients);
    option(argc, argv, "--workers", &workers);
    option(argc, argv, "--models", &models);
    option(argc, argv, "--check", &check);
    if (models == 0 || models > SONIC_MODELS_MAX || clients == 0 || workers == 0) {
        fprintf(stderr, "sim: needs at least one client, worker and model, and at most %u models\n",
                SONIC_MODELS_MAX);
        return 2;
    }
    for (uint64_t i = 0; i < seeds; i++) {
        struct sim_options o = {seed + i,
                                (uint32_t)steps,
                                (uint32_t)clients,
                                (uint32_t)workers,
                                (uint32_t)models,
                                (uint32_t)check,
                                true};
        uint64_t digest = run(&o);
        o.print = false;
        o.check = 0;
        if (many && i == 0 && run(&o) != digest) {
            fprintf(stderr, "sim: two runs of seed %llu differ\n", (unsigned long long)o.seed);
            return 1;
        }
    }
    return 0;
}
