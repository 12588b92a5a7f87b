// SPDX-License-Identifier: Apache-2.0
#include "worker/executors/cuda/layout.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/checked.h"

// Pages: what is pinned is whole pages, and two slots never share one.
#define PAGE 4096u
// A slot's results may still be sent from two places while the third is filled.
#define PLACES_PER_SLOT 3u
// Tensors begin where the widest loads and cuDNN like it.
#define ALIGN 256u

static bool place_tensors(const struct tensor_spec *specs, uint32_t n, uint32_t rows, uint64_t *row,
                          uint64_t *at, uint64_t *all)
{
    uint64_t bytes;
    *all = 0;
    for (uint32_t i = 0; i < n; i++) {
        at[i] = *all;
        if (!tensor_spec_row_bytes(&specs[i], &row[i]) || !checked_mul(row[i], rows, &bytes) ||
            !checked_add(*all, bytes, all) || !checked_align(*all, ALIGN, all))
            return false;
    }
    return checked_align(*all, PAGE, all);
}

static bool sum_up(struct cuda_layout *l)
{
    uint64_t in, out;
    return checked_mul(l->inputs_bytes, l->slots, &in) &&
           checked_mul(l->outputs_bytes, l->places, &out) && checked_add(in, out, &l->bytes) &&
           l->bytes <= INT64_MAX;
}

int cuda_layout_make(struct cuda_layout *l, const struct model_config *c, uint32_t slots, char *why,
                     size_t size)
{
    *l = (struct cuda_layout){.rows = c->batch_max ? c->batch_max : 1,
                              .slots = slots,
                              .places = slots * PLACES_PER_SLOT,
                              .ninputs = c->ninputs,
                              .noutputs = c->noutputs};
    if (place_tensors(c->inputs, c->ninputs, l->rows, l->input_row, l->input_at,
                      &l->inputs_bytes) &&
        place_tensors(c->outputs, c->noutputs, l->rows, l->output_row, l->output_at,
                      &l->outputs_bytes) &&
        sum_up(l))
        return 0;
    snprintf(why, size,
             "model %s: a CUDA device takes tensors of fixed size only (its memory is pinned when "
             "the model is loaded): give every dim in config.pbtxt a number, or serve it with "
             "--device cpu",
             c->name);
    return -EINVAL;
}

uint64_t cuda_layout_input(const struct cuda_layout *l, uint32_t slot, uint32_t input)
{
    return slot * l->inputs_bytes + l->input_at[input];
}

uint64_t cuda_layout_output(const struct cuda_layout *l, uint32_t place, uint32_t output)
{
    return l->slots * l->inputs_bytes + place * l->outputs_bytes + l->output_at[output];
}
