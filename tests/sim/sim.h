// SPDX-License-Identifier: Apache-2.0
// A world around the real farm core: clients, workers and a clock that exist only here. All chance
// comes from one seed, so a run can be replayed to its failing step. The world keeps its own books
// of every request (struct sim_request) and holds the farm to them.
#ifndef SONIC_TESTS_SIM_H
#define SONIC_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/core/farm.h"

#define SIM_SLOTS_MAX 4
#define SIM_OLD_LEASES 512

struct sim_options {
    uint64_t seed;
    uint32_t steps, clients, workers, models, check; // check: audit the farm each so many steps
    bool print;
};

// What the world knows of one request. `deaths`: workers that died while they had it.
struct sim_request {
    uint64_t seq, bytes, deadline_us;
    uint32_t client, rows, deaths, model;
    uint32_t client_life;
    uint32_t before; // the same client's previous one, + 1
    bool cancelled, answered, lied;
};

// A payload of either direction knows its request, and that it is released once.
struct sim_payload {
    uint32_t request;
    bool is_result;
};

struct sim_client {
    farm_client_id id; // FARM_NONE: closed
    uint32_t life;     // rises with each session
    uint32_t last;     // its newest request, + 1
    bool obeys;        // keeps within its window
    bool reads;        // takes its answers
    bool doubles;      // uses a number twice: then the world's sums of its bytes may be off
    struct farm_grant grant;
    uint64_t next_seq, accepted, answered, received;
    uint64_t bytes;       // accepted, not acknowledged
    uint64_t *sent_bytes; // of each answer in the order taken, for the acknowledgement
    uint32_t nsent, sent_size;
};

enum sim_mood { MOOD_FINE, MOOD_HUNG, MOOD_SILENT };

struct sim_lease {
    uint64_t lease;
    uint32_t request;
    int slot; // executing there; -1: staged
    uint32_t exec_us, exec_rows;
};

struct sim_worker {
    farm_worker_id id; // FARM_NONE: not there
    enum sim_mood mood;
    bool leaving;
    uint32_t slots, room, fixed_us, row_us;
    uint64_t busy_until_us[SIM_SLOTS_MAX];
    uint64_t progress, beat_us;
    struct sim_lease *held;
    uint32_t nheld, held_size;
};

struct sim {
    struct sim_options o;
    uint64_t random, now_us;
    uint32_t step;
    bool calm; // the end: no more mischief, everything must finish
    struct farm *f;
    struct farm_config config;
    farm_model_id models[SONIC_MODELS_MAX];
    struct farm_model_config model_configs[SONIC_MODELS_MAX];
    struct sim_client *clients;
    struct sim_worker *workers;
    struct sim_request *requests;
    uint32_t nrequests, requests_size;
    uint64_t old_leases[SIM_OLD_LEASES];
    uint64_t live_payloads, digest;
    uint64_t by_status[SONIC_STATUS_MAX + 1];
    uint64_t kills, hangs, refused_results;
};

// A number below n, from the seed.
uint64_t sim_random(struct sim *s, uint64_t n);
// True once in n times.
bool sim_chance(struct sim *s, uint64_t n);
// Ends the program, printing what broke and how to replay it.
_Noreturn void sim_fail(const struct sim *s, const char *what);
void *sim_grow(void *array, uint32_t *size, uint32_t need, size_t item_bytes);

struct sim_payload *sim_payload_new(struct sim *s, uint32_t request, bool is_result);
void sim_payload_free(void *payload, void *user);
// Folds a number into the run's digest: two runs of a seed must agree.
void sim_digest(struct sim *s, uint64_t v);

// ---- sim_clients.c
void sim_clients_act(struct sim *s);
void sim_clients_read(struct sim *s);
void sim_client_close(struct sim *s, struct sim_client *c);
bool sim_clients_done(const struct sim *s);
bool sim_request_open(const struct sim *s, const struct sim_request *r);

// ---- sim_workers.c
void sim_workers_act(struct sim *s);
void sim_workers_take(struct sim *s);
void sim_workers_bury(struct sim *s); // those that the farm declared dead
void sim_workers_calm(struct sim *s); // what is broken leaves, what is fine stays

#endif
