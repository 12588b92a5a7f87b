// SPDX-License-Identifier: Apache-2.0
// The connection and the session: HELLO when a link comes up, everything sent again when a broker
// does not know us any more, the window asked for and given back.
#include "client/handle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/model_config.h"

// Messages taken in one go before others have their turn.
#define RECEIVE_BUDGET 64
// A broker that owes answers and was silent for so long (it beats every two seconds) is asked
// whether it still knows us.
#define SILENT_US 5000000u
#define HELLO_RETRY_US 2000000u
// An idle handle acknowledges what it received, and after a while gives its window back.
#define ACKNOWLEDGE_US 100000u
#define IDLE_US 5000000u
#define IDLE_REQUESTS 16u
#define IDLE_BYTES (64u * 1024u)
// A window that is too small for any request, or small on its owner's wish, is asked for at this
// pace; one that is only smaller than wished for at the slower one.
#define WANT_EVERY_US 50000u
#define WANT_MORE_EVERY_US 1000000u
// A HELLO that the socket would not take yet.
#define HELLO_AGAIN_US 10000u

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// Sends the header that was built, unless a SUBMIT waits in it.
static bool send_header(struct sonic *s)
{
    return message_send(s->socket, NULL, 0, s->header, NULL) == 0;
}

static void send_hello(struct sonic *s)
{
    struct window_counts counts;
    window_counts(s->window, &counts);
    struct wire_hello fields = {.version_min = SONIC_PROTOCOL_VERSION_MIN,
                                .version_max = SONIC_PROTOCOL_VERSION,
                                .session = s->session,
                                .tenant = wire_str(s->tenant),
                                .software = wire_str(s->software),
                                .want_requests = s->window_requests,
                                .want_bytes = s->window_bytes,
                                .need_bytes = counts.needed_bytes};
    if (counts.needed_bytes > fields.want_bytes)
        fields.want_bytes = counts.needed_bytes;
    if (s->unsent) // a SUBMIT of the old session: its requests are sent again anyway
        payload_reset(s->payload);
    s->unsent = false;
    wire_begin_hello(s->header, &fields);
    s->hello_us = s->now_us + (send_header(s) ? HELLO_RETRY_US : HELLO_AGAIN_US);
    s->link = LINK_HELLO;
}

// Asks for the window of an idle handle or the one that its owner wished for.
static bool send_want(struct sonic *s, bool idle)
{
    struct window_counts counts;
    if (s->unsent)
        return false;
    window_counts(s->window, &counts);
    struct wire_want fields = {.epoch = s->epoch,
                               .received = counts.received,
                               .want_requests = idle ? IDLE_REQUESTS : s->window_requests,
                               .want_bytes = idle ? IDLE_BYTES : s->window_bytes,
                               .need_bytes = counts.needed_bytes};
    if (counts.needed_bytes > fields.want_bytes)
        fields.want_bytes = counts.needed_bytes;
    wire_begin_want(s->header, &fields);
    if (!send_header(s))
        return false;
    s->acknowledged = counts.received;
    s->acknowledged_us = s->wanted_us = s->now_us;
    return true;
}

// ---- what comes in ------------------------------------------------------------------------------

static void take_welcome(struct sonic *s, const struct wire_welcome *m)
{
    if (m->session != s->session || s->link == LINK_REFUSED)
        return;
    s->epoch = m->epoch;
    s->link = LINK_OPEN;
    s->acknowledged = 0;
    s->wanted_us = s->now_us;
    s->want_not_us = 0;
    s->shrunk = false;
    share_open(s, m->slab_bytes_max);
    window_limit(s->window, m->request_bytes_max);
    s->request_bytes_max = m->request_bytes_max;
    window_reopen(s->window);
    window_grant(s->window, m->grant_requests, m->grant_bytes);
}

static void refused_for_good(struct sonic *s, const struct wire_refuse *m)
{
    s->link = LINK_REFUSED;
    handle_fail(s, EPROTO, "broker %s refused this client: %.*s", s->endpoint, (int)m->text.len,
                m->text.data);
}

static void take_refuse(struct sonic *s, const struct wire_refuse *m)
{
    switch (m->status) {
    case SONIC_STATUS_REGISTER_AGAIN:
        // While a HELLO is out this is about what was sent before it.
        if (s->link == LINK_OPEN)
            send_hello(s);
        break;
    case SONIC_STATUS_BUSY:
        s->link = LINK_HELLO;
        s->hello_us = s->now_us + (uint64_t)(m->retry_after_ms ? m->retry_after_ms : 100) * 1000;
        handle_fail(s, EAGAIN, "broker %s: %.*s", s->endpoint, (int)m->text.len, m->text.data);
        break;
    default:
        refused_for_good(s, m);
    }
}

static void take_credit(struct sonic *s, const struct wire_credit *m)
{
    struct window_counts counts;
    if (s->link != LINK_OPEN || m->epoch != s->epoch)
        return; // of an earlier life; WELCOME says what holds now
    window_grant(s->window, m->grant_requests, m->grant_bytes);
    s->want_not_us = s->now_us + (uint64_t)m->retry_after_ms * 1000;
    window_counts(s->window, &counts);
    if (m->retry_after_ms)
        handle_fail(s, EAGAIN,
                    "broker %s has no window of %llu bytes free, which the next request needs; it "
                    "is asked again",
                    s->endpoint, (unsigned long long)counts.needed_bytes);
}

static void take_reply(struct sonic *s, const struct wire_reply *m)
{
    struct question *q = s->question;
    if (!q || q->id != m->id || q->done || s->message->nframes < 2)
        return;
    size_t len = zmq_msg_size(&s->message->frames[1]);
    q->text = malloc(len + 1);
    if (q->text) {
        memcpy(q->text, zmq_msg_data(&s->message->frames[1]), len);
        q->text[len] = '\0';
    }
    q->status = (sonic_status_t)m->status;
    q->done = true;
}

static void fill_io(sonic_io_t *io, const struct tensor_spec *spec)
{
    memset(io, 0, sizeof(*io));
    memcpy(io->name, spec->name, sizeof(io->name));
    io->type = (sonic_type_t)spec->dtype;
    io->ndim = spec->ndim;
    memcpy(io->dims, spec->dims, spec->ndim * sizeof(io->dims[0]));
}

static void fill_model(sonic_model_t *m, const struct model_config *c)
{
    memset(m, 0, sizeof(*m));
    memcpy(m->name, c->name, sizeof(m->name));
    m->version = c->version;
    m->batch_max = c->batch_max;
    m->default_rows = c->default_rows;
    m->ninputs = c->ninputs;
    m->noutputs = c->noutputs;
    for (unsigned i = 0; i < c->ninputs; i++)
        fill_io(&m->inputs[i], &c->inputs[i]);
    for (unsigned i = 0; i < c->noutputs; i++)
        fill_io(&m->outputs[i], &c->outputs[i]);
}

static void take_catalog(struct sonic *s, const struct wire_message *m)
{
    struct question *q = s->question;
    char why[SONIC_TEXT_MAX];
    if (!q || q->id != m->fields.catalog.id || q->done)
        return;
    if (m->nitems == 0) { // the end of the list
        q->done = true;
        return;
    }
    if (q->nmodels + m->nitems > SONIC_MODELS_MAX)
        return; // no farm has so many
    sonic_model_t *models = realloc(q->models, (q->nmodels + m->nitems) * sizeof(*models));
    if (!models)
        return;
    q->models = models;
    for (uint32_t i = 0; i < m->nitems; i++) {
        struct model_config config;
        if (model_config_from_catalog(&m->items.catalog[i], &config, why, sizeof(why)))
            fill_model(&models[q->nmodels++], &config);
    }
}

static void take_message(struct sonic *s, const struct wire_message *m)
{
    switch (m->type) {
    case WIRE_WELCOME:
        message_widen_link(s->message);
        take_welcome(s, &m->fields.welcome);
        break;
    case WIRE_ANSWER: {
        bool current = s->link == LINK_OPEN && m->fields.answer.epoch == s->epoch;
        for (uint32_t i = 0; i < m->nitems; i++)
            flight_answer(s, &m->items.answer[i], current);
        break;
    }
    case WIRE_TAKEN:
        share_taken(s, &m->fields.taken);
        break;
    case WIRE_CREDIT:
        take_credit(s, &m->fields.credit);
        break;
    case WIRE_REFUSE:
        take_refuse(s, &m->fields.refuse);
        break;
    case WIRE_BEAT:
        if (s->link == LINK_OPEN && m->fields.beat.epoch != s->epoch)
            send_hello(s);
        break;
    case WIRE_REPLY:
        take_reply(s, &m->fields.reply);
        break;
    case WIRE_CATALOG:
        take_catalog(s, m);
        break;
    default: // meant for workers
        break;
    }
}

unsigned link_receive(struct sonic *s)
{
    unsigned n = 0;
    for (; n < RECEIVE_BUDGET && message_receive(s->socket, false, s->message) == 1; n++) {
        struct wire_message *m;
        s->heard_us = s->now_us;
        // A broker that sends what we cannot read is a broker of another kind: nothing to act on.
        if (wire_decode(s->decoder, zmq_msg_data(&s->message->frames[0]),
                        zmq_msg_size(&s->message->frames[0]), WIRE_FROM_BROKER, &m) == WIRE_OK)
            take_message(s, m);
        message_clear(s->message);
    }
    return n;
}

// ---- what is due --------------------------------------------------------------------------------

// A question's reply does not outlive its connection.
static void ask_again(struct sonic *s)
{
    struct question *q = s->question;
    if (!q || q->done)
        return;
    free(q->models);
    q->models = NULL;
    q->nmodels = 0;
    q->sent = false;
}

// The connection's own events: a link that came up gets a HELLO, whoever is at its other end now.
static void watch_connection(struct sonic *s)
{
    struct message event;
    message_init(&event);
    while (message_receive(s->monitor, false, &event) == 1) {
        uint16_t kind = 0;
        if (zmq_msg_size(&event.frames[0]) >= sizeof(kind))
            memcpy(&kind, zmq_msg_data(&event.frames[0]), sizeof(kind));
        message_clear(&event);
        if (s->link == LINK_REFUSED)
            continue;
        if (kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            send_hello(s);
            ask_again(s);
        } else if (kind == ZMQ_EVENT_DISCONNECTED)
            s->link = LINK_DOWN;
    }
}

static void ask_question(struct sonic *s)
{
    struct question *q = s->question;
    if (!q || q->sent || s->unsent || s->link == LINK_DOWN)
        return;
    struct wire_query fields = {.id = q->id, .what = q->what};
    wire_begin_query(s->header, &fields);
    q->sent = send_header(s);
}

// When the window is to be asked for; UINT64_MAX when it need not be.
static uint64_t want_us(const struct sonic *s, const struct window_counts *c)
{
    bool urgent = s->shrunk || c->grant_requests == 0 || c->needed_bytes > c->grant_bytes;
    if (c->queued == 0 ||
        (!urgent && c->grant_requests >= s->window_requests && c->grant_bytes >= s->window_bytes))
        return UINT64_MAX;
    uint64_t at_us = s->wanted_us + (urgent ? WANT_EVERY_US : WANT_MORE_EVERY_US);
    return at_us > s->want_not_us ? at_us : s->want_not_us;
}

// When answers are to be acknowledged by themselves, because no SUBMIT does it.
static uint64_t acknowledge_us(const struct sonic *s, const struct window_counts *c)
{
    return c->received != s->acknowledged && c->queued == 0 ? s->acknowledged_us + ACKNOWLEDGE_US
                                                            : UINT64_MAX;
}

// When the window is to be given back.
static uint64_t shrink_us(const struct sonic *s)
{
    return s->idle_since_us && !s->shrunk ? s->idle_since_us + IDLE_US : UINT64_MAX;
}

// When a broker that owes answers is to be asked whether it still knows us.
static uint64_t probe_us(const struct sonic *s, const struct window_counts *c)
{
    uint64_t silent_us = SILENT_US;
    if (s->lost_after_us) // before it is taken for lost
        silent_us = sooner(silent_us, s->lost_after_us / 3);
    uint64_t at_us = s->heard_us + silent_us, next_us = s->probe_us + silent_us;
    return c->in_flight == 0 ? UINT64_MAX : at_us > next_us ? at_us : next_us;
}

static void tend_window(struct sonic *s, const struct window_counts *c)
{
    if (s->now_us >= want_us(s, c)) {
        s->shrunk = !send_want(s, false) && s->shrunk;
    } else if (s->now_us >= shrink_us(s)) {
        // Ours first, then the broker's: nothing can be sent over the smaller window meanwhile.
        window_grant(s->window, IDLE_REQUESTS, IDLE_BYTES);
        s->shrunk = true;
        send_want(s, true);
    } else if (s->now_us >= acknowledge_us(s, c)) {
        send_want(s, s->shrunk);
    } else if (s->now_us >= probe_us(s, c)) {
        s->probe_us = s->now_us;
        send_want(s, s->shrunk); // answered CREDIT or REGISTER_AGAIN
    }
}

void link_tend(struct sonic *s)
{
    struct window_counts c;
    watch_connection(s);
    ask_question(s);
    if (s->link == LINK_HELLO && s->now_us >= s->hello_us)
        send_hello(s);
    if (s->link != LINK_OPEN)
        return;
    window_counts(s->window, &c);
    if (c.pending > 0)
        s->idle_since_us = 0;
    else if (s->idle_since_us == 0)
        s->idle_since_us = s->now_us;
    tend_window(s, &c);
}

uint64_t link_wake(const struct sonic *s)
{
    struct window_counts c;
    if (s->link == LINK_HELLO)
        return s->hello_us;
    if (s->link != LINK_OPEN)
        return UINT64_MAX;
    window_counts(s->window, &c);
    uint64_t at_us = sooner(want_us(s, &c), acknowledge_us(s, &c));
    return sooner(at_us, sooner(shrink_us(s), probe_us(s, &c)));
}
