// SPDX-License-Identifier: Apache-2.0
// From finished jobs to RESULT messages: every request gets its rows of the outputs, small tensors
// packed, large ones sent from where they lie. A turn's results go into as few messages as they
// fit into; what the socket does not take waits here.
#ifndef SONIC_WORKER_RESULTS_H
#define SONIC_WORKER_RESULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/fleet.h"
#include "worker/job.h"

struct results;
struct results *results_new(const struct fleet *fleet, void *socket); // NULL: out of memory
void results_free(struct results *r);

// Queues a job, whose reference it takes over. One of another session is let go at once.
void results_add(struct results *r, struct job *j);
// Sends what is queued, without waiting. 0: all is with the socket; -EAGAIN: try again when it can
// be written to; another negative errno: the socket failed.
int results_send(struct results *r);
// Drops what is not sent; from now on results of `session` are sent, under `epoch`.
void results_new_session(struct results *r, uint64_t session, uint64_t epoch);
bool results_pending(const struct results *r);

#endif
