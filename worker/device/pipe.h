// SPDX-License-Identifier: Apache-2.0
// What worker and device process say to each other: packets of these structs over SOCK_SEQPACKET
// pairs, one for control, one for what the device's sensors say and one a slot, and tensors in
// memory that both map. Both ends are of one build on one machine: nothing is versioned and nothing
// is checked twice.
//
// The device process is started as `sonic-device-KIND WHICH... SLOTS` with the control socket as
// descriptor 3, the sensors' as 4 and slot i's as 5 + i. It ends when the control socket closes.
#ifndef SONIC_WORKER_DEVICE_PIPE_H
#define SONIC_WORKER_DEVICE_PIPE_H

#include <stdint.h>

#include "common/model_config.h"
#include "worker/device/sensors.h"

#define PIPE_CONTROL 3
#define PIPE_SENSORS 4 // struct device_sensors, about once a second; nothing goes the other way
#define PIPE_SLOT 5
#define PIPE_SLOTS_MAX 64u
#define PIPE_MODELS_MAX 256u
#define PIPE_TEXT 512u

// Once, after the start; and in answer to each LOAD.
struct pipe_ready {
    int32_t status;        // 0, or a negative errno with words in `text`
    uint64_t memory_bytes; // of the device, or what the model takes of it
    uint32_t reconfigured; // whether the model's program took the place of what was on the device
    uint32_t guarded;      // whether its device may say that a kernel ended well which did not
    char name[128];        // of the device
    char text[PIPE_TEXT];
};

// On the control socket, with the descriptor of the shared memory.
struct pipe_load {
    uint32_t model; // a number of the worker's
    char version_dir[4096];
    struct model_config config; // as the worker has read it
};

// On a slot's socket: run the model over `rows` rows that lie in the slot's part of the memory.
struct pipe_run {
    uint32_t model, rows;
    uint32_t place; // of the results, where the memory has more places than slots
};

enum pipe_outcome {
    PIPE_OK,
    PIPE_REFUSED, // these rows cannot be run; the device is fine
    PIPE_FAILED,  // the device process is to be ended
};

struct pipe_done {
    int32_t outcome; // enum pipe_outcome
    // From the device's own events: host to device, kernels, device to host, and how long the
    // device had been idle before.
    uint64_t write_ns, kernel_ns, read_ns, idle_ns;
    char text[PIPE_TEXT]; // device, model or kernel, step and what went wrong
};

#endif
