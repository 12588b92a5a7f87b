// SPDX-License-Identifier: Apache-2.0
// What this worker says of itself: the JOIN message, and its record in the registry.
#ifndef SONIC_WORKER_ANNOUNCE_H
#define SONIC_WORKER_ANNOUNCE_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"
#include "worker/fleet.h"
#include "worker/options.h"
#include "worker/slots.h"

struct announce;
// Starts the registry's thread where one is configured. NULL with words in `why`.
struct announce *announce_open(const struct worker_options *options, const struct fleet *fleet,
                               char *why, size_t size);
void announce_close(struct announce *n);

// Builds the JOIN message of session `id` in `h`; without a device that works there is no model.
void announce_join(struct announce *n, uint64_t id, bool works, struct wire_header *h);
// Publishes the load; call once a beat. `quarantined`: why the device was given up, "": it works.
void announce_load(struct announce *n, uint64_t now_us, const struct slots_load *load,
                   const struct device_sensors *sensors, const char *quarantined);
// Memory that the device has free, else the machine, in bytes; 0: not known.
uint64_t announce_memory_free(const struct device_sensors *sensors);

#endif
