// SPDX-License-Identifier: Apache-2.0
// What a device's driver says of it now. Each value only where its bit is in `known`: a board, or a
// part of a shared GPU, may not say everything.
#ifndef SONIC_WORKER_DEVICE_SENSORS_H
#define SONIC_WORKER_DEVICE_SENSORS_H

#include <stdint.h>

enum device_sensor { // numbers of the wire: they never change
    SENSOR_BUSY = 1,
    SENSOR_MEMORY = 2,
    SENSOR_POWER = 4,
    SENSOR_TEMPERATURE = 8,
};

struct device_sensors {
    uint32_t known;
    uint32_t busy_percent; // of the last second or less, in which anything ran
    uint32_t power_mw;     // of the whole board
    uint32_t temperature_c;
    uint64_t memory_used_bytes, memory_bytes; // by all processes
};

#endif
