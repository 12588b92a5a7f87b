// SPDX-License-Identifier: Apache-2.0
#include "client/submit/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// GCC and clang have it on every 64-bit target.
__extension__ typedef unsigned __int128 uint128;

static bool number(const char *text, char end, uint32_t *out, const char **rest)
{
    char *stop;
    unsigned long v = strtoul(text, &stop, 10);
    if (stop == text || *text < '0' || *text > '9' || *stop != end || v > 1000000)
        return false;
    *out = (uint32_t)v;
    *rest = end ? stop + 1 : stop;
    return true;
}

static bool from_environment(struct shard *s)
{
    const char *id = getenv("SLURM_ARRAY_TASK_ID"), *min = getenv("SLURM_ARRAY_TASK_MIN");
    const char *count = getenv("SLURM_ARRAY_TASK_COUNT"), *rest;
    uint32_t first = 0;
    if (id && count)
        return number(id, '\0', &s->index, &rest) && number(count, '\0', &s->count, &rest) &&
               (!min || number(min, '\0', &first, &rest)) && s->index >= first &&
               (s->index -= first, true);
    id = getenv("_CONDOR_PROCNO");
    count = getenv("SONIC_SHARDS");
    return id && count && number(id, '\0', &s->index, &rest) &&
           number(count, '\0', &s->count, &rest);
}

bool shard_parse(const char *text, struct shard *s, char *why, size_t size)
{
    const char *rest;
    if (strcmp(text, "auto") == 0) {
        if (from_environment(s) && s->index < s->count)
            return true;
        snprintf(why, size,
                 "--shard auto: this is no Slurm array task (SLURM_ARRAY_TASK_ID, "
                 "_COUNT) and no HTCondor process with SONIC_SHARDS set");
        return false;
    }
    if (number(text, '/', &s->index, &rest) && number(rest, '\0', &s->count, &rest) &&
        s->index < s->count)
        return true;
    snprintf(why, size, "--shard \"%s\": say INDEX/COUNT, such as 0/16 to 15/16, or auto", text);
    return false;
}

void plan_make(struct plan *p, uint64_t rows, uint32_t batch, struct shard shard)
{
    uint64_t chunks = rows / batch + (rows % batch != 0), first = 0;
    if (shard.count) {
        // Shard i begins at floor(i * chunks / count), in 128 bits because it may not fit 64.
        first = (uint64_t)((uint128)chunks * shard.index / shard.count);
        chunks = (uint64_t)((uint128)chunks * (shard.index + 1) / shard.count) - first;
    }
    p->batch = batch;
    p->chunks = chunks;
    p->first_row = first * batch;
    uint64_t end = (first + chunks) * batch;
    p->rows = chunks ? (end < rows ? end : rows) - p->first_row : 0;
}

uint32_t plan_rows(const struct plan *p, uint64_t chunk, uint64_t *begin)
{
    *begin = chunk * p->batch;
    uint64_t left = p->rows - *begin;
    return left < p->batch ? (uint32_t)left : p->batch;
}

void plan_name(char *out, size_t size, const char *path, const char *part)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    int stem = dot && dot != name ? (int)(dot - path) : (int)strlen(path);
    snprintf(out, size, "%.*s.%s%s", stem, path, part, path + stem);
}
