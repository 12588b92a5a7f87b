// SPDX-License-Identifier: Apache-2.0
// A device process's end of pipe.h, whatever the device: the main thread takes what is to be
// loaded, each slot's thread runs what its socket brings.
#ifndef SONIC_WORKER_DEVICE_SERVE_H
#define SONIC_WORKER_DEVICE_SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/device/pipe.h"

struct serve_device {
    // Once, first thing, by each slot's thread; NULL: nothing is to be done.
    void (*enter)(uint32_t slot);
    // By the main thread; `memory` is taken over. Fills in the answer.
    void (*load)(const struct pipe_load *load, int memory, struct pipe_ready *ready);
    // By the slot's thread. Fills in the answer.
    void (*run)(uint32_t slot, const struct pipe_run *run, struct pipe_done *done);
    // By a thread of its own, once a second; false: it will say nothing any more. NULL: it has
    // none.
    bool (*sense)(struct device_sensors *s);
};

// First thing in main: interrupts are meant for the worker, which then ends this process.
void serve_begin(void);
// Tells how the opening went, and if well answers the worker until that has gone. Then it ends the
// process without the libraries' own ends, which may hang.
_Noreturn void serve(const struct serve_device *d, uint32_t slots, struct pipe_ready *opened);

#endif
