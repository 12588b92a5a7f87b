// SPDX-License-Identifier: Apache-2.0
// CUDA of the tests' own: libcudart and libcuda in one library, with a GPU whose streams are
// threads. What is queued happens later, in the order that streams and events give it; memory of
// the device is the host's. Each use of memory is checked: one that could meet another's write,
// because no event orders the two, ends the process ("stub: use before completion").
//
// The steps of SONIC_STUB_FAULTS (stub_faults.h) are CUDA functions and
//     copy, kernel    one of that kind, on its stream: the number is the device's sticky error
// SONIC_STUB_REPORT=FILE gets a line for each call that allocates, frees, waits for all of a stream
// or copies from or to memory that is not pinned, and none for others. SONIC_STUB_DELAY_US: each
// command takes so long at least. SONIC_STUB_GPUS, SONIC_STUB_MIB: how many GPUs, of which memory.
// SONIC_STUB_GONE=FILE: none while that file is there. SONIC_STUB_DRIVER: its CUDA version (12040);
// 0: there is none.
//
// The timeline: each command also has a virtual begin and end. Copies in, copies out and computing
// are one engine each, a command begins when its engine, its stream, the events that the stream
// waits for and the caller are there. The caller's time is the end of what it has waited for.
#ifndef SONIC_TESTS_GPU_STUB_CUDA_H
#define SONIC_TESTS_GPU_STUB_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/executors/cuda/process/runtime.h"

#define STUB_API __attribute__((visibility("default")))

enum stub_engine { STUB_COPY_IN, STUB_COPY_OUT, STUB_COMPUTE, STUB_NO_ENGINE };

struct stub_access {
    const void *at;
    size_t bytes;
    bool write;
    bool host; // pinned memory, which goes from one thread to another by way of the worker
};

// What a command does, on its stream's thread. Not 0: the device's sticky error.
typedef int (*stub_work)(void *user);

// An error of the calling thread that cudaGetLastError clears, as a provider's call leaves it.
STUB_API void stub_leave_error(int e);
STUB_API int stub_peek_error(void);
// Queues a computation over `n` ranges of memory that takes `virtual_ns`. Returns an error number.
STUB_API int stub_compute(cuda_stream stream, stub_work work, void *user,
                          const struct stub_access *accesses, size_t n, uint64_t virtual_ns);

// The timeline since stub_timeline_begin: bytes that a copy moves in a microsecond, and what a row
// computes in.
STUB_API void stub_timeline_begin(uint64_t bytes_per_us, uint64_t row_ns);
STUB_API uint64_t stub_row_ns(void);
STUB_API uint64_t stub_timeline_end_ns(void);
STUB_API uint64_t stub_timeline_busy_ns(enum stub_engine engine);
// Allocations and waits for whole streams so far, and allocations that were not freed.
STUB_API uint32_t stub_slow_calls(void);
STUB_API void stub_slow(const char *what);
STUB_API uint32_t stub_allocations(void);

#endif
