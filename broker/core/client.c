// SPDX-License-Identifier: Apache-2.0
// Clients, their tenants, and the credit they run on. What is granted to all of them, the records
// of their requests included, stays within memory_bytes_max; that bounds the broker.
#include <stdlib.h>
#include <string.h>

#include "broker/core/farm_internal.h"
#include "common/checked.h"

// A new window is at most this part of what is free, so that the next client finds some too.
#define GRANT_PART 8
#define RETRY_GRANT_US 1000000 // windows come free when jobs end
#define RETRY_WINDOW_US 10000  // a window comes free with the next answers

static uint32_t tenant_bucket(const char *name, size_t len)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)name[i]) * 16777619u;
    return h % TENANT_BUCKETS;
}

struct tenant *tenant_ref(struct farm *f, const char *name, size_t len)
{
    if (len > SONIC_NAME_MAX)
        len = SONIC_NAME_MAX;
    struct tenant **bucket = &f->buckets[tenant_bucket(name, len)];
    for (struct tenant *t = *bucket; t; t = t->next)
        if (strlen(t->name) == len && memcmp(t->name, name, len) == 0) {
            t->clients++;
            return t;
        }
    if (!array_reserve(&f->tenants, &f->tenants_size, f->ntenants + 1ull, sizeof *f->tenants))
        return NULL;
    struct tenant *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    memcpy(t->name, name, len);
    t->clients = 1;
    t->number = f->tenant_number++;
    t->place = f->ntenants;
    f->tenants[f->ntenants++] = t;
    t->next = *bucket;
    *bucket = t;
    return t;
}

void tenant_unref(struct farm *f, struct tenant *t)
{
    if (--t->clients)
        return;
    struct tenant **p = &f->buckets[tenant_bucket(t->name, strlen(t->name))];
    while (*p != t)
        p = &(*p)->next;
    *p = t->next;
    f->tenants[t->place] = f->tenants[--f->ntenants];
    f->tenants[t->place]->place = t->place;
    free(t);
}

static uint64_t window_cost(uint32_t requests, uint64_t bytes)
{
    uint64_t cost;
    return checked_add(bytes, (uint64_t)requests * RECORD_COST, &cost) ? cost : UINT64_MAX;
}

static uint64_t free_beside(const struct farm *f, uint64_t own_cost)
{
    uint64_t others = f->stats.granted_bytes - own_cost;
    return others < f->config.memory_bytes_max ? f->config.memory_bytes_max - others : 0;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t farm_request_bytes_max(const struct farm *f)
{
    return f->config.memory_bytes_max / 2; // the rest: the records, and somebody else
}

static struct farm_want possible(const struct farm *f, const struct farm_want *want)
{
    struct farm_want w = *want;
    if (w.need_bytes > farm_request_bytes_max(f))
        w.need_bytes = 0;
    return w;
}

// The window this wish gets while `free` is free: min(want, max(floor, free / 8)), at least need.
static void window_for(const struct farm *f, const struct farm_want *want, uint64_t free_bytes,
                       uint32_t *requests, uint64_t *bytes)
{
    const struct farm_config *c = &f->config;
    uint64_t part = free_bytes / GRANT_PART;
    uint64_t wish = want->bytes ? want->bytes : c->grant_floor_bytes;
    *bytes = max_u64(min_u64(wish, max_u64(c->grant_floor_bytes, part)), want->need_bytes);
    uint64_t n = want->requests ? want->requests : c->grant_floor_requests;
    n = min_u64(n, max_u64(c->grant_floor_requests, part / RECORD_COST));
    *requests = (uint32_t)max_u64(1, min_u64(n, c->grant_requests_max));
}

static void window_set(struct farm *f, struct client *c, uint32_t requests, uint64_t bytes)
{
    f->stats.granted_bytes -= window_cost(c->grant_requests, c->grant_bytes);
    c->grant_requests = requests;
    c->grant_bytes = bytes;
    f->stats.granted_bytes += window_cost(requests, bytes);
}

enum sonic_status farm_client_open(struct farm *f, uint64_t now_us, const char *tenant,
                                   size_t tenant_len, const struct farm_want *wished, void *user,
                                   farm_client_id *id, struct farm_grant *grant)
{
    (void)now_us;
    const struct farm_want w = possible(f, wished), *want = &w;
    uint64_t free_bytes = free_beside(f, 0);
    uint32_t requests;
    uint64_t bytes;
    *grant = (struct farm_grant){.retry_after_us = RETRY_GRANT_US};
    window_for(f, want, free_bytes, &requests, &bytes);
    if (window_cost(requests, bytes) > free_bytes) {
        requests = (uint32_t)max_u64(1, min_u64(requests, f->config.grant_floor_requests));
        bytes = max_u64(min_u64(bytes, f->config.grant_floor_bytes), want->need_bytes);
    }
    if (window_cost(requests, bytes) > free_bytes || f->stats.clients >= f->config.clients_max)
        return SONIC_STATUS_BUSY;
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        return SONIC_STATUS_BUSY;
    c->tenant = tenant_ref(f, tenant, tenant_len);
    c->id = c->tenant ? table_add(&f->clients, c) : FARM_NONE;
    if (c->id == FARM_NONE) {
        if (c->tenant)
            tenant_unref(f, c->tenant);
        free(c);
        return SONIC_STATUS_BUSY;
    }
    c->user = user;
    list_init(&c->peer);
    list_init(&c->answers);
    list_init(&c->sent);
    window_set(f, c, requests, bytes);
    f->stats.clients++;
    *id = c->id;
    *grant = (struct farm_grant){requests, bytes, 0};
    return SONIC_STATUS_OK;
}

void farm_client_want(struct farm *f, uint64_t now_us, farm_client_id id,
                      const struct farm_want *wished, struct farm_grant *grant)
{
    (void)now_us;
    const struct farm_want w = possible(f, wished), *want = &w;
    struct client *c = table_get(&f->clients, id);
    *grant = (struct farm_grant){.retry_after_us = RETRY_GRANT_US};
    if (!c)
        return;
    uint32_t requests = c->grant_requests, wish_requests;
    uint64_t bytes = c->grant_bytes, wish_bytes;
    uint64_t free_bytes = free_beside(f, window_cost(requests, bytes));
    window_for(f, want, free_bytes, &wish_requests, &wish_bytes);
    // A window shrinks by its owner's wish alone, and never below what is in use.
    if (want->requests && want->requests < requests)
        requests = (uint32_t)max_u64(want->requests, c->requests);
    if (want->bytes && max_u64(want->bytes, want->need_bytes) < bytes)
        bytes = max_u64(max_u64(want->bytes, want->need_bytes), c->bytes);
    // Growth: all of it, or the bytes that a single request needs, or none.
    uint32_t more_requests = wish_requests > requests ? wish_requests : requests;
    uint64_t more_bytes = max_u64(bytes, wish_bytes);
    if (want->requests && want->requests < c->grant_requests)
        more_requests = requests;
    if (window_cost(more_requests, more_bytes) <= free_bytes) {
        requests = more_requests;
        bytes = more_bytes;
    } else if (window_cost(requests, max_u64(bytes, want->need_bytes)) <= free_bytes) {
        bytes = max_u64(bytes, want->need_bytes);
    }
    window_set(f, c, requests, bytes);
    *grant = (struct farm_grant){requests, bytes, bytes < want->need_bytes ? RETRY_GRANT_US : 0};
}

bool farm_client_received(struct farm *f, farm_client_id id, uint64_t received)
{
    struct client *c = table_get(&f->clients, id);
    if (!c)
        return true; // closed already: its last words come late, and break nothing
    if (received > c->nsent)
        return false;
    for (; c->nreceived < received; c->nreceived++) {
        struct request *r = container_of(list_take(&c->sent), struct request, at.link);
        c->requests--;
        c->bytes -= r->bytes;
        c->result_bytes -= r->result_bytes;
        f->stats.used_bytes -= r->bytes;
        f->stats.unacknowledged--;
        record_free(f, r);
    }
    return true;
}

void client_ready(struct farm *f, struct client *c)
{
    if (c->listed != PEER_IDLE)
        return;
    c->listed = PEER_READY;
    list_insert(&f->ready_clients, &c->peer);
}

void client_free(struct farm *f, struct client *c)
{
    list_remove(&c->peer);
    window_set(f, c, 0, 0);
    f->stats.clients--;
    tenant_unref(f, c->tenant);
    free(c->seqs);
    free(c);
}

void farm_client_close(struct farm *f, uint64_t now_us, farm_client_id id)
{
    (void)now_us;
    struct client *c = table_get(&f->clients, id);
    if (!c)
        return;
    table_remove(&f->clients, id);
    for (uint32_t i = 0; i < c->seqs_size; i++)
        while (c->seqs[i])
            request_drop(f, c->seqs[i]);
    struct link *l;
    while ((l = list_take(&c->answers))) {
        f->stats.waiting_answers--;
        request_drop(f, container_of(l, struct request, at.link));
    }
    while ((l = list_take(&c->sent))) {
        f->stats.unacknowledged--;
        request_drop(f, container_of(l, struct request, at.link));
    }
    client_free(f, c);
}

// ---- the door ----------------------------------------------------------------------------------

static uint32_t seq_bucket(const struct client *c, uint64_t seq)
{
    return (uint32_t)((seq * 0x9e3779b97f4a7c15ull) >> 32) & (c->seqs_size - 1);
}

static void seqs_insert(struct client *c, struct request *r)
{
    struct request **bucket = &c->seqs[seq_bucket(c, r->seq)];
    r->seq_next = *bucket;
    r->seq_prev = bucket;
    if (r->seq_next)
        r->seq_next->seq_prev = &r->seq_next;
    *bucket = r;
    r->in_seqs = true;
}

// Room for one more open request; when it cannot grow any more its chains get longer.
static bool seqs_reserve(struct client *c)
{
    if (c->nseqs < c->seqs_size)
        return true;
    uint32_t old_size = c->seqs_size, size = old_size ? old_size * 2 : 16;
    struct request **old = c->seqs, **seqs = size ? calloc(size, sizeof *seqs) : NULL;
    if (!seqs)
        return old_size > 0;
    c->seqs = seqs;
    c->seqs_size = size;
    for (uint32_t i = 0; i < old_size; i++)
        while (old[i]) {
            struct request *r = old[i];
            old[i] = r->seq_next;
            seqs_insert(c, r);
        }
    free(old);
    return true;
}

static enum sonic_status submit_check(const struct farm *f, const struct client *c,
                                      const struct model *m, const struct farm_submit *s)
{
    uint64_t bytes;
    (void)f;
    if (!c)
        return SONIC_STATUS_REGISTER_AGAIN;
    if (!m)
        return SONIC_STATUS_MODEL_UNKNOWN;
    if (s->rows == 0 || s->rows > m->config.batch_max)
        return SONIC_STATUS_BAD_REQUEST;
    if (c->requests >= c->grant_requests || !checked_add(c->bytes, s->bytes, &bytes) ||
        bytes > c->grant_bytes || c->result_bytes > c->grant_bytes)
        return SONIC_STATUS_BUSY;
    if (m->config.queue_max && m->ready + m->nsuspects >= m->config.queue_max)
        return SONIC_STATUS_QUEUE_FULL;
    return SONIC_STATUS_OK;
}

static uint64_t deadline_at(const struct model *m, uint64_t now_us, uint64_t relative_us)
{
    uint64_t at, us = relative_us ? relative_us : m->config.default_deadline_us;
    if (us == 0)
        return 0;
    return checked_add(now_us, us, &at) ? at : UINT64_MAX;
}

static void submit_fill(struct farm *f, struct client *c, struct request *r, uint64_t now_us,
                        const struct farm_submit *s)
{
    r->status = SONIC_STATUS_OK;
    r->rows = s->rows;
    r->client = c;
    r->service = NULL;
    r->payload = s->payload;
    r->seq = s->seq;
    r->bytes = s->bytes;
    r->order = f->order++;
    r->submitted_us = now_us;
    r->result_bytes = 0;
    r->text = NULL;
    r->queue_us = r->exec_us = r->exec_rows = r->deaths = 0;
}

enum sonic_status farm_submit(struct farm *f, uint64_t now_us, farm_client_id id,
                              const struct farm_submit *s, uint64_t *retry_after_us)
{
    struct client *c = table_get(&f->clients, id);
    struct model *m = model_get(f, s->model);
    *retry_after_us = 0;
    enum sonic_status status = submit_check(f, c, m, s);
    struct request *r = NULL;
    if (status == SONIC_STATUS_OK && !(seqs_reserve(c) && (r = record_new(f))))
        status = SONIC_STATUS_BUSY;
    if (status == SONIC_STATUS_OK) {
        uint32_t priority = s->priority ? s->priority : m->config.default_priority;
        if (priority > m->config.priority_levels)
            priority = m->config.priority_levels;
        r->flow = flow_ref(f, m, priority - 1, c->tenant);
        if (!r->flow) {
            record_free(f, r);
            status = SONIC_STATUS_BUSY;
        }
    }
    if (status != SONIC_STATUS_OK) {
        f->stats.refused++;
        if (status == SONIC_STATUS_BUSY)
            *retry_after_us = RETRY_WINDOW_US;
        return status;
    }
    submit_fill(f, c, r, now_us, s);
    r->deadline.key = deadline_at(m, now_us, s->deadline_us);
    c->requests++;
    c->bytes += r->bytes;
    f->stats.used_bytes += r->bytes;
    f->stats.accepted++;
    m->accepted++;
    c->tenant->accepted++;
    c->nseqs++;
    seqs_insert(c, r);
    queue_push(f, r);
    return SONIC_STATUS_OK;
}

// A chain longer than this is of a client that chooses its numbers to make it so: what lies deeper
// is not found, and is answered in its own time.
#define SEQ_CHAIN_MAX 64

void farm_cancel(struct farm *f, uint64_t now_us, farm_client_id id, uint64_t seq)
{
    struct client *c = table_get(&f->clients, id);
    if (!c || !c->seqs_size)
        return;
    struct request *r = c->seqs[seq_bucket(c, seq)];
    for (int i = 0; r && r->seq != seq && i < SEQ_CHAIN_MAX; i++)
        r = r->seq_next;
    if (!r || r->seq != seq)
        return;
    if (r->state == REQUEST_QUEUED) {
        queue_remove(f, r);
    } else {
        struct worker *w = r->service->worker;
        uint64_t lease = r->state == REQUEST_HELD ? request_lease(r) : 0;
        request_unlease(f, r);
        if (lease)
            worker_revoke(f, w, lease);
    }
    f->stats.cancelled++;
    request_answer(f, now_us, r, SONIC_STATUS_CANCELLED, "cancelled by the client");
}
