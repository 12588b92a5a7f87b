// SPDX-License-Identifier: Apache-2.0
#include "client/extents.h"

#include <stdlib.h>

#include "common/checked.h"

// A search gives up after so many free parts: a slab that is so fragmented is not worth it.
#define SEARCH_MAX 64u

// A free part. They are listed by offset, and no two of them touch.
struct extent {
    struct extent *next;
    uint64_t offset, bytes;
};

struct extents {
    struct extent *first;
    struct extent *spare;
    uint64_t free_bytes;
};

static struct extent *extent_new(struct extents *e)
{
    struct extent *x = e->spare;
    if (x)
        e->spare = x->next;
    else
        x = malloc(sizeof(*x));
    return x;
}

static void extent_retire(struct extents *e, struct extent *x)
{
    x->next = e->spare;
    e->spare = x;
}

struct extents *extents_new(uint64_t bytes)
{
    struct extents *e = calloc(1, sizeof(*e));
    struct extent *all = e ? extent_new(e) : NULL;
    if (!all) {
        free(e);
        return NULL;
    }
    *all = (struct extent){.bytes = bytes & ~(uint64_t)(EXTENTS_ALIGN - 1)};
    e->first = all;
    e->free_bytes = all->bytes;
    return e;
}

static void free_list(struct extent *x)
{
    while (x) {
        struct extent *next = x->next;
        free(x);
        x = next;
    }
}

void extents_free(struct extents *e)
{
    if (!e)
        return;
    free_list(e->first);
    free_list(e->spare);
    free(e);
}

uint64_t extents_take(struct extents *e, uint64_t bytes)
{
    struct extent **at = &e->first;
    if (bytes == 0 || !checked_align(bytes, EXTENTS_ALIGN, &bytes))
        return EXTENTS_NONE;
    for (unsigned n = 0; *at && n < SEARCH_MAX; n++, at = &(*at)->next) {
        struct extent *x = *at;
        if (x->bytes < bytes)
            continue;
        uint64_t offset = x->offset;
        x->offset += bytes;
        x->bytes -= bytes;
        e->free_bytes -= bytes;
        if (x->bytes == 0) {
            *at = x->next;
            extent_retire(e, x);
        }
        return offset;
    }
    return EXTENTS_NONE;
}

void extents_give(struct extents *e, uint64_t offset, uint64_t bytes)
{
    struct extent *before = NULL, *after = e->first;
    checked_align(bytes, EXTENTS_ALIGN, &bytes); // as when it was taken
    while (after && after->offset < offset) {
        before = after;
        after = after->next;
    }
    struct extent *x = before && before->offset + before->bytes == offset ? before : NULL;
    if (x) {
        x->bytes += bytes;
    } else {
        x = extent_new(e);
        if (!x)
            return; // no memory for the note: the part stays unused
        *x = (struct extent){after, offset, bytes};
        if (before)
            before->next = x;
        else
            e->first = x;
    }
    e->free_bytes += bytes;
    if (after && x->offset + x->bytes == after->offset) {
        x->bytes += after->bytes;
        x->next = after->next;
        extent_retire(e, after);
    }
}

uint64_t extents_free_bytes(const struct extents *e)
{
    return e->free_bytes;
}
