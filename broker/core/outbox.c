// SPDX-License-Identifier: Apache-2.0
// What is to be sent, by peer. A peer is on at most one list: ready for the shell, or put off until
// the next tick because its socket was full.
#include <string.h>

#include "broker/core/farm_internal.h"

farm_worker_id farm_next_worker(struct farm *f, void **user)
{
    struct link *l;
    while ((l = list_take(&f->ready_workers))) {
        struct worker *w = container_of(l, struct worker, peer);
        w->listed = PEER_IDLE;
        if (list_empty(&w->outbox) && w->nrevokes == 0)
            continue;
        *user = w->user;
        return w->id;
    }
    return FARM_NONE;
}

farm_client_id farm_next_client(struct farm *f, void **user)
{
    struct link *l;
    while ((l = list_take(&f->ready_clients))) {
        struct client *c = container_of(l, struct client, peer);
        c->listed = PEER_IDLE;
        if (list_empty(&c->answers))
            continue;
        *user = c->user;
        return c->id;
    }
    return FARM_NONE;
}

void farm_worker_later(struct farm *f, farm_worker_id id)
{
    struct worker *w = worker_get(f, id);
    if (!w)
        return;
    list_remove(&w->peer);
    w->listed = PEER_LATER;
    list_insert(&f->later_workers, &w->peer);
}

void farm_client_later(struct farm *f, farm_client_id id)
{
    struct client *c = table_get(&f->clients, id);
    if (!c)
        return;
    list_remove(&c->peer);
    c->listed = PEER_LATER;
    list_insert(&f->later_clients, &c->peer);
}

void outbox_again(struct farm *f)
{
    struct link *l;
    while ((l = list_take(&f->later_workers))) {
        container_of(l, struct worker, peer)->listed = PEER_READY;
        list_insert(&f->ready_workers, l);
    }
    while ((l = list_take(&f->later_clients))) {
        container_of(l, struct client, peer)->listed = PEER_READY;
        list_insert(&f->ready_clients, l);
    }
}

static struct request *first(struct link *list)
{
    return list_empty(list) ? NULL : container_of(list->next, struct request, at.link);
}

bool farm_dispatch_peek(struct farm *f, farm_worker_id id, struct farm_dispatch *d)
{
    struct worker *w = worker_get(f, id);
    const struct request *r = w ? first(&w->outbox) : NULL;
    if (!r)
        return false;
    *d = (struct farm_dispatch){.lease = request_lease(r),
                                .model = r->service->model->id,
                                .deadline_us = r->deadline.key,
                                .rows = r->rows,
                                .payload = r->payload};
    return true;
}

void farm_dispatch_pop(struct farm *f, farm_worker_id id)
{
    struct worker *w = worker_get(f, id);
    struct request *r = w ? first(&w->outbox) : NULL;
    if (!r)
        return;
    r->state = REQUEST_HELD;
    list_remove(&r->at.link);
    list_insert(&w->held, &r->at.link);
}

bool farm_revoke_pop(struct farm *f, farm_worker_id id, uint64_t *lease)
{
    struct worker *w = worker_get(f, id);
    if (!w || w->nrevokes == 0)
        return false;
    *lease = w->revokes[--w->nrevokes];
    return true;
}

bool farm_answer_peek(struct farm *f, farm_client_id id, struct farm_answer *a)
{
    struct client *c = table_get(&f->clients, id);
    const struct request *r = c ? first(&c->answers) : NULL;
    if (!r)
        return false;
    *a = (struct farm_answer){.seq = r->seq,
                              .status = (enum sonic_status)r->status,
                              .text = r->text,
                              .queue_us = r->queue_us,
                              .exec_us = r->exec_us,
                              .exec_rows = r->exec_rows,
                              .payload = r->payload};
    return true;
}

void farm_answer_pop(struct farm *f, farm_client_id id)
{
    struct client *c = table_get(&f->clients, id);
    struct request *r = c ? first(&c->answers) : NULL;
    if (!r)
        return;
    r->state = REQUEST_SENT;
    r->payload = NULL; // the caller's now
    list_remove(&r->at.link);
    list_insert(&c->sent, &r->at.link);
    c->nsent++;
    f->stats.waiting_answers--;
    f->stats.unacknowledged++;
}
