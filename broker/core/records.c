// SPDX-License-Identifier: Apache-2.0
// Memory of the core: records in chunks that are never given back (their number is bounded by the
// credit granted), growing arrays, and tables of handles.
#include <stdlib.h>
#include <string.h>

#include "broker/core/farm_internal.h"

bool array_reserve(void *array, uint32_t *size, uint64_t need, size_t item_bytes)
{
    if (need <= *size)
        return true;
    uint64_t n = *size ? *size : 8;
    while (n < need)
        n *= 2;
    if (n > UINT32_MAX || n > SIZE_MAX / item_bytes)
        return false;
    void *old, *p;
    memcpy(&old, array, sizeof old);
    p = realloc(old, (size_t)n * item_bytes);
    if (!p)
        return false;
    memcpy(array, &p, sizeof p);
    *size = (uint32_t)n;
    return true;
}

static bool records_grow(struct farm *f)
{
    if (f->nchunks >= UINT32_MAX / RECORDS_PER_CHUNK ||
        !array_reserve(&f->chunks, &f->chunks_size, f->nchunks + 1ull, sizeof *f->chunks))
        return false;
    struct request *chunk = calloc(RECORDS_PER_CHUNK, sizeof *chunk);
    if (!chunk)
        return false;
    for (uint32_t i = 0; i < RECORDS_PER_CHUNK; i++) {
        chunk[i].index = f->nchunks * RECORDS_PER_CHUNK + i;
        list_insert(&f->free_requests, &chunk[i].at.link);
    }
    f->chunks[f->nchunks++] = chunk;
    return true;
}

struct request *record_new(struct farm *f)
{
    if (list_empty(&f->free_requests) && !records_grow(f))
        return NULL;
    return container_of(list_take(&f->free_requests), struct request, at.link);
}

void record_free(struct farm *f, struct request *r)
{
    r->state = REQUEST_FREE;
    r->flow = NULL;
    r->client = NULL;
    r->service = NULL;
    list_insert(f->free_requests.next, &r->at.link); // last out, first in: still in the cache
}

struct request *record_at(const struct farm *f, uint32_t index)
{
    uint32_t chunk = index / RECORDS_PER_CHUNK;
    return chunk < f->nchunks ? &f->chunks[chunk][index % RECORDS_PER_CHUNK] : NULL;
}

uint64_t table_add(struct table *t, void *object)
{
    if (!t->free) {
        uint32_t old = t->size;
        if (!array_reserve(&t->slots, &t->size, old + 1ull, sizeof *t->slots))
            return FARM_NONE;
        for (uint32_t i = t->size; i-- > old;) {
            t->slots[i] = (struct table_slot){.generation = 1, .next_free = t->free};
            t->free = i + 1;
        }
    }
    uint32_t slot = t->free - 1;
    t->free = t->slots[slot].next_free;
    t->slots[slot].object = object;
    return (slot + 1ull) | (uint64_t)t->slots[slot].generation << 32;
}

void *table_get(const struct table *t, uint64_t id)
{
    uint32_t slot = table_slot_of(id);
    if (slot >= t->size || t->slots[slot].generation != id >> 32)
        return NULL;
    return t->slots[slot].object;
}

void table_remove(struct table *t, uint64_t id)
{
    struct table_slot *s = &t->slots[table_slot_of(id)];
    s->object = NULL;
    s->generation++;
    s->next_free = t->free;
    t->free = table_slot_of(id) + 1;
}
