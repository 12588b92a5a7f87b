// SPDX-License-Identifier: Apache-2.0
// FACILE in one kernel: a block takes 128 rows through shared memory, a thread computes two of them.
//
// A row is 188 bytes: a thread that read its own would touch a memory line of its own with every
// load. So the tile is copied as it lies, 16 bytes a thread and consecutive, each byte once: this is
// what lets the rows come from pinned host memory as well, over the bus, without a copy before. In
// shared memory rows are 47 words apart, an odd number: 32 threads read 32 banks. All threads read
// the same weight at a time, which is one access for a warp.
#include <cuda_pipeline_primitives.h>

#include "worker/kernels/facile_launch.h"

// `count` floats to shared memory, by all threads of the block; nothing of it is there before
// __pipeline_wait_prior. `from` may lie anywhere, only more slowly where not at 16 bytes.
static __device__ __forceinline__ void begin_copy(float *to, const float *from, unsigned count)
{
    unsigned fours = (size_t)from % sizeof(float4) == 0 ? count / 4 : 0;
    for (unsigned i = threadIdx.x; i < fours; i += FACILE_THREADS)
        __pipeline_memcpy_async(to + 4 * i, from + 4 * i, sizeof(float4));
    for (unsigned i = 4 * fours + threadIdx.x; i < count; i += FACILE_THREADS)
        __pipeline_memcpy_async(to + i, from + i, sizeof(float));
}

// rows [n][FACILE_INPUTS], energy [n], weights [FACILE_WEIGHTS]; rows and energy on the device or
// pinned on the host.
#ifdef __cplusplus
extern "C"
#endif
    __global__ void
    __launch_bounds__(FACILE_THREADS)
        sonic_facile(const float *__restrict__ rows, float *__restrict__ energy,
                     const float *__restrict__ weights, unsigned n)
{
    __shared__ __align__(16) float shared_weights[FACILE_WEIGHTS];
    __shared__ __align__(16) float tile[FACILE_TILE * FACILE_INPUTS];
    const unsigned first = blockIdx.x * FACILE_TILE;
    const unsigned here = n - first < FACILE_TILE ? n - first : FACILE_TILE;
    begin_copy(shared_weights, weights, FACILE_WEIGHTS);
    begin_copy(tile, rows + (size_t)first * FACILE_INPUTS, here * FACILE_INPUTS);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    // In the last block some threads compute what nobody reads.
    float e[FACILE_LANES];
    facile_rows(FACILE_LANES, tile + threadIdx.x * FACILE_INPUTS, FACILE_THREADS * FACILE_INPUTS,
                shared_weights, e);
    for (unsigned r = 0; r < FACILE_LANES; r++) {
        unsigned at = r * FACILE_THREADS + threadIdx.x;
        if (at < here)
            energy[first + at] = e[r];
    }
}
