// SPDX-License-Identifier: Apache-2.0
#include "worker/agent.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/exitcode.h"
#include "common/log.h"
#include "common/message.h"
#include "common/zsock.h"
#include "worker/announce.h"
#include "worker/inbox.h"
#include "worker/mappings.h"
#include "worker/session.h"

// Messages taken in one turn before finished executions are looked at again.
#define TURN_BUDGET 64
// Under load there is always another turn: the side socket is looked at by time, not when idle.
#define LOOK_EVERY_US 10000u
// A link takes a moment; from here on its absence is worth a word.
#define NO_LINK_US 2000000u
// Time that the last results have to leave after the loop has ended.
#define LINGER_MS 2000

struct agent {
    const struct worker_options *options;
    const struct fleet *fleet;
    void *ctx, *socket;
    int signals;
    struct wire_decoder *decoder;
    struct wire_header *header;
    struct parcel *parcel; // the next message's
    struct job_pool *pool;
    struct slots *slots;
    struct results *results;
    struct announce *announce;
    struct mappings *mappings;
    struct inbox inbox;
    struct session session;
    uint64_t id; // this life of the worker
    uint64_t now_us;
    uint64_t next_look_us; // at the side socket
    uint64_t lease_us;     // from the broker: longest that one execution may take
    bool join_blocked;     // no link: JOIN goes out as soon as there is one
    uint64_t no_link_us;   // since when
    bool told_no_link;     // said once, not each time
    bool stopping;
    char quarantined[SONIC_TEXT_MAX]; // why the device was given up; "": it works
    int status;
    char why[1024];
};

// ---- what goes out ------------------------------------------------------------------------------

// A message without tensors. What the socket does not take is not kept: each is sent again later.
static bool send_header(struct agent *a)
{
    return message_send(a->socket, NULL, 0, a->header, NULL) == 0;
}

static void send_join(struct agent *a)
{
    announce_join(a->announce, a->id, !a->quarantined[0], a->header);
    a->join_blocked = !send_header(a);
    if (!a->join_blocked)
        a->no_link_us = 0;
    else if (a->no_link_us == 0)
        a->no_link_us = a->now_us;
    if (!a->join_blocked || a->told_no_link || a->now_us - a->no_link_us < NO_LINK_US)
        return;
    a->told_no_link = true;
    log_warn("broker_not_reached",
             "broker=%s text=\"nobody answers there; this worker goes on trying: is sonic-broker "
             "running, and is this its worker endpoint?\"",
             a->options->broker);
}

// An executing thread cannot be ended, so the whole worker ends, and what it holds with it; sooner
// than the broker takes the leases, or it would be given new ones. Counted in beats and not in
// time: a machine that slept has not hung.
static void leave_when_hung(const struct agent *a, uint32_t still_beats)
{
    uint64_t still_us = (still_beats + 1) * a->session.beat_us;
    if (a->lease_us == 0 || still_us < a->lease_us)
        return;
    log_error("device_hung",
              "device=%s seconds=%" PRIu64 " text=\"one execution takes longer than the broker's "
              "--lease; if it is not hung but slow, raise that or lower max_batch_size\"",
              a->options->device, still_us / 1000000);
    _exit(EXIT_MODEL);
}

static void send_beat(struct agent *a)
{
    struct slots_load load;
    struct slots_progress progress = slots_beat(a->slots);
    leave_when_hung(a, progress.still_beats);
    slots_load(a->slots, &load);
    struct device_usage usage = {0};
    if (a->fleet->executor->usage)
        a->fleet->executor->usage(a->fleet->device, &usage);
    announce_load(a->announce, a->now_us, &load, &usage.sensors, a->quarantined);
    mappings_tend(a->mappings);
    struct wire_heartbeat beat = {.epoch = a->session.epoch,
                                  .progress = progress.count,
                                  .busy_slots = load.now.busy,
                                  .staged = load.now.requests,
                                  .memory_free_bytes = announce_memory_free(&usage.sensors),
                                  .write_us = usage.write_us,
                                  .kernel_us = usage.kernel_us,
                                  .read_us = usage.read_us,
                                  .idle_us = usage.idle_us,
                                  .faults = usage.faults,
                                  .quarantined = wire_str(a->quarantined),
                                  .sensors = usage.sensors.known,
                                  .busy_percent = usage.sensors.busy_percent,
                                  .memory_used_bytes = usage.sensors.memory_used_bytes,
                                  .power_mw = usage.sensors.power_mw,
                                  .temperature_c = usage.sensors.temperature_c};
    wire_begin_heartbeat(a->header, &beat);
    send_header(a);
    struct job *late = slots_expire(a->slots);
    if (late)
        results_add(a->results, late);
}

static void send_bye(struct agent *a)
{
    struct wire_bye bye = {.epoch = a->session.epoch};
    wire_begin_bye(a->header, &bye);
    send_header(a);
}

// All leases are void: what is staged is dropped, what executes is discarded when it ends.
static void void_leases(struct agent *a)
{
    // No session has this number, until one is accepted.
    a->inbox.session = UINT64_MAX;
    slots_new_session(a->slots, UINT64_MAX);
    results_new_session(a->results, UINT64_MAX, 0);
    mappings_leave(a->mappings);
}

// ---- what comes in ------------------------------------------------------------------------------

static void take_accept(struct agent *a, const struct wire_message *m)
{
    session_accepted(&a->session, a->now_us, m->fields.accept.epoch, m->fields.accept.beat_ms);
    a->lease_us = m->fields.accept.lease_ms * 1000ull;
    a->inbox.session = a->session.number;
    slots_new_session(a->slots, a->session.number);
    results_new_session(a->results, a->session.number, a->session.epoch);
    mappings_attend(a->mappings, a->options->broker, a->session.epoch, a->id);
    a->told_no_link = false;
    log_info("joined", "broker=%s epoch=%016" PRIx64 " models=%u refused=%u", a->options->broker,
             a->session.epoch, a->fleet->nmodels, m->nitems);
    for (uint32_t i = 0; i < m->nitems; i++) {
        const struct wire_accept_item *item = &m->items.accept[i];
        log_warn("model_refused", "model=%.*s why=\"%.*s\"", (int)item->model.len, item->model.data,
                 (int)item->text.len, item->text.data);
    }
}

static void take_refuse(struct agent *a, const struct wire_message *m)
{
    const struct wire_refuse *r = &m->fields.refuse;
    switch (r->status) {
    case SONIC_STATUS_REGISTER_AGAIN:
        if (session_unknown(&a->session, a->now_us)) {
            log_info("joining_again", "why=\"%.*s\"", (int)r->text.len, r->text.data);
            void_leases(a);
        }
        break;
    case SONIC_STATUS_VERSION:
        a->status = EXIT_NOT_REACHED;
        snprintf(a->why, sizeof(a->why), "%s does not take this worker: %.*s", a->options->broker,
                 (int)r->text.len, r->text.data);
        break;
    default:
        log_warn("refused", "broker=%s status=%s text=\"%.*s\"", a->options->broker,
                 sonic_status_name(r->status), (int)r->text.len, r->text.data);
        session_refused(&a->session, a->now_us, r->retry_after_ms);
    }
}

static void take_dispatch(struct agent *a, const struct wire_message *m)
{
    if ((a->session.state != SESSION_JOINED && a->session.state != SESSION_LEAVING) ||
        m->fields.dispatch.epoch != a->session.epoch)
        return; // of an earlier session, still in the link
    if (inbox_dispatch(&a->inbox, a->now_us, a->parcel, m))
        return;
    log_error(
        "over_room",
        "text=\"the broker sent more than the room that this worker offered; joining again\"");
    if (session_unknown(&a->session, a->now_us))
        void_leases(a);
}

static void take_revoke(struct agent *a, const struct wire_message *m)
{
    if (m->fields.revoke.epoch != a->session.epoch)
        return;
    for (uint32_t i = 0; i < m->nitems; i++)
        slots_revoke(a->slots, m->items.revoke[i].lease);
}

static void take_message(struct agent *a)
{
    struct message *raw = parcel_message(a->parcel);
    struct wire_message *m;
    enum wire_error e = wire_decode(a->decoder, zmq_msg_data(&raw->frames[0]),
                                    zmq_msg_size(&raw->frames[0]), WIRE_FROM_BROKER, &m);
    session_heard(&a->session, a->now_us);
    if (e != WIRE_OK) {
        log_warn("bad_message", "broker=%s error=%s", a->options->broker, wire_error_name(e));
        return;
    }
    switch (m->type) {
    case WIRE_ACCEPT:
        message_widen_link(raw);
        take_accept(a, m);
        break;
    case WIRE_REFUSE:
        take_refuse(a, m);
        break;
    case WIRE_DISPATCH:
        take_dispatch(a, m);
        break;
    case WIRE_REVOKE:
        take_revoke(a, m);
        break;
    default: // a beat: that it came is all it says
        break;
    }
}

// A broker that does not hear of one goes on sending frames.
static void tell_mapped(struct agent *a)
{
    struct wire_mapped mapped = {.epoch = a->session.epoch};
    if (a->now_us < a->next_look_us)
        return;
    a->next_look_us = a->now_us + LOOK_EVERY_US;
    while ((mapped.slab = mappings_next(a->mappings)) != 0) {
        wire_begin_mapped(a->header, &mapped);
        send_header(a);
    }
}

static int take_messages(struct agent *a)
{
    int n = 0;
    for (; n < TURN_BUDGET; n++) {
        int rc = message_receive(a->socket, false, parcel_message(a->parcel));
        if (rc == 0 || (rc < 0 && rc != -EMSGSIZE))
            break;
        if (rc > 0)
            take_message(a);
        parcel_unref(a->parcel); // what was dispatched holds its own references
        a->parcel = parcel_new();
    }
    return n;
}

// ---- a turn -------------------------------------------------------------------------------------

// The device is given up, the worker stays: started anew it would break the next requests on it,
// and the reason would be in a log that nobody reads. Whoever has mended it starts the worker
// again.
static void quarantine(struct agent *a, const char *why)
{
    if (a->quarantined[0])
        return;
    snprintf(a->quarantined, sizeof(a->quarantined), "%s", why);
    log_error("device_quarantined",
              "device=%s why=\"%s\" text=\"nothing is executed here until this worker is started "
              "again\"",
              a->options->device, why);
    if (a->session.state == SESSION_JOINED || a->session.state == SESSION_LEAVING)
        send_beat(a); // ahead of the results: nothing more is sent here for them
}

static int take_finished(struct agent *a)
{
    int n = 0;
    for (struct job *j = slots_finished(a->slots), *next; j; j = next, n++) {
        next = j->next;
        if (j->device_lost) {
            // If it was these requests that broke the device, they must not be tried on every
            // device there is: a death for each.
            j->status = SONIC_STATUS_DEVICE_FAULT;
            quarantine(a, j->text[0] ? j->text : "the device is lost");
        }
        results_add(a->results, j);
    }
    struct job *staged = a->quarantined[0] ? slots_give_up(a->slots, true) : NULL;
    if (staged)
        results_add(a->results, staged);
    return n;
}

static void do_what_is_due(struct agent *a)
{
    enum session_action action;
    if (a->join_blocked && a->session.state == SESSION_JOINING &&
        (zsock_events(a->socket) & ZMQ_POLLOUT))
        send_join(a);
    while ((action = session_due(&a->session, a->now_us)) != SESSION_NOTHING)
        switch (action) {
        case SESSION_JOIN:
            send_join(a);
            break;
        case SESSION_BEAT:
            send_beat(a);
            break;
        case SESSION_BYE:
            send_bye(a);
            break;
        case SESSION_LOST:
            log_warn("broker_lost", "broker=%s text=\"silent for five beats; joining again\"",
                     a->options->broker);
            void_leases(a);
            break;
        case SESSION_NOTHING:
            break;
        }
}

static bool nothing_left(struct agent *a)
{
    struct slots_load load;
    slots_load(a->slots, &load);
    return load.now.requests == 0 && !results_pending(a->results);
}

// What the handler leaves behind: how often it was called, and the eventfd that wakes the loop. A
// handler and not a signalfd: that would need the signals blocked in every thread, also in those
// that a device's library has started.
static volatile sig_atomic_t signals_seen;
static int signal_event = -1;

static void on_signal(int number)
{
    uint64_t one = 1;
    (void)number;
    signals_seen++;
    ssize_t ignored = write(signal_event, &one, sizeof(one));
    (void)ignored;
}

static void take_signal(struct agent *a)
{
    if (signals_seen == 0 || (a->stopping && signals_seen == 1))
        return;
    if (signals_seen > 1)
        _exit(EXIT_INTERRUPTED); // asked twice: not even the executions are waited for
    uint64_t count;
    ssize_t ignored = read(a->signals, &count, sizeof(count));
    (void)ignored;
    a->stopping = true;
    log_info("stopping", "text=\"finishing what is held; a second signal ends it at once\"");
    session_leave(&a->session, a->now_us);
}

static void wait_for_events(struct agent *a)
{
    enum { SIDE = 2 };
    struct pollfd fds[] = {{zsock_fd(a->socket), POLLIN, 0},
                           {slots_fd(a->slots), POLLIN, 0},
                           {mappings_fd(a->mappings), POLLIN, 0},
                           {a->signals, POLLIN, 0}};
    int events = zsock_events(a->socket);
    // The fd says nothing about what was there before: both directions are looked at first.
    if ((events & ZMQ_POLLIN) || ((events & ZMQ_POLLOUT) && results_pending(a->results)))
        return;
    uint64_t wake_us = session_wake_us(&a->session), now_us = clock_now_us();
    uint64_t left_us = wake_us > now_us ? wake_us - now_us : 0;
    poll(fds, sizeof(fds) / sizeof(fds[0]),
         left_us > 1000000 ? 1000 : (int)((left_us + 999) / 1000));
    if (fds[SIDE].revents)
        a->next_look_us = 0;
}

static void turn(struct agent *a)
{
    a->now_us = clock_now_us();
    int did = take_messages(a) + take_finished(a);
    results_send(a->results); // what the socket does not take waits
    tell_mapped(a);
    do_what_is_due(a);
    take_signal(a);
    if (a->stopping)
        session_empty(&a->session, a->now_us, nothing_left(a));
    if (!did && a->session.state != SESSION_GONE)
        wait_for_events(a);
}

// ---- life ---------------------------------------------------------------------------------------

static bool open_signals(struct agent *a)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    a->signals = signal_event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return a->signals >= 0 && sigaction(SIGTERM, &action, NULL) == 0 &&
           sigaction(SIGINT, &action, NULL) == 0;
}

static uint32_t most_inputs(const struct fleet *f)
{
    uint32_t most = 1;
    for (uint32_t i = 0; i < f->nmodels; i++)
        if (f->models[i].config.ninputs > most)
            most = f->models[i].config.ninputs;
    return most;
}

static bool open_parts(struct agent *a, char *why, size_t size)
{
    const struct worker_options *o = a->options;
    a->status = EXIT_INTERNAL;
    snprintf(why, size, "cannot start: out of memory or file descriptors");
    if (!open_signals(a) || getrandom(&a->id, sizeof(a->id), 0) != sizeof(a->id) ||
        !(a->ctx = zctx_open(1)))
        return false;
    a->socket = zsock_dealer(a->ctx, o->broker, LINGER_MS, why, size);
    if (!a->socket) {
        a->status =
            EXIT_USAGE; // it is the endpoint that makes no sense: nothing is waited for here
        return false;
    }
    a->decoder = wire_decoder_new();
    a->header = wire_header_new();
    a->parcel = parcel_new();
    a->pool = job_pool_new(most_inputs(a->fleet), 2 * a->fleet->info.slots + 2);
    a->results = results_new(a->fleet, a->socket);
    a->mappings = mappings_new();
    if (!a->decoder || !a->header || !a->pool || !a->results || !a->mappings)
        return false;
    a->slots = slots_new(a->fleet, a->pool, o->room_requests, o->room_bytes);
    if (!a->slots)
        return false;
    a->inbox = (struct inbox){.fleet = a->fleet,
                              .pool = a->pool,
                              .slots = a->slots,
                              .results = a->results,
                              .mappings = a->mappings};
    a->announce = announce_open(o, a->fleet, why, size);
    if (!a->announce) {
        a->status = EXIT_USAGE; // the registry's URL
        return false;
    }
    a->status = EXIT_OK;
    return true;
}

static void close_parts(struct agent *a)
{
    announce_close(a->announce);
    slots_free(a->slots);
    results_free(a->results);
    if (a->parcel)
        parcel_unref(a->parcel);
    zsock_close(a->socket);
    zctx_close(a->ctx); // after it nothing of ours is being sent: the jobs are all back
    job_pool_free(a->pool);
    mappings_free(a->mappings);
    wire_header_free(a->header);
    wire_decoder_free(a->decoder);
    signal(SIGTERM, SIG_DFL); // from here on nothing is left that could be lost
    signal(SIGINT, SIG_DFL);
    if (a->signals >= 0)
        close(a->signals);
}

int agent_run(const struct worker_options *options, const struct fleet *fleet, char *why,
              size_t size)
{
    struct agent a = {.options = options, .fleet = fleet, .signals = -1};
    if (!open_parts(&a, why, size)) {
        close_parts(&a);
        return a.status;
    }
    a.now_us = clock_now_us();
    session_init(&a.session, a.now_us);
    log_info("started", "name=%s broker=%s device=\"%s\" slots=%u models=%u", options->name,
             options->broker, fleet->info.name, fleet->info.slots, fleet->nmodels);
    while (a.session.state != SESSION_GONE && a.status == EXIT_OK)
        turn(&a);
    log_info("stopped", "name=%s", options->name);
    close_parts(&a);
    snprintf(why, size, "%s", a.why);
    return a.status;
}
