// SPDX-License-Identifier: Apache-2.0
// The device process: one OpenCL device, its models, and a thread for each slot. Whatever a
// vendor's library does to it (crash, hang, exit), the worker starts another.
#ifndef SONIC_WORKER_EXECUTORS_OPENCL_PROCESS_DEVICE_H
#define SONIC_WORKER_EXECUTORS_OPENCL_PROCESS_DEVICE_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/executors/opencl/bundle.h"
#include "worker/device/pipe.h"
#include "worker/device/timeline.h"

struct xilinx;

struct device {
    cl_platform_id platform;
    cl_device_id id;
    cl_context context;
    char platform_name[128], name[128], driver[128];
    uint64_t memory_bytes, buffer_bytes_max;
    uint32_t nslots;
    cl_command_queue queues[PIPE_SLOTS_MAX]; // all the same one where that runs out of order
    _Atomic(struct device_model *) models[PIPE_MODELS_MAX];
    struct xilinx *card; // a Xilinx card that has been programmed, else NULL
    pthread_mutex_t busy_lock;
    struct timeline busy; // by the device's clock
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
    bool reconfigured; // the board, for this model
    void *memory;      // shared with the worker
    uint64_t memory_bytes;
    uint64_t device_bytes;
    uint32_t *banks; // of each unit's buffers, on a Xilinx card, else NULL
    cl_mem *weights; // of each unit
    // What runs at the same time: a queue in order for each of the launches, of all slots. A run
    // is put into all of them at once, or two runs' rows would mix in the kernels' channels.
    cl_command_queue lanes[BUNDLE_LANES_MAX];
    pthread_mutex_t lanes_lock;
    struct device_slot slots[PIPE_SLOTS_MAX];
};

// "CL_OUT_OF_RESOURCES (-5)" for people. Never NULL; one buffer a thread.
const char *device_error(cl_int e);
// 0, or -EIO with "PLATFORM, DEVICE: what: error" in `why`.
int device_fail(const struct device *d, cl_int e, const char *what, char *why, size_t size);

// PoCL asks hwloc for processors and memory, which asks /sys; in a bare chroot or container without
// it PoCL finds no memory and gives up. Tells hwloc what the C library knows. Before any OpenCL
// call.
void device_describe_machine(void);

// Looks where the ICD loader looks: how many vendors' libraries are named there, and "; FILE names
// a library that cannot be loaded: REASON" of each of those, which the loader leaves out in
// silence.
uint32_t device_vendors(char *words, size_t size);

// Finds the device (parts of names, or numbers; "": the first) and opens it. 0, -ENODEV or -EIO.
int device_open(struct device *d, const char *platform, const char *device, uint32_t slots,
                char *why, size_t size);

// Whether a bundle has room on the device, with all slots. 0, or -ENOSPC with words.
int device_fits(const struct device *d, const struct bundle *b, char *why, size_t size);

// Builds or loads the bundle's program for this device, by the cache where it is source; sets
// program, chosen and reconfigured. 0, or a negative errno with words.
int device_program(struct device *d, struct device_model *m, char *why, size_t size);
// Into how many units a model's slots are divided; at least 1.
uint32_t device_units(const struct device_model *m);

// Loads a bundle over the shared memory (descriptor, taken over). 0, or a negative errno.
int device_load(struct device *d, const struct pipe_load *load, int memory, uint64_t *bytes,
                char *why, size_t size);

// What the answer to a LOAD says of the model beside its memory.
void device_describe(const struct device *d, uint32_t model, struct pipe_ready *ready);

// How the host takes an INPUT or OUTPUT buffer back.
cl_map_flags device_map_flags(const struct device_model *m, uint32_t buffer);

// Runs the plan on a slot; words in done->text.
void device_run(struct device *d, uint32_t slot, const struct pipe_run *run,
                struct pipe_done *done);

#endif
