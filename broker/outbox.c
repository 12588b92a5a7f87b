// SPDX-License-Identifier: Apache-2.0
// What goes out: the farm's outboxes as few messages as they fit into, a peer at a time; messages
// that a full socket would not take, held back in order; beats.
#include "broker/broker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

// A peer that lets so many messages pile up does not read: it is forgotten, and comes back with all
// that is unanswered when it does.
#define HELD_BACK_MAX 16

// Silent peers are probed this often: workers each beat, clients (there are thousands) less often.
#define CLIENT_PROBE_US 2000000u

static int send_now(struct broker *b, struct peer *p, struct wire_header *h,
                    struct payload *payload)
{
    int rc = message_send(b->sockets[p->side], p->routing, p->routing_len, h, payload);
    if (rc == 0) {
        b->counts.messages_out++;
        p->sent_us = b->now_us;
    }
    return rc;
}

// Moves the built message out of b's scratch into the peer's list. False: no more can be held.
static bool hold_back(struct broker *b, struct peer *p)
{
    struct outgoing *o = p->nheld < HELD_BACK_MAX ? calloc(1, sizeof(*o)) : NULL;
    struct wire_header *header = o ? wire_header_new() : NULL;
    struct payload *payload = header ? payload_new() : NULL;
    if (!payload) {
        free(o);
        wire_header_free(header);
        return false;
    }
    o->header = b->header;
    o->payload = b->payload;
    b->header = header;
    b->payload = payload;
    *p->last = o;
    p->last = &o->next;
    p->nheld++;
    b->counts.held_back++;
    if (!p->blocked) {
        p->blocked = true;
        p->blocked_next = b->blocked;
        b->blocked = p;
    }
    return true;
}

bool outbox_send(struct broker *b, struct peer *p)
{
    int rc = p->first ? -EAGAIN : send_now(b, p, b->header, b->payload);
    if (rc == 0 || (rc == -EAGAIN && hold_back(b, p)))
        return true;
    payload_reset(b->payload);
    if (rc == -EAGAIN) {
        b->counts.peers_cut++;
        log_warn("peer_cut", "peer=%s why=\"it does not read what it is sent\"", p->name);
    }
    door_forget(b, p, true);
    return false;
}

void outbox_reply(struct broker *b, enum peer_side side)
{
    if (message_send(b->sockets[side], b->message->routing, b->message->routing_len, b->header,
                     b->payload) == 0)
        b->counts.messages_out++;
    else
        payload_reset(b->payload);
}

// Tries what was held back. 1: all sent; 0: still full; -1: the peer is gone and forgotten.
static int flush_peer(struct broker *b, struct peer *p)
{
    while (p->first) {
        struct outgoing *o = p->first;
        int rc = send_now(b, p, o->header, o->payload);
        if (rc == -EAGAIN)
            return 0;
        if (rc != 0) {
            door_forget(b, p, true);
            return -1;
        }
        p->first = o->next;
        if (!p->first)
            p->last = &p->first;
        p->nheld--;
        outgoing_free(o);
    }
    return 1;
}

static void flush_blocked(struct broker *b)
{
    struct peer *p = b->blocked;
    b->blocked = NULL;
    while (p) {
        struct peer *next = p->blocked_next;
        p->blocked = false;
        if (flush_peer(b, p) == 0) {
            p->blocked = true;
            p->blocked_next = b->blocked;
            b->blocked = p;
        }
        p = next;
    }
}

// ---- workers ------------------------------------------------------------------------------------

static void begin_dispatch(struct broker *b, farm_model_id id)
{
    const struct model_config *model = catalog_model(b->catalog, id);
    struct wire_dispatch fields = {
        .epoch = b->epoch, .model = wire_str(model->name), .version = model->version};
    wire_begin_dispatch(b->header, &fields);
}

// One DISPATCH of the model at the outbox's head. False: nothing more, or the peer is gone.
static bool dispatch_message(struct broker *b, struct peer *p)
{
    static struct wire_dispatch_item item; // a kilobyte and a half: not on the stack for each call
    farm_worker_id id = p->id.worker;
    struct farm_dispatch d;
    if (!farm_dispatch_peek(b->farm, id, &d))
        return false;
    farm_model_id model = d.model;
    begin_dispatch(b, model);
    do {
        struct body *body = d.payload;
        struct shared_slab *slab = body_slab(body);
        bool in_place = slab && slabs_ready(b, slab, p);
        if (!body_fits(body, b->payload, in_place))
            break;
        item.lease = d.lease;
        item.deadline_us = 0;
        if (d.deadline_us)
            item.deadline_us = d.deadline_us > b->now_us ? d.deadline_us - b->now_us : 1;
        body_put(body, b->payload, &item.tensors, in_place);
        if (!wire_add_dispatch(b->header, &item))
            break; // its tensors travel unused, once in a thousand items
        b->counts.in_place += in_place;
        farm_dispatch_pop(b->farm, id);
    } while (farm_dispatch_peek(b->farm, id, &d) && d.model == model);
    return outbox_send(b, p);
}

static bool send_revokes(struct broker *b, struct peer *p)
{
    struct wire_revoke fields = {.epoch = b->epoch};
    struct wire_revoke_item item = {0};
    while (farm_revoke_pop(b->farm, p->id.worker, &item.lease)) {
        wire_begin_revoke(b->header, &fields);
        do
            wire_add_revoke(b->header, &item);
        while (wire_header_items(b->header) < SONIC_ITEMS_MAX &&
               farm_revoke_pop(b->farm, p->id.worker, &item.lease));
        if (!outbox_send(b, p))
            return false;
    }
    return true;
}

static void drain_worker(struct broker *b, struct peer *p)
{
    if (p->first) {
        farm_worker_later(b->farm, p->id.worker);
        return;
    }
    if (!send_revokes(b, p))
        return;
    while (dispatch_message(b, p))
        if (p->first) { // its socket is full: the rest waits in the farm
            farm_worker_later(b->farm, p->id.worker);
            return;
        }
}

// ---- clients ------------------------------------------------------------------------------------

static void fill_answer(struct wire_answer_item *item, const struct farm_answer *a)
{
    struct body *body = a->payload;
    item->seq = a->seq;
    item->status = (uint8_t)a->status;
    item->acknowledge = 1;
    item->retry_after_ms = 0;
    item->queue_us = a->queue_us;
    item->exec_us = a->exec_us;
    item->exec_rows = a->exec_rows;
    item->text = wire_str(a->text ? a->text : body ? body_reason(body) : "");
    item->tensors.n = 0;
}

// One ANSWER. False: nothing more, or the peer is gone.
static bool answer_message(struct broker *b, struct peer *p)
{
    static struct wire_answer_item item;
    struct wire_answer fields = {.epoch = b->epoch};
    farm_client_id id = p->id.client;
    struct farm_answer a;
    if (!farm_answer_peek(b->farm, id, &a))
        return false;
    wire_begin_answer(b->header, &fields);
    do {
        struct body *body = a.payload;
        if (body && !body_fits(body, b->payload, false))
            break;
        fill_answer(&item, &a);
        if (body)
            body_put(body, b->payload, &item.tensors, false);
        if (!wire_add_answer(b->header, &item))
            break;
        farm_answer_pop(b->farm, id);
        body_free(body);
    } while (farm_answer_peek(b->farm, id, &a));
    return outbox_send(b, p);
}

static void drain_client(struct broker *b, struct peer *p)
{
    if (p->first) {
        farm_client_later(b->farm, p->id.client);
        return;
    }
    while (answer_message(b, p))
        if (p->first) {
            farm_client_later(b->farm, p->id.client);
            return;
        }
}

void outbox_drain(struct broker *b)
{
    void *user;
    // Before anything is sent: a peer whose link has gone is forgotten there, and would be freed
    // twice.
    while (farm_next_dead_worker(b->farm, &user)) {
        struct peer *p = user;
        log_warn("worker_lost", "worker=%s why=\"silent, or its leases made no progress\"",
                 p->name);
        p->id.worker = FARM_NONE; // the farm has closed it
        door_forget(b, p, true);
    }
    if (b->blocked)
        flush_blocked(b);
    while (farm_next_worker(b->farm, &user) != FARM_NONE)
        drain_worker(b, user);
    while (farm_next_client(b->farm, &user) != FARM_NONE)
        drain_client(b, user);
}

// ---- beats --------------------------------------------------------------------------------------

void outbox_beat(struct broker *b)
{
    struct wire_beat fields = {.epoch = b->epoch};
    for (struct peer *p = peers_first(b->peers); p; p = peers_next(b->peers)) {
        uint64_t quiet_us = p->side == PEER_WORKER ? BROKER_BEAT_US : CLIENT_PROBE_US;
        if (p->first || b->now_us - p->sent_us < quiet_us)
            continue;
        wire_begin_beat(b->header, &fields);
        int rc = send_now(b, p, b->header, b->payload);
        // A full socket is a living one, and the beat can be spared.
        if (rc != 0 && rc != -EAGAIN)
            door_forget(b, p, true);
    }
}
