// SPDX-License-Identifier: Apache-2.0
// A whole broker, without its clock, under sequences of messages from three clients and two
// workers: real sockets of one process, virtual time. The input is a little program: each step
// names a message (sound but for what its bytes break) and who sends it. After each the farm audits
// its books; whatever the broker sends must decode.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "common/log.h"
#include "common/message.h"
#include "common/zsock.h"

#define CLIENTS 3u
#define PEERS 5u
#define STEPS_MAX 400
#define LEASES 32u
#define LARGE (SONIC_PACK_BYTES_MAX + 4u)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct lease {
    uint64_t id, rows;
    bool large; // of model "large", else of "small"
};

// What lives as long as the process.
struct rig {
    void *ctx, *sockets[2], *dealers[PEERS];
    struct wire_decoder *broker_decoder, *decoder;
    struct wire_header *header;
    struct message *received;
};

struct fuzz {
    struct broker b;
    const uint8_t *at, *end;
    struct lease leases[PEERS][LEASES];
    uint32_t nleases[PEERS];
    uint64_t answered[PEERS], seq;
};

static struct rig rig;

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "fuzz_door: %s\n", what);
        abort();
    }
}

static uint8_t byte(struct fuzz *z)
{
    return z->at < z->end ? *z->at++ : 0;
}

// ---- the rig ------------------------------------------------------------------------------------

static void *new_socket(int type, const char *endpoint)
{
    void *socket = zmq_socket(rig.ctx, type);
    int few = 3, many = 1000, on = 1, none = 0;
    check(socket != NULL, "a socket");
    // Short pipes out of the broker: peers that do not read are soon held back.
    zmq_setsockopt(socket, ZMQ_SNDHWM, type == ZMQ_ROUTER ? &few : &many, sizeof(int));
    zmq_setsockopt(socket, ZMQ_RCVHWM, type == ZMQ_ROUTER ? &many : &few, sizeof(int));
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(int));
    if (type == ZMQ_ROUTER)
        zmq_setsockopt(socket, ZMQ_ROUTER_MANDATORY, &on, sizeof(int));
    int rc = type == ZMQ_ROUTER ? zmq_bind(socket, endpoint) : zmq_connect(socket, endpoint);
    check(rc == 0, "an endpoint");
    return socket;
}

static void open_rig(void)
{
    rig.ctx = zctx_open(1);
    rig.sockets[PEER_CLIENT] = new_socket(ZMQ_ROUTER, "inproc://clients");
    rig.sockets[PEER_WORKER] = new_socket(ZMQ_ROUTER, "inproc://workers");
    for (unsigned i = 0; i < PEERS; i++)
        rig.dealers[i] =
            new_socket(ZMQ_DEALER, i < CLIENTS ? "inproc://clients" : "inproc://workers");
    rig.broker_decoder = wire_decoder_new();
    rig.decoder = wire_decoder_new();
    rig.header = wire_header_new();
    rig.received = malloc(sizeof(*rig.received));
    check(rig.broker_decoder && rig.decoder && rig.header && rig.received, "memory");
    message_init(rig.received);
    log_open("fuzz_door", (enum log_level)(LOG_LEVEL_ERROR + 1));
}

static void free_payload(void *payload, void *user)
{
    (void)user;
    body_free(payload);
}

static void begin(struct fuzz *z, const uint8_t *data, size_t size)
{
    static const struct broker_options options = {.name = "fuzz", .farm_name = "fuzz"};
    struct farm_config config;
    *z = (struct fuzz){.at = data, .end = data + size};
    farm_config_default(&config);
    config.memory_bytes_max = 4u << 20;
    config.clients_max = CLIENTS; // reached, and little for farm_check to walk
    config.workers_max = PEERS - CLIENTS;
    config.grant_floor_bytes = 1u << 16;
    config.grant_floor_requests = 4;
    config.payload_free = free_payload;
    struct broker *b = &z->b;
    b->options = &options;
    b->sockets[0] = rig.sockets[0];
    b->sockets[1] = rig.sockets[1];
    b->signals = -1;
    b->epoch = 0xe70c;
    b->now_us = b->started_us = 1000000;
    b->farm = farm_new(&config);
    b->catalog = catalog_new(b->farm);
    b->peers = peers_new(1);
    b->slabs = slabs_open(b);
    b->decoder = rig.broker_decoder;
    b->message = malloc(sizeof(*b->message));
    b->header = wire_header_new();
    b->payload = payload_new();
    check(b->farm && b->catalog && b->peers && b->slabs && b->message && b->header && b->payload,
          "memory");
    message_init(b->message);
}

static void end(struct fuzz *z)
{
    struct broker *b = &z->b;
    peers_free(b->peers);
    catalog_free(b->catalog);
    farm_free(b->farm);
    slabs_close(b->slabs);
    message_clear(b->message);
    free(b->message);
    payload_free(b->payload);
    wire_header_free(b->header);
    for (unsigned i = 0; i < PEERS; i++) // nothing is left for the next input
        while (message_receive(rig.dealers[i], false, rig.received) == 1)
            message_clear(rig.received);
}

// ---- what the peers read ------------------------------------------------------------------------

static bool is_model(struct wire_str name, const char *model)
{
    return name.len == strlen(model) && memcmp(name.data, model, name.len) == 0;
}

static void keep_leases(struct fuzz *z, unsigned who, const struct wire_message *m)
{
    for (uint32_t i = 0; i < m->nitems; i++) {
        const struct wire_dispatch_item *item = &m->items.dispatch[i];
        struct lease *l = &z->leases[who][z->nleases[who]++ % LEASES];
        l->id = item->lease;
        l->rows = item->tensors.n ? item->tensors.at[0].dims[0] : 0;
        l->large = is_model(m->fields.dispatch.model, "large");
        for (uint32_t k = 0; k < item->tensors.n; k++)
            check(message_tensor(rig.received, &item->tensors.at[k]) != NULL,
                  "a dispatched tensor is not where its descriptor says");
    }
}

static void count_answers(struct fuzz *z, unsigned who, const struct wire_message *m)
{
    for (uint32_t i = 0; i < m->nitems; i++) {
        const struct wire_answer_item *item = &m->items.answer[i];
        z->answered[who] += item->acknowledge;
        for (uint32_t k = 0; k < item->tensors.n; k++)
            check(message_tensor(rig.received, &item->tensors.at[k]) != NULL,
                  "an answer's tensor is not where its descriptor says");
    }
}

static void read_peer(struct fuzz *z, unsigned who, unsigned most)
{
    struct wire_message *m;
    for (; most > 0 && message_receive(rig.dealers[who], false, rig.received) == 1; most--) {
        enum wire_error e =
            wire_decode(rig.decoder, zmq_msg_data(&rig.received->frames[0]),
                        zmq_msg_size(&rig.received->frames[0]), WIRE_FROM_BROKER, &m);
        check(e == WIRE_OK, "the broker sent what does not decode");
        if (m->type == WIRE_DISPATCH)
            keep_leases(z, who, m);
        else if (m->type == WIRE_ANSWER)
            count_answers(z, who, m);
        else if (m->type == WIRE_WELCOME)
            z->answered[who] = 0;
        message_clear(rig.received);
    }
}

// ---- what the peers send ------------------------------------------------------------------------

// A message under construction: its frames behind the header are of these sizes.
struct shot {
    unsigned who, nframes;
    size_t frames[SONIC_FRAMES_MAX + 4];
};

// Sends the header that was built, with up to three of its bytes changed.
static void send_shot(struct fuzz *z, const struct shot *s, unsigned changes)
{
    static uint8_t header[SONIC_HEADER_BYTES_MAX], zeros[LARGE + 64];
    size_t len;
    const void *built = wire_finish(rig.header, &len);
    memcpy(header, built, len);
    for (; changes > 0 && len > 0; changes--) {
        size_t at = (size_t)byte(z) << 8 | byte(z);
        header[at % len] ^= byte(z);
    }
    void *dealer = rig.dealers[s->who];
    zmq_send(dealer, header, len, ZMQ_DONTWAIT | (s->nframes ? ZMQ_SNDMORE : 0));
    for (unsigned i = 0; i < s->nframes; i++)
        zmq_send(dealer, zeros, s->frames[i],
                 ZMQ_DONTWAIT | (i + 1 < s->nframes ? ZMQ_SNDMORE : 0));
}

// A tensor of one of the two models, its place sound unless `odd` says otherwise.
static struct tensor a_tensor(struct shot *s, bool large, bool input, uint64_t rows, uint8_t odd)
{
    struct tensor t = {.dtype = large ? SONIC_UINT8 : SONIC_FP32, .ndim = 2};
    t.dims[0] = rows;
    t.dims[1] = large ? LARGE : input ? 2 : 1;
    uint64_t bytes = rows * t.dims[1] * (large ? 1 : 4);
    if (s->nframes == 0)
        s->frames[s->nframes++] = 0;
    if (bytes > SONIC_PACK_BYTES_MAX && s->nframes < SONIC_FRAMES_MAX) {
        t.where = 1 + s->nframes;
        s->frames[s->nframes++] = bytes <= LARGE ? bytes : LARGE;
    } else {
        t.where = 1;
        t.offset = s->frames[0];
        s->frames[0] += (bytes + 63) & ~63ull;
        if (s->frames[0] > LARGE)
            s->frames[0] = LARGE;
    }
    switch (odd >> 4) {
    case 1:
        t.where = odd & 15;
        break;
    case 2:
        t.offset += (uint64_t)1 << (odd & 15) * 4;
        break;
    case 3:
        t.dims[odd & 1] += (odd & 15);
        break;
    case 4:
        t.dtype = odd & 15;
        break;
    case 5:
        t.place = TENSOR_IN_SLAB;
        break;
    case 6:
        t.ndim = odd & 7;
        break;
    default: // mostly sound
        break;
    }
    return t;
}

static void send_hello(struct fuzz *z, unsigned who, uint8_t a, uint8_t b)
{
    struct wire_hello f = {.version_min = a >> 6 == 1 ? 2 : 1,
                           .version_max = a >> 6 == 2 ? 0 : 1 + (a >> 6),
                           .session = 100 + (b & 128 ? b & 3 : who),
                           .tenant = wire_str(a & 1   ? "one"
                                              : a & 2 ? "an odd name"
                                                      : "two"),
                           .software = wire_str("fuzz/1"),
                           .want_requests = b & 15,
                           .want_bytes = (uint64_t)(b & 15) << 16,
                           .need_bytes = a & 4 ? (uint64_t)a << 14 : 0};
    struct shot s = {.who = who};
    wire_begin_hello(rig.header, &f);
    send_shot(z, &s, a >> 3 & 1);
}

static struct wire_join_item a_model(uint8_t a, bool large)
{
    struct wire_join_item m = {.name = wire_str(large ? "large" : "small"),
                               .version = 1 + (a >> 7),
                               .batch_max = large ? 2 : 4,
                               .default_rows = 1,
                               .instances = a & 3,
                               .queue_delay_us = a & 4 ? 1000 : 0,
                               .priority_levels = a & 8 ? 3 : 0,
                               .default_priority = a & 16 ? 8 : 0,
                               .queue_max = a & 32 ? 2 : 0};
    struct tensor_spec spec = {.dtype = large ? SONIC_UINT8 : SONIC_FP32, .ndim = 1};
    memcpy(spec.name, "t", 2);
    m.preferred.n = a & 3;
    m.preferred.at[0] = 3;
    m.preferred.at[1] = a;
    m.inputs.n = m.outputs.n = 1;
    spec.dims[0] = large ? -1 : 2;
    m.inputs.at[0] = spec;
    spec.dims[0] = large ? -1 : 1;
    m.outputs.at[0] = spec;
    return m;
}

static void send_join(struct fuzz *z, unsigned who, uint8_t a, uint8_t b)
{
    struct wire_join f = {.version_min = 1,
                          .version_max = 1,
                          .session = 100 + (b & 128 ? b & 7 : who),
                          .name = wire_str(who & 1 ? "w1" : "w0"),
                          .device_kind = wire_str(b & 64 ? "" : "cpu"),
                          .device_name = wire_str("any"),
                          .slots = b & 3,
                          .room_requests = b & 31,
                          .room_bytes = (uint64_t)(b & 7) << 14};
    struct shot s = {.who = who};
    wire_begin_join(rig.header, &f);
    for (unsigned large = 0; large < 2; large++) {
        struct wire_join_item item = a_model(a, large);
        if (!(b & 32) || large)
            wire_add_join(rig.header, &item);
    }
    send_shot(z, &s, a >> 6 & 1);
}

static void send_submit(struct fuzz *z, unsigned who, uint8_t a, uint8_t b)
{
    bool large = a & 1;
    uint8_t odd = byte(z);
    struct wire_submit f = {.epoch = z->b.epoch,
                            .received = z->answered[who] + (odd == 0xf0),
                            .model = wire_str(odd == 0xf1 ? "none"
                                              : large     ? "large"
                                                          : "small"),
                            .version = odd >> 2 == 0x3e ? 1 + (odd & 1) : 0};
    struct shot s = {.who = who};
    wire_begin_submit(rig.header, &f);
    unsigned n = 1 + (a >> 4) * (a & 2 ? 4 : 1);
    for (unsigned i = 0; i < n; i++) {
        struct wire_submit_item item = {.seq = b & 128 ? z->seq - i : ++z->seq,
                                        .priority = b & 64 ? b & 7 : 0,
                                        .deadline_us = b & 32 ? (b & 31) * 300u : 0};
        item.tensors.n = 1 + (odd == 0xf2);
        uint64_t rows = large ? 1 + (b & 1) : 1 + (b & 3);
        item.tensors.at[0] = a_tensor(&s, large, true, rows, i == 0 ? odd : 0);
        item.tensors.at[1] = item.tensors.at[0];
        if (!wire_add_submit(rig.header, &item))
            break;
    }
    send_shot(z, &s, a >> 2 & 1);
}

static void send_result(struct fuzz *z, unsigned who, uint8_t a, uint8_t b)
{
    uint8_t odd = byte(z);
    struct wire_result f = {.epoch = z->b.epoch};
    struct shot s = {.who = who};
    wire_begin_result(rig.header, &f);
    for (unsigned i = 0; i < 1u + (a & 15); i++) {
        const struct lease *l = &z->leases[odd == 0xf3 ? 3 + (who & 1) : who][(b + i) % LEASES];
        struct wire_result_item item = {.lease = l->id + (odd == 0xf4 ? 1ull << (b & 63) : 0),
                                        .status = a & 16 ? (b >> 4) % (SONIC_STATUS_MAX + 1) : 0,
                                        .exec_us = (uint32_t)a * 10,
                                        .exec_rows = b,
                                        .text = wire_str(a & 32 ? "it failed" : "")};
        item.tensors.n = item.status == 0;
        item.tensors.at[0] = a_tensor(&s, l->large, false, l->rows ? l->rows : 1, i == 0 ? odd : 0);
        if (!wire_add_result(rig.header, &item))
            break;
    }
    send_shot(z, &s, a >> 6 & 1);
}

static void send_cancel(struct fuzz *z, unsigned who, uint8_t a, uint8_t b)
{
    struct wire_cancel f = {.epoch = z->b.epoch};
    struct shot s = {.who = who};
    wire_begin_cancel(rig.header, &f);
    for (unsigned i = 0; i < (a & 31u); i++) {
        struct wire_cancel_item item = {.seq = z->seq - b - i};
        wire_add_cancel(rig.header, &item);
    }
    send_shot(z, &s, a >> 6 & 1);
}

static void send_want(struct fuzz *z, unsigned who, uint8_t a, uint8_t b)
{
    struct wire_want f = {.epoch = z->b.epoch,
                          .received = z->answered[who] - (a & 1),
                          .want_requests = b,
                          .want_bytes = (uint64_t)b << (a >> 3),
                          .need_bytes = a & 2 ? b : 0};
    struct shot s = {.who = who};
    wire_begin_want(rig.header, &f);
    send_shot(z, &s, a >> 2 & 1);
}

// BYE, QUERY, HEARTBEAT, a wrong epoch, and frames that are too many or none.
static void send_small(struct fuzz *z, unsigned who, uint8_t a, uint8_t b)
{
    struct shot s = {.who = who};
    struct wire_bye bye = {.epoch = z->b.epoch + (a & 128)};
    struct wire_query query = {.id = b, .what = b & 7};
    struct wire_heartbeat beat = {.epoch = z->b.epoch, .progress = b};
    switch (a & 3) {
    case 0:
        wire_begin_bye(rig.header, &bye);
        break;
    case 1:
        wire_begin_query(rig.header, &query);
        break;
    default:
        wire_begin_heartbeat(rig.header, &beat);
    }
    if (a & 4)
        s.nframes = b % (SONIC_FRAMES_MAX + 4);
    send_shot(z, &s, a >> 4 & 3);
}

// ---- the program --------------------------------------------------------------------------------

static void turn(struct fuzz *z, uint8_t a)
{
    unsigned taken;
    z->b.now_us += (uint64_t)(a & 15) << (a >> 4);
    broker_turn(&z->b, &taken);
    const char *broken = farm_check(z->b.farm);
    check(!broken, broken ? broken : "");
}

static void step(struct fuzz *z)
{
    uint8_t what = byte(z), a = byte(z), b = byte(z);
    unsigned client = (what >> 4) % CLIENTS, worker = CLIENTS + (what >> 4 & 1);
    switch (what & 15) {
    case 0:
        send_hello(z, client, a, b);
        break;
    case 1:
        send_join(z, worker, a, b);
        break;
    case 2:
    case 3:
    case 4:
        send_submit(z, client, a, b);
        break;
    case 5:
    case 6:
        send_result(z, worker, a, b);
        break;
    case 7:
        send_cancel(z, client, a, b);
        break;
    case 8:
        send_want(z, client, a, b);
        break;
    case 9:
        send_small(z, (what >> 4) % PEERS, a, b);
        break;
    case 10:
        z->b.stopping = a == 0xff;
        turn(z, b);
        break;
    case 11:
        read_peer(z, worker, a);
        break;
    case 12:
        read_peer(z, client, a);
        break;
    default:
        for (unsigned i = 0; i < PEERS; i++)
            read_peer(z, i, 100);
        turn(z, a);
    }
    if (what & 8 || a & 1) // else the message waits with others for a turn
        turn(z, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz z;
    if (!rig.ctx)
        open_rig();
    begin(&z, data, size);
    for (unsigned i = 0; i < PEERS; i++) {
        if (i < CLIENTS)
            send_hello(&z, i, 1, 15);
        else
            send_join(&z, i, 1, 15);
        turn(&z, 1);
        read_peer(&z, i, 10);
    }
    for (int i = 0; i < STEPS_MAX && z.at < z.end; i++)
        step(&z);
    turn(&z, 0);
    end(&z);
    return 0;
}
