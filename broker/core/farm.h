// SPDX-License-Identifier: Apache-2.0
// The pure farm: queues, fair shares, credit, leases, late binding. Events come in with `now_us`
// (a monotonic clock that the caller reads once a loop turn), what is to be sent comes out through
// the two outboxes. No socket, no clock, no random, no thread: the same code runs live, in the
// simulator, under the fuzzer and in the bench.
//
// A request's life: submit -> queued -> leased (-> queued again, when its worker is lost)
// -> answered (in its client's outbox) -> sent, waiting for the client's acknowledgement -> gone.
#ifndef SONIC_BROKER_CORE_FARM_H
#define SONIC_BROKER_CORE_FARM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/wire.h"

struct farm;

// Handles are index + generation (never 0): a stale one is recognised and refused, not followed.
typedef uint64_t farm_client_id;
typedef uint64_t farm_worker_id;
typedef uint32_t farm_model_id;
#define FARM_NONE 0

struct farm_config {
    uint64_t memory_bytes_max; // granted to clients in total, records included
    uint32_t clients_max;      // sessions
    uint32_t workers_max;
    uint64_t grant_floor_bytes; // smallest window worth granting
    uint32_t grant_floor_requests;
    uint32_t grant_requests_max; // largest window of one client, in requests
    uint64_t stock_us;           // keep each slot stocked with this much estimated work (2,000) ...
    uint32_t stock_batches;      // ... or this many batches (2), whichever is more
    uint32_t poison_deaths;      // a request that was on this many dying workers fails (2)
    uint64_t lease_us;           // leases expire when the worker's progress stands still so long
    uint64_t worker_silent_us;   // a worker that sends nothing for so long is dead
    // Releases a payload that the farm owns (a request's input that is not needed any more, a
    // result that nobody waits for). Never called with NULL.
    void (*payload_free)(void *payload, void *user);
    void *user;
};

// Fills in the defaults.
void farm_config_default(struct farm_config *c);
struct farm *farm_new(const struct farm_config *c); // NULL: out of memory
void farm_free(struct farm *f);

// ---- models -------------------------------------------------------------------------------------
struct farm_model_config {
    char name[SONIC_NAME_MAX + 1];
    uint32_t version;
    uint32_t batch_max; // rows of one execution, at least 1
    uint64_t queue_delay_us;
    uint32_t npreferred;
    uint32_t preferred[SONIC_PREFERRED_MAX];
    uint8_t priority_levels; // at least 1
    uint8_t default_priority;
    uint64_t default_deadline_us;
    uint32_t queue_max; // 0: no bound of its own
};
// Adds or (same name and version) finds a model. FARM_NONE when SONIC_MODELS_MAX are known.
farm_model_id farm_model_add(struct farm *f, const struct farm_model_config *c);
// Gives the place of a model that no worker has, and of which nothing is queued or leased, to
// another. False: it is not so idle, or unknown.
bool farm_model_replace(struct farm *f, farm_model_id id, const struct farm_model_config *c);
// By name; version 0 = the highest known. FARM_NONE when unknown.
farm_model_id farm_model_find(const struct farm *f, const char *name, size_t len, uint32_t version);

// ---- clients ------------------------------------------------------------------------------------
struct farm_grant {
    uint32_t requests;
    uint64_t bytes;
    uint64_t retry_after_us; // not 0: less than needed could be granted, ask again then
};
struct farm_want {
    uint32_t requests;
    uint64_t bytes;
    uint64_t need_bytes; // a grant below this is of no use
};
// Largest need_bytes that can ever be granted; a larger one is taken for none.
uint64_t farm_request_bytes_max(const struct farm *f);
// Opens a session. SONIC_STATUS_OK, or BUSY (grant->retry_after_us set, nothing opened). `user` is
// the shell's peer, returned by the outbox.
enum sonic_status farm_client_open(struct farm *f, uint64_t now_us, const char *tenant,
                                   size_t tenant_len, const struct farm_want *want, void *user,
                                   farm_client_id *id, struct farm_grant *grant);
// Changes the wish. A smaller window holds at once (the client shrank its own first); a larger one
// is granted as far as memory is free; never less than what the client has in use.
void farm_client_want(struct farm *f, uint64_t now_us, farm_client_id id,
                      const struct farm_want *want, struct farm_grant *grant);
// The client has received this many answers (cumulative, those with `acknowledge`): their credit is
// free again. False when it claims more than were sent: a protocol error.
bool farm_client_received(struct farm *f, farm_client_id id, uint64_t received);
// The client is gone: queued requests are dropped, results of leased ones discarded, credit freed.
void farm_client_close(struct farm *f, uint64_t now_us, farm_client_id id);

struct farm_submit {
    uint64_t seq;
    farm_model_id model;
    uint32_t rows;        // 1..batch_max
    uint64_t bytes;       // of the inputs, charged to the client
    uint8_t priority;     // 0 = the model's default
    uint64_t deadline_us; // relative to now, 0 = the model's default
    void *payload;        // owned by the farm when accepted, by the caller when refused
};
// Accepts (OK) or refuses: BUSY (window or memory), QUEUE_FULL, BAD_REQUEST (rows), MODEL_UNKNOWN,
// REGISTER_AGAIN (stale client id). The caller answers a refusal itself, with acknowledge = 0 and
// *retry_after_us for BUSY.
enum sonic_status farm_submit(struct farm *f, uint64_t now_us, farm_client_id id,
                              const struct farm_submit *s, uint64_t *retry_after_us);
// Cancels: a queued request is answered CANCELLED at once; a leased one too, and its lease is
// revoked. An unknown seq is ignored (its answer is under way).
void farm_cancel(struct farm *f, uint64_t now_us, farm_client_id id, uint64_t seq);

// ---- workers ------------------------------------------------------------------------------------
struct farm_worker_config {
    const char *name; // for status; copied
    uint32_t slots;
    uint32_t room_requests;
    uint64_t room_bytes; // of inputs; a single larger request still goes to an empty worker
    void *user;
};
// FARM_NONE when workers_max are open.
farm_worker_id farm_worker_open(struct farm *f, uint64_t now_us,
                                const struct farm_worker_config *c);
// The worker can execute this model from now on, `instances` of it side by side.
bool farm_worker_model(struct farm *f, uint64_t now_us, farm_worker_id id, farm_model_id model,
                       uint32_t instances);
// Sign of life. `progress` must rise while leases are held, or they expire (a hung device). Results
// alone do not keep them: those of one slot would hide that another hangs.
void farm_worker_beat(struct farm *f, uint64_t now_us, farm_worker_id id, uint64_t progress);
// No new leases; those held may finish.
void farm_worker_drain(struct farm *f, uint64_t now_us, farm_worker_id id);
// The worker is gone: its leases go back to the head of their queues, in their old order. With
// `died`, each that was sent counts as one death of its request, which from then on is given only
// to workers that hold nothing else, so that it can harm nobody but itself.
void farm_worker_close(struct farm *f, uint64_t now_us, farm_worker_id id, bool died);

// What a current lease of this worker is about, so that its result can be checked. False: stale.
bool farm_lease(const struct farm *f, farm_worker_id id, uint64_t lease, farm_model_id *model,
                uint32_t *rows);

struct farm_result {
    uint64_t lease;
    enum sonic_status status;
    uint32_t exec_us;
    uint32_t exec_rows;
    uint64_t bytes; // of the outputs
    void *payload;  // outputs or text; may be NULL
};
// Takes a result. True: the farm owns the payload now. False: the lease is stale (expired, revoked,
// another worker's), counted, and the payload stays the caller's. NOT_LOADED puts the request back
// to its queue's head and takes the model off this worker; so does DEVICE_FAULT, which leaves the
// model and counts as a death of the request, and BUSY, which does neither.
bool farm_result(struct farm *f, uint64_t now_us, farm_worker_id id, const struct farm_result *r);

// ---- time ---------------------------------------------------------------------------------------
// Does all that is due: deadlines, leases, silent workers, queue delays. Then binds queued requests
// to workers with room. Returns when it must be called again at the latest (UINT64_MAX: never).
// Call once a loop turn, after the turn's events.
uint64_t farm_tick(struct farm *f, uint64_t now_us);
// Workers that farm_tick declared dead, one by one, with the shell's peer; false when there are no
// more. The farm has closed them already.
bool farm_next_dead_worker(struct farm *f, void **user);

// ---- outboxes -----------------------------------------------------------------------------------
// Each takes a peer off the list of those with something to send (FARM_NONE: none left). The caller
// drains it (peek, send, pop), or, when its socket is full, calls ..._later and gets it again after
// the next farm_tick (farm_tick's own wake-up time does not count these: the socket wakes the
// shell). A worker's revocations go out before its dispatches: their room is counted as free
// already.
farm_worker_id farm_next_worker(struct farm *f, void **user);
farm_client_id farm_next_client(struct farm *f, void **user);
void farm_worker_later(struct farm *f, farm_worker_id id);
void farm_client_later(struct farm *f, farm_client_id id);

struct farm_dispatch {
    uint64_t lease;
    farm_model_id model;
    uint64_t deadline_us; // absolute, 0 = none
    uint32_t rows;
    void *payload; // the farm's: it may be dispatched again
};
// The next dispatch to this worker without taking it; false when there is none.
bool farm_dispatch_peek(struct farm *f, farm_worker_id id, struct farm_dispatch *d);
void farm_dispatch_pop(struct farm *f, farm_worker_id id);
// The next lease to revoke, taken; false when there is none.
bool farm_revoke_pop(struct farm *f, farm_worker_id id, uint64_t *lease);

struct farm_answer {
    uint64_t seq;
    enum sonic_status status;
    const char *text; // why, for an answer that the farm made itself; NULL otherwise
    uint32_t queue_us;
    uint32_t exec_us;
    uint32_t exec_rows;
    void *payload; // the worker's result or NULL; the caller's after pop
};
bool farm_answer_peek(struct farm *f, farm_client_id id, struct farm_answer *a);
void farm_answer_pop(struct farm *f, farm_client_id id);

// ---- looking in ---------------------------------------------------------------------------------
struct farm_stats {
    uint64_t accepted, answered_ok, answered_failed, refused, cancelled, deadline_missed;
    uint64_t dispatched, redispatched, stale_results, poisoned, dropped;
    uint64_t queued, leased, waiting_answers, unacknowledged; // now
    uint64_t granted_bytes, used_bytes;                       // now
    uint32_t clients, workers;
    uint64_t workers_dead; // declared dead by farm_tick
};
void farm_stats(const struct farm *f, struct farm_stats *s);

struct farm_model_stats {
    const struct farm_model_config *config;
    uint64_t accepted, answered, queued, queued_rows, leased;
    double rows_per_execution; // running mean
    double service_us_per_row; // running mean over workers
    uint32_t workers;
    uint64_t oldest_us; // age of the oldest queued request
};
// i = 0, 1, ...; false past the end.
bool farm_model_stats(const struct farm *f, uint64_t now_us, uint32_t i,
                      struct farm_model_stats *s);

struct farm_worker_stats {
    const char *name;
    void *user; // the shell's peer
    uint32_t slots;
    uint64_t leased, leased_rows, answered;
    bool draining;
};
bool farm_worker_stats(const struct farm *f, uint32_t i, struct farm_worker_stats *s);

struct farm_tenant_stats {
    const char *name;
    uint32_t clients;
    uint64_t accepted, answered, queued;
};
bool farm_tenant_stats(const struct farm *f, uint32_t i, struct farm_tenant_stats *s);

// Recounts everything and returns NULL, or the first broken invariant in words (static storage):
// accepted = queued + leased + answered + dropped, credit in use = what the records say, lists
// whole. Costs a walk over all records: the simulator and the fuzzer call it each step.
const char *farm_check(const struct farm *f);

#endif
