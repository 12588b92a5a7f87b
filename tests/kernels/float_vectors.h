// SPDX-License-Identifier: Apache-2.0
// FACILE's recorded vectors in float, as vectors.py beside this file wrote them.
#ifndef SONIC_TESTS_KERNELS_FLOAT_VECTORS_H
#define SONIC_TESTS_KERNELS_FLOAT_VECTORS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/kernels/facile_weights.h"

// Of the energy: what float32's sums differ by in another order, three times over.
#define FLOAT_VECTORS_TOLERANCE 1e-4f

struct float_vectors {
    uint32_t rows;
    float weights[FACILE_WEIGHTS];
    float *channels;       // [rows][FACILE_INPUTS]
    const float *energies; // ONNX Runtime's
};

// 0, or -1: no such file, or not one of these.
int float_vectors_read(struct float_vectors *v, const char *path);
void float_vectors_deinit(struct float_vectors *v);
// Within the tolerance, or both NaN.
bool float_vectors_agree(float got, float expected);

#endif
