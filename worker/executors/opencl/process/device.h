// SPDX-License-Identifier: Apache-2.0
// The device process: one OpenCL device, its models, and a thread for each slot. Whatever a
// vendor's library does to it (crash, hang, exit), the worker starts another.
#ifndef SONIC_WORKER_EXECUTORS_OPENCL_PROCESS_DEVICE_H
#define SONIC_WORKER_EXECUTORS_OPENCL_PROCESS_DEVICE_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/executors/opencl/bundle.h"
#include "worker/device/pipe.h"

struct device {
    cl_platform_id platform;
    cl_device_id id;
    cl_context context;
    char platform_name[128], name[128], driver[128];
    uint64_t memory_bytes, buffer_bytes_max;
    uint32_t nslots;
    cl_command_queue queues[PIPE_SLOTS_MAX]; // all the same one where that runs out of order
    _Atomic(struct device_model *) models[PIPE_MODELS_MAX];
    atomic_ullong busy_until_ns; // by the device's clock: when the last kernel ended
};

// One slot's part of a loaded model.
struct device_slot {
    cl_mem *buffers;    // by the bundle's numbers; WEIGHTS are the model's
    cl_kernel *kernels; // by launch, arguments set
    void **mapped;      // INPUT and OUTPUT, while the host has them
};

struct device_model {
    const struct device *device;
    struct bundle bundle;
    cl_program program;
    const struct bundle_program *chosen;
    void *memory; // shared with the worker
    uint64_t memory_bytes;
    uint64_t device_bytes;
    cl_mem *weights;
    struct device_slot slots[PIPE_SLOTS_MAX];
};

// "CL_OUT_OF_RESOURCES (-5)" for people. Never NULL; one buffer a thread.
const char *device_error(cl_int e);
// 0, or -EIO with "PLATFORM, DEVICE: what: error" in `why`.
int device_fail(const struct device *d, cl_int e, const char *what, char *why, size_t size);

// Looks where the ICD loader looks: how many vendors' libraries are named there, and "; FILE names
// a library that cannot be loaded: REASON" of each of those, which the loader leaves out in
// silence.
uint32_t device_vendors(char *words, size_t size);

// Finds the device (parts of names, or numbers; "": the first) and opens it. 0, -ENODEV or -EIO.
int device_open(struct device *d, const char *platform, const char *device, uint32_t slots,
                char *why, size_t size);

// Whether a bundle has room on the device, with all slots. 0, or -ENOSPC with words.
int device_fits(const struct device *d, const struct bundle *b, char *why, size_t size);

// Builds or loads the bundle's program for this device, by the cache where it is source.
int device_program(const struct device *d, const struct bundle *b, cl_program *program,
                   const struct bundle_program **chosen, char *why, size_t size);

// Loads a bundle over the shared memory (descriptor, taken over). 0, or a negative errno.
int device_load(struct device *d, const struct pipe_load *load, int memory, uint64_t *bytes,
                char *why, size_t size);

// Whether this model, which is loaded, has put another program onto a board.
bool device_reconfigured(const struct device *d, uint32_t model);

// Runs the plan on a slot; words in done->text.
void device_run(struct device *d, uint32_t slot, const struct pipe_run *run,
                struct pipe_done *done);

#endif
