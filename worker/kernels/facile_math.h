// SPDX-License-Identifier: Apache-2.0
// FACILE's arithmetic, for the GPU's kernel and, word for word, for the host's compiler: four dense
// layers with the batch norms folded in, ReLU after each but the last, clamped. Every step is one
// rounding (fused multiply-add) in a fixed order, so both give the same bits. A NaN passes through:
// it is no energy, and must not look like one.
//
// Weights: one array of float32, each layer its biases and then its weights [inputs][outputs],
// outputs padded with zeros to a multiple of four, because the kernel reads four at once: b1[32]
// w1[47][32], b2[12] w2[31][12], b3[4] w3[11][4], and w4[3], b4 in one four.
#ifndef SONIC_WORKER_KERNELS_FACILE_MATH_H
#define SONIC_WORKER_KERNELS_FACILE_MATH_H

#include <math.h>

#ifdef __CUDACC__
#define FACILE_CODE static __host__ __device__ __forceinline__
#else
#define FACILE_CODE static inline
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunknown-pragmas" // unroll is nvcc's and clang's
#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed" // which may not follow it on the host
#endif
#endif

#define FACILE_INPUTS 47u
#define FACILE_N1 31u
#define FACILE_N2 11u
#define FACILE_N3 3u
#define FACILE_PAD(n) (((n) + 3u) & ~3u)
#define FACILE_ENERGY_MIN 0.01f // GeV
#define FACILE_ENERGY_MAX 1000.0f

#define FACILE_LAYER1 0u
#define FACILE_LAYER2 (FACILE_LAYER1 + (1u + FACILE_INPUTS) * FACILE_PAD(FACILE_N1))
#define FACILE_LAYER3 (FACILE_LAYER2 + (1u + FACILE_N1) * FACILE_PAD(FACILE_N2))
#define FACILE_LAYER4 (FACILE_LAYER3 + (1u + FACILE_N2) * FACILE_PAD(FACILE_N3))
#define FACILE_WEIGHTS (FACILE_LAYER4 + FACILE_N3 + 1u) // 1,972 floats

// Rows of one call: each weight that is read serves so many. Two, because 16,000 rows then are as
// many warps as a large GPU has schedulers to give one or two to; four would leave half of it
// empty.
#define FACILE_LANES 2u

FACILE_CODE float facile_relu(float x)
{
    return x < 0 ? 0 : x; // not fmaxf(), which makes a NaN 0
}

// Energies in GeV of `lanes` (a constant, <= FACILE_LANES) rows of FACILE_INPUTS floats, the first
// at `row`, each `stride` floats after the one before.
FACILE_CODE void facile_rows(unsigned lanes, const float *row, unsigned stride,
                             const float *weights, float *energy)
{
    const float *w1 = weights + FACILE_LAYER1, *w2 = weights + FACILE_LAYER2;
    const float *w3 = weights + FACILE_LAYER3, *w4 = weights + FACILE_LAYER4;
    float a1[FACILE_LANES][FACILE_N1], a2[FACILE_LANES][FACILE_N2], a3[FACILE_LANES][FACILE_N3];
#pragma unroll
    for (unsigned j = 0; j < FACILE_N1; j++)
#pragma unroll
        for (unsigned r = 0; r < lanes; r++)
            a1[r][j] = w1[j];
#pragma unroll 4 // all 47 would be 50 KB of code, more than an instruction cache holds
    for (unsigned k = 0; k < FACILE_INPUTS; k++) {
#pragma unroll
        for (unsigned j = 0; j < FACILE_N1; j++)
#pragma unroll
            for (unsigned r = 0; r < lanes; r++)
                a1[r][j] =
                    fmaf(row[r * stride + k], w1[(1 + k) * FACILE_PAD(FACILE_N1) + j], a1[r][j]);
    }
#pragma unroll
    for (unsigned j = 0; j < FACILE_N2; j++)
#pragma unroll
        for (unsigned r = 0; r < lanes; r++)
            a2[r][j] = w2[j];
#pragma unroll
    for (unsigned k = 0; k < FACILE_N1; k++)
#pragma unroll
        for (unsigned j = 0; j < FACILE_N2; j++)
#pragma unroll
            for (unsigned r = 0; r < lanes; r++)
                a2[r][j] =
                    fmaf(facile_relu(a1[r][k]), w2[(1 + k) * FACILE_PAD(FACILE_N2) + j], a2[r][j]);
#pragma unroll
    for (unsigned r = 0; r < lanes; r++) {
#pragma unroll
        for (unsigned j = 0; j < FACILE_N3; j++) {
            a3[r][j] = w3[j];
#pragma unroll
            for (unsigned k = 0; k < FACILE_N2; k++)
                a3[r][j] =
                    fmaf(facile_relu(a2[r][k]), w3[(1 + k) * FACILE_PAD(FACILE_N3) + j], a3[r][j]);
        }
        float e = w4[FACILE_N3];
#pragma unroll
        for (unsigned k = 0; k < FACILE_N3; k++)
            e = fmaf(facile_relu(a3[r][k]), w4[k], e);
        e = e < FACILE_ENERGY_MIN ? FACILE_ENERGY_MIN : e;
        energy[r] = e > FACILE_ENERGY_MAX ? FACILE_ENERGY_MAX : e;
    }
}

// One row: what a stub of the GPU and the tests compute.
FACILE_CODE float facile_row(const float *row, const float *weights)
{
    float energy;
    facile_rows(1, row, 0, weights, &energy);
    return energy;
}

#ifndef __CUDACC__
#pragma GCC diagnostic pop
#endif

#endif
