// SPDX-License-Identifier: Apache-2.0
// Dense layers in fixed point as an FPGA computes them, ap_fixed<16,6> throughout: int16 in units
// of 2^-10. Each product is floored to 10 fraction bits and wrapped to 16 bits before it is summed,
// sums wrap, ReLU follows each layer but the last. This is hls4ml's arithmetic (TRN, WRAP) with one
// precision for everything; the recorded vectors beside this file are hls4ml's own answers.
#ifndef SONIC_TESTS_FPGA_FIXED_REFERENCE_H
#define SONIC_TESTS_FPGA_FIXED_REFERENCE_H

#include <stddef.h>
#include <stdint.h>

#define FIXED_LAYERS_MAX 8u
#define FIXED_WIDTH_MAX 64u

struct fixed_network {
    uint32_t nlayers;
    uint32_t width[FIXED_LAYERS_MAX + 1];    // inputs, then each layer's outputs
    const int16_t *weight[FIXED_LAYERS_MAX]; // [inputs][outputs]
    const int16_t *bias[FIXED_LAYERS_MAX];
    // Of the recorded vectors: what row i of fixed_row() gives.
    uint32_t nrows;
    const int16_t *recorded;
    void *memory;
};

// Reads a network and its vectors as tests/fpga/vectors.py wrote them. 0, or -1: no such file, or
// not one of these.
int fixed_read(struct fixed_network *n, const char *path);
void fixed_deinit(struct fixed_network *n);

// One row: `in` has width[0] values, `out` gets width[nlayers].
void fixed_forward(const struct fixed_network *n, const int16_t *in, int16_t *out);

// Row i of the vectors, FACILE's 47 stored inputs: in turn random over the whole range, edge
// values, and random in a sixteenth of it; behind 17 numbers a one-hot code of 30 that may be
// empty. `state` starts as 1 with row 0 and goes from row to row.
#define FIXED_ROW 47u
void fixed_row(uint64_t *state, uint32_t i, int16_t *row);

#endif
