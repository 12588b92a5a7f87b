// SPDX-License-Identifier: Apache-2.0
// The stub's streams, events and clocks; stub_cuda.c makes CUDA's functions of them.
#ifndef SONIC_TESTS_GPU_STUB_ENGINE_H
#define SONIC_TESTS_GPU_STUB_ENGINE_H

#include "tests/gpu/stub_cuda.h"

struct command {
    struct command *next;
    stub_work work; // NULL: it waits for, or records, an event
    void *user;
    cuda_event record, wait;
    uint64_t number; // of the record that it makes or waits for
};

// Each returns an error number: the sticky one, once there is one.
int engine_sticky(void);
void engine_fail(int e);
int engine_stream_new(cuda_stream *stream);
int engine_event_new(cuda_event *event);
int engine_record(cuda_event event, cuda_stream stream);
int engine_wait(cuda_stream stream, cuda_event event);
int engine_synchronize(cuda_event event);
int engine_drain(cuda_stream stream);
int engine_elapsed_ms(float *ms, cuda_event from, cuda_event to);
// `work` is called with `user` on the stream's thread.
int engine_submit(cuda_stream stream, stub_work work, void *user,
                  const struct stub_access *accesses, size_t n, enum stub_engine engine,
                  uint64_t virtual_ns);

#endif
