// SPDX-License-Identifier: Apache-2.0
// The device process: one GPU, its models, its slots. A slot runs one batch at a time: its inputs
// go from pinned memory to the slot's device buffers on the slot's stream, a lane computes them on
// its own, and the results come back on the slot's; events chain the three. While one slot's batch
// computes, the others' are copied. Nothing but the end of a batch is waited for, and nothing is
// allocated after a load.
#ifndef SONIC_WORKER_EXECUTORS_CUDA_PROCESS_DEVICE_H
#define SONIC_WORKER_EXECUTORS_CUDA_PROCESS_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/device/pipe.h"
#include "worker/device/timeline.h"
#include "worker/executors/cuda/layout.h"
#include "worker/executors/cuda/process/lanes.h"
#include "worker/executors/cuda/process/runtime.h"

struct device_model;

enum device_outcome {
    DEVICE_OK,
    DEVICE_NO_MEMORY, // the batch was too large for what is free; the device is fine
    DEVICE_REFUSED,   // these rows cannot be computed; the device is fine
    DEVICE_FAILED,    // nothing will run in this process any more
};

struct device_slot {
    cuda_stream stream; // of its copies, both ways
    cuda_event in_begins, in_done, compute_begins, compute_done, out_done;
    struct device_model *model; // of the batch that runs
    uint32_t lane;
};

struct device {
    int ordinal;
    int gpu;        // its number for config.pbtxt; -1: it was named by its UUID
    char name[128]; // "NVIDIA H100 (GPU 0)"
    uint64_t memory_bytes;
    uint32_t nslots;
    struct device_slot slots[PIPE_SLOTS_MAX];
    _Atomic(struct device_model *) models[PIPE_MODELS_MAX];
    pthread_mutex_t busy_lock;
    struct timeline busy; // by the process's clock, with the device's own lengths
};

// One way to compute a model. Its functions say in `why` what and where, without the device's name.
struct compute {
    // Gets the model ready to be queued, by all lanes. 0, or a negative errno.
    int (*load)(struct device_model *m, const char *version_dir, char *why, size_t size);
    // Queues a computation over the slot's device buffers on the lane's stream. The caller has the
    // lane to itself. Anything but DEVICE_OK comes with words.
    enum device_outcome (*queue)(struct device_model *m, uint32_t lane, uint32_t slot,
                                 uint32_t rows, char *why, size_t size);
};
extern const struct compute compute_native; // sonic_cuda_kernel: a kernel of SONIC's own
extern const struct compute compute_onnx;   // ONNX Runtime

struct lane {
    cuda_stream stream;
    pthread_mutex_t queuing; // held while a batch is queued, not while it computes
};

struct device_model {
    struct device *device;
    struct model_config config;
    struct cuda_layout layout;
    uint8_t *pinned;  // shared with the worker
    uint8_t *buffers; // on the device: each slot's inputs, then each slot's outputs
    const struct compute *compute;
    void *compute_data; // its own
    pthread_mutex_t lock;
    struct lanes lanes; // under the lock
    struct lane lane[LANES_MAX];
};

// Device buffers of a slot.
void *device_input(const struct device_model *m, uint32_t slot, uint32_t input);
void *device_output(const struct device_model *m, uint32_t slot, uint32_t output);

// Opens the GPU: a number among those that CUDA shows this process, or a UUID; "": the first. 0, or
// a negative errno with words.
int device_open(struct device *d, const char *which, uint32_t slots, char *why, size_t size);
// Makes the GPU the calling thread's.
void device_enter(const struct device *d);
// 0, or -EIO with "DEVICE: what: error" in `why`.
int device_fail(const struct device *d, int e, const char *what, char *why, size_t size);

// Loads a model over the shared memory (descriptor, taken over). *bytes: what it takes of the GPU's
// memory, measured. 0, or a negative errno with words; what a failure leaves behind goes with the
// process, which the worker ends then.
int device_load(struct device *d, const struct pipe_load *load, int memory, uint64_t *bytes,
                char *why, size_t size);

// A batch: `n` rows from row `from` of the slot's inputs to the place's results. Queues all of it
// and returns.
enum device_outcome device_begin(struct device *d, uint32_t slot, struct device_model *m,
                                 uint32_t from, uint32_t n, uint32_t place, char *why, size_t size);
// Waits for the batch that was begun on the slot; adds its times to `done`, and words.
enum device_outcome device_end(struct device *d, uint32_t slot, struct pipe_done *done);
// Both, and what a lack of memory asks for: halves, once.
void device_run(struct device *d, uint32_t slot, const struct pipe_run *run,
                struct pipe_done *done);

#endif
