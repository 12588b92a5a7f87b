// SPDX-License-Identifier: Apache-2.0
// How long a device had nothing to compute, from when its runs began and ended. Runs overlap, and
// are told in any order: whoever ends first is not always the first to say so. Pure; the caller
// locks.
#ifndef SONIC_WORKER_DEVICE_TIMELINE_H
#define SONIC_WORKER_DEVICE_TIMELINE_H

#include <stdint.h>

#include "worker/device/pipe.h"

// Runs that are told late lie so many others back at most.
#define TIMELINE_SPANS (2 * PIPE_SLOTS_MAX)

struct timeline_span {
    uint64_t from_ns, to_ns;
};

struct timeline {
    uint64_t idle_ns, told_ns;
    uint32_t n;
    struct timeline_span busy[TIMELINE_SPANS]; // the last ones, in order, none touching another
};

// Adds a run. Returns how much longer the device is known to have been idle between runs than was
// returned so far; what a late run takes from that is kept back from the next answers.
uint64_t timeline_add(struct timeline *t, uint64_t from_ns, uint64_t to_ns);

#endif
