// SPDX-License-Identifier: Apache-2.0
// What comes in, part one: decoding, who it is from, and refusing what is not taken. Nothing past
// this door has a wrong type, role, count or epoch.
#include "broker/broker.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"

#define REFUSE_EVERY_US 1000000u
// To senders that are no peers of ours, all together. Garbage gets few replies, from a share of its
// own: thousands of honest clients that come back after a restart must all be told to register.
#define STRANGER_REFUSALS_PER_S 20000u
#define STRANGER_COMPLAINTS_PER_S 100u

static bool may_refuse(struct broker *b, struct peer *p, enum sonic_status status)
{
    bool complaint = status == SONIC_STATUS_PROTOCOL;
    if (p && complaint) {
        if (p->refused_us && b->now_us - p->refused_us < REFUSE_EVERY_US)
            return false;
        p->refused_us = b->now_us;
        return true;
    }
    if (b->now_us >= b->refusals_until_us) {
        b->refusals_until_us = b->now_us + REFUSE_EVERY_US;
        b->refusals_left = STRANGER_REFUSALS_PER_S;
        b->complaints_left = STRANGER_COMPLAINTS_PER_S;
    }
    uint64_t *left = complaint ? &b->complaints_left : &b->refusals_left;
    if (*left == 0)
        return false;
    --*left;
    return true;
}

void door_refuse(struct broker *b, enum peer_side side, struct peer *p, enum sonic_status status,
                 uint32_t retry_after_ms, const char *text)
{
    struct wire_refuse fields = {.epoch = b->epoch,
                                 .status = (uint8_t)status,
                                 .retry_after_ms = retry_after_ms,
                                 .text = wire_str(text)};
    if (!may_refuse(b, p, status))
        return;
    wire_begin_refuse(b->header, &fields);
    outbox_reply(b, side);
}

bool door_version(uint32_t min, uint32_t max, uint32_t *version, char *why, size_t size)
{
    *version = max < SONIC_PROTOCOL_VERSION ? max : SONIC_PROTOCOL_VERSION;
    if (min <= max && *version >= SONIC_PROTOCOL_VERSION_MIN && *version >= min)
        return true;
    snprintf(why, size,
             "you speak protocol versions %u to %u, this broker (sonic " SONIC_VERSION
             ") speaks %u to %u: use a matching release",
             min, max, SONIC_PROTOCOL_VERSION_MIN, SONIC_PROTOCOL_VERSION);
    return false;
}

static void unblock(struct broker *b, struct peer *p)
{
    for (struct peer **at = &b->blocked; *at; at = &(*at)->blocked_next)
        if (*at == p) {
            *at = p->blocked_next;
            return;
        }
}

void door_forget(struct broker *b, struct peer *p, bool died)
{
    if (p->side == PEER_CLIENT && p->id.client != FARM_NONE)
        farm_client_close(b->farm, b->now_us, p->id.client);
    if (p->side == PEER_WORKER && p->id.worker != FARM_NONE) {
        log_info("worker_left", "worker=%s died=%d", p->name, died);
        farm_worker_close(b->farm, b->now_us, p->id.worker, died);
    }
    slabs_forget(b, p); // after its requests
    b->counts.peers_lost += died;
    b->forgot = true;
    if (p->blocked)
        unblock(b, p);
    peers_remove(b->peers, p);
}

// The epoch that a message carries; messages that open something carry none.
static uint64_t epoch_of(const struct wire_message *m)
{
    switch (m->type) {
    case WIRE_SUBMIT:
        return m->fields.submit.epoch;
    case WIRE_CANCEL:
        return m->fields.cancel.epoch;
    case WIRE_WANT:
        return m->fields.want.epoch;
    case WIRE_BYE:
        return m->fields.bye.epoch;
    case WIRE_RESULT:
        return m->fields.result.epoch;
    case WIRE_HEARTBEAT:
        return m->fields.heartbeat.epoch;
    case WIRE_MAPPED:
        return m->fields.mapped.epoch;
    default:
        return 0;
    }
}

static bool opens(enum wire_type type)
{
    return type == WIRE_HELLO || type == WIRE_JOIN || type == WIRE_QUERY;
}

static void take_decoded(struct broker *b, enum peer_side side, struct peer *p,
                         struct wire_message *m)
{
    if (!opens(m->type) && !p) {
        b->counts.unknown_peers++;
        door_refuse(b, side, NULL, SONIC_STATUS_REGISTER_AGAIN, 0,
                    "this broker does not know you (it was restarted, or you were silent for too "
                    "long): open your session again");
        return;
    }
    if (!opens(m->type) && epoch_of(m) != b->epoch) {
        b->counts.wrong_epoch++;
        door_refuse(b, side, p, SONIC_STATUS_REGISTER_AGAIN, 0,
                    "that was for an earlier life of this broker: open your session again");
        return;
    }
    if (p)
        p->heard_us = b->now_us;
    if (side == PEER_CLIENT)
        door_take_client(b, p, m);
    else
        door_take_worker(b, p, m);
}

void door_take(struct broker *b, enum peer_side side)
{
    struct message *raw = b->message;
    struct wire_message *m;
    struct peer *p = peers_find(b->peers, side, raw);
    enum wire_role role = side == PEER_CLIENT ? WIRE_FROM_CLIENT : WIRE_FROM_WORKER;
    b->counts.messages_in++;
    enum wire_error e = wire_decode(b->decoder, zmq_msg_data(&raw->frames[0]),
                                    zmq_msg_size(&raw->frames[0]), role, &m);
    if (e != WIRE_OK) {
        char text[SONIC_TEXT_MAX];
        b->counts.wire_errors[e]++;
        log_debug("bad_message", "peer=%s error=%s", p ? p->name : "unknown", wire_error_name(e));
        snprintf(text, sizeof(text), "the header was not taken: %s (see docs/protocol.md)",
                 wire_error_name(e));
        door_refuse(b, side, p, SONIC_STATUS_PROTOCOL, 0, text);
        return;
    }
    b->turn_items += m->nitems;
    take_decoded(b, side, p, m);
}
