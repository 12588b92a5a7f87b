// SPDX-License-Identifier: Apache-2.0
#include "common/message.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/checked.h"

// Frame 0 is the header, frame 1 the packed tensors (empty when there are only large ones, absent
// when there are none at all), frames 2.. one large tensor each.
#define FIRST_OWN_FRAME 2u
#define OWN_FRAMES_MAX (SONIC_FRAMES_MAX - FIRST_OWN_FRAME)

// ---- receiving ----------------------------------------------------------------------------------

void message_init(struct message *m)
{
    m->nframes = 0;
    m->routing_len = 0;
}

void message_clear(struct message *m)
{
    for (uint32_t i = 0; i < m->nframes; i++)
        zmq_msg_close(&m->frames[i]);
    m->nframes = 0;
}

// Reads and drops the rest of a message.
static void drain(void *socket)
{
    zmq_msg_t frame;
    int more = 1;
    while (more) {
        zmq_msg_init(&frame);
        more = zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&frame);
        zmq_msg_close(&frame);
    }
}

// 1: got the routing frame and more follows; 0: nothing there; negative errno.
static int receive_routing(void *socket, struct message *m)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0) {
        int e = errno;
        zmq_msg_close(&frame);
        return e == EAGAIN || e == EINTR ? 0 : -e;
    }
    size_t len = zmq_msg_size(&frame);
    int more = zmq_msg_more(&frame);
    m->routing_len = len <= sizeof(m->routing) ? (uint8_t)len : 0;
    memcpy(m->routing, zmq_msg_data(&frame), m->routing_len);
    zmq_msg_close(&frame);
    return more ? 1 : -EMSGSIZE;
}

int message_receive(void *socket, bool routed, struct message *m)
{
    int more = 1;
    m->nframes = 0;
    m->routing_len = 0;
    if (routed) {
        int rc = receive_routing(socket, m);
        if (rc <= 0)
            return rc;
    }
    while (more) {
        if (m->nframes == SONIC_FRAMES_MAX) {
            drain(socket);
            message_clear(m);
            return -EMSGSIZE;
        }
        zmq_msg_t *frame = &m->frames[m->nframes];
        zmq_msg_init(frame);
        if (zmq_msg_recv(frame, socket, ZMQ_DONTWAIT) < 0) {
            int e = errno;
            zmq_msg_close(frame);
            message_clear(m);
            return e == EAGAIN || e == EINTR ? 0 : -e;
        }
        m->nframes++;
        more = zmq_msg_more(frame);
    }
    return 1;
}

const void *message_tensor(struct message *m, const struct tensor *t)
{
    uint64_t end;
    if (t->place != TENSOR_IN_FRAME || t->where == 0 || t->where >= m->nframes ||
        !checked_add(t->offset, t->bytes, &end))
        return NULL;
    uint64_t size = zmq_msg_size(&m->frames[t->where]);
    const char *data = zmq_msg_data(&m->frames[t->where]);
    if (t->where == SONIC_PACKED_FRAME) {
        if (end > size || t->offset % SONIC_PACK_ALIGN != 0)
            return NULL;
        return data + t->offset;
    }
    return t->offset == 0 && t->bytes == size ? data : NULL;
}

uint32_t message_own_frame(const struct message *m, const struct tensor *t)
{
    bool own = t->place == TENSOR_IN_FRAME && t->where >= FIRST_OWN_FRAME && t->where < m->nframes;
    return own ? t->where : 0;
}

// Linux doubles it, and net.core.wmem_max bounds it. FACILE at 3 MB a request, requests/s: 253 with
// 100 KB, 282 with the kernel's default, 316 with 256 KB, 330 with this, 310 with 4 MB, which no
// longer stays in a core's cache.
#define SEND_BYTES (512 * 1024)

void message_widen_link(const struct message *m)
{
    int fd = m->nframes ? zmq_msg_get(&m->frames[0], ZMQ_SRCFD) : -1;
    int domain = 0, bytes = SEND_BYTES;
    socklen_t size = sizeof(domain);
    if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

// ---- sending ------------------------------------------------------------------------------------

// What one packed frame holds at most; past that a turn's items go into another message.
#define PACKED_BYTES_MAX (4u * 1024u * 1024u)
// From here the packed buffer is given to libzmq instead of copied once more.
#define GIVE_AWAY_BYTES (64u * 1024u)

struct payload {
    uint8_t *packed;
    size_t used, capacity;
    bool any; // a tensor was added, so frame 1 exists even when it is empty
    uint32_t nframes;
    zmq_msg_t frames[OWN_FRAMES_MAX];
};

struct payload *payload_new(void)
{
    return calloc(1, sizeof(struct payload));
}

void payload_reset(struct payload *p)
{
    for (uint32_t i = 0; i < p->nframes; i++)
        zmq_msg_close(&p->frames[i]);
    p->nframes = 0;
    p->used = 0;
    p->any = false;
}

void payload_free(struct payload *p)
{
    if (!p)
        return;
    payload_reset(p);
    free(p->packed);
    free(p);
}

bool payload_fits(const struct payload *p, uint32_t n, const uint64_t *bytes)
{
    uint64_t packed = p->used, frames = p->nframes;
    for (uint32_t i = 0; i < n; i++) {
        if (bytes[i] > SONIC_PACK_BYTES_MAX)
            frames++;
        else
            packed += bytes[i] + SONIC_PACK_ALIGN;
    }
    return packed <= PACKED_BYTES_MAX && frames <= OWN_FRAMES_MAX;
}

// Room for `need` bytes in all. Running out of memory here means that the process cannot even hold
// the message it is about to send: it ends, and leases or retries bring its work elsewhere.
static void reserve(struct payload *p, size_t need)
{
    if (need <= p->capacity)
        return;
    size_t capacity = p->capacity ? p->capacity : 16384;
    while (capacity < need)
        capacity *= 2;
    uint8_t *packed = realloc(p->packed, capacity);
    if (!packed)
        abort();
    p->packed = packed;
    p->capacity = capacity;
}

void payload_pack(struct payload *p, struct tensor *t, const void *data)
{
    size_t at = (p->used + SONIC_PACK_ALIGN - 1) & ~(size_t)(SONIC_PACK_ALIGN - 1);
    reserve(p, at + t->bytes);
    memset(p->packed + p->used, 0, at - p->used);
    if (t->bytes)
        memcpy(p->packed + at, data, t->bytes);
    p->used = at + t->bytes;
    p->any = true;
    t->place = TENSOR_IN_FRAME;
    t->where = SONIC_PACKED_FRAME;
    t->offset = at;
}

void payload_attach(struct payload *p, struct tensor *t, zmq_msg_t *frame)
{
    assert(p->nframes < OWN_FRAMES_MAX); // payload_fits was asked
    zmq_msg_t *own = &p->frames[p->nframes];
    zmq_msg_init(own);
    zmq_msg_move(own, frame);
    p->any = true;
    t->place = TENSOR_IN_FRAME;
    t->where = FIRST_OWN_FRAME + p->nframes++;
    t->offset = 0;
}

static void free_packed(void *data, void *hint)
{
    (void)hint;
    free(data);
}

// The packed frame as a message; a large buffer is handed over and p starts a new one.
static void packed_frame(struct payload *p, zmq_msg_t *frame)
{
    if (p->used >= GIVE_AWAY_BYTES &&
        zmq_msg_init_data(frame, p->packed, p->used, free_packed, NULL) == 0) {
        p->packed = NULL;
        p->capacity = 0;
        return;
    }
    if (zmq_msg_init_size(frame, p->used) != 0)
        abort();
    if (p->used)
        memcpy(zmq_msg_data(frame), p->packed, p->used);
}

// Once the first frame is with the socket libzmq takes the rest: its high-water mark counts whole
// messages. A link that goes away meanwhile drops the message, which the layers above expect.
static void send_frame(void *socket, zmq_msg_t *frame, bool more)
{
    if (zmq_msg_send(frame, socket, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0)
        zmq_msg_close(frame);
}

int message_send(void *socket, const void *routing, size_t routing_len, struct wire_header *h,
                 struct payload *p)
{
    size_t len;
    const void *header = wire_finish(h, &len);
    bool any = p && p->any;
    if (routing_len && zmq_send(socket, routing, routing_len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return -errno;
    if (zmq_send(socket, header, len, ZMQ_DONTWAIT | (any ? ZMQ_SNDMORE : 0)) < 0)
        return -errno;
    if (any) {
        zmq_msg_t frame;
        packed_frame(p, &frame);
        send_frame(socket, &frame, p->nframes > 0);
        for (uint32_t i = 0; i < p->nframes; i++)
            send_frame(socket, &p->frames[i], i + 1 < p->nframes);
        p->nframes = 0; // sent or closed
        payload_reset(p);
    }
    return 0;
}
