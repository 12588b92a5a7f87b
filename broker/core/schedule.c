// SPDX-License-Identifier: Apache-2.0
// Late binding. Each tick gives queued requests, in chunks of up to a batch, to the worker that
// will finish them first, as long as its stock is not full:
//
//   - suspects first, each alone on a worker that holds nothing else;
//   - where models share a worker, the more urgent level first, then by start-time fair queueing
//     over estimated work (service.finished, worker.clock), so that a slow model gets no more of a
//     worker than a fast one;
//   - a slow worker stays empty when the others will have drained the whole queue before it would
//     finish, and one of them would finish this chunk sooner (the tail of a job);
//   - what is left over then goes to whoever has room (no worker idles beside a queue).
#include "broker/core/farm_internal.h"

struct pass {
    struct farm *f;
    struct model *m;
    uint64_t now_us;
    bool fair;
    uint32_t n; // candidates, a binary heap by finish_ns
    uint32_t idle_slots;
    uint64_t elsewhere_ns; // soonest finish on a worker that is no candidate
    bool elsewhere_known;
};

static uint64_t finish_ns(const struct service *s, uint64_t now_us, uint64_t rows)
{
    uint64_t ns = worker_backlog_ns(s->worker, now_us);
    if (!s->estimate.known && s->requests == 0)
        return ns; // unknown and untried: explore it first
    return ns + service_cost_ns(s, rows);
}

static uint64_t fair_start(const struct service *s)
{
    return s->finished > s->worker->clock ? s->finished : s->worker->clock;
}

static uint32_t top_level(const struct model *m)
{
    return (uint32_t)__builtin_ctz(m->levels_used);
}

// Is it this model's turn on the worker, among all that wait for it?
static bool has_turn(const struct pass *p, const struct service *s)
{
    const struct worker *w = s->worker;
    uint64_t quantum_ns = p->f->config.stock_us * 1000, start = fair_start(s);
    for (const struct link *l = w->services.next; l != &w->services; l = l->next) {
        const struct service *o = container_of(l, struct service, on_worker);
        const struct model *m = o->model;
        if (o == s || !o->on || !m->ready || m->held)
            continue;
        if (top_level(m) < top_level(p->m))
            return false;
        if (top_level(m) == top_level(p->m) && start > fair_start(o) + quantum_ns)
            return false;
    }
    return true;
}

static bool service_fits(const struct farm *f, const struct service *s, const struct request *r)
{
    const struct worker *w = s->worker;
    if (!worker_takes(w) || w->requests >= w->room_requests)
        return false;
    if (w->requests == 0)
        return true; // even a request over its room in bytes: nobody else would take it
    if (w->bytes + r->bytes > w->room_bytes)
        return false;
    uint64_t batches = f->config.stock_batches * SHARE_ONE, row = s->model->share_row;
    if (w->share + r->rows * row <= batches * w->slots &&
        (s->rows + r->rows) * row <= batches * s->instances)
        return true;
    uint64_t stock_ns = f->config.stock_us * 1000;
    return w->work_ns < stock_ns * w->slots && s->work_ns < stock_ns * s->instances;
}

// ---- candidates --------------------------------------------------------------------------------

static void sift_down(struct candidate *c, uint32_t n, uint32_t i)
{
    struct candidate moved = c[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && c[child + 1].finish_ns < c[child].finish_ns)
            child++;
        if (c[child].finish_ns >= moved.finish_ns)
            break;
        c[i] = c[child];
        i = child;
    }
    c[i] = moved;
}

static void drop_top(struct pass *p)
{
    struct candidate *c = p->f->candidates;
    if (c[0].finish_ns < p->elsewhere_ns)
        p->elsewhere_ns = c[0].finish_ns;
    c[0] = c[--p->n];
    if (p->n)
        sift_down(c, p->n, 0);
}

// The rows of one chunk: a batch, but no more than leaves something for every idle slot. A model
// that asks for full batches (queue delay) gets its largest preferred size that fits.
static uint64_t chunk_rows(const struct pass *p)
{
    const struct farm_model_config *c = &p->m->config;
    uint64_t rows = p->m->ready_rows;
    if (c->queue_delay_us) {
        for (uint32_t i = c->npreferred; i-- > 0;)
            if (c->preferred[i] <= rows)
                return c->preferred[i];
    } else if (p->idle_slots > 1) {
        rows = (rows + p->idle_slots - 1) / p->idle_slots;
    }
    return rows < c->batch_max ? rows : c->batch_max;
}

static void collect(struct pass *p)
{
    struct farm *f = p->f;
    struct model *m = p->m;
    uint64_t batch = m->ready_rows < m->config.batch_max ? m->ready_rows : m->config.batch_max;
    p->n = p->idle_slots = 0;
    p->elsewhere_ns = UINT64_MAX;
    p->elsewhere_known = false;
    for (uint32_t i = 0; i < m->nservices; i++) {
        if (!f->open[m->services[i].worker])
            continue;
        struct service *s = m->services[i].service;
        uint64_t finish = finish_ns(s, p->now_us, batch);
        if (p->fair && !has_turn(p, s)) {
            if (finish < p->elsewhere_ns)
                p->elsewhere_ns = finish;
            continue;
        }
        f->candidates[p->n++] = (struct candidate){finish, s};
        if (s->worker->requests < s->instances)
            p->idle_slots += s->instances - s->worker->requests;
    }
    uint64_t chunk = chunk_rows(p);
    if (chunk != batch)
        for (uint32_t i = 0; i < p->n; i++)
            f->candidates[i].finish_ns = finish_ns(f->candidates[i].service, p->now_us, chunk);
    for (uint32_t i = p->n / 2; i-- > 0;)
        sift_down(f->candidates, p->n, i);
}

// The soonest finish on a full worker, looked for once a pass and only when it matters.
static uint64_t elsewhere_ns(struct pass *p, uint64_t rows)
{
    const struct model *m = p->m;
    if (p->elsewhere_known)
        return p->elsewhere_ns;
    p->elsewhere_known = true;
    for (uint32_t i = 0; i < m->nservices; i++) {
        const struct service *s = m->services[i].service;
        if (p->f->open[m->services[i].worker] || !s->estimate.known || !worker_takes(s->worker))
            continue;
        uint64_t ns = finish_ns(s, p->now_us, rows);
        if (ns < p->elsewhere_ns)
            p->elsewhere_ns = ns;
    }
    return p->elsewhere_ns;
}

// Should the best candidate stay empty, because the queue will be done sooner without it? Patience
// ends when it could have finished by now: nothing waits for ever for a worker that never comes.
static bool better_left(struct pass *p, uint64_t rows)
{
    struct model *m = p->m;
    const struct candidate *top = &p->f->candidates[0];
    const struct service *s = top->service;
    double others = m->rate - s->rate;
    if (!s->estimate.known || others <= m->rate * 1e-6)
        return false;
    double drained_ns = 1000 * (double)(m->ready_rows + m->leased_rows - s->rows) / others;
    if (drained_ns >= (double)top->finish_ns || elsewhere_ns(p, rows) >= top->finish_ns)
        return false;
    if (m->left_since_us == 0)
        m->left_since_us = p->now_us + 1;
    uint64_t until_us = m->left_since_us + top->finish_ns / 1000;
    if (p->now_us >= until_us)
        return false;
    if (until_us < m->wake_us)
        m->wake_us = until_us;
    return true;
}

// ---- binding -----------------------------------------------------------------------------------

static uint64_t give(struct pass *p, struct service *s, uint64_t rows_max)
{
    struct model *m = p->m;
    struct request *r;
    uint64_t rows = 0;
    while ((r = queue_next(m))) {
        if ((rows && rows + r->rows > rows_max) || !service_fits(p->f, s, r))
            break;
        r->flow->deficit -= r->rows;
        queue_remove(p->f, r);
        worker_lease(p->f, p->now_us, s, r);
        rows += r->rows;
    }
    if (rows == 0)
        return 0;
    service_settle(s);
    worker_settle(p->f, s->worker);
    uint64_t start = fair_start(s);
    s->worker->clock = start;
    s->finished = start + service_cost_ns(s, rows);
    m->left_since_us = 0;
    return rows;
}

// A queue with a delay waits for a preferred size, or a full batch, until its oldest is due.
static bool hold(struct model *m, uint64_t now_us)
{
    const struct farm_model_config *c = &m->config;
    m->held = false;
    if (c->queue_delay_us == 0 || m->ready == 0 ||
        m->ready_rows >= (c->npreferred ? c->preferred[0] : c->batch_max))
        return false;
    uint64_t oldest_us = queue_oldest_us(m);
    if (now_us - oldest_us >= c->queue_delay_us)
        return false;
    m->held = true;
    if (oldest_us + c->queue_delay_us < m->wake_us)
        m->wake_us = oldest_us + c->queue_delay_us;
    return true;
}

// Binds what it can of one model; false when that is nothing.
static bool bind_model(struct pass *p)
{
    struct model *m = p->m;
    bool bound = false;
    if (m->ready == 0 || m->held)
        return false;
    collect(p);
    uint64_t rows = chunk_rows(p);
    while (p->n && m->ready && !hold(m, p->now_us)) {
        struct candidate *top = &p->f->candidates[0];
        struct service *s = top->service;
        if (better_left(p, rows))
            break;
        if (!give(p, s, rows)) {
            drop_top(p);
            continue;
        }
        bound = true;
        if (m->config.queue_delay_us)
            rows = chunk_rows(p);
        top->finish_ns = finish_ns(s, p->now_us, rows);
        if (!p->f->open[table_slot_of(s->worker->id)] || (m->ready && p->fair && !has_turn(p, s)))
            drop_top(p);
        else
            sift_down(p->f->candidates, p->n, 0);
    }
    return bound;
}

static void lease_alone(struct pass *p, struct service *s)
{
    struct request *r = container_of(p->m->suspects.root, struct request, at.returned);
    queue_remove(p->f, r);
    worker_lease(p->f, p->now_us, s, r);
    service_settle(s);
    worker_settle(p->f, s->worker);
}

// Each idle worker takes one. When none is idle and none is under way, one worker is to drain.
static void bind_suspects(struct pass *p)
{
    struct model *m = p->m;
    struct worker *least = NULL;
    uint64_t least_ns = UINT64_MAX;
    for (uint32_t i = 0; i < m->nservices && m->nsuspects; i++) {
        struct service *s = m->services[i].service;
        struct worker *w = s->worker;
        if (w->draining || w->isolated || (w->reserved && w->reserved != m) || !w->room_requests)
            continue;
        if (w->requests == 0) {
            lease_alone(p, s);
            continue;
        }
        uint64_t backlog_ns = worker_backlog_ns(w, p->now_us);
        if (!w->reserved && (!least || backlog_ns < least_ns)) {
            least = w;
            least_ns = backlog_ns;
        }
    }
    if (m->nsuspects && !m->nisolated && !m->reserved && least) {
        m->reserved = least;
        least->reserved = m;
        worker_settle(p->f, least);
    }
}

static bool bind_all(struct farm *f, uint64_t now_us, bool fair)
{
    bool bound = false;
    struct link *next;
    for (struct link *l = f->active.next; l != &f->active && f->nopen; l = next) {
        next = l->next; // binding may empty the queue, which takes its model off the list
        struct pass p = {
            .f = f, .m = container_of(l, struct model, active), .now_us = now_us, .fair = fair};
        bound |= bind_model(&p);
    }
    return bound;
}

uint64_t schedule(struct farm *f, uint64_t now_us)
{
    struct link *next;
    for (struct link *l = f->active.next; l != &f->active; l = next) {
        next = l->next;
        struct model *m = container_of(l, struct model, active);
        m->wake_us = UINT64_MAX;
        hold(m, now_us);
        if (m->nsuspects)
            bind_suspects(&(struct pass){.f = f, .m = m, .now_us = now_us});
    }
    // Every round that goes on has bound a request, so the rounds end.
    if (f->nactive > 1)
        while (bind_all(f, now_us, true))
            ;
    bind_all(f, now_us, false);

    uint64_t wake_us = UINT64_MAX;
    for (struct link *l = f->active.next; l != &f->active; l = l->next) {
        const struct model *m = container_of(l, struct model, active);
        if (m->wake_us < wake_us)
            wake_us = m->wake_us;
    }
    struct link *first = list_take(&f->active); // the next tick begins with another
    if (first)
        list_insert(&f->active, first);
    return wake_us;
}
