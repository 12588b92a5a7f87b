// SPDX-License-Identifier: Apache-2.0
#include "broker/slabs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/guests.h"
#include "common/log.h"
#include "common/side.h"

// Each costs a descriptor and a mapping here and in every worker; clients past it send frames.
#define SLABS_MAX 1024u
// Workers on this host that read slabs: bits of a word.
#define ATTENDANTS_MAX 64u
// As with messages: others have their turn in between.
#define PACKETS_A_TURN 64u

// A worker's side connection, over which it gets descriptors. fd < 0: the place is free.
struct attendant {
    int fd;
    const struct peer *peer;
};

struct slabs {
    int epoll; // of the guests and the attendants
    uint64_t bytes_max;
    uint32_t nslabs, last_number;
    struct guests *guests;
    struct attendant attendants[ATTENDANTS_MAX];
    struct shared_slab *first;
    struct wire_header *header; // the broker's may be in use
};

// ---- life ---------------------------------------------------------------------------------------

static bool watch(struct slabs *ss, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events};
    return epoll_ctl(ss->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static bool listen_beside(struct slabs *ss, enum peer_side side, const char *const *endpoints,
                          size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (guests_listen(ss->guests, side, endpoints[i]))
            any = true;
        else if (errno != ENOTSUP)
            log_warn("no_slabs",
                     "endpoint=%s why=\"cannot listen beside it: %s\" text=\"large inputs travel "
                     "through sockets\"",
                     endpoints[i], strerror(errno));
    }
    return any;
}

struct slabs *slabs_open(struct broker *b)
{
    const struct broker_options *o = b->options;
    struct slabs *ss = calloc(1, sizeof(*ss));
    if (!ss)
        return NULL;
    for (uint32_t i = 0; i < ATTENDANTS_MAX; i++)
        ss->attendants[i].fd = -1;
    ss->header = wire_header_new();
    ss->guests = guests_new(o->slab_bytes);
    ss->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!ss->header || !ss->guests || ss->epoll < 0 || !watch(ss, guests_fd(ss->guests), EPOLLIN)) {
        slabs_close(ss);
        return NULL;
    }
    if (o->slab_bytes == 0)
        return ss;
    bool any = listen_beside(ss, PEER_CLIENT, o->client_endpoints, o->nclient_endpoints);
    bool also = listen_beside(ss, PEER_WORKER, o->worker_endpoints, o->nworker_endpoints);
    if ((any || also) && !guests_start(ss->guests)) {
        slabs_close(ss);
        return NULL;
    }
    ss->bytes_max = any ? o->slab_bytes : 0;
    return ss;
}

void slabs_close(struct slabs *ss)
{
    if (!ss)
        return;
    for (uint32_t i = 0; i < ATTENDANTS_MAX; i++)
        if (ss->attendants[i].fd >= 0)
            guests_dismiss(ss->guests, ss->attendants[i].fd);
    for (struct shared_slab *s = ss->first, *next; s; s = next) {
        next = s->next;
        shared_slab_unref(s);
    }
    guests_free(ss->guests);
    if (ss->epoll >= 0)
        close(ss->epoll);
    wire_header_free(ss->header);
    free(ss);
}

int slabs_fd(const struct slabs *ss)
{
    return ss->epoll;
}

uint64_t slabs_bytes_max(const struct slabs *ss)
{
    return ss->bytes_max;
}

uint32_t slabs_count(const struct slabs *ss)
{
    return ss->nslabs;
}

void shared_slab_ref(struct shared_slab *s)
{
    s->refs++;
}

void shared_slab_unref(struct shared_slab *s)
{
    if (--s->refs > 0)
        return;
    slab_unref(s->memory);
    free(s);
}

// ---- workers ------------------------------------------------------------------------------------

static uint32_t attendant_of(const struct slabs *ss, const struct peer *worker)
{
    uint32_t i = 0;
    while (i < ATTENDANTS_MAX && (ss->attendants[i].fd < 0 || ss->attendants[i].peer != worker))
        i++;
    return i;
}

static void dismiss(struct slabs *ss, uint32_t i)
{
    if (i == ATTENDANTS_MAX)
        return;
    // Closed by the guests' thread: what it may hold unread is not ours to wait for.
    epoll_ctl(ss->epoll, EPOLL_CTL_DEL, ss->attendants[i].fd, NULL);
    guests_dismiss(ss->guests, ss->attendants[i].fd);
    ss->attendants[i] = (struct attendant){.fd = -1};
    for (struct shared_slab *s = ss->first; s; s = s->next) {
        s->told &= ~(UINT64_C(1) << i);
        s->ready &= ~(UINT64_C(1) << i);
    }
}

// Takes over the connection. A worker that attends anew has lost its old one.
static void take_attend(struct broker *b, int fd, const struct wire_attend *m)
{
    struct slabs *ss = b->slabs;
    const struct peer *p = peers_session(b->peers, PEER_WORKER, m->session);
    uint32_t i = 0;
    if (p && m->epoch == b->epoch)
        dismiss(ss, attendant_of(ss, p));
    while (i < ATTENDANTS_MAX && ss->attendants[i].fd >= 0)
        i++;
    if (!p || m->epoch != b->epoch || i == ATTENDANTS_MAX || !watch(ss, fd, EPOLLRDHUP)) {
        guests_dismiss(ss->guests, fd);
        return;
    }
    ss->attendants[i] = (struct attendant){fd, p};
    log_info("worker_reads_slabs", "worker=%s", p->name);
}

bool slabs_ready(struct broker *b, struct shared_slab *s, const struct peer *worker)
{
    struct slabs *ss = b->slabs;
    uint32_t i = attendant_of(ss, worker);
    if (i == ATTENDANTS_MAX)
        return false;
    uint64_t bit = UINT64_C(1) << i;
    if (s->told & bit)
        return s->ready & bit;
    struct wire_share fields = {
        .epoch = b->epoch, .slab = s->number, .bytes = slab_bytes(s->memory)};
    wire_begin_share(ss->header, &fields);
    if (side_send(ss->attendants[i].fd, ss->header, slab_fd(s->memory)))
        s->told |= bit;
    return false;
}

void slabs_mapped(struct slabs *ss, const struct peer *worker, uint32_t number)
{
    uint32_t i = attendant_of(ss, worker);
    if (i == ATTENDANTS_MAX)
        return;
    for (struct shared_slab *s = ss->first; s; s = s->next)
        if (s->number == number)
            s->ready |= s->told & UINT64_C(1) << i;
}

// ---- clients ------------------------------------------------------------------------------------

// Why no slab of this client can be taken now; NULL: it can.
static const char *refusal(const struct slabs *ss, const struct peer *p, uint64_t bytes, int fd)
{
    if (fd < 0)
        return "no descriptor of sealed memory came with it, or it is larger than this broker "
               "takes (--slabs)";
    if (p->slab)
        return "this session has a slab already";
    if (limits_short())
        return "this broker is short of file descriptors";
    if (ss->nslabs >= SLABS_MAX)
        return "this broker holds as many slabs as it takes";
    if (bytes > ss->bytes_max)
        return "it is larger than this broker takes (--slabs)";
    return NULL;
}

// The descriptor is taken over. NULL with words.
static struct shared_slab *slab_take(struct broker *b, struct peer *p, uint64_t bytes, int fd,
                                     char *why, size_t size)
{
    struct slabs *ss = b->slabs;
    const char *wrong = refusal(ss, p, bytes, fd);
    struct shared_slab *s = wrong ? NULL : calloc(1, sizeof(*s));
    if (!s) {
        snprintf(why, size, "%s", wrong ? wrong : "the broker is out of memory");
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    s->memory = slab_map(fd, bytes, why, size);
    if (!s->memory) {
        free(s);
        return NULL;
    }
    s->refs = 1;
    s->number = ++ss->last_number;
    s->next = ss->first;
    ss->first = s;
    ss->nslabs++;
    p->slab = s;
    return s;
}

static void take_offer(struct broker *b, int fd, const struct wire_offer *m)
{
    struct peer *p = peers_session(b->peers, PEER_CLIENT, m->session);
    char why[SONIC_TEXT_MAX] = "";
    if (!p || m->epoch != b->epoch) {
        b->counts.unknown_peers++;
        if (fd >= 0)
            close(fd);
        return;
    }
    struct shared_slab *s = slab_take(b, p, m->bytes, fd, why, sizeof(why));
    // A client that offers once more has not heard of the number: it is told again.
    uint32_t number = p->slab ? p->slab->number : 0;
    struct wire_taken fields = {.epoch = b->epoch, .slab = number, .text = wire_str(why)};
    if (s)
        b->counts.slabs_taken++;
    else
        b->counts.slabs_refused++;
    wire_begin_taken(b->header, &fields);
    outbox_send(b, p);
}

static void forget_slab(struct broker *b, struct shared_slab *s)
{
    struct slabs *ss = b->slabs;
    struct wire_forget fields = {.epoch = b->epoch, .slab = s->number};
    struct shared_slab **at = &ss->first;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    ss->nslabs--;
    for (uint32_t i = 0; i < ATTENDANTS_MAX; i++) {
        if (!(s->told >> i & 1))
            continue;
        wire_begin_forget(ss->header, &fields);
        if (!side_send(ss->attendants[i].fd, ss->header, -1))
            dismiss(ss, i); // it does not read; it may attend again
    }
    shared_slab_unref(s);
}

void slabs_forget(struct broker *b, struct peer *p)
{
    if (p->slab)
        forget_slab(b, p->slab);
    p->slab = NULL;
    if (p->side == PEER_WORKER)
        dismiss(b->slabs, attendant_of(b->slabs, p));
}

// ---- what comes in ------------------------------------------------------------------------------

// A guest's first packet says what it is here for.
static void take_packet(struct broker *b, const struct guest_packet *p)
{
    struct wire_message *m;
    enum wire_role role = p->side == PEER_CLIENT ? WIRE_FROM_CLIENT : WIRE_FROM_WORKER;
    enum wire_error e = wire_decode(b->decoder, p->bytes, p->len, role, &m);
    if (e != WIRE_OK)
        b->counts.wire_errors[e]++;
    if (e == WIRE_OK && m->type == WIRE_OFFER) {
        take_offer(b, p->passed, &m->fields.offer);
        return;
    }
    if (p->passed >= 0)
        close(p->passed);
    if (e == WIRE_OK && m->type == WIRE_ATTEND && p->connection >= 0)
        take_attend(b, p->connection, &m->fields.attend);
    else if (p->connection >= 0)
        guests_dismiss(b->slabs->guests, p->connection);
}

static bool hung_up(int fd)
{
    struct pollfd p = {fd, POLLRDHUP, 0};
    return poll(&p, 1, 0) > 0;
}

void slabs_serve(struct broker *b)
{
    struct slabs *ss = b->slabs;
    struct guest_packet p;
    struct epoll_event event;
    if (epoll_wait(ss->epoll, &event, 1, 0) <= 0)
        return;
    for (uint32_t n = 0; n < PACKETS_A_TURN && guests_next(ss->guests, &p); n++)
        take_packet(b, &p);
    for (uint32_t i = 0; i < ATTENDANTS_MAX; i++)
        if (ss->attendants[i].fd >= 0 && hung_up(ss->attendants[i].fd))
            dismiss(ss, i);
}
