// SPDX-License-Identifier: Apache-2.0
// What every model on a device process has: memory that worker and process both map, and how long a
// run may take.
#ifndef SONIC_WORKER_DEVICE_SHARE_H
#define SONIC_WORKER_DEVICE_SHARE_H

#include <stddef.h>
#include <stdint.h>

#include "common/model_config.h"

struct device_share {
    int fd; // -1: none
    uint8_t *memory;
    uint64_t bytes;
    int limit_ms; // sonic_device_timeout_ms of config.pbtxt
};

// Of `bytes` for each of `parts`. 0, or an errno with words that name the model; device_share_end
// follows in both cases.
int device_share_begin(struct device_share *s, const struct model_config *config, uint64_t bytes,
                       uint32_t parts, char *why, size_t size);
void device_share_end(struct device_share *s);

#endif
