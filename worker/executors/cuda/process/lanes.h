// SPDX-License-Identifier: Apache-2.0
// A lane is one instance of a model on a GPU: what computes its batches one after another, on a
// stream of its own. Which lane a batch takes, and how many rows it is computed as. Pure.
#ifndef SONIC_WORKER_EXECUTORS_CUDA_PROCESS_LANES_H
#define SONIC_WORKER_EXECUTORS_CUDA_PROCESS_LANES_H

#include <stdint.h>

#include "common/model_config.h"

#define LANES_MAX 16u
#define BUCKETS_MAX 64u

struct lanes {
    uint32_t n, next;
    uint32_t queued[LANES_MAX]; // batches that are not done
};

// The lane with the fewest batches; of equals, each in turn.
uint32_t lanes_take(struct lanes *l);
void lanes_give(struct lanes *l, uint32_t lane);

// Row counts that a batch is padded to, rising; the last is the most that a run has. A runtime
// tunes and reserves memory for each of them at load, and never again.
struct buckets {
    uint32_t n;
    uint32_t rows[BUCKETS_MAX];
};

// By sonic_cuda_buckets ("1,8,64"); else 1, 2, 3, 4, 6, 8, 12, ... (a third is padded at most, a
// sixth by and large) and the sizes that the config names. 0, or -EINVAL with words.
int buckets_make(struct buckets *b, const struct model_config *c, char *why, size_t size);
// The index of the smallest that holds `rows`.
uint32_t buckets_find(const struct buckets *b, uint32_t rows);

#endif
