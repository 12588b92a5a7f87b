// SPDX-License-Identifier: Apache-2.0
#include "client/window.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK 256u
#define BUCKETS_MIN 1024u
// A BUSY without a time is tried again after this; repeated BUSYs wait longer, up to the most.
#define RETRY_US 10000u
#define RETRY_MOST_US 1000000u
// Requests to other models that window_also passes over before it gives up.
#define PASS_OVER 64u

struct list {
    struct window_request *first, *last;
    size_t n;
};

struct chunk {
    struct chunk *next;
    struct window_request requests[CHUNK];
};

struct window {
    struct list queued, sent, waiting;
    struct window_request *spare; // by `next`
    struct chunk *chunks;
    struct window_request **buckets;
    size_t nbuckets, nhashed;
    uint64_t next_seq, random;
    uint64_t sent_bytes;
    uint64_t limit_bytes; // of one request
    uint64_t soonest_us;  // no retry or deadline is due before this (may be too early)
    struct window_counts counts;
};

// ---- lists --------------------------------------------------------------------------------------

static void append(struct list *l, struct window_request *r)
{
    r->next = NULL;
    r->prev = l->last;
    if (l->last)
        l->last->next = r;
    else
        l->first = r;
    l->last = r;
    l->n++;
}

static void prepend(struct list *l, struct window_request *r)
{
    r->prev = NULL;
    r->next = l->first;
    if (l->first)
        l->first->prev = r;
    else
        l->last = r;
    l->first = r;
    l->n++;
}

static void take_out(struct list *l, struct window_request *r)
{
    if (r->prev)
        r->prev->next = r->next;
    else
        l->first = r->next;
    if (r->next)
        r->next->prev = r->prev;
    else
        l->last = r->prev;
    l->n--;
}

// ---- by seq -------------------------------------------------------------------------------------

static bool grow_buckets(struct window *w)
{
    size_t n = w->nbuckets ? w->nbuckets * 2 : BUCKETS_MIN;
    struct window_request **buckets = calloc(n, sizeof(*buckets));
    if (!buckets)
        return false;
    for (size_t i = 0; i < w->nbuckets; i++)
        for (struct window_request *r = w->buckets[i], *next; r; r = next) {
            next = r->chain;
            r->chain = buckets[r->seq & (n - 1)];
            buckets[r->seq & (n - 1)] = r;
        }
    free(w->buckets);
    w->buckets = buckets;
    w->nbuckets = n;
    return true;
}

static void hash_in(struct window *w, struct window_request *r)
{
    struct window_request **bucket = &w->buckets[r->seq & (w->nbuckets - 1)];
    r->chain = *bucket;
    *bucket = r;
    w->nhashed++;
}

static void hash_out(struct window *w, struct window_request *r)
{
    struct window_request **at = &w->buckets[r->seq & (w->nbuckets - 1)];
    while (*at != r)
        at = &(*at)->chain;
    *at = r->chain;
    w->nhashed--;
}

struct window_request *window_find(const struct window *w, uint64_t seq)
{
    struct window_request *r = w->buckets[seq & (w->nbuckets - 1)];
    while (r && r->seq != seq)
        r = r->chain;
    return r;
}

// ---- life ---------------------------------------------------------------------------------------

struct window *window_new(uint64_t jitter_seed)
{
    struct window *w = calloc(1, sizeof(*w));
    if (!w || !grow_buckets(w)) {
        free(w);
        return NULL;
    }
    w->random = jitter_seed | 1;
    w->next_seq = 1;
    w->soonest_us = w->limit_bytes = UINT64_MAX;
    return w;
}

void window_free(struct window *w)
{
    if (!w)
        return;
    while (w->chunks) {
        struct chunk *c = w->chunks;
        w->chunks = c->next;
        free(c);
    }
    free(w->buckets);
    free(w);
}

static struct window_request *allocate(struct window *w)
{
    if (!w->spare) {
        struct chunk *c = malloc(sizeof(*c));
        if (!c)
            return NULL;
        c->next = w->chunks;
        w->chunks = c;
        for (unsigned i = 0; i < CHUNK; i++) {
            c->requests[i].state = WINDOW_FREE;
            c->requests[i].next = w->spare;
            w->spare = &c->requests[i];
        }
    }
    struct window_request *r = w->spare;
    w->spare = r->next;
    return r;
}

void window_release(struct window *w, struct window_request *r)
{
    r->state = WINDOW_FREE;
    r->next = w->spare;
    w->spare = r;
}

static void soon(struct window *w, uint64_t at_us)
{
    if (at_us < w->soonest_us)
        w->soonest_us = at_us;
}

static void need(struct window *w, const struct window_request *r)
{
    if (r->bytes > w->counts.needed_bytes && r->bytes <= w->limit_bytes)
        w->counts.needed_bytes = r->bytes;
}

// Puts a request into the queue; `again` ones go before those that were never sent.
static void enqueue(struct window *w, struct window_request *r, bool again)
{
    r->state = WINDOW_QUEUED;
    if (again)
        prepend(&w->queued, r);
    else
        append(&w->queued, r);
    if (r->cancelled || r->bytes > w->limit_bytes)
        soon(w, 0);
    else if (r->deadline_us)
        soon(w, r->deadline_us);
    need(w, r);
}

struct window_request *window_submit(struct window *w, uint64_t now_us,
                                     const struct window_request *in)
{
    if (w->nhashed >= w->nbuckets && !grow_buckets(w))
        return NULL;
    struct window_request *r = allocate(w);
    if (!r)
        return NULL;
    memcpy(r->model, in->model, sizeof(r->model));
    r->version = in->version;
    r->priority = in->priority;
    r->bytes = in->bytes;
    r->deadline_us = in->deadline_us;
    r->user = in->user;
    r->seq = w->next_seq++;
    r->submitted_us = now_us;
    r->attempts = 0;
    r->cancelled = false;
    hash_in(w, r);
    enqueue(w, r, false);
    return r;
}

void window_grant(struct window *w, uint32_t requests, uint64_t bytes)
{
    w->counts.grant_requests = requests;
    w->counts.grant_bytes = bytes;
}

void window_limit(struct window *w, uint64_t request_bytes_max)
{
    const struct list *lists[] = {&w->queued, &w->waiting, &w->sent};
    w->limit_bytes = request_bytes_max;
    w->counts.needed_bytes = 0;
    for (size_t i = 0; i < 3; i++)
        for (const struct window_request *r = lists[i]->first; r; r = r->next)
            need(w, r);
    soon(w, 0);
}

// ---- leaving a state ----------------------------------------------------------------------------

// Takes r out of whichever list its state names.
static void leave(struct window *w, struct window_request *r)
{
    switch (r->state) {
    case WINDOW_QUEUED:
        take_out(&w->queued, r);
        break;
    case WINDOW_WAITING:
        take_out(&w->waiting, r);
        break;
    case WINDOW_SENT:
        take_out(&w->sent, r);
        w->sent_bytes -= r->bytes;
        break;
    default:
        break;
    }
}

static struct window_request *finish(struct window *w, struct window_request *r,
                                     enum sonic_status status)
{
    leave(w, r);
    hash_out(w, r);
    r->state = WINDOW_DONE;
    r->status = status;
    if (w->nhashed == 0)
        w->counts.needed_bytes = 0;
    return r;
}

// Merges two chains (by `next`) that are sorted by seq.
static struct window_request *merge(struct window_request *a, struct window_request *b)
{
    struct window_request *first = NULL, **at = &first;
    while (a && b) {
        struct window_request **least = a->seq < b->seq ? &a : &b;
        *at = *least;
        at = &(*least)->next;
        *least = *at;
    }
    *at = a ? a : b;
    return first;
}

// Merge sort without memory of its own: runs[i] is empty or a sorted chain of 2^i requests.
static void sort(struct list *l)
{
    struct window_request *runs[64] = {NULL}, *all = NULL, *r = l->first;
    while (r) {
        struct window_request *next = r->next, *chain = r;
        unsigned i = 0;
        chain->next = NULL;
        for (; runs[i]; i++) {
            chain = merge(runs[i], chain);
            runs[i] = NULL;
        }
        runs[i] = chain;
        r = next;
    }
    for (unsigned i = 0; i < 64; i++)
        all = merge(all, runs[i]);
    *l = (struct list){0};
    for (r = all; r; r = all) {
        all = r->next;
        append(l, r);
    }
}

void window_reopen(struct window *w)
{
    w->counts.received = 0;
    w->counts.retried += w->sent.n;
    while (w->sent.last) {
        struct window_request *r = w->sent.last;
        leave(w, r);
        enqueue(w, r, true);
    }
    while (w->waiting.last) {
        struct window_request *r = w->waiting.last;
        leave(w, r);
        enqueue(w, r, true);
    }
    sort(&w->queued); // a retry left and came back out of turn
}

struct window_request *window_next(struct window *w)
{
    struct window_request *r = w->queued.first;
    if (!r || w->sent.n >= w->counts.grant_requests ||
        w->sent_bytes + r->bytes > w->counts.grant_bytes)
        return NULL;
    return r;
}

struct window_request *window_also(const struct window *w, const struct window_request *r)
{
    struct window_request *next = r->next;
    uint64_t bytes = w->sent_bytes + r->bytes;
    if (w->sent.n + 1 >= w->counts.grant_requests)
        return NULL;
    for (unsigned i = 0; next && i < PASS_OVER; i++, next = next->next)
        if (next->version == r->version && strcmp(next->model, r->model) == 0)
            return bytes + next->bytes <= w->counts.grant_bytes ? next : NULL;
    return NULL;
}

static uint64_t late_us(const struct window_request *r)
{
    return r->deadline_us < UINT64_MAX - WINDOW_LATE_US ? r->deadline_us + WINDOW_LATE_US
                                                        : UINT64_MAX;
}

void window_sent(struct window *w, struct window_request *r)
{
    if (r->deadline_us)
        soon(w, late_us(r));
    leave(w, r);
    r->state = WINDOW_SENT;
    r->attempts++;
    append(&w->sent, r);
    w->sent_bytes += r->bytes;
}

// ---- answers ------------------------------------------------------------------------------------

static uint64_t jitter(struct window *w, uint64_t most)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return most ? w->random % most : 0;
}

static void wait_and_retry(struct window *w, uint64_t now_us, struct window_request *r,
                           uint64_t after_us)
{
    unsigned doublings = r->attempts < 8 ? r->attempts : 8;
    uint64_t own_us = (uint64_t)RETRY_US << (doublings ? doublings - 1 : 0);
    uint64_t wait_us = after_us > own_us ? after_us : own_us;
    if (wait_us > RETRY_MOST_US && after_us < RETRY_MOST_US)
        wait_us = RETRY_MOST_US;
    leave(w, r);
    r->state = WINDOW_WAITING;
    r->retry_us = now_us + wait_us + jitter(w, wait_us / 2);
    append(&w->waiting, r);
    if (r->deadline_us)
        soon(w, r->deadline_us);
    soon(w, r->retry_us);
    w->counts.retried++;
}

struct window_request *window_answer(struct window *w, uint64_t now_us, uint64_t seq,
                                     enum sonic_status status, uint64_t retry_after_us,
                                     bool acknowledge)
{
    struct window_request *r = window_find(w, seq);
    w->counts.received += acknowledge;
    if (!r || r->state != WINDOW_SENT) {
        // An earlier attempt's answer may come while a later one is queued: it is as good.
        if (!r || sonic_status_retries(status)) {
            w->counts.duplicates++;
            return NULL;
        }
    }
    if (!sonic_status_retries(status))
        return finish(w, r, status);
    if (r->cancelled)
        return finish(w, r, SONIC_STATUS_CANCELLED);
    wait_and_retry(w, now_us, r, retry_after_us);
    return NULL;
}

int window_cancel(struct window *w, uint64_t seq)
{
    struct window_request *r = window_find(w, seq);
    if (!r)
        return -1;
    r->cancelled = true;
    if (r->state == WINDOW_SENT)
        return 1;
    soon(w, 0);
    return 0;
}

// ---- time ---------------------------------------------------------------------------------------

static struct window_request *due_in(struct window *w, struct list *l, uint64_t now_us)
{
    for (struct window_request *r = l->first; r; r = r->next) {
        bool sent = r->state == WINDOW_SENT;
        uint64_t end_us = sent ? late_us(r) : r->deadline_us;
        if (r->cancelled && !sent)
            return finish(w, r, SONIC_STATUS_CANCELLED);
        if (r->bytes > w->limit_bytes && !sent)
            return finish(w, r, SONIC_STATUS_BAD_REQUEST);
        if (r->deadline_us && end_us <= now_us)
            return finish(w, r, SONIC_STATUS_DEADLINE);
        if (r->deadline_us)
            soon(w, end_us);
        if (r->state == WINDOW_WAITING)
            soon(w, r->retry_us);
    }
    return NULL;
}

static void requeue_waiting(struct window *w, uint64_t now_us)
{
    for (struct window_request *r = w->waiting.last, *prev; r; r = prev) {
        prev = r->prev;
        if (r->retry_us <= now_us) {
            leave(w, r);
            enqueue(w, r, true);
        }
    }
}

struct window_request *window_due(struct window *w, uint64_t now_us)
{
    if (now_us < w->soonest_us)
        return NULL;
    w->soonest_us = UINT64_MAX;
    requeue_waiting(w, now_us);
    struct window_request *r = due_in(w, &w->waiting, now_us);
    if (!r)
        r = due_in(w, &w->queued, now_us);
    if (!r)
        r = due_in(w, &w->sent, now_us);
    if (r)
        w->soonest_us = 0; // there may be more: look again at once
    return r;
}

struct window_request *window_give_up(struct window *w, enum sonic_status status)
{
    struct window_request *r = w->sent.first      ? w->sent.first
                               : w->waiting.first ? w->waiting.first
                                                  : w->queued.first;
    return r ? finish(w, r, status) : NULL;
}

uint64_t window_wake(const struct window *w)
{
    return w->soonest_us;
}

void window_counts(const struct window *w, struct window_counts *c)
{
    *c = w->counts;
    c->pending = w->nhashed;
    c->queued = w->queued.n + w->waiting.n;
    c->in_flight = w->sent.n;
    c->in_flight_bytes = w->sent_bytes;
}
