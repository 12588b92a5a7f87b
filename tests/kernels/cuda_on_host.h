// SPDX-License-Identifier: Apache-2.0
// The few words of CUDA C that worker/kernels/*.cu use, for the host: a .cu file that is included
// behind this one is plain C. A block's threads are real ones, its barrier a real one; blocks run
// one after another, so what is __shared__ can be static.
#ifndef SONIC_TESTS_KERNELS_CUDA_ON_HOST_H
#define SONIC_TESTS_KERNELS_CUDA_ON_HOST_H

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __restrict__ restrict
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct float4 {
    float x, y, z, w;
};
#define float4 struct float4

struct host_index {
    unsigned x;
};
static _Thread_local struct host_index threadIdx, blockIdx;
static pthread_barrier_t host_barrier;

static inline void __syncthreads(void)
{
    pthread_barrier_wait(&host_barrier);
}

// On a GPU the bytes are there only after __pipeline_wait_prior: here they are moved no sooner.
#define HOST_COPIES 256u
struct host_copy {
    void *to;
    const void *from;
    size_t bytes;
};
static _Thread_local struct host_copy host_copies[HOST_COPIES];
static _Thread_local unsigned host_ncopies, host_ncommitted;

static inline void __pipeline_memcpy_async(void *to, const void *from, size_t bytes)
{
    assert(bytes == 4 || bytes == 8 || bytes == 16);
    assert((size_t)to % bytes == 0 && (size_t)from % bytes == 0);
    assert(host_ncopies < HOST_COPIES);
    host_copies[host_ncopies++] = (struct host_copy){to, from, bytes};
}

static inline void __pipeline_commit(void)
{
    host_ncommitted = host_ncopies;
}

static inline void __pipeline_wait_prior(unsigned behind)
{
    assert(behind == 0);
    (void)behind;
    for (unsigned i = 0; i < host_ncommitted; i++)
        memcpy(host_copies[i].to, host_copies[i].from, host_copies[i].bytes);
    assert(host_ncommitted == host_ncopies);
    host_ncopies = host_ncommitted = 0;
}

struct host_thread {
    unsigned index, block;
    void (*kernel)(const void *args);
    const void *args;
};

static void *host_thread_run(void *p)
{
    const struct host_thread *t = p;
    threadIdx.x = t->index;
    blockIdx.x = t->block;
    t->kernel(t->args);
    return NULL;
}

// Runs `kernel` (which calls the one under test with `args`) as `grid` blocks of `block` threads.
static inline void host_launch(void (*kernel)(const void *args), const void *args, unsigned grid,
                               unsigned block)
{
    struct host_thread threads[256];
    pthread_t ids[256];
    assert(block <= 256);
    for (unsigned b = 0; b < grid; b++) {
        pthread_barrier_init(&host_barrier, NULL, block);
        for (unsigned i = 0; i < block; i++) {
            threads[i] = (struct host_thread){i, b, kernel, args};
            int rc = pthread_create(&ids[i], NULL, host_thread_run, &threads[i]);
            assert(rc == 0);
            (void)rc;
        }
        for (unsigned i = 0; i < block; i++)
            pthread_join(ids[i], NULL);
        pthread_barrier_destroy(&host_barrier);
    }
}

#endif
