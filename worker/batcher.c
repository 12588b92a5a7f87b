// SPDX-License-Identifier: Apache-2.0
#include "worker/batcher.h"

#include <stdlib.h>

// Leases are looked up only to revoke them. Their low half is an index into the broker's records,
// dense and small, so that taking its low bits spreads them perfectly.
#define BUCKETS 4096u

struct line {
    struct batcher_model model;
    struct batch_item *first, *last;
    uint64_t rows; // waiting
    uint32_t running;
};

struct batcher {
    uint32_t slots, room_requests;
    uint64_t room_bytes;
    struct batcher_load load;
    uint64_t order;
    uint32_t with_deadline; // waiting ones
    struct batch_item *buckets[BUCKETS];
    uint32_t nlines;
    struct line lines[];
};

struct batcher *batcher_new(const struct batcher_model *models, uint32_t nmodels, uint32_t slots,
                            uint32_t room_requests, uint64_t room_bytes)
{
    struct batcher *b = calloc(1, sizeof(*b) + nmodels * sizeof(b->lines[0]));
    if (!b)
        return NULL;
    b->slots = slots;
    b->room_requests = room_requests;
    b->room_bytes = room_bytes;
    b->nlines = nmodels;
    for (uint32_t i = 0; i < nmodels; i++)
        b->lines[i].model = models[i];
    return b;
}

void batcher_free(struct batcher *b)
{
    free(b);
}

static struct batch_item **bucket(struct batcher *b, uint64_t lease)
{
    return &b->buckets[lease % BUCKETS];
}

bool batcher_put(struct batcher *b, struct batch_item *item)
{
    struct line *l = &b->lines[item->model];
    if (b->load.requests > 0 &&
        (b->load.requests >= b->room_requests || b->load.bytes > b->room_bytes ||
         item->bytes > b->room_bytes - b->load.bytes))
        return false;
    item->order = ++b->order;
    item->next = NULL;
    item->prev = l->last;
    *(l->last ? &l->last->next : &l->first) = item;
    l->last = item;
    l->rows += item->rows;
    item->same_bucket = *bucket(b, item->lease);
    *bucket(b, item->lease) = item;
    b->load.requests++;
    b->load.waiting++;
    b->load.bytes += item->bytes;
    b->with_deadline += item->deadline_us != 0;
    return true;
}

// Out of its line; it still counts against the room.
static void unlink_item(struct batcher *b, struct batch_item *item)
{
    struct line *l = &b->lines[item->model];
    struct batch_item **at = bucket(b, item->lease);
    while (*at != item)
        at = &(*at)->same_bucket;
    *at = item->same_bucket;
    *(item->prev ? &item->prev->next : &l->first) = item->next;
    *(item->next ? &item->next->prev : &l->last) = item->prev;
    item->next = item->prev = NULL;
    l->rows -= item->rows;
    b->load.waiting--;
    b->with_deadline -= item->deadline_us != 0;
}

static void take_out(struct batcher *b, struct batch_item *item, struct batch_item **chain)
{
    unlink_item(b, item);
    b->load.requests--;
    b->load.bytes -= item->bytes;
    item->next = *chain;
    *chain = item;
}

static bool is_late(const struct batch_item *item, uint64_t now_us)
{
    return item->deadline_us && item->deadline_us <= now_us;
}

static bool can_run(const struct line *l)
{
    return l->first && l->running < l->model.instances;
}

// The line whose first request came first, among those with a free instance.
static struct line *next_line(struct batcher *b)
{
    struct line *best = NULL;
    for (uint32_t i = 0; i < b->nlines; i++) {
        struct line *l = &b->lines[i];
        if (can_run(l) && (!best || l->first->order < best->first->order))
            best = l;
    }
    return best;
}

// Rows for this execution: all that wait, but no more than leaves a share for each slot that is
// free and that no other model waits for.
static uint64_t share_rows(const struct batcher *b, const struct line *l)
{
    uint32_t runnable = 0, slots = b->slots - b->load.busy;
    uint64_t rows = l->model.batch_max;
    for (uint32_t i = 0; i < b->nlines; i++)
        runnable += can_run(&b->lines[i]);
    slots /= runnable;
    if (slots > l->model.instances - l->running)
        slots = l->model.instances - l->running;
    if (slots > 1 && (l->rows + slots - 1) / slots < rows)
        rows = (l->rows + slots - 1) / slots;
    return rows;
}

static void fill(struct batcher *b, struct line *l, uint64_t now_us, struct batch *batch,
                 struct batch_item **late)
{
    uint64_t rows_max = share_rows(b, l);
    struct batch_item *last = NULL;
    while (l->first) {
        struct batch_item *item = l->first;
        if (is_late(item, now_us)) {
            take_out(b, item, late);
            continue;
        }
        if (last && (l->model.batch_max == 0 || (uint64_t)batch->rows + item->rows > rows_max ||
                     (l->model.alike && !l->model.alike(last, item))))
            break;
        unlink_item(b, item);
        *(last ? &last->next : &batch->items) = item;
        last = item;
        batch->n++;
        batch->rows += item->rows;
        batch->bytes += item->bytes;
    }
}

bool batcher_take(struct batcher *b, uint64_t now_us, struct batch *batch, struct batch_item **late)
{
    struct line *l;
    *late = NULL;
    while (b->load.busy < b->slots && (l = next_line(b))) {
        *batch = (struct batch){.model = (uint32_t)(l - b->lines)};
        fill(b, l, now_us, batch, late);
        if (batch->n) {
            l->running++;
            b->load.busy++;
            return true;
        }
    }
    return false;
}

void batcher_done(struct batcher *b, const struct batch *batch)
{
    b->lines[batch->model].running--;
    b->load.busy--;
    b->load.requests -= batch->n;
    b->load.bytes -= batch->bytes;
}

bool batcher_ready(const struct batcher *b)
{
    if (b->load.busy >= b->slots || b->load.waiting == 0)
        return false;
    for (uint32_t i = 0; i < b->nlines; i++)
        if (can_run(&b->lines[i]))
            return true;
    return false;
}

struct batch_item *batcher_revoke(struct batcher *b, uint64_t lease)
{
    struct batch_item *item = *bucket(b, lease), *chain = NULL;
    while (item && item->lease != lease)
        item = item->same_bucket;
    if (item)
        take_out(b, item, &chain);
    return chain;
}

struct batch_item *batcher_expire(struct batcher *b, uint64_t now_us)
{
    struct batch_item *chain = NULL, *next;
    for (uint32_t i = 0; i < b->nlines && b->with_deadline; i++)
        for (struct batch_item *item = b->lines[i].first; item; item = next) {
            next = item->next;
            if (is_late(item, now_us))
                take_out(b, item, &chain);
        }
    return chain;
}

struct batch_item *batcher_clear(struct batcher *b)
{
    struct batch_item *chain = NULL;
    for (uint32_t i = 0; i < b->nlines; i++)
        while (b->lines[i].first)
            take_out(b, b->lines[i].first, &chain);
    return chain;
}

void batcher_load(const struct batcher *b, struct batcher_load *load)
{
    *load = b->load;
}
