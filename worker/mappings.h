// SPDX-License-Identifier: Apache-2.0
// Clients' slabs that this worker reads inputs from: the side connection over which the broker
// sends their descriptors, and what is mapped.
#ifndef SONIC_WORKER_MAPPINGS_H
#define SONIC_WORKER_MAPPINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/slab.h"
#include "common/wire.h"

struct mappings;

struct mappings *mappings_new(void); // NULL: out of memory
void mappings_free(struct mappings *ms);

// A new session with the broker at this endpoint: the broker is told that this worker reads slabs.
void mappings_attend(struct mappings *ms, const char *endpoint, uint64_t epoch, uint64_t session);
// The session is over: nothing is of use any more (staged requests keep their own references).
void mappings_leave(struct mappings *ms);
// Attends again if the connection was lost.
void mappings_tend(struct mappings *ms);
// The connection, to be polled; -1: there is none.
int mappings_fd(const struct mappings *ms);
// Takes what came: the next slab that is mapped now, which the broker is to be told; 0: no more.
uint32_t mappings_next(struct mappings *ms);

// The slab with this number and a reference to it, NULL when it is not mapped.
struct slab *mappings_get(const struct mappings *ms, uint32_t number);

#endif
