// SPDX-License-Identifier: Apache-2.0
// Queues: per model and priority level a ring of flows (one per tenant), served by deficit round
// robin with rows as the cost; first in, first out inside a flow. The flow at a ring's head has its
// turn: it was given one quantum (batch_max rows, so never less than a request) when it got there.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/farm_internal.h"

struct model *model_get(const struct farm *f, farm_model_id id)
{
    return id != FARM_NONE && id <= f->nmodels ? f->models[id - 1] : NULL;
}

// Preferred sizes ascending, none over batch_max: the scheduler takes the largest that fits.
static void preferred_clean(struct farm_model_config *c)
{
    uint32_t n = 0;
    if (c->npreferred > SONIC_PREFERRED_MAX)
        c->npreferred = SONIC_PREFERRED_MAX;
    for (uint32_t i = 0; i < c->npreferred; i++) {
        uint32_t rows = c->preferred[i], at = n;
        if (rows == 0 || rows > c->batch_max)
            continue;
        while (at > 0 && c->preferred[at - 1] > rows) {
            c->preferred[at] = c->preferred[at - 1];
            at--;
        }
        c->preferred[at] = rows;
        n++;
    }
    c->npreferred = n;
}

static void configure(struct model *m, const struct farm_model_config *c)
{
    m->config = *c;
    if (m->config.batch_max == 0)
        m->config.batch_max = 1;
    if (m->config.priority_levels == 0)
        m->config.priority_levels = 1;
    if (m->config.priority_levels > SONIC_PRIORITY_LEVELS_MAX)
        m->config.priority_levels = SONIC_PRIORITY_LEVELS_MAX;
    if (m->config.default_priority == 0)
        m->config.default_priority = 1;
    if (m->config.default_priority > m->config.priority_levels)
        m->config.default_priority = m->config.priority_levels;
    preferred_clean(&m->config);
    m->share_row = SHARE_ONE / m->config.batch_max;
}

farm_model_id farm_model_add(struct farm *f, const struct farm_model_config *c)
{
    for (uint32_t i = 0; i < f->nmodels; i++)
        if (f->models[i]->config.version == c->version &&
            strcmp(f->models[i]->config.name, c->name) == 0)
            return f->models[i]->id;
    if (f->nmodels == SONIC_MODELS_MAX)
        return FARM_NONE;
    struct model *m = calloc(1, sizeof *m);
    if (!m)
        return FARM_NONE;
    configure(m, c);
    for (uint32_t i = 0; i < SONIC_PRIORITY_LEVELS_MAX; i++)
        list_init(&m->levels[i]);
    list_init(&m->active);
    f->models[f->nmodels++] = m;
    m->id = f->nmodels;
    return m->id;
}

bool farm_model_replace(struct farm *f, farm_model_id id, const struct farm_model_config *c)
{
    struct model *m = model_get(f, id);
    if (!m || m->nservices > 0 || m->ready + m->nsuspects + m->leased > 0)
        return false;
    m->accepted = m->answered = 0;
    m->batch_rows = m->row_us = 0;
    configure(m, c);
    return true;
}

farm_model_id farm_model_find(const struct farm *f, const char *name, size_t len, uint32_t version)
{
    const struct model *best = NULL;
    for (uint32_t i = 0; i < f->nmodels; i++) {
        const struct model *m = f->models[i];
        if (strlen(m->config.name) != len || memcmp(m->config.name, name, len) != 0)
            continue;
        if (m->config.version == version)
            return m->id;
        if (version == 0 && (!best || best->config.version < m->config.version))
            best = m;
    }
    return best ? best->id : FARM_NONE;
}

static uint32_t flow_bucket(const struct farm *f, uint32_t model, uint32_t level, uint32_t tenant)
{
    uint64_t k = ((uint64_t)tenant * SONIC_MODELS_MAX + model) * SONIC_PRIORITY_LEVELS_MAX + level;
    return (uint32_t)((k * 0x9e3779b97f4a7c15ull) >> 32) & (f->flows_size - 1);
}

// Doubles the buckets; when there is no memory the chains just get longer.
static void flows_rehash(struct farm *f)
{
    uint32_t old_size = f->flows_size, size = old_size ? old_size * 2 : 64;
    struct flow **buckets = calloc(size, sizeof *buckets), **old = f->flows;
    if (!buckets)
        return;
    f->flows = buckets;
    f->flows_size = size;
    for (uint32_t i = 0; i < old_size; i++) {
        struct flow *next;
        for (struct flow *w = old[i]; w; w = next) {
            next = w->next;
            uint32_t b = flow_bucket(f, w->model->id, w->level, w->tenant->number);
            w->next = buckets[b];
            buckets[b] = w;
        }
    }
    free(old);
}

struct flow *flow_ref(struct farm *f, struct model *m, uint32_t level, struct tenant *t)
{
    if (f->nflows >= f->flows_size)
        flows_rehash(f);
    if (!f->flows_size)
        return NULL;
    uint32_t b = flow_bucket(f, m->id, level, t->number);
    struct flow *w = f->flows[b];
    while (w && (w->model != m || w->tenant != t || w->level != level))
        w = w->next;
    if (w) {
        w->requests++;
        return w;
    }
    w = f->spare_flows;
    if (w)
        f->spare_flows = w->next;
    else
        w = malloc(sizeof *w);
    if (!w)
        return NULL;
    *w = (struct flow){.model = m, .tenant = t, .level = level, .requests = 1};
    list_init(&w->ring);
    list_init(&w->fifo);
    w->next = f->flows[b];
    f->flows[b] = w;
    f->nflows++;
    return w;
}

void flow_unref(struct farm *f, struct flow *flow)
{
    if (--flow->requests)
        return;
    assert(flow->queued == 0);
    struct flow **p = &f->flows[flow_bucket(f, flow->model->id, flow->level, flow->tenant->number)];
    while (*p != flow)
        p = &(*p)->next;
    *p = flow->next;
    flow->next = f->spare_flows;
    f->spare_flows = flow;
    f->nflows--;
}

struct request *flow_head(const struct flow *flow)
{
    if (flow->returned.root)
        return container_of(flow->returned.root, struct request, at.returned);
    return container_of(flow->fifo.next, struct request, at.link);
}

static struct flow *level_head(const struct model *m, uint32_t level)
{
    return container_of(m->levels[level].next, struct flow, ring);
}

static void flow_fill(struct flow *w, uint32_t rows)
{
    struct model *m = w->model;
    m->ready++;
    m->ready_rows += rows;
    if (w->queued++)
        return;
    struct link *level = &m->levels[w->level];
    w->deficit = list_empty(level) ? m->config.batch_max : 0;
    list_insert(level, &w->ring);
    m->levels_used |= 1u << w->level;
}

static void flow_drain(struct flow *w, uint32_t rows)
{
    struct model *m = w->model;
    m->ready--;
    m->ready_rows -= rows;
    if (--w->queued)
        return;
    struct link *level = &m->levels[w->level];
    bool had_turn = level->next == &w->ring;
    list_remove(&w->ring);
    if (list_empty(level))
        m->levels_used &= ~(1u << w->level);
    else if (had_turn)
        level_head(m, w->level)->deficit += m->config.batch_max;
}

static void queue_enter(struct farm *f, struct request *r)
{
    struct model *m = r->flow->model;
    r->state = REQUEST_QUEUED;
    if (r->deadline.key)
        heap_insert(&f->deadlines, &r->deadline, r->deadline.key);
    r->flow->tenant->queued++;
    f->stats.queued++;
    if (m->ready + m->nsuspects == 0) {
        list_insert(&f->active, &m->active);
        f->nactive++;
    }
}

void queue_push(struct farm *f, struct request *r)
{
    queue_enter(f, r);
    r->was_returned = false;
    list_insert(&r->flow->fifo, &r->at.link);
    flow_fill(r->flow, r->rows);
}

// A suspect leaves its flow: it must run alone, and nobody waits behind it.
void queue_return(struct farm *f, struct request *r)
{
    struct model *m = r->flow->model;
    queue_enter(f, r);
    r->was_returned = true;
    if (r->deaths) {
        heap_insert(&m->suspects, &r->at.returned, (uint64_t)r->flow->level << 56 | r->order);
        m->nsuspects++;
        m->suspect_rows += r->rows;
    } else {
        heap_insert(&r->flow->returned, &r->at.returned, r->order);
        flow_fill(r->flow, r->rows);
    }
}

void queue_remove(struct farm *f, struct request *r)
{
    struct model *m = r->flow->model;
    if (r->deaths) {
        heap_remove(&m->suspects, &r->at.returned);
        m->suspect_rows -= r->rows;
        if (--m->nsuspects == 0)
            worker_unreserve(f, m);
    } else {
        if (r->was_returned)
            heap_remove(&r->flow->returned, &r->at.returned);
        else
            list_remove(&r->at.link);
        flow_drain(r->flow, r->rows);
    }
    if (r->deadline.key)
        heap_remove(&f->deadlines, &r->deadline);
    r->flow->tenant->queued--;
    f->stats.queued--;
    if (m->ready + m->nsuspects == 0) {
        list_remove(&m->active);
        f->nactive--;
        m->held = false;
        m->left_since_us = 0;
    }
}

struct request *queue_next(struct model *m)
{
    if (!m->levels_used)
        return NULL;
    uint32_t level = (uint32_t)__builtin_ctz(m->levels_used);
    struct flow *w = level_head(m, level);
    struct request *r = flow_head(w);
    if (r->rows <= w->deficit)
        return r;
    list_remove(&w->ring);
    list_insert(&m->levels[level], &w->ring);
    w = level_head(m, level);
    w->deficit += m->config.batch_max;
    return flow_head(w);
}

uint64_t queue_oldest_us(const struct model *m)
{
    uint64_t oldest = UINT64_MAX;
    for (uint32_t level = 0; level < m->config.priority_levels; level++)
        for (struct link *l = m->levels[level].next; l != &m->levels[level]; l = l->next) {
            const struct request *r = flow_head(container_of(l, struct flow, ring));
            if (r->submitted_us < oldest)
                oldest = r->submitted_us;
        }
    if (m->suspects.root) {
        const struct request *r = container_of(m->suspects.root, struct request, at.returned);
        if (r->submitted_us < oldest)
            oldest = r->submitted_us;
    }
    return oldest;
}
