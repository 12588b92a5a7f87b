// SPDX-License-Identifier: Apache-2.0
// The executing threads, one a slot. They take the next batch from the batcher themselves, under
// one lock, so that a slot that is done goes on with what is staged without waiting for the main
// loop; what is finished goes into a list, and an eventfd wakes the main loop.
//
// An immediate executor has no threads: slots_finished executes what is staged.
//
// All functions are the main thread's.
#ifndef SONIC_WORKER_SLOTS_H
#define SONIC_WORKER_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/batcher.h"
#include "worker/fleet.h"
#include "worker/job.h"

struct slots;

// Starts fleet->info.slots threads. NULL with errno.
struct slots *slots_new(const struct fleet *fleet, struct job_pool *pool, uint32_t room_requests,
                        uint64_t room_bytes);
// Waits for the executions that run, ends the threads, returns what is staged or finished to the
// pool.
void slots_free(struct slots *s);
// Readable when slots_finished has something; it clears it.
int slots_fd(const struct slots *s);

// Stages a chain of requests (by item.next). Returns the chain of those over the room.
struct batch_item *slots_put(struct slots *s, struct batch_item *chain);
// Finished jobs, a chain in the order in which they finished; each is the caller's to unref.
struct job *slots_finished(struct slots *s);
// Drops a lease that has not started.
void slots_revoke(struct slots *s, uint64_t lease);
// Takes out what is staged and past its deadline, as a job to answer; NULL: nothing.
struct job *slots_expire(struct slots *s);
// All that is staged, as a job to answer; NULL: nothing. `stop`: start no execution any more.
struct job *slots_give_up(struct slots *s, bool stop);
// Drops what is staged. Jobs that were taken before carry the older session.
void slots_new_session(struct slots *s, uint64_t session);

struct slots_load {
    struct batcher_load now;
    uint64_t rows, executions; // since the start
};
void slots_load(struct slots *s, struct slots_load *load);

struct slots_progress {
    uint64_t count; // rises when every slot has finished something, or was idle, since it rose last
    uint32_t still_beats; // since then: one slot at least is stuck in an execution
};
// Call once a beat.
struct slots_progress slots_beat(struct slots *s);

#endif
