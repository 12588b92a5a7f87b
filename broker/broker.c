// SPDX-License-Identifier: Apache-2.0
// The loop: drain both sides with a budget each, tick the farm, drain its outboxes, and only when a
// turn found nothing wait for an event. One `now` a turn.
#include "broker/broker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/exitcode.h"
#include "common/log.h"
#include "common/zsock.h"

// What one side may bring in a turn before the other has its turn and results go out: short turns
// keep client, broker and worker busy at once instead of one after another.
#define TURN_MESSAGES 256
#define TURN_ITEMS 256
#define PUBLISH_EVERY_US 1000000u
// While messages are held back nothing tells when their socket takes more: look again so often.
#define HELD_BACK_RETRY_US 2000u
// How long a broker that was told to stop goes on answering what it accepted.
#define STOP_US 5000000u
#define LOOK_EVERY_US 10000u

static void free_payload(void *payload, void *user)
{
    (void)user;
    body_free(payload);
}

static int open_socket(struct broker *b, enum peer_side side, const char *const *endpoints,
                       size_t n, char *why, size_t size)
{
    for (size_t i = 0; i < n; i++) {
        if (!b->options->insecure && !endpoint_is_local(endpoints[i])) {
            snprintf(why, size,
                     "%s can be reached from other machines, and connections are not encrypted "
                     "yet: use an ipc:// or loopback endpoint, or say --insecure",
                     endpoints[i]);
            return EXIT_USAGE;
        }
        if (!endpoint_is_local(endpoints[i]))
            log_warn("insecure",
                     "endpoint=%s text=\"ANYBODY who can reach this address can use "
                     "the farm and read what is sent\"",
                     endpoints[i]);
    }
    b->sockets[side] = zsock_router(b->ctx, endpoints[0], why, size);
    if (!b->sockets[side])
        return EXIT_INTERNAL;
    for (size_t i = 1; i < n; i++)
        if (zsock_bind(b->sockets[side], endpoints[i], why, size) != 0)
            return EXIT_INTERNAL;
    return 0;
}

static int open_sockets(struct broker *b, char *why, size_t size)
{
    const struct broker_options *o = b->options;
    int rc = open_socket(b, PEER_CLIENT, o->client_endpoints, o->nclient_endpoints, why, size);
    return rc ? rc
              : open_socket(b, PEER_WORKER, o->worker_endpoints, o->nworker_endpoints, why, size);
}

static bool open_farm(struct broker *b)
{
    struct farm_config config;
    uint64_t seed;
    if (getrandom(&b->epoch, sizeof(b->epoch), 0) != sizeof(b->epoch) ||
        getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        return false;
    farm_config_default(&config);
    if (b->options->memory_bytes)
        config.memory_bytes_max = b->options->memory_bytes;
    if (b->options->lease_us)
        config.lease_us = b->options->lease_us;
    b->lease_us = config.lease_us;
    config.payload_free = free_payload;
    b->farm = farm_new(&config);
    b->catalog = b->farm ? catalog_new(b->farm) : NULL;
    b->peers = peers_new(seed);
    b->decoder = wire_decoder_new();
    b->message = malloc(sizeof(*b->message));
    b->header = wire_header_new();
    b->payload = payload_new();
    if (!b->catalog || !b->peers || !b->decoder || !b->message || !b->header || !b->payload)
        return false;
    message_init(b->message);
    return true;
}

// SIGTERM and SIGINT from now on wait in a descriptor; threads that are started later inherit it.
static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return -1;
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

int broker_open(struct broker *b, const struct broker_options *o, char *why, size_t size)
{
    memset(b, 0, sizeof(*b));
    b->options = o;
    b->now_us = b->started_us = clock_now_us();
    b->stop_us = UINT64_MAX;
    b->signals = open_signals();
    if (b->signals < 0) {
        snprintf(why, size, "cannot open a signalfd: %s", strerror(errno));
        return EXIT_INTERNAL;
    }
    if (!open_farm(b)) {
        snprintf(why, size, "out of memory");
        return EXIT_INTERNAL;
    }
    if (o->models && catalog_read(b->catalog, o->models, why, size) != 0)
        return EXIT_BAD_INPUT;
    b->ctx = zctx_open(1);
    if (!b->ctx) {
        snprintf(why, size, "cannot open a ZeroMQ context: %s", zmq_strerror(errno));
        return EXIT_INTERNAL;
    }
    int rc = open_sockets(b, why, size);
    if (rc == 0 && !(b->slabs = slabs_open(b))) {
        snprintf(why, size, "out of memory or file descriptors");
        rc = EXIT_INTERNAL;
    }
    if (rc == 0 && o->redis_url) {
        struct registry_options r = {.url = o->redis_url,
                                     .farm = o->farm_name,
                                     .beat_ms = PUBLISH_EVERY_US / 1000,
                                     .watch = true};
        b->registry = registry_open(&r, why, size);
        rc = b->registry ? 0 : EXIT_USAGE;
    }
    return rc;
}

void broker_close(struct broker *b)
{
    if (b->registry)
        registry_close(b->registry);
    zsock_close(b->sockets[PEER_CLIENT]);
    zsock_close(b->sockets[PEER_WORKER]);
    if (b->peers)
        peers_free(b->peers);
    catalog_free(b->catalog);
    if (b->farm)
        farm_free(b->farm);
    if (b->message)
        message_clear(b->message);
    free(b->message);
    slabs_close(b->slabs);
    payload_free(b->payload);
    wire_header_free(b->header);
    wire_decoder_free(b->decoder);
    zctx_close(b->ctx);
    if (b->signals >= 0)
        close(b->signals);
}

// Takes what one side has, up to a turn's share; returns how many messages there were.
static unsigned drain_side(struct broker *b, enum peer_side side)
{
    unsigned n = 0;
    b->turn_items = 0;
    for (; n < TURN_MESSAGES && b->turn_items < TURN_ITEMS; n++) {
        int rc = message_receive(b->sockets[side], true, b->message);
        if (rc == 0)
            break;
        if (rc == -EMSGSIZE) {
            b->counts.too_many_frames++;
            door_refuse(b, side, peers_find(b->peers, side, b->message), SONIC_STATUS_PROTOCOL, 0,
                        "the message has too many frames or none");
        } else if (rc < 0) {
            break;
        } else {
            door_take(b, side);
        }
        message_clear(b->message);
    }
    return n;
}

uint64_t broker_turn(struct broker *b, unsigned *taken)
{
    *taken = drain_side(b, PEER_WORKER) + drain_side(b, PEER_CLIENT);
    b->forgot = false;
    uint64_t next_us = farm_tick(b->farm, b->now_us);
    outbox_drain(b);
    if (b->now_us >= b->next_beat_us) {
        outbox_beat(b);
        b->next_beat_us = b->now_us + BROKER_BEAT_US;
    }
    if (b->registry && b->now_us >= b->next_publish_us) {
        status_publish(b);
        b->next_publish_us = b->now_us + PUBLISH_EVERY_US;
    }
    if (b->forgot)
        return b->now_us;
    if (b->blocked && next_us > b->now_us + HELD_BACK_RETRY_US)
        next_us = b->now_us + HELD_BACK_RETRY_US;
    return next_us < b->next_beat_us ? next_us : b->next_beat_us;
}

// ---- the loop -----------------------------------------------------------------------------------

// Waits for a socket, a signal or the time; ppoll, because a queue delay is a matter of
// microseconds. libzmq's descriptors are edge-triggered and say nothing about messages that were
// there before: ZMQ_EVENTS is looked at first.
static void wait_for_events(struct broker *b, uint64_t until_us)
{
    struct pollfd fds[] = {{zsock_fd(b->sockets[PEER_CLIENT]), POLLIN, 0},
                           {zsock_fd(b->sockets[PEER_WORKER]), POLLIN, 0},
                           {slabs_fd(b->slabs), POLLIN, 0},
                           {b->signals, POLLIN, 0}};
    if ((zsock_events(b->sockets[PEER_CLIENT]) | zsock_events(b->sockets[PEER_WORKER])) &
        ZMQ_POLLIN)
        return;
    uint64_t now_us = clock_now_us();
    uint64_t left_us = until_us > now_us ? until_us - now_us : 0;
    struct timespec left = {.tv_sec = (time_t)(left_us / 1000000),
                            .tv_nsec = (long)(left_us % 1000000 * 1000)};
    ppoll(fds, sizeof(fds) / sizeof(fds[0]), &left, NULL);
}

static bool nothing_open(const struct broker *b)
{
    struct farm_stats s;
    farm_stats(b->farm, &s);
    return s.queued + s.leased + s.waiting_answers == 0 && !b->blocked;
}

// Whether the broker is to end now: it was told to, and has answered all it had or waited enough.
static bool ends_now(struct broker *b)
{
    struct signalfd_siginfo info;
    if (read(b->signals, &info, sizeof(info)) == sizeof(info)) {
        if (b->stopping)
            return true; // told twice
        b->stopping = true;
        b->stop_us = b->now_us + STOP_US;
        log_info("stopping", "text=\"finishing what was accepted; a second signal stops at once\"");
    }
    return b->stopping && (nothing_open(b) || b->now_us >= b->stop_us);
}

int broker_run(struct broker *b)
{
    log_info("started", "name=%s epoch=%016llx client=%s worker=%s", b->options->name,
             (unsigned long long)b->epoch, b->options->client_endpoints[0],
             b->options->worker_endpoints[0]);
    for (;;) {
        unsigned taken;
        b->now_us = clock_now_us();
        uint64_t next_us = broker_turn(b, &taken);
        // Under load there is always another turn: what is rare is looked for by time, not when
        // idle.
        if (taken && b->now_us < b->next_look_us)
            continue;
        b->next_look_us = b->now_us + LOOK_EVERY_US;
        slabs_serve(b);
        if (ends_now(b))
            break;
        if (!taken)
            wait_for_events(b, next_us < b->stop_us ? next_us : b->stop_us);
    }
    log_info("stopped", "name=%s", b->options->name);
    return EXIT_OK;
}
