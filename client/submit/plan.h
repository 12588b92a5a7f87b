// SPDX-License-Identifier: Apache-2.0
// How a file's rows become requests: chunks of `batch` rows, and which of them are this shard's.
#ifndef SONIC_CLIENT_SUBMIT_PLAN_H
#define SONIC_CLIENT_SUBMIT_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shard {
    uint32_t index, count; // count 0: not sharded
};

// "2/16" (0 <= index < count), or "auto": from SLURM_ARRAY_TASK_ID/_MIN/_COUNT, or HTCondor's
// _CONDOR_PROCNO with SONIC_SHARDS. False with words.
bool shard_parse(const char *text, struct shard *s, char *why, size_t size);

struct plan {
    uint64_t first_row, rows; // of this shard, in the file
    uint64_t chunks;
    uint32_t batch;
};

// Shards are whole chunks, as even as can be, in order: joined one after another they are the file.
void plan_make(struct plan *p, uint64_t rows, uint32_t batch, struct shard shard);
// Rows of chunk i, and the row it begins at, counted within the shard.
uint32_t plan_rows(const struct plan *p, uint64_t chunk, uint64_t *begin);

// "out.npy" -> "out.shard-00002-of-00016.npy" and "out.npy", "michel" -> "out.michel.npy": `part`
// goes in before the last dot of the file's name.
void plan_name(char *out, size_t size, const char *path, const char *part);

#endif
