// SPDX-License-Identifier: Apache-2.0
// Which staged requests make up the next execution. Pure: no clock, no thread, no memory of its own
// beyond one allocation; the caller embeds a batch_item in each of its requests and passes the time
// in. Requests of one model wait in arrival order; the model with the oldest request is next.
#ifndef SONIC_WORKER_BATCHER_H
#define SONIC_WORKER_BATCHER_H

#include <stdbool.h>
#include <stdint.h>

struct batch_item {
    // Set by the caller.
    uint64_t lease;
    uint64_t deadline_us; // absolute; 0: none
    uint64_t bytes;       // of the inputs, counted against the room
    uint32_t model;       // index
    uint32_t rows;
    // The batcher's. `next` chains the items of what it hands out (NULL at the end).
    struct batch_item *next, *prev;
    struct batch_item *same_bucket;
    uint64_t order;
};

struct batcher_model {
    uint32_t batch_max; // rows of one execution; 0: one request each, the model has no batch
    uint32_t instances; // executions side by side, at least 1
    // Whether two requests can share an execution (free dimensions are equal); NULL: always.
    bool (*alike)(const struct batch_item *a, const struct batch_item *b);
};

// An execution to be, or a part that failed before it began.
struct batch {
    uint32_t model;
    uint32_t n, rows;
    uint64_t bytes;
    struct batch_item *items;
};

struct batcher;
// room_*: what may be held, executing ones included. NULL: out of memory.
struct batcher *batcher_new(const struct batcher_model *models, uint32_t nmodels, uint32_t slots,
                            uint32_t room_requests, uint64_t room_bytes);
// The items that are still in it stay the caller's: take them out with batcher_clear before.
void batcher_free(struct batcher *b);

// Stages a request. False when it is over the room (the first one never is).
bool batcher_put(struct batcher *b, struct batch_item *item);
// Forms the next execution for a free slot and counts that slot as busy until batcher_done. While
// more slots are free than models wait, they share what is staged evenly. False: nothing to do.
// Either way *late is the chain of requests found past their deadline, not held any more.
bool batcher_take(struct batcher *b, uint64_t now_us, struct batch *batch,
                  struct batch_item **late);
// The execution is over: its slot, instance and room are free again.
void batcher_done(struct batcher *b, const struct batch *batch);
// Whether batcher_take would find an execution and a slot for it (deadlines left aside).
bool batcher_ready(const struct batcher *b);

// Takes out what has not started: one lease (NULL: not here, or executing), all past their
// deadline, or everything. Chained by next; not held any more.
struct batch_item *batcher_revoke(struct batcher *b, uint64_t lease);
struct batch_item *batcher_expire(struct batcher *b, uint64_t now_us);
struct batch_item *batcher_clear(struct batcher *b);

struct batcher_load {
    uint32_t busy;     // slots
    uint32_t requests; // held, executing ones included
    uint64_t bytes;
    uint32_t waiting; // not started
};
void batcher_load(const struct batcher *b, struct batcher_load *load);

#endif
