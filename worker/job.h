// SPDX-License-Identifier: Apache-2.0
// One execution from the batch that was formed to the last byte that was sent, and the leased
// requests in it. Jobs and requests are pooled: what they hold (gather buffers of the batch's size)
// is faulted in once, not once a batch.
#ifndef SONIC_WORKER_JOB_H
#define SONIC_WORKER_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/slab.h"
#include "common/tensor.h"
#include "common/wire.h"
#include "worker/batcher.h"
#include "worker/executor.h"
#include "worker/parcel.h"

struct request_input {
    const void *data;
    uint64_t bytes;
    struct slab *slab; // that the bytes lie in, with a reference; NULL: in ...
    uint32_t frame;    // ... this frame of the parcel
    uint8_t ndim;
    uint64_t dims[SONIC_DIMS_MAX];
};

struct request {
    struct batch_item item; // first: the batcher knows a request by it
    struct parcel *parcel;
    uint32_t ninputs;
    struct request_input inputs[]; // as many as the pool was made for
};

static inline struct request *request_of(struct batch_item *item)
{
    return (struct request *)item;
}

struct gather {
    void *data;
    uint64_t capacity;
};

struct job_pool;
struct job {
    struct job *next; // in whatever list has it
    struct job_pool *pool;
    atomic_uint refs; // the worker's, and one for each output that a socket still reads
    struct batch batch;
    uint64_t session; // of the leases: another one's results are of no use
    uint8_t status;   // enum sonic_status, of all its requests
    bool device_lost;
    uint32_t exec_us;
    char text[SONIC_TEXT_MAX]; // why, when status is not OK
    struct execution x;
    struct gather gathers[SONIC_TENSORS_MAX];
};

// Thread-safe. `ninputs`: most inputs that a request has; `keep`: jobs that keep their buffers.
struct job_pool *job_pool_new(uint32_t ninputs, uint32_t keep);
// All jobs and requests must be back.
void job_pool_free(struct job_pool *p);

struct request *request_new(struct job_pool *p);
// Returns a chain (by item.next) to the pool, and what its requests hold of their messages.
void requests_free(struct job_pool *p, struct batch_item *chain);

// A job with one reference and no requests.
struct job *job_new(struct job_pool *p);
void job_ref(struct job *j);
// From any thread. The last one frees the outputs, the inputs, the requests.
void job_unref(struct job *j);
// The inputs are not needed any more: lets go of their frames and slabs ahead of the job's end.
void job_drop_inputs(struct job *j);

#endif
