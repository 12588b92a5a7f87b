// SPDX-License-Identifier: Apache-2.0
// Where tensors lie in the memory that worker and device process share, which the process pins for
// the GPU: each slot's inputs, and places for results. There are more places than slots: results
// are sent from where the GPU has put them, while the slot runs the next batch. Pure.
#ifndef SONIC_WORKER_EXECUTORS_CUDA_LAYOUT_H
#define SONIC_WORKER_EXECUTORS_CUDA_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "common/model_config.h"

struct cuda_layout {
    uint32_t rows; // most in a run
    uint32_t slots, places;
    uint32_t ninputs, noutputs;
    uint64_t input_row[SONIC_TENSORS_MAX], output_row[SONIC_TENSORS_MAX]; // bytes of a row
    uint64_t input_at[SONIC_TENSORS_MAX], output_at[SONIC_TENSORS_MAX];
    uint64_t inputs_bytes, outputs_bytes; // of one slot, of one place
    uint64_t bytes;                       // of all
};

// 0, or -EINVAL with words: a dimension is free, or it is beyond all bounds.
int cuda_layout_make(struct cuda_layout *l, const struct model_config *c, uint32_t slots, char *why,
                     size_t size);

// From the memory's begin on.
uint64_t cuda_layout_input(const struct cuda_layout *l, uint32_t slot, uint32_t input);
uint64_t cuda_layout_output(const struct cuda_layout *l, uint32_t place, uint32_t output);

#endif
