// SPDX-License-Identifier: Apache-2.0
// Workers: what they hold, what comes back from them, and how they are found dead.
#include <stdlib.h>
#include <string.h>

#include "broker/core/farm_internal.h"
#include "common/checked.h"

#define SLOTS_MAX 4096u    // as on the wire; keeps the load sums far from overflow
#define REVOKES_MAX 65536u // waiting for one worker: a lost one only costs it work in vain
#define RESULT_BYTES_MAX (1ull << 40) // of one request; no sum of these can wrap

struct worker *worker_get(const struct farm *f, farm_worker_id id)
{
    return table_get(&f->worker_table, id);
}

static uint64_t later_us(uint64_t now_us, uint64_t delay_us)
{
    uint64_t at;
    return checked_add(now_us, delay_us, &at) ? at : UINT64_MAX;
}

static uint64_t worker_due_us(const struct farm *f, const struct worker *w)
{
    uint64_t silent = later_us(w->heard_us, f->config.worker_silent_us);
    uint64_t hung = w->requests ? later_us(w->moved_us, f->config.lease_us) : UINT64_MAX;
    return silent < hung ? silent : hung;
}

// The timer may go off early and look again, so that a sign of life costs nothing; never late.
static void worker_arm(struct farm *f, struct worker *w)
{
    uint64_t due_us = worker_due_us(f, w);
    if (due_us >= w->timer.key)
        return;
    heap_remove(&f->timers, &w->timer);
    heap_insert(&f->timers, &w->timer, due_us);
}

void worker_settle(struct farm *f, struct worker *w)
{
    bool open = worker_takes(w) && w->requests < w->room_requests &&
                (w->requests == 0 || w->share < f->config.stock_batches * w->slots * SHARE_ONE ||
                 w->work_ns < f->config.stock_us * w->slots * 1000);
    uint8_t *flag = &f->open[table_slot_of(w->id)];
    f->nopen += (uint32_t)open - *flag;
    *flag = open;
}

static bool worker_reserve_arrays(struct farm *f)
{
    uint32_t before = f->worker_table.size, size = before;
    if (!array_reserve(&f->workers, &f->workers_size, f->nworkers + 1ull, sizeof *f->workers) ||
        !array_reserve(&f->dead, &f->dead_size, f->nworkers + f->ndead + 1ull, sizeof *f->dead))
        return false;
    if (f->worker_table.free == 0)
        size = before ? before * 2 : 8; // as table_add will grow
    uint8_t *open = realloc(f->open, size);
    if (!open)
        return false;
    f->open = open;
    memset(open + before, 0, size - before);
    return true;
}

farm_worker_id farm_worker_open(struct farm *f, uint64_t now_us, const struct farm_worker_config *c)
{
    if (f->nworkers >= f->config.workers_max || !worker_reserve_arrays(f))
        return FARM_NONE;
    struct worker *w = calloc(1, sizeof *w);
    if (!w)
        return FARM_NONE;
    w->id = table_add(&f->worker_table, w);
    if (w->id == FARM_NONE) {
        free(w);
        return FARM_NONE;
    }
    strncpy(w->name, c->name, SONIC_NAME_MAX);
    w->user = c->user;
    w->slots = c->slots == 0 ? 1 : c->slots > SLOTS_MAX ? SLOTS_MAX : c->slots;
    w->room_requests = c->room_requests;
    w->room_bytes = c->room_bytes;
    list_init(&w->peer);
    list_init(&w->outbox);
    list_init(&w->held);
    list_init(&w->services);
    w->heard_us = w->moved_us = w->busy_since_us = now_us;
    w->place = f->nworkers;
    f->workers[f->nworkers++] = w;
    f->stats.workers++;
    heap_insert(&f->timers, &w->timer, worker_due_us(f, w));
    worker_settle(f, w);
    return w->id;
}

bool farm_worker_model(struct farm *f, uint64_t now_us, farm_worker_id id, farm_model_id model,
                       uint32_t instances)
{
    struct worker *w = worker_get(f, id);
    struct model *m = model_get(f, model);
    if (!w || !m)
        return false;
    w->heard_us = now_us;
    return service_on(f, w, m, instances) != NULL;
}

void farm_worker_beat(struct farm *f, uint64_t now_us, farm_worker_id id, uint64_t progress)
{
    struct worker *w = worker_get(f, id);
    if (!w)
        return;
    w->heard_us = now_us;
    if (progress > w->progress) {
        w->progress = progress;
        w->moved_us = now_us;
    }
}

static void worker_ready(struct farm *f, struct worker *w)
{
    if (w->listed != PEER_IDLE)
        return;
    w->listed = PEER_READY;
    list_insert(&f->ready_workers, &w->peer);
}

void worker_lease(struct farm *f, uint64_t now_us, struct service *s, struct request *r)
{
    struct worker *w = s->worker;
    struct model *m = s->model;
    r->state = REQUEST_LEASED;
    if (++r->generation == 0)
        r->generation = 1;
    r->service = s;
    uint64_t queue_us = now_us - r->submitted_us;
    r->queue_us = queue_us > UINT32_MAX ? UINT32_MAX : (uint32_t)queue_us;
    list_insert(&w->outbox, &r->at.link);
    w->rows += r->rows;
    w->bytes += r->bytes;
    w->share += r->rows * m->share_row;
    s->requests++;
    s->rows += r->rows;
    m->leased++;
    m->leased_rows += r->rows;
    f->stats.leased++;
    f->stats.dispatched++;
    f->stats.redispatched += r->was_returned;
    if (r->deaths) {
        w->isolated = true;
        m->nisolated++;
    }
    if (w->requests++ == 0) {
        w->moved_us = w->busy_since_us = now_us;
        worker_arm(f, w);
    }
    worker_ready(f, w);
}

void worker_revoke(struct farm *f, struct worker *w, uint64_t lease)
{
    if (w->nrevokes == REVOKES_MAX ||
        !array_reserve(&w->revokes, &w->revokes_size, w->nrevokes + 1ull, sizeof *w->revokes))
        return;
    w->revokes[w->nrevokes++] = lease;
    worker_ready(f, w);
}

void worker_unreserve(struct farm *f, struct model *m)
{
    struct worker *w = m->reserved;
    if (!w)
        return;
    m->reserved = NULL;
    w->reserved = NULL;
    worker_settle(f, w);
}

// Back into the queue what was bound to this worker (for this service; NULL: any) and not sent.
static void worker_take_back(struct farm *f, struct worker *w, const struct service *s)
{
    struct link *next;
    for (struct link *l = w->outbox.next; l != &w->outbox; l = next) {
        next = l->next;
        struct request *r = container_of(l, struct request, at.link);
        if (s && r->service != s)
            continue;
        request_unlease(f, r);
        queue_return(f, r);
    }
}

void farm_worker_drain(struct farm *f, uint64_t now_us, farm_worker_id id)
{
    struct worker *w = worker_get(f, id);
    if (!w)
        return;
    w->heard_us = now_us;
    w->draining = true;
    if (w->reserved)
        worker_unreserve(f, w->reserved);
    for (struct link *l = w->services.next; l != &w->services; l = l->next)
        service_rate(container_of(l, struct service, on_worker), false);
    worker_settle(f, w);
    worker_take_back(f, w, NULL);
}

void worker_free(struct farm *f, struct worker *w)
{
    f->workers[w->place] = f->workers[--f->nworkers];
    f->workers[w->place]->place = w->place;
    f->stats.workers--;
    heap_remove(&f->timers, &w->timer);
    list_remove(&w->peer);
    free(w->revokes);
    free(w);
}

// One death of a request that was out at a worker or its device: back into the queue, or poison.
static void request_died(struct farm *f, uint64_t now_us, struct request *r)
{
    r->deaths++;
    if (r->deaths >= f->config.poison_deaths) {
        f->stats.poisoned++;
        request_answer(f, now_us, r, SONIC_STATUS_POISON, f->poison_text);
    } else {
        queue_return(f, r);
    }
}

void farm_worker_close(struct farm *f, uint64_t now_us, farm_worker_id id, bool died)
{
    struct worker *w = worker_get(f, id);
    if (!w)
        return;
    farm_worker_drain(f, now_us, id);
    struct link *next;
    for (struct link *l = w->services.next; l != &w->services; l = next) {
        next = l->next;
        service_off(f, container_of(l, struct service, on_worker));
    }
    while (!list_empty(&w->held)) {
        struct request *r = container_of(w->held.next, struct request, at.link);
        request_unlease(f, r);
        if (died)
            request_died(f, now_us, r);
        else
            queue_return(f, r);
    }
    table_remove(&f->worker_table, id);
    worker_free(f, w);
}

void worker_expire(struct farm *f, uint64_t now_us)
{
    while (f->timers.root && f->timers.root->key <= now_us) {
        struct worker *w = container_of(f->timers.root, struct worker, timer);
        uint64_t due_us = worker_due_us(f, w);
        if (due_us > now_us) {
            heap_remove(&f->timers, &w->timer);
            heap_insert(&f->timers, &w->timer, due_us);
            continue;
        }
        f->dead[f->ndead++] = w->user;
        f->stats.workers_dead++;
        farm_worker_close(f, now_us, w->id, true);
    }
}

bool farm_next_dead_worker(struct farm *f, void **user)
{
    if (!f->ndead)
        return false;
    *user = f->dead[--f->ndead];
    return true;
}

// Outcomes that a worker may report about one request. Anything else of it is its failure.
static enum sonic_status outcome(enum sonic_status s)
{
    switch (s) {
    case SONIC_STATUS_OK:
    case SONIC_STATUS_BAD_REQUEST:
    case SONIC_STATUS_DEADLINE:
    case SONIC_STATUS_CANCELLED:
        return s;
    default:
        return SONIC_STATUS_EXEC_FAILED;
    }
}

static struct request *lease_get(const struct farm *f, const struct worker *w, uint64_t lease)
{
    struct request *r = record_at(f, (uint32_t)lease);
    if (!w || !r || r->state != REQUEST_HELD || r->generation != lease >> 32 ||
        r->service->worker != w)
        return NULL;
    return r;
}

static void result_device_fault(struct farm *f, uint64_t now_us, struct request *r,
                                const struct farm_result *result)
{
    if (result->payload)
        f->config.payload_free(result->payload, f->config.user);
    request_unlease(f, r);
    request_died(f, now_us, r);
}

// The worker could not begin, and is not the worse for it: back to the queue's head.
static void result_given_back(struct farm *f, struct request *r, const struct farm_result *result)
{
    if (result->payload)
        f->config.payload_free(result->payload, f->config.user);
    request_unlease(f, r);
    queue_return(f, r);
}

static void result_not_loaded(struct farm *f, struct request *r, const struct farm_result *result)
{
    struct service *s = r->service;
    if (result->payload)
        f->config.payload_free(result->payload, f->config.user);
    if (s->on) {
        service_off(f, s); // s stays: r is leased on it
        worker_take_back(f, s->worker, s);
    }
    request_unlease(f, r);
    queue_return(f, r);
}

bool farm_lease(const struct farm *f, farm_worker_id id, uint64_t lease, farm_model_id *model,
                uint32_t *rows)
{
    const struct request *r = lease_get(f, worker_get(f, id), lease);
    if (!r)
        return false;
    *model = r->flow->model->id;
    *rows = r->rows;
    return true;
}

bool farm_result(struct farm *f, uint64_t now_us, farm_worker_id id,
                 const struct farm_result *result)
{
    struct worker *w = worker_get(f, id);
    struct request *r = lease_get(f, w, result->lease);
    if (w)
        w->heard_us = now_us;
    if (!r) {
        f->stats.stale_results++;
        return false;
    }
    w->busy_since_us = now_us;
    if (result->status == SONIC_STATUS_NOT_LOADED) {
        result_not_loaded(f, r, result);
        return true;
    }
    if (result->status == SONIC_STATUS_BUSY) {
        result_given_back(f, r, result);
        return true;
    }
    if (result->status == SONIC_STATUS_DEVICE_FAULT) {
        result_device_fault(f, now_us, r, result);
        return true;
    }
    enum sonic_status status = outcome(result->status);
    if (status == SONIC_STATUS_OK)
        service_learn(r->service, r->rows, result->exec_us, result->exec_rows);
    w->answered++;
    request_unlease(f, r);
    payload_drop(f, r);
    r->payload = result->payload;
    r->result_bytes = result->bytes < RESULT_BYTES_MAX ? result->bytes : RESULT_BYTES_MAX;
    r->exec_us = result->exec_us;
    r->exec_rows = result->exec_rows;
    f->stats.deadline_missed += status == SONIC_STATUS_DEADLINE;
    request_answer(f, now_us, r, status, NULL);
    return true;
}
