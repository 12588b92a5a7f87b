// SPDX-License-Identifier: Apache-2.0
// The public functions: a handle's life, submitting, and the loop that drives everything else.
#include "client/handle.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/endpoints.h"
#include "common/name.h"
#include "common/zsock.h"

#define DEFAULT_REQUESTS 4096u
#define DEFAULT_BYTES (64ull << 20)
// Goodbyes and cancels have this long to leave when a handle is closed.
#define LINGER_MS 200
// Times handed in are cut to this, some 146,000 years, so that sums of them cannot wrap.
#define FOR_EVER_US (UINT64_MAX / 4)
// When the caller was away for longer than the patience of lost_after_ms, the broker gets so long
// to be heard before it is taken for lost.
#define AWAY_US 100000u
#define HEARING_US 1000000u

int handle_fail(struct sonic *s, int e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->error, sizeof(s->error), fmt, ap);
    va_end(ap);
    return -e;
}

void handle_wake(struct sonic *s)
{
    uint64_t one = 1;
    // Inside sonic_process the turn that runs sends what its callbacks submit.
    if (s->woken || s->in_process)
        return;
    s->woken = true;
    ssize_t ignored = write(s->wake, &one, sizeof(one));
    (void)ignored;
}

// ---- life ---------------------------------------------------------------------------------------

// A name that the wire takes: what it would not is replaced by '_'.
static void label(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text && text[0] ? text : "anonymous");
    for (char *c = out; *c; c++)
        if (!name_is_label(c, 1))
            *c = '_';
}

static void take_options(struct sonic *s, const sonic_options_t *o)
{
    static const sonic_options_t none;
    struct passwd *pw = getpwuid(getuid());
    if (!o)
        o = &none;
    if (o->endpoint)
        snprintf(s->endpoint, sizeof(s->endpoint), "%s", o->endpoint);
    else
        endpoint_client(s->endpoint, sizeof(s->endpoint));
    label(s->tenant, sizeof(s->tenant), o->tenant ? o->tenant : pw ? pw->pw_name : NULL);
    label(s->software, sizeof(s->software), o->software ? o->software : "libsonic/" SONIC_VERSION);
    s->window_requests = o->window_requests ? o->window_requests : DEFAULT_REQUESTS;
    s->window_bytes = o->window_bytes ? o->window_bytes : DEFAULT_BYTES;
    s->lost_after_us =
        o->lost_after_ms < FOR_EVER_US / 1000 ? o->lost_after_ms * 1000 : FOR_EVER_US;
}

static int add_fd(struct sonic *s, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event);
}

static int open_fds(struct sonic *s)
{
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (s->epoll < 0 || s->wake < 0 || s->timer < 0 || add_fd(s, s->wake) != 0 ||
        add_fd(s, s->timer) != 0)
        return -errno;
    return 0;
}

static int open_socket(struct sonic *s)
{
    char where[64];
    snprintf(where, sizeof(where), "inproc://sonic-%p", (void *)s);
    s->ctx = zctx_open(1);
    s->monitor = s->ctx ? zmq_socket(s->ctx, ZMQ_PAIR) : NULL;
    if (!s->monitor)
        return handle_fail(s, errno, "cannot open a ZeroMQ context: %s", zmq_strerror(errno));
    // The monitor is attached before the socket connects, or its first event could be missed.
    s->socket = zsock_dealer_monitored(s->ctx, s->endpoint, LINGER_MS, where,
                                       ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED,
                                       s->monitor, s->error, sizeof(s->error));
    if (!s->socket)
        return -EINVAL;
    if (add_fd(s, zsock_fd(s->socket)) != 0 || add_fd(s, zsock_fd(s->monitor)) != 0)
        return handle_fail(s, errno, "epoll: %s", strerror(errno));
    return 0;
}

static int open_parts(struct sonic *s)
{
    uint64_t seed;
    s->decoder = wire_decoder_new();
    s->header = wire_header_new();
    s->side_header = wire_header_new();
    s->payload = payload_new();
    s->message = malloc(sizeof(*s->message));
    if (getrandom(&s->session, sizeof(s->session), 0) != sizeof(s->session) ||
        getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        return handle_fail(s, errno, "getrandom: %s", strerror(errno));
    s->window = window_new(seed);
    if (!s->decoder || !s->header || !s->side_header || !s->payload || !s->message || !s->window)
        return handle_fail(s, ENOMEM, "out of memory");
    message_init(s->message);
    return 0;
}

int sonic_open(sonic_t **out, const sonic_options_t *options)
{
    struct sonic *s = calloc(1, sizeof(*s));
    *out = s; // also on failure, so that sonic_error can say why; sonic_close frees it
    if (!s)
        return -ENOMEM;
    s->epoll = s->wake = s->timer = -1;
    s->timer_us = UINT64_MAX;
    s->now_us = s->heard_us = clock_now_us();
    take_options(s, options);
    int rc = open_parts(s);
    if (rc == 0 && open_fds(s) != 0)
        rc = handle_fail(s, errno, "cannot open file descriptors: %s", strerror(errno));
    return rc ? rc : open_socket(s);
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void free_calls(struct sonic *s)
{
    while (s->spare) {
        struct call *c = s->spare;
        s->spare = c->next_spare;
        free(c);
    }
}

void sonic_close(sonic_t *s)
{
    if (!s)
        return;
    s->closing = true;
    if (s->link == LINK_OPEN && !s->unsent) {
        struct wire_bye fields = {.epoch = s->epoch};
        wire_begin_bye(s->header, &fields);
        message_send(s->socket, NULL, 0, s->header, NULL);
    }
    payload_free(s->payload);
    zsock_close(s->monitor);
    zsock_close(s->socket);
    zctx_close(s->ctx); // from here on libzmq holds nothing of the callers' data
    if (s->window)
        flight_end(s, SONIC_STATUS_CANCELLED);
    free_calls(s);
    share_close(s);
    window_free(s->window);
    free(s->message);
    wire_header_free(s->header);
    wire_header_free(s->side_header);
    wire_decoder_free(s->decoder);
    close_fd(s->epoll);
    close_fd(s->wake);
    close_fd(s->timer);
    free(s);
}

// ---- submitting ---------------------------------------------------------------------------------

static int check_tensor(struct sonic *s, unsigned i, const sonic_tensor_t *t)
{
    uint64_t bytes;
    if (t->ndim > SONIC_MAX_DIMS || !tensor_bytes(t->type, t->ndim, t->dims, &bytes))
        return handle_fail(s, EINVAL, "input %u: unknown type or impossible shape", i);
    if (bytes != t->bytes)
        return handle_fail(s, EINVAL, "input %u: %zu bytes given, type and shape make %llu", i,
                           t->bytes, (unsigned long long)bytes);
    if (bytes > SONIC_FRAME_BYTES_MAX)
        return handle_fail(s, EMSGSIZE, "input %u is over %llu bytes: send fewer rows a request", i,
                           SONIC_FRAME_BYTES_MAX);
    if (bytes && !t->data)
        return handle_fail(s, EINVAL, "input %u has no data", i);
    return 0;
}

static int check_request(struct sonic *s, const sonic_request_t *r, uint64_t *bytes)
{
    *bytes = 0;
    if (!r->model || !name_is_model(r->model, strlen(r->model)))
        return handle_fail(s, EINVAL, "\"%s\" is no name of a model (a-z 0-9 . _ -)",
                           r->model ? r->model : "");
    if (r->ninputs > SONIC_MAX_TENSORS)
        return handle_fail(s, EINVAL, "%u inputs, at most %u are possible", r->ninputs,
                           SONIC_MAX_TENSORS);
    if (r->priority > SONIC_PRIORITY_LEVELS_MAX)
        return handle_fail(s, EINVAL, "priority %u; 1 (most urgent) to %u, 0 for the default",
                           r->priority, SONIC_PRIORITY_LEVELS_MAX);
    for (unsigned i = 0; i < r->ninputs; i++) {
        int rc = check_tensor(s, i, &r->inputs[i]);
        if (rc != 0)
            return rc;
        *bytes += r->inputs[i].bytes;
    }
    return 0;
}

int handle_check(struct sonic *s, const sonic_request_t *request)
{
    uint64_t bytes;
    return check_request(s, request, &bytes);
}

int sonic_submit(sonic_t *s, const sonic_request_t *request, uint64_t *id)
{
    struct window_counts counts;
    struct window_request r = {.version = request->version, .priority = (uint8_t)request->priority};
    int rc = check_request(s, request, &r.bytes);
    if (rc != 0)
        return rc;
    if (s->closing)
        return handle_fail(s, ESHUTDOWN, "the handle is being closed");
    window_counts(s->window, &counts);
    if (counts.pending >= 2 * (size_t)s->window_requests)
        return handle_fail(s, EAGAIN, "%zu requests are pending: call sonic_process first",
                           counts.pending);
    struct call *c = flight_call(s);
    // A callback's turn has just read the clock.
    uint64_t now_us = s->in_callback ? s->now_us : clock_now_us();
    memcpy(r.model, request->model, strlen(request->model) + 1);
    if (request->deadline_us && request->deadline_us < FOR_EVER_US)
        r.deadline_us = now_us + request->deadline_us;
    if (counts.pending == 0)
        s->pending_since_us = now_us;
    r.user = c;
    struct window_request *queued = c ? window_submit(s->window, now_us, &r) : NULL;
    if (!queued) {
        if (c) {
            c->request = NULL;
            flight_recycle(s, c);
        }
        return handle_fail(s, ENOMEM, "out of memory");
    }
    c->request = queued;
    c->callback = request->callback;
    c->user = request->user;
    c->ninputs = request->ninputs;
    if (request->ninputs)
        memcpy(c->inputs, request->inputs, request->ninputs * sizeof(c->inputs[0]));
    if (id)
        *id = queued->seq;
    handle_wake(s);
    return 0;
}

int sonic_cancel(sonic_t *s, uint64_t id)
{
    int rc = window_cancel(s->window, id);
    if (rc < 0)
        return handle_fail(s, ENOENT, "request %llu is not pending", (unsigned long long)id);
    if (rc > 0)
        flight_cancel(s, id);
    handle_wake(s);
    return 0;
}

// ---- the loop -----------------------------------------------------------------------------------

// When a broker that stays silent runs out of lost_after_ms; UINT64_MAX: there is no such time.
static uint64_t patience_us(const struct sonic *s)
{
    uint64_t since_us = s->heard_us > s->pending_since_us ? s->heard_us : s->pending_since_us;
    struct window_counts counts;
    window_counts(s->window, &counts);
    return s->lost_after_us && counts.pending ? since_us + s->lost_after_us : UINT64_MAX;
}

static void arm_timer(struct sonic *s)
{
    uint64_t at_us = window_wake(s->window), link_us = link_wake(s);
    uint64_t lost_us = s->lost_us ? s->lost_us : patience_us(s);
    if (link_us < at_us)
        at_us = link_us;
    if (lost_us < at_us)
        at_us = lost_us;
    if (at_us >= s->timer_us)
        return; // it fires earlier, and is set anew then: saves a system call a turn
    s->timer_us = at_us;
    at_us += at_us == 0; // zero would disarm it
    struct itimerspec spec = {.it_value = {.tv_sec = (time_t)(at_us / 1000000),
                                           .tv_nsec = (long)(at_us % 1000000) * 1000}};
    timerfd_settime(s->timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void clear_fds(struct sonic *s)
{
    uint64_t count;
    if (s->woken || atomic_exchange(&s->released, false)) {
        ssize_t ignored = read(s->wake, &count, sizeof(count));
        (void)ignored;
        s->woken = false;
    }
    if (s->timer_us <= s->now_us && read(s->timer, &count, sizeof(count)) == sizeof(count))
        s->timer_us = UINT64_MAX;
}

static void give_up_when_lost(struct sonic *s)
{
    uint64_t at_us = patience_us(s);
    if (s->now_us < at_us) {
        s->lost_us = 0;
        return;
    }
    if (s->lost_us == 0)
        s->lost_us = s->now_us + (s->now_us - at_us > AWAY_US ? HEARING_US : 0);
    if (s->now_us < s->lost_us)
        return;
    s->lost_us = 0;
    handle_fail(s, EHOSTUNREACH, "no broker answered at %s for %llu ms", s->endpoint,
                (unsigned long long)(s->lost_after_us / 1000));
    flight_end(s, SONIC_STATUS_LOST);
}

// One turn: everything that is there now. Whether anything came in.
static bool turn(struct sonic *s)
{
    s->now_us = clock_now_us();
    clear_fds(s);
    link_tend(s);
    unsigned n = link_receive(s);
    flight_due(s);
    give_up_when_lost(s);
    flight_send(s);
    return n > 0;
}

static bool more_to_read(struct sonic *s)
{
    return (zsock_events(s->socket) & ZMQ_POLLIN) || (zsock_events(s->monitor) & ZMQ_POLLIN);
}

// What a caller who waits on sonic_fd relies on: it is readable while there is something to do.
static void settle(struct sonic *s)
{
    arm_timer(s);
    if (more_to_read(s))
        handle_wake(s);
}

static int time_left_ms(uint64_t until_us)
{
    uint64_t now_us = clock_now_us();
    if (until_us == UINT64_MAX)
        return -1;
    return now_us >= until_us ? 0 : (int)((until_us - now_us + 999) / 1000);
}

int sonic_process(sonic_t *s, int timeout_ms)
{
    uint64_t until_us = timeout_ms < 0 ? UINT64_MAX : clock_now_us() + (uint64_t)timeout_ms * 1000;
    struct epoll_event events[4];
    if (s->in_callback)
        return handle_fail(s, EBUSY, "sonic_process was called from a callback");
    s->ncalls = 0;
    s->in_process = true;
    for (;;) {
        bool busy = turn(s);
        if (s->ncalls > 0 || s->link == LINK_REFUSED || (s->question && s->question->done))
            break;
        if (busy || more_to_read(s))
            continue;
        arm_timer(s);
        int left_ms = time_left_ms(until_us);
        if (left_ms == 0)
            break;
        if (epoll_wait(s->epoll, events, 4, left_ms) < 0) {
            if (errno != EINTR) {
                s->in_process = false;
                return handle_fail(s, errno, "epoll_wait: %s", strerror(errno));
            }
            break; // a signal: the caller may want to look at what it set
        }
    }
    s->in_process = false;
    settle(s);
    if (s->ncalls > 0)
        return (int)s->ncalls;
    return s->link == LINK_REFUSED ? -EPROTO : 0;
}

// ---- small things -------------------------------------------------------------------------------

int sonic_fd(const sonic_t *s)
{
    return s->epoll;
}

size_t sonic_pending(const sonic_t *s)
{
    struct window_counts counts;
    window_counts(s->window, &counts);
    size_t kept = 0;
    for (const struct call *c = s->kept; c; c = c->kept->next)
        kept++;
    return counts.pending + kept;
}

int sonic_connected(const sonic_t *s)
{
    return s->link == LINK_OPEN;
}

const char *sonic_error(const sonic_t *s)
{
    return s ? s->error : "out of memory";
}

const char *sonic_status_string(sonic_status_t status)
{
    return sonic_status_name(status);
}

const char *sonic_version(void)
{
    return SONIC_VERSION;
}
