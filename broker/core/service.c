// SPDX-License-Identifier: Apache-2.0
// Estimates: how long a model takes on a worker, as fixed + per row, learnt from the executions
// that results report. One execution comes back as many results; each weighs by its share of the
// rows.
#include <stdlib.h>

#include "broker/core/farm_internal.h"

#define MEMORY_EXECUTIONS 8.0 // the running means look back about this far
#define EXEC_US_MAX 3.6e9     // an hour; more is a lie, and would only upset the sums
#define WORK_NS_MAX 1e15

#define UNKNOWN_BATCH_US 1000.0 // taken for a full batch until one was seen

struct service *service_on(struct farm *f, struct worker *w, struct model *m, uint32_t instances)
{
    struct service *s = NULL;
    for (struct link *l = w->services.next; l != &w->services && !s; l = l->next) {
        s = container_of(l, struct service, on_worker);
        if (s->model != m)
            s = NULL;
    }
    if (!array_reserve(&m->services, &m->services_size, m->nservices + 1ull, sizeof *m->services) ||
        !array_reserve(&f->candidates, &f->candidates_size, m->nservices + 1ull,
                       sizeof *f->candidates) ||
        (!s && !(s = calloc(1, sizeof *s))))
        return NULL;
    if (!s->worker) {
        s->worker = w;
        s->model = m;
        s->estimate.row_us = UNKNOWN_BATCH_US / m->config.batch_max;
        list_insert(&w->services, &s->on_worker);
    }
    s->instances = instances == 0 ? 1 : instances > w->slots ? w->slots : instances;
    if (!s->on) {
        s->on = true;
        s->place = m->nservices;
        m->services[m->nservices++] = (struct service_ref){s, table_slot_of(w->id)};
    }
    service_rate(s, !w->draining);
    return s;
}

void service_free(struct service *s)
{
    list_remove(&s->on_worker);
    free(s);
}

void service_off(struct farm *f, struct service *s)
{
    struct model *m = s->model;
    if (!s->on)
        return;
    service_rate(s, false);
    s->on = false;
    m->services[s->place] = m->services[--m->nservices];
    m->services[s->place].service->place = s->place;
    if (m->reserved == s->worker)
        worker_unreserve(f, m);
    if (s->requests == 0)
        service_free(s);
}

// Least squares over the running moments. When every execution has about the same rows the slope
// cannot be seen: then the known split is scaled, or all is taken as per row.
static void estimate_fit(struct estimate *e)
{
    double variance = e->xx - e->x * e->x;
    double at_mean = e->fixed_us + e->row_us * e->x;
    if (variance > 0.01 * e->x * e->x) {
        double slope = (e->xy - e->x * e->y) / variance;
        double most = e->y / e->x;
        e->row_us = slope < 0 ? 0 : slope > most ? most : slope;
        e->fixed_us = e->y - e->row_us * e->x;
    } else if (e->known && at_mean > 0) {
        e->fixed_us *= e->y / at_mean;
        e->row_us *= e->y / at_mean;
    } else {
        e->fixed_us = 0;
        e->row_us = e->y / e->x;
    }
    e->known = true;
}

static void running_mean(double *mean, double value, double part)
{
    *mean += part * (value - *mean);
}

void service_rate(struct service *s, bool counts)
{
    double rate = 0, batch = s->model->config.batch_max;
    double us = s->estimate.fixed_us + s->estimate.row_us * batch;
    if (counts && s->estimate.known)
        rate = s->instances * batch / (us > 0.001 ? us : 0.001);
    s->model->rate += rate - s->rate;
    s->rate = rate;
}

// Folds what was reported of one execution into the running means.
static void estimate_fold(struct service *s)
{
    struct estimate *e = &s->estimate;
    struct model *m = s->model;
    double part = (double)e->seen_rows / e->exec_rows, x = e->exec_rows, y = e->exec_us;
    e->seen_rows = 0;
    if (y > EXEC_US_MAX)
        y = EXEC_US_MAX;
    e->weight += part;
    if (e->weight > MEMORY_EXECUTIONS)
        e->weight = MEMORY_EXECUTIONS;
    double step = part / e->weight;
    running_mean(&e->x, x, step);
    running_mean(&e->y, y, step);
    running_mean(&e->xx, x * x, step);
    running_mean(&e->xy, x * y, step);
    step = part / MEMORY_EXECUTIONS;
    running_mean(&m->batch_rows, x, m->batch_rows == 0 ? 1 : step);
    running_mean(&m->row_us, y / x, m->row_us == 0 ? 1 : step);
    estimate_fit(e);
    service_rate(s, s->on && !s->worker->draining);
}

void service_learn(struct service *s, uint32_t rows, uint32_t exec_us, uint32_t exec_rows)
{
    struct estimate *e = &s->estimate;
    if (exec_rows < rows || exec_rows > s->model->config.batch_max)
        return; // not a measurement of this request
    if (e->seen_rows && (e->exec_us != exec_us || e->exec_rows != exec_rows))
        estimate_fold(s);
    e->exec_us = exec_us;
    e->exec_rows = exec_rows;
    e->seen_rows += rows;
    if (e->seen_rows >= exec_rows || !e->known)
        estimate_fold(s);
}

uint64_t service_cost_ns(const struct service *s, uint64_t rows)
{
    const struct estimate *e = &s->estimate;
    uint32_t batch = s->model->config.batch_max;
    uint64_t executions = rows <= batch ? rows > 0 : (rows + batch - 1) / batch;
    double ns = 1000 * (e->fixed_us * (double)executions + e->row_us * (double)rows);
    return ns < WORK_NS_MAX ? (uint64_t)ns : (uint64_t)WORK_NS_MAX;
}

void service_settle(struct service *s)
{
    uint64_t work_ns = service_cost_ns(s, s->rows);
    s->worker->work_ns += work_ns - s->work_ns;
    s->work_ns = work_ns;
}

uint64_t worker_backlog_ns(const struct worker *w, uint64_t now_us)
{
    uint64_t backlog = w->work_ns / w->slots;
    uint64_t elapsed_us = now_us > w->busy_since_us ? now_us - w->busy_since_us : 0;
    if (elapsed_us >= backlog / 1000)
        return 0;
    return backlog - elapsed_us * 1000;
}
