// SPDX-License-Identifier: Apache-2.0
// The whole contract between a worker and a kind of device. A new device is one file that fills in
// `struct executor` and one line in executors/registry.c.
//
// Threads: probe, open, load, unload, close are called by the worker's main thread, never while an
// execute is running on that model. execute is called by the slot's own thread, one call at a time
// per slot, several slots at once. outputs_free is called by any thread, and before unload. An
// executor starts no threads that outlive close.
#ifndef SONIC_WORKER_EXECUTOR_H
#define SONIC_WORKER_EXECUTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/model_repository.h"
#include "common/tensor.h"
#include "worker/device/sensors.h"

struct executor_device; // an opened device, private to its executor
struct executor_model;  // a model loaded on a device, private to its executor

struct device_info {
    char name[128];        // as the device calls itself
    uint32_t slots;        // executions side by side
    uint64_t memory_bytes; // 0: not known
    int gpu;               // of a GPU: its number, as instance_group's `gpus` has it; -1: none
};

// One tensor of one execution. Batched tensors are dense: rows x spec, row-major.
struct executor_tensor {
    uint8_t dtype;
    uint8_t ndim;
    uint64_t dims[SONIC_DIMS_MAX]; // dims[0] = rows, for a model with a batch dimension
    const void *data;
    uint64_t bytes;
};

// One execution: all inputs in declared order. The worker owns every input buffer, keeps it until
// execute returns, and aligned it to at least the element size.
struct execution {
    uint32_t rows;
    uint32_t ninputs;
    struct executor_tensor inputs[SONIC_TENSORS_MAX];
    // Filled in by execute: `data` points into memory that `outputs_owner` keeps alive; the worker
    // calls outputs_free(outputs_owner) once, from any thread, when the last result has been sent.
    // With borrows_inputs they may point into the inputs: the worker keeps those as long.
    uint32_t noutputs;
    struct executor_tensor outputs[SONIC_TENSORS_MAX];
    void *outputs_owner;
    void (*outputs_free)(void *owner); // NULL: there is nothing to free
    bool borrows_inputs;
    // On failure: what went wrong, for the person whose request it was.
    char error[512];
};

// What a device says of itself: since it was opened, by its own clock; and what its driver says
// now.
struct device_usage {
    uint64_t write_us, kernel_us, read_us; // inputs to it, executions, results from it
    uint64_t idle_us;                      // between executions
    uint32_t faults;                       // times that it failed and was started again
    struct device_sensors sensors;
};

enum executor_outcome {
    EXECUTOR_OK = 0,
    EXECUTOR_REQUEST_FAILED, // this batch cannot be executed; the device is fine
    EXECUTOR_DEVICE_FAULT,   // the device failed at this batch and was started again: tried anew
    EXECUTOR_DEVICE_LOST,    // nothing more will execute here: the worker gives its leases back
};

struct executor {
    const char *kind;    // as --device names it
    const char *backend; // of the models that it executes, as config.pbtxt names it
    // Whether it can execute this model; NULL: by its backend alone.
    bool (*serves)(const struct model_entry *entry);
    // The instance_group kind that its models may ask for, beside none and KIND_AUTO.
    // INSTANCE_AUTO: it is a simulated device and takes any.
    enum instance_kind instances;
    // Executions on slots beyond a model's instances: their copies hide behind computing. 0: none.
    uint32_t ahead;
    // Executing costs less than waking a thread for it: the worker's main thread does it.
    bool immediate;
    // Describes the device that `argument` names ("cpu:4" -> "4"; may be empty). 0, or a negative
    // errno (-EINVAL: the argument makes no sense) with words in `why`.
    int (*probe)(const char *argument, struct device_info *info, char *why, size_t size);
    int (*open)(const char *argument, struct executor_device **d, char *why, size_t size);
    void (*close)(struct executor_device *d);
    // Loads, compares with the config and warms up. *memory_bytes: what the model takes on the
    // device (0: not known). 0, or a negative errno with words that name file, tensor and cure.
    int (*load)(struct executor_device *d, const struct model_entry *entry,
                struct executor_model **m, uint64_t *memory_bytes, char *why, size_t size);
    void (*unload)(struct executor_model *m);
    // Whether loading it put another program onto the device in place of the one before, which
    // takes a board seconds. NULL: never.
    bool (*reconfigures)(const struct executor_model *m);
    // From the main thread, at any time. NULL: the device does not say.
    void (*usage)(struct executor_device *d, struct device_usage *usage);
    // Where an input of the slot's next execution is best laid, which then needs no further copy:
    // `bytes` of memory that the executor owns, the caller's until that execution has returned. By
    // the slot's thread. NULL: there is none of that size (or no such function): lay it anywhere.
    void *(*input_room)(struct executor_model *m, uint32_t slot, uint32_t input, uint64_t bytes);
    enum executor_outcome (*execute)(struct executor_model *m, uint32_t slot, struct execution *x);
};

// By kind, or NULL. executor_at(i) lists them, NULL past the end.
const struct executor *executor_find(const char *kind);
const struct executor *executor_at(size_t i);

#endif
