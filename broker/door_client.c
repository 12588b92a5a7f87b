// SPDX-License-Identifier: Apache-2.0
// What comes in, part two: clients. Requests are checked against the model's declaration before the
// farm hears of them; what is refused is answered at once, in words.
#include "broker/broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/name.h"

// For so long after its start a broker takes an unknown model for one whose worker is not back yet.
#define GRACE_US 5000000u
#define GRACE_RETRY_MS 200u

static uint32_t to_ms(uint64_t us)
{
    return us ? (uint32_t)((us + 999) / 1000) : 0;
}

// ---- sessions -----------------------------------------------------------------------------------

static void welcome(struct broker *b, struct peer *p, uint32_t version,
                    const struct farm_grant *grant)
{
    struct wire_welcome fields = {.version = version,
                                  .epoch = b->epoch,
                                  .session = p->session,
                                  .grant_requests = grant->requests,
                                  .grant_bytes = grant->bytes,
                                  .request_bytes_max = farm_request_bytes_max(b->farm),
                                  .beat_ms = BROKER_BEAT_US / 1000,
                                  .slab_bytes_max = slabs_bytes_max(b->slabs)};
    wire_begin_welcome(b->header, &fields);
    outbox_send(b, p);
}

// A session that is opened again starts anew: what was held for it is dropped, the client sends
// everything unanswered again.
static void forget_earlier(struct broker *b, struct peer *p, uint64_t session)
{
    if (p)
        door_forget(b, p, false);
    struct peer *other = peers_session(b->peers, PEER_CLIENT, session);
    if (other)
        door_forget(b, other, false);
}

static void take_hello(struct broker *b, struct peer *p, const struct wire_hello *hello)
{
    char why[SONIC_TEXT_MAX];
    uint32_t version;
    struct farm_grant grant = {.retry_after_us = 1000000};
    forget_earlier(b, p, hello->session);
    if (!door_version(hello->version_min, hello->version_max, &version, why, sizeof(why))) {
        b->counts.version_refused++;
        door_refuse(b, PEER_CLIENT, NULL, SONIC_STATUS_VERSION, 0, why);
        return;
    }
    if (b->stopping) {
        door_refuse(b, PEER_CLIENT, NULL, SONIC_STATUS_BUSY, BROKER_STOP_RETRY_MS,
                    BROKER_STOP_TEXT);
        return;
    }
    if (!name_is_label(hello->tenant.data, hello->tenant.len) ||
        !name_is_label(hello->software.data, hello->software.len)) {
        door_refuse(b, PEER_CLIENT, NULL, SONIC_STATUS_PROTOCOL, 0,
                    "tenant and software must be 1 to 64 printable characters without spaces, "
                    "quotes or backslashes");
        return;
    }
    p = peers_add(b->peers, PEER_CLIENT, b->message, hello->session);
    struct farm_want want = {hello->want_requests, hello->want_bytes, hello->need_bytes};
    enum sonic_status status =
        !p ? SONIC_STATUS_BUSY
           : farm_client_open(b->farm, b->now_us, hello->tenant.data, hello->tenant.len, &want, p,
                              &p->id.client, &grant);
    if (status != SONIC_STATUS_OK) {
        if (p) {
            p->id.client = FARM_NONE;
            peers_remove(b->peers, p);
        }
        door_refuse(b, PEER_CLIENT, NULL, SONIC_STATUS_BUSY, to_ms(grant.retry_after_us),
                    "the farm's memory is granted out to running clients: try again later, or "
                    "start the broker with more --memory");
        return;
    }
    message_widen_link(b->message);
    p->heard_us = b->now_us;
    snprintf(p->name, sizeof(p->name), "%.*s", (int)hello->software.len, hello->software.data);
    welcome(b, p, version, &grant);
}

// A client that counted answers of an earlier link. Opening its session again sets both to zero.
static void refuse_accounts(struct broker *b, struct peer *p)
{
    door_refuse(b, PEER_CLIENT, p, SONIC_STATUS_REGISTER_AGAIN, 0,
                "you acknowledge more answers than were sent: open your session again");
}

static void take_want(struct broker *b, struct peer *p, const struct wire_want *m)
{
    struct farm_want want = {m->want_requests, m->want_bytes, m->need_bytes};
    struct farm_grant grant;
    if (!farm_client_received(b->farm, p->id.client, m->received)) {
        refuse_accounts(b, p);
        return;
    }
    farm_client_want(b->farm, b->now_us, p->id.client, &want, &grant);
    struct wire_credit fields = {.epoch = b->epoch,
                                 .grant_requests = grant.requests,
                                 .grant_bytes = grant.bytes,
                                 .retry_after_ms = to_ms(grant.retry_after_us)};
    wire_begin_credit(b->header, &fields);
    outbox_send(b, p);
}

// ---- requests -----------------------------------------------------------------------------------

// The refusals of one SUBMIT, sent together. They share b's scratch header, so nothing else may be
// built while one is open.
struct refusals {
    struct broker *b;
    struct peer *peer;
    uint32_t n;
    bool gone; // the peer was forgotten on the way
};

static void flush_refusals(struct refusals *r)
{
    if (r->n && !r->gone)
        r->gone = !outbox_send(r->b, r->peer);
    r->n = 0;
}

static void refuse_request(struct refusals *r, uint64_t seq, enum sonic_status status,
                           uint32_t retry_after_ms, const char *text)
{
    static struct wire_answer_item item;
    struct wire_answer fields = {.epoch = r->b->epoch};
    if (r->gone)
        return;
    item.seq = seq;
    item.status = (uint8_t)status;
    item.retry_after_ms = retry_after_ms;
    item.text = wire_str(text);
    if (r->n == 0)
        wire_begin_answer(r->b->header, &fields);
    if (!wire_add_answer(r->b->header, &item)) {
        flush_refusals(r);
        wire_begin_answer(r->b->header, &fields);
        wire_add_answer(r->b->header, &item);
    }
    r->n++;
}

static void refuse_unknown_model(struct refusals *r, const struct wire_submit *fields, uint64_t seq)
{
    struct broker *b = r->b;
    char text[SONIC_TEXT_MAX], names[SONIC_TEXT_MAX / 2];
    if (b->now_us - b->started_us < GRACE_US) {
        refuse_request(r, seq, SONIC_STATUS_BUSY, GRACE_RETRY_MS,
                       "the broker has just started and its workers are not all back");
        return;
    }
    catalog_names(b->catalog, names, sizeof(names));
    snprintf(text, sizeof(text), "no model \"%.*s\"%s in this farm; there %s: %s",
             (int)fields->model.len, fields->model.data, fields->version ? " of that version" : "",
             names[0] ? "are" : "is", names[0] ? names : "none");
    b->counts.unknown_models++;
    refuse_request(r, seq, SONIC_STATUS_MODEL_UNKNOWN, 0, text);
}

static void take_request(struct refusals *r, const struct model_config *model, farm_model_id id,
                         const struct wire_submit_item *item)
{
    struct broker *b = r->b;
    char text[SONIC_TEXT_MAX], why[SONIC_TEXT_MAX - 128];
    struct farm_submit submit = {.seq = item->seq,
                                 .model = id,
                                 .priority = item->priority,
                                 .deadline_us = item->deadline_us};
    struct body *body = NULL;
    if (model_check_tensors(model, model->inputs, model->ninputs, item->tensors.at, item->tensors.n,
                            &submit.rows, &submit.bytes, why, sizeof(why)))
        body = body_take(b->message, &item->tensors, (struct wire_str){"", 0}, r->peer->slab, why,
                         sizeof(why));
    if (!body) {
        b->counts.bad_requests++;
        snprintf(text, sizeof(text), "model %s: %s", model->name, why);
        refuse_request(r, item->seq, SONIC_STATUS_BAD_REQUEST, 0, text);
        return;
    }
    uint64_t retry_after_us = 0;
    submit.payload = body;
    enum sonic_status status =
        farm_submit(b->farm, b->now_us, r->peer->id.client, &submit, &retry_after_us);
    if (status != SONIC_STATUS_OK) {
        body_free(body);
        refuse_request(r, item->seq, status, to_ms(retry_after_us), sonic_status_text(status));
    }
}

static void take_submit(struct broker *b, struct peer *p, const struct wire_message *m)
{
    const struct wire_submit *fields = &m->fields.submit;
    struct refusals refusals = {.b = b, .peer = p};
    if (!farm_client_received(b->farm, p->id.client, fields->received)) {
        refuse_accounts(b, p);
        return;
    }
    farm_model_id id =
        farm_model_find(b->farm, fields->model.data, fields->model.len, fields->version);
    const struct model_config *model = id != FARM_NONE ? catalog_model(b->catalog, id) : NULL;
    for (uint32_t i = 0; i < m->nitems && !refusals.gone; i++) {
        const struct wire_submit_item *item = &m->items.submit[i];
        if (b->stopping)
            refuse_request(&refusals, item->seq, SONIC_STATUS_BUSY, BROKER_STOP_RETRY_MS,
                           BROKER_STOP_TEXT);
        else if (model)
            take_request(&refusals, model, id, item);
        else
            refuse_unknown_model(&refusals, fields, item->seq);
    }
    flush_refusals(&refusals);
}

// ---- questions ----------------------------------------------------------------------------------

// Who asks needs no session and is charged for nothing, and may never read: together they get this
// much, and after a pause at most the second. A status has 4 KB, a model in the list some 100 B.
#define REPLY_BYTES_PER_S (4 << 20)
#define REPLY_BYTES_MAX (16 << 20)
#define REPLY_MODEL_BYTES 128

static bool may_reply(struct broker *b)
{
    while (b->now_us >= b->reply_refill_us) {
        bool first = b->reply_refill_us == 0;
        b->reply_bytes_left += first ? REPLY_BYTES_MAX : REPLY_BYTES_PER_S;
        b->reply_refill_us = first ? b->now_us + 1000000 : b->reply_refill_us + 1000000;
        if (b->reply_bytes_left >= REPLY_BYTES_MAX) {
            b->reply_bytes_left = REPLY_BYTES_MAX;
            b->reply_refill_us = b->now_us + 1000000;
        }
    }
    b->counts.questions_dropped += b->reply_bytes_left <= 0;
    return b->reply_bytes_left > 0;
}

static void reply_text(struct broker *b, uint64_t id, enum sonic_status status, const char *text)
{
    struct wire_reply fields = {.id = id, .status = (uint8_t)status};
    size_t len = strlen(text);
    b->reply_bytes_left -= (int64_t)len;
    struct tensor whole = {.dtype = SONIC_UINT8, .ndim = 1, .dims = {len}, .bytes = len};
    wire_begin_reply(b->header, &fields);
    payload_pack(b->payload, &whole, text);
    outbox_reply(b, PEER_CLIENT);
}

static void reply_models(struct broker *b, uint64_t id)
{
    static struct wire_catalog_item item;
    struct wire_catalog fields = {.id = id};
    const struct model_config *model;
    wire_begin_catalog(b->header, &fields);
    for (size_t i = 0; (model = catalog_at(b->catalog, i)) != NULL; i++) {
        model_config_to_catalog(model, &item);
        b->reply_bytes_left -= REPLY_MODEL_BYTES;
        if (!wire_add_catalog(b->header, &item)) {
            outbox_reply(b, PEER_CLIENT);
            wire_begin_catalog(b->header, &fields);
            wire_add_catalog(b->header, &item);
        }
    }
    if (wire_header_items(b->header) > 0) {
        outbox_reply(b, PEER_CLIENT);
        wire_begin_catalog(b->header, &fields);
    }
    outbox_reply(b, PEER_CLIENT); // one without items ends the list
}

static void reply_placement(struct broker *b, uint64_t id)
{
    char why[SONIC_TEXT_MAX], text[SONIC_TEXT_MAX + 64];
    if (!b->registry) {
        reply_text(b, id, SONIC_STATUS_OK,
                   "placement unknown: this broker runs without a registry (--redis)\n");
        return;
    }
    char *placement = registry_placement(b->registry);
    if (registry_healthy(b->registry, why, sizeof(why)) && placement) {
        reply_text(b, id, SONIC_STATUS_OK, placement);
    } else {
        snprintf(text, sizeof(text), "placement unknown: %s\n", why);
        reply_text(b, id, SONIC_STATUS_OK, text);
    }
    free(placement);
}

static void take_query(struct broker *b, const struct wire_query *query)
{
    char *text;
    if (!may_reply(b))
        return;
    switch (query->what) {
    case WIRE_QUERY_STATUS:
        text = status_text(b);
        reply_text(b, query->id, SONIC_STATUS_OK, text ? text : "out of memory\n");
        free(text);
        break;
    case WIRE_QUERY_MODELS:
        reply_models(b, query->id);
        break;
    case WIRE_QUERY_PLACEMENT:
        reply_placement(b, query->id);
        break;
    default:
        reply_text(b, query->id, SONIC_STATUS_BAD_REQUEST,
                   "this broker answers questions about status, models and placement\n");
    }
}

void door_take_client(struct broker *b, struct peer *p, struct wire_message *m)
{
    switch (m->type) {
    case WIRE_HELLO:
        take_hello(b, p, &m->fields.hello);
        break;
    case WIRE_SUBMIT:
        take_submit(b, p, m);
        break;
    case WIRE_CANCEL:
        for (uint32_t i = 0; i < m->nitems; i++)
            farm_cancel(b->farm, b->now_us, p->id.client, m->items.cancel[i].seq);
        break;
    case WIRE_WANT:
        take_want(b, p, &m->fields.want);
        break;
    case WIRE_QUERY:
        take_query(b, &m->fields.query);
        break;
    case WIRE_BYE:
        door_forget(b, p, false);
        break;
    default: // OFFER, which belongs to the side socket
        break;
    }
}
