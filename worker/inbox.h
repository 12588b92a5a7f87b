// SPDX-License-Identifier: Apache-2.0
// From a DISPATCH message to staged requests. Every tensor is checked against the loaded model and
// against the frames before anything is executed: the broker is not trusted with memory.
#ifndef SONIC_WORKER_INBOX_H
#define SONIC_WORKER_INBOX_H

#include "common/wire.h"
#include "worker/fleet.h"
#include "worker/job.h"
#include "worker/mappings.h"
#include "worker/parcel.h"
#include "worker/results.h"
#include "worker/slots.h"

struct inbox {
    const struct fleet *fleet;
    struct job_pool *pool;
    struct slots *slots;
    struct results *results;
    const struct mappings *mappings;
    uint64_t session;
};

// Stages what is sound; answers the rest. False: the broker sent more than there is room for.
bool inbox_dispatch(struct inbox *in, uint64_t now_us, struct parcel *p,
                    const struct wire_message *m);

#endif
