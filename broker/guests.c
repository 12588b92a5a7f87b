// SPDX-License-Identifier: Apache-2.0
#include "broker/guests.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/broker.h"
#include "common/clock.h"
#include "common/slab.h"

// Connections that have not said yet who they are, and how long they may take. When there are more
// the oldest is shown the door: honest guests have spoken before anybody looks.
#define GUESTS_MAX 64u
#define GUEST_US 1000000u
// What the broker has not looked at yet; more is dropped, and offered again.
#define PACKETS_MAX 256u
// Out of descriptors: looked at again then.
#define SHORT_MS 100
#define LISTENERS_MAX (2u * BROKER_ENDPOINTS_MAX)

struct listener {
    int fd;
    enum peer_side side;
    const char *endpoint;
};

struct guest {
    int fd;
    enum peer_side side;
    uint64_t until_us;
};

struct guests {
    int ready, wake; // eventfds: for the broker, for the thread
    uint64_t bytes_max;
    bool started;
    pthread_t thread;
    uint32_t nlisteners, nguests;
    struct listener listeners[LISTENERS_MAX];
    struct guest guests[GUESTS_MAX]; // the thread's, oldest first
    bool short_of_descriptors;
    pthread_mutex_t lock; // of what is below
    bool stop;
    uint32_t npackets, first, ndismissed, dismissed_size;
    struct guest_packet packets[PACKETS_MAX]; // a ring
    int *dismissed;
};

static void signal_event(int fd)
{
    uint64_t one = 1;
    ssize_t ignored = write(fd, &one, sizeof(one));
    (void)ignored;
}

static void clear_event(int fd)
{
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof(count));
    (void)ignored;
}

// ---- the broker's side --------------------------------------------------------------------------

struct guests *guests_new(uint64_t bytes_max)
{
    struct guests *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->bytes_max = bytes_max;
    pthread_mutex_init(&g->lock, NULL);
    g->ready = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    g->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (g->ready >= 0 && g->wake >= 0)
        return g;
    guests_free(g);
    return NULL;
}

bool guests_listen(struct guests *g, enum peer_side side, const char *endpoint)
{
    int fd = g->nlisteners < LISTENERS_MAX ? side_listen(endpoint) : -ENOSPC;
    if (fd < 0) {
        errno = -fd;
        return false;
    }
    g->listeners[g->nlisteners++] = (struct listener){fd, side, endpoint};
    return true;
}

int guests_fd(const struct guests *g)
{
    return g->ready;
}

bool guests_next(struct guests *g, struct guest_packet *p)
{
    pthread_mutex_lock(&g->lock);
    bool any = g->npackets > 0;
    if (any) {
        *p = g->packets[g->first];
        g->first = (g->first + 1) % PACKETS_MAX;
        g->npackets--;
    }
    if (g->npackets == 0)
        clear_event(g->ready);
    pthread_mutex_unlock(&g->lock);
    return any;
}

void guests_dismiss(struct guests *g, int connection)
{
    pthread_mutex_lock(&g->lock);
    if (g->ndismissed == g->dismissed_size) {
        uint32_t size = g->dismissed_size ? g->dismissed_size * 2 : 16;
        int *grown = realloc(g->dismissed, size * sizeof(*grown));
        if (!grown)
            abort(); // as everywhere where a few bytes are missing (message.c)
        g->dismissed = grown;
        g->dismissed_size = size;
    }
    g->dismissed[g->ndismissed++] = connection;
    pthread_mutex_unlock(&g->lock);
    signal_event(g->wake);
}

// ---- the thread ---------------------------------------------------------------------------------

// Whether closing this descriptor, and what it is of, is quick: memory of a size that is taken.
static bool is_quick(const struct guests *g, int fd)
{
    struct stat st;
    return slab_is_memory(fd) && fstat(fd, &st) == 0 && (uint64_t)st.st_size <= g->bytes_max;
}

static bool hand_out(struct guests *g, const struct guest_packet *p)
{
    pthread_mutex_lock(&g->lock);
    bool room = g->npackets < PACKETS_MAX;
    if (room)
        g->packets[(g->first + g->npackets++) % PACKETS_MAX] = *p;
    if (room)
        signal_event(g->ready);
    pthread_mutex_unlock(&g->lock);
    return room;
}

// True: it has nothing to say yet. Else its connection is handed out or closed.
static bool hear_guest(struct guests *g, const struct guest *guest)
{
    struct guest_packet p = {.side = guest->side, .connection = -1};
    int rc = side_receive(guest->fd, p.bytes, sizeof(p.bytes), &p.len, &p.passed);
    if (rc == 0)
        return true;
    if (rc > 0 && p.passed >= 0 && !is_quick(g, p.passed)) {
        close(p.passed);
        p.passed = -1; // which is answered in words
    }
    // Clients say one thing and go; a worker's connection is what its descriptors go over.
    if (rc > 0 && guest->side == PEER_WORKER)
        p.connection = guest->fd;
    bool taken = rc > 0 && hand_out(g, &p);
    if (!taken && p.passed >= 0)
        close(p.passed);
    if (!taken || p.connection < 0)
        close(guest->fd);
    return false;
}

static void forget_guest(struct guests *g, uint32_t i)
{
    g->nguests--;
    memmove(&g->guests[i], &g->guests[i + 1], (g->nguests - i) * sizeof(g->guests[0]));
}

static void accept_guest(struct guests *g, const struct listener *l, uint64_t now_us)
{
    struct guest guest = {side_accept(l->fd), l->side, now_us + GUEST_US};
    if (guest.fd < 0) {
        g->short_of_descriptors = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
        return;
    }
    if (!hear_guest(g, &guest))
        return;
    if (g->nguests == GUESTS_MAX) {
        close(g->guests[0].fd);
        forget_guest(g, 0);
    }
    g->guests[g->nguests++] = guest;
}

static void hear_guests(struct guests *g, const struct pollfd *fds, uint64_t now_us)
{
    for (uint32_t i = g->nguests; i-- > 0;) {
        bool silent = fds[i].revents == 0 || hear_guest(g, &g->guests[i]);
        if (silent && now_us < g->guests[i].until_us)
            continue;
        if (silent)
            close(g->guests[i].fd);
        forget_guest(g, i);
    }
}

// Closes what the broker has dismissed. True: it is to end.
static bool obey(struct guests *g)
{
    clear_event(g->wake);
    pthread_mutex_lock(&g->lock);
    bool stop = g->stop;
    int *fds = g->dismissed;
    uint32_t n = g->ndismissed;
    g->dismissed = NULL;
    g->ndismissed = g->dismissed_size = 0;
    pthread_mutex_unlock(&g->lock);
    for (uint32_t i = 0; i < n; i++)
        close(fds[i]);
    free(fds);
    return stop;
}

static void *guests_main(void *user)
{
    struct guests *g = user;
    struct pollfd fds[1 + GUESTS_MAX + LISTENERS_MAX];
    while (!obey(g)) {
        uint32_t n = g->nguests, listeners = g->short_of_descriptors ? 0 : g->nlisteners;
        fds[0] = (struct pollfd){g->wake, POLLIN, 0};
        for (uint32_t i = 0; i < n; i++)
            fds[1 + i] = (struct pollfd){g->guests[i].fd, POLLIN, 0};
        for (uint32_t i = 0; i < listeners; i++)
            fds[1 + n + i] = (struct pollfd){g->listeners[i].fd, POLLIN, 0};
        int timeout_ms = g->short_of_descriptors ? SHORT_MS : n ? (int)(GUEST_US / 1000) : -1;
        g->short_of_descriptors = false;
        if (poll(fds, 1 + n + listeners, timeout_ms) < 0)
            continue;
        uint64_t now_us = clock_now_us();
        hear_guests(g, fds + 1, now_us);
        for (uint32_t i = 0; i < listeners; i++)
            if (fds[1 + n + i].revents)
                accept_guest(g, &g->listeners[i], now_us);
    }
    return NULL;
}

bool guests_start(struct guests *g)
{
    sigset_t all, before;
    // Signals are the broker's.
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    g->started = pthread_create(&g->thread, NULL, guests_main, g) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return g->started;
}

// A thread that hangs in a close cannot be waited for: then the process ends around it.
static bool ends_in_time(struct guests *g)
{
    struct timespec until;
    pthread_mutex_lock(&g->lock);
    g->stop = true;
    pthread_mutex_unlock(&g->lock);
    signal_event(g->wake);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    return pthread_timedjoin_np(g->thread, NULL, &until) == 0;
}

void guests_free(struct guests *g)
{
    struct guest_packet p;
    if (!g)
        return;
    bool ended = !g->started || ends_in_time(g);
    for (uint32_t i = 0; i < g->nlisteners; i++)
        side_close(g->listeners[i].fd, g->listeners[i].endpoint);
    if (!ended)
        return; // the rest is its
    while (g->ready >= 0 && guests_next(g, &p)) {
        if (p.connection >= 0)
            close(p.connection);
        if (p.passed >= 0)
            close(p.passed);
    }
    for (uint32_t i = 0; i < g->nguests; i++)
        close(g->guests[i].fd);
    for (uint32_t i = 0; i < g->ndismissed; i++)
        close(g->dismissed[i]);
    free(g->dismissed);
    if (g->ready >= 0)
        close(g->ready);
    if (g->wake >= 0)
        close(g->wake);
    pthread_mutex_destroy(&g->lock);
    free(g);
}
