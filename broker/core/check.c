// SPDX-License-Identifier: Apache-2.0
// The core's books, audited: every sum that is kept running is counted again from the records and
// lists. Counts per client, worker, service and model are compared with scratch sums that live here
// and nowhere else; so this costs a few walks over everything, and is for tests.
#include <stdlib.h>

#include "broker/core/farm_internal.h"

#define CHECK(condition, text)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return (text);                                                                         \
    } while (0)

static bool list_whole(const struct link *list)
{
    const struct link *l = list;
    do {
        if (l->next->prev != l)
            return false;
        l = l->next;
    } while (l != list);
    return true;
}

static struct request *of_link(const struct link *l)
{
    return container_of(l, struct request, at.link);
}

// Nodes of a heap, walked without a stack: down to a child, else right, else up and right.
static const struct heap_node *heap_step(const struct heap_node *n)
{
    if (n->child)
        return n->child;
    while (n && !n->next) {
        while (n->prev && n->prev->child != n)
            n = n->prev;
        n = n->prev; // the parent
    }
    return n ? n->next : NULL;
}

static const char *check_heap(const struct heap *h, uint64_t *nodes)
{
    CHECK(!h->root || (!h->root->prev && !h->root->next), "a heap's root has siblings");
    for (const struct heap_node *n = h->root; n; n = heap_step(n)) {
        CHECK(!n->child || n->child->prev == n, "a heap's child does not know its parent");
        CHECK(!n->next || n->next->prev == n, "a heap's siblings are not linked both ways");
        for (const struct heap_node *c = n->child; c; c = c->next)
            CHECK(c->key >= n->key, "a heap is out of order");
        ++*nodes;
    }
    return NULL;
}

// ---- flows and models --------------------------------------------------------------------------

static const char *check_flow(const struct flow *w, uint64_t *rows)
{
    uint64_t queued = 0;
    const char *e = check_heap(&w->returned, &queued);
    CHECK(!e, e);
    CHECK(list_whole(&w->fifo), "a flow's queue is broken");
    for (const struct heap_node *n = w->returned.root; n; n = heap_step(n)) {
        const struct request *r = container_of(n, struct request, at.returned);
        CHECK(r->state == REQUEST_QUEUED && r->flow == w && r->was_returned && !r->deaths,
              "a returned request is not of its flow");
        CHECK(n->key == r->order, "a returned request is not at its old place");
        *rows += r->rows;
    }
    uint64_t order = 0;
    for (const struct link *l = w->fifo.next; l != &w->fifo; l = l->next) {
        const struct request *r = of_link(l);
        CHECK(r->state == REQUEST_QUEUED && r->flow == w && !r->was_returned,
              "a queued request is not of its flow");
        CHECK(r->order >= order, "a flow is not first in, first out");
        order = r->order;
        *rows += r->rows;
        queued++;
    }
    CHECK(queued == w->queued, "a flow's count of queued requests is wrong");
    CHECK(w->queued <= w->requests, "a flow has more queued requests than requests");
    return NULL;
}

static const char *check_levels(const struct model *m)
{
    uint64_t queued = 0, rows = 0;
    for (uint32_t level = 0; level < SONIC_PRIORITY_LEVELS_MAX; level++) {
        const struct link *list = &m->levels[level];
        CHECK(list_whole(list), "a level's ring is broken");
        CHECK(list_empty(list) == !(m->levels_used >> level & 1), "levels_used is wrong");
        for (const struct link *l = list->next; l != list; l = l->next) {
            const struct flow *w = container_of(l, struct flow, ring);
            CHECK(w->model == m && w->level == level, "a flow is in another's ring");
            CHECK(w->queued > 0, "an empty flow is in its ring");
            CHECK(w->deficit < 2ull * m->config.batch_max, "a flow's deficit grew too large");
            CHECK(l != list->next || flow_head(w)->rows <= m->config.batch_max,
                  "a request is larger than a batch");
            const char *e = check_flow(w, &rows);
            CHECK(!e, e);
            queued += w->queued;
        }
    }
    CHECK(queued == m->ready && rows == m->ready_rows, "a model's queue is counted wrong");
    return NULL;
}

static const char *check_model(const struct farm *f, const struct model *m)
{
    const char *e = check_levels(m);
    CHECK(!e, e);
    uint64_t suspects = 0, rows = 0;
    e = check_heap(&m->suspects, &suspects);
    CHECK(!e, e);
    for (const struct heap_node *n = m->suspects.root; n; n = heap_step(n)) {
        const struct request *r = container_of(n, struct request, at.returned);
        CHECK(r->state == REQUEST_QUEUED && r->deaths && r->flow->model == m,
              "a suspect is not of its model");
        rows += r->rows;
    }
    CHECK(suspects == m->nsuspects && rows == m->suspect_rows, "suspects are counted wrong");
    CHECK(list_empty(&m->active) == (m->ready + m->nsuspects == 0),
          "a model is active without a queue, or queues without being active");
    CHECK(!m->reserved || (m->nsuspects && m->reserved->reserved == m),
          "a worker drains for a model without suspects");
    for (uint32_t i = 0; i < m->nservices; i++) {
        const struct service *s = m->services[i].service;
        CHECK(s->on && s->model == m && s->place == i, "a model's list of services is wrong");
        CHECK(m->services[i].worker == table_slot_of(s->worker->id), "a service's worker is wrong");
    }
    CHECK(m->answered <= m->accepted, "a model answered more than it accepted");
    CHECK(m->nservices <= f->candidates_size, "no room for a model's candidates");
    return NULL;
}

// ---- peers -------------------------------------------------------------------------------------

struct sums {
    uint64_t requests, rows, bytes, share, work_ns, leased_rows;
};

static const char *check_worker(const struct farm *f, const struct worker *w)
{
    struct sums sum = {0};
    uint64_t suspects = 0, services = 0;
    CHECK(list_whole(&w->outbox) && list_whole(&w->held) && list_whole(&w->services),
          "a worker's list is broken");
    for (int held = 0; held < 2; held++) {
        const struct link *list = held ? &w->held : &w->outbox;
        for (const struct link *l = list->next; l != list; l = l->next) {
            const struct request *r = of_link(l);
            CHECK(r->state == (held ? REQUEST_HELD : REQUEST_LEASED) && r->service->worker == w,
                  "a worker holds another's request");
            sum.requests++;
            sum.rows += r->rows;
            sum.bytes += r->bytes;
            sum.share += r->rows * r->service->model->share_row;
            suspects += r->deaths > 0;
        }
    }
    for (const struct link *l = w->services.next; l != &w->services; l = l->next) {
        const struct service *s = container_of(l, struct service, on_worker);
        CHECK(s->worker == w, "a service is on another worker");
        CHECK(s->on || s->requests, "a service outlived its last lease");
        CHECK(s->work_ns == service_cost_ns(s, s->rows), "a service's work is out of date");
        CHECK(!w->draining || s->rate == 0, "a draining worker counts for its model's rate");
        services += s->requests;
        sum.work_ns += s->work_ns;
    }
    CHECK(services == sum.requests, "services and leases of a worker disagree");
    CHECK(sum.requests == w->requests && sum.rows == w->rows && sum.bytes == w->bytes &&
              sum.share == w->share && sum.work_ns == w->work_ns,
          "a worker's load is counted wrong");
    CHECK(w->requests <= w->room_requests, "a worker holds more requests than it offered room for");
    CHECK(w->bytes <= w->room_bytes || w->requests == 1,
          "a worker holds more bytes than it offered room for");
    CHECK(w->isolated == (suspects > 0) && (suspects == 0 || w->requests == 1),
          "a suspect is not alone on its worker");
    CHECK(!w->isolated || !f->open[table_slot_of(w->id)], "a worker with a suspect takes more");
    CHECK(!w->reserved || w->reserved->reserved == w, "a reservation is one-sided");
    return NULL;
}

static const char *check_workers(const struct farm *f)
{
    uint64_t open = 0, timers = 0;
    for (uint32_t i = 0; i < f->nworkers; i++) {
        const struct worker *w = f->workers[i];
        CHECK(w->place == i && table_get(&f->worker_table, w->id) == w,
              "the list of workers is wrong");
        open += f->open[table_slot_of(w->id)];
        CHECK(w->timer.key <= w->heard_us + f->config.worker_silent_us ||
                  f->config.worker_silent_us > UINT64_MAX - w->heard_us,
              "a worker's timer is late");
        const char *e = check_worker(f, w);
        CHECK(!e, e);
    }
    CHECK(open == f->nopen, "the count of open workers is wrong");
    const char *e = check_heap(&f->timers, &timers);
    CHECK(!e, e);
    CHECK(timers == f->nworkers && f->stats.workers == f->nworkers, "workers are counted wrong");
    return NULL;
}

static const char *check_client(const struct client *c)
{
    uint64_t requests = 0, bytes = 0, result_bytes = 0, open = 0;
    CHECK(list_whole(&c->answers) && list_whole(&c->sent), "a client's list is broken");
    for (int sent = 0; sent < 2; sent++) {
        const struct link *list = sent ? &c->sent : &c->answers;
        for (const struct link *l = list->next; l != list; l = l->next) {
            const struct request *r = of_link(l);
            CHECK(r->state == (sent ? REQUEST_SENT : REQUEST_ANSWERED) && r->client == c,
                  "a client has another's answer");
            CHECK(!r->in_seqs && !r->flow, "an answered request is still open");
            CHECK(!sent || !r->payload, "the farm kept a payload that it gave away");
            requests++;
            bytes += r->bytes;
            result_bytes += r->result_bytes;
        }
    }
    for (uint32_t i = 0; i < c->seqs_size; i++)
        for (const struct request *r = c->seqs[i]; r; r = r->seq_next) {
            CHECK(r->client == c && r->in_seqs && r->flow, "a client's open request is another's");
            CHECK(r->state == REQUEST_QUEUED || r->state == REQUEST_LEASED ||
                      r->state == REQUEST_HELD,
                  "a client's open request is answered");
            requests++;
            open++;
            bytes += r->bytes;
        }
    CHECK(open == c->nseqs, "a client's open requests are counted wrong");
    CHECK(requests == c->requests && bytes == c->bytes && result_bytes == c->result_bytes,
          "a client's credit in use is not what its records say");
    CHECK(c->requests <= c->grant_requests && c->bytes <= c->grant_bytes,
          "a client uses more credit than it was granted");
    CHECK(list_empty(&c->answers) || c->listed != PEER_IDLE || c->nsent > 0 || c->requests > 0,
          "answers wait and nobody is told");
    return NULL;
}

static const char *check_clients(const struct farm *f)
{
    uint64_t granted = 0, used = 0, clients = 0;
    for (uint32_t i = 0; i < f->clients.size; i++) {
        const struct client *c = f->clients.slots[i].object;
        if (!c)
            continue;
        const char *e = check_client(c);
        CHECK(!e, e);
        granted += c->grant_bytes + c->grant_requests * RECORD_COST;
        used += c->bytes;
        clients++;
    }
    CHECK(clients == f->stats.clients, "clients are counted wrong");
    CHECK(granted == f->stats.granted_bytes, "granted credit is counted wrong");
    CHECK(used == f->stats.used_bytes, "used credit is counted wrong");
    CHECK(granted <= f->config.memory_bytes_max, "more is granted than there is");
    return NULL;
}

// ---- all ---------------------------------------------------------------------------------------

static const char *check_records(const struct farm *f)
{
    uint64_t by_state[REQUEST_SENT + 1] = {0}, deadlines = 0, in_heap = 0;
    for (uint32_t i = 0; i < f->nchunks; i++)
        for (uint32_t k = 0; k < RECORDS_PER_CHUNK; k++) {
            const struct request *r = &f->chunks[i][k];
            CHECK(r->state <= REQUEST_SENT, "a record has no state");
            CHECK(r->state != REQUEST_FREE || !r->payload, "a free record has a payload");
            CHECK(r->state == REQUEST_FREE || r->client, "a record has no client");
            by_state[r->state]++;
            deadlines += r->state == REQUEST_QUEUED && r->deadline.key;
        }
    const struct farm_stats *s = &f->stats;
    CHECK(by_state[REQUEST_QUEUED] == s->queued, "queued requests are counted wrong");
    CHECK(by_state[REQUEST_LEASED] + by_state[REQUEST_HELD] == s->leased,
          "leased requests are counted wrong");
    CHECK(by_state[REQUEST_ANSWERED] == s->waiting_answers, "waiting answers are counted wrong");
    CHECK(by_state[REQUEST_SENT] == s->unacknowledged, "unacknowledged are counted wrong");
    CHECK(s->accepted == s->queued + s->leased + s->answered_ok + s->answered_failed + s->dropped,
          "accepted is not queued + leased + answered + dropped");
    uint64_t free_records = 0;
    CHECK(list_whole(&f->free_requests), "the free list is broken");
    for (const struct link *l = f->free_requests.next; l != &f->free_requests; l = l->next)
        free_records++;
    CHECK(free_records == by_state[REQUEST_FREE], "a record is lost");
    const char *e = check_heap(&f->deadlines, &in_heap);
    CHECK(!e, e);
    CHECK(in_heap == deadlines, "deadlines are counted wrong");
    return NULL;
}

const char *farm_check(const struct farm *f)
{
    const char *e = check_records(f);
    CHECK(!e, e);
    uint64_t queued = 0, leased = 0, leased_rows = 0, held = 0, held_rows = 0, active = 0;
    uint64_t by_tenants = 0;
    for (uint32_t i = 0; i < f->nmodels; i++) {
        const struct model *m = f->models[i];
        e = check_model(f, m);
        CHECK(!e, e);
        queued += m->ready + m->nsuspects;
        active += m->ready + m->nsuspects > 0;
        leased += m->leased;
        leased_rows += m->leased_rows;
    }
    e = check_workers(f);
    CHECK(!e, e);
    for (uint32_t i = 0; i < f->nworkers; i++) {
        held += f->workers[i]->requests;
        held_rows += f->workers[i]->rows;
    }
    for (uint32_t i = 0; i < f->ntenants; i++)
        by_tenants += f->tenants[i]->queued;
    CHECK(queued == f->stats.queued && by_tenants == queued,
          "models and tenants disagree on queued");
    CHECK(active == f->nactive, "active models are counted wrong");
    CHECK(leased == f->stats.leased && held == leased && leased_rows == held_rows,
          "models and workers disagree on what is leased");
    return check_clients(f);
}
