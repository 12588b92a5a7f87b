// SPDX-License-Identifier: Apache-2.0
#include "worker/executors/cuda/process/lanes.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t lanes_take(struct lanes *l)
{
    uint32_t best = l->next % l->n;
    for (uint32_t i = 0; i < l->n; i++) {
        uint32_t lane = (l->next + i) % l->n;
        if (l->queued[lane] < l->queued[best])
            best = lane;
    }
    l->queued[best]++;
    l->next = best + 1;
    return best;
}

void lanes_give(struct lanes *l, uint32_t lane)
{
    assert(l->queued[lane] > 0);
    l->queued[lane]--;
}

// Keeps them rising and each once; one over the room is left out.
static void add(struct buckets *b, uint32_t rows)
{
    uint32_t at = 0;
    while (at < b->n && b->rows[at] < rows)
        at++;
    if (b->n == BUCKETS_MAX || (at < b->n && b->rows[at] == rows))
        return;
    memmove(&b->rows[at + 1], &b->rows[at], (b->n - at) * sizeof(b->rows[0]));
    b->rows[at] = rows;
    b->n++;
}

static int take_named(struct buckets *b, const struct model_config *c, const char *text,
                      uint32_t most, char *why, size_t size)
{
    for (const char *at = text; at;) {
        char *end;
        unsigned long rows = strtoul(at, &end, 10);
        bool good = *at >= '0' && *at <= '9' && (!*end || *end == ',') && rows >= 1 && rows <= most;
        if (!good || b->n + 1 >= BUCKETS_MAX) {
            snprintf(why, size,
                     "model %s: sonic_cuda_buckets is \"%s\"; at most %u numbers from 1 to "
                     "max_batch_size (%u) with commas between are possible",
                     c->name, text, BUCKETS_MAX - 1, most);
            return -EINVAL;
        }
        add(b, (uint32_t)rows);
        at = *end ? end + 1 : NULL;
    }
    return 0;
}

int buckets_make(struct buckets *b, const struct model_config *c, char *why, size_t size)
{
    uint32_t most = c->batch_max ? c->batch_max : 1;
    const char *text = model_config_parameter(c, "sonic_cuda_buckets");
    int rc = 0;
    *b = (struct buckets){0};
    add(b, most);
    if (text)
        rc = take_named(b, c, text, most, why, size);
    for (uint64_t rows = 1; !text && rows < most; rows *= 2) {
        add(b, (uint32_t)rows);
        if (rows > 1 && rows + rows / 2 < most)
            add(b, (uint32_t)(rows + rows / 2));
    }
    if (!text && c->default_rows >= 1 && c->default_rows <= most)
        add(b, c->default_rows);
    for (uint32_t i = 0; !text && i < c->npreferred; i++)
        if (c->preferred[i] >= 1 && c->preferred[i] <= most)
            add(b, c->preferred[i]);
    return rc;
}

uint32_t buckets_find(const struct buckets *b, uint32_t rows)
{
    uint32_t i = 0;
    while (i + 1 < b->n && b->rows[i] < rows)
        i++;
    return i;
}
