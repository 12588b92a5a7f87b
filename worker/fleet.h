// SPDX-License-Identifier: Apache-2.0
// The device that this worker opened and the models that it loaded there.
#ifndef SONIC_WORKER_FLEET_H
#define SONIC_WORKER_FLEET_H

#include <stddef.h>
#include <stdint.h>

#include "worker/executor.h"

struct loaded_model {
    struct model_config config;
    struct executor_model *handle;
    uint64_t memory_bytes;
    uint32_t instances; // executions of it side by side
    uint32_t load_ms;   // that loading it took
    bool reconfigures;  // loading it replaced the device's program
};

struct fleet {
    const struct executor *executor;
    struct executor_device *device;
    struct device_info info;
    uint32_t nmodels;
    struct loaded_model *models;
};

// Opens "kind[:argument]" and loads from the repository `root`: the models named, or, with
// nnames = 0, all that this kind of device executes; one of those that fails is logged and left
// out. Returns an exit status (common/exitcode.h) with words in `why`; close it in any case.
int fleet_open(struct fleet *f, const char *device, const char *root, const char *const *names,
               size_t nnames, char *why, size_t size);
void fleet_close(struct fleet *f);

// By name; version 0 = the one that is loaded. NULL: not loaded.
const struct loaded_model *fleet_find(const struct fleet *f, const char *name, size_t len,
                                      uint32_t version);

#endif
