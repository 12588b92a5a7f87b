// SPDX-License-Identifier: Apache-2.0
#include "common/zsock.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "common/limits.h"

// ZMQ_ZERO_COPY_RECV of libzmq's draft set; Debian's build takes it. Without it a kept 200-byte
// frame pins the 8 KiB receive buffer that it came in.
#define OPTION_ZERO_COPY_RECV 10

// The tripwire behind the credit (messages, each a whole batch).
#define ROUTER_HWM 1000
// Handshake, then ZMTP heartbeats: the time-out exceeds the slowest single frame (256 MiB at
// 100 Mbit/s), the link of a dead host is dropped within it.
#define HANDSHAKE_MS 5000
#define HEARTBEAT_MS 5000
#define HEARTBEAT_TIMEOUT_MS 30000
#define HEARTBEAT_TTL_MS 60000

void *zctx_open(int io_threads)
{
    void *ctx = zmq_ctx_new();
    if (!ctx)
        return NULL;
    zmq_ctx_set(ctx, ZMQ_IO_THREADS, io_threads);
    zmq_ctx_set(ctx, ZMQ_MAX_SOCKETS, 4096);
    zmq_ctx_set(ctx, OPTION_ZERO_COPY_RECV, 0); // best effort: only memory is at stake
    return ctx;
}

void zctx_close(void *ctx)
{
    while (ctx && zmq_ctx_term(ctx) != 0 && errno == EINTR)
        ;
}

static bool set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value)) == 0;
}

static bool set_common(void *socket, int linger_ms)
{
    int64_t frame_max = (int64_t)SONIC_FRAME_BYTES_MAX;
    return set(socket, ZMQ_LINGER, linger_ms) &&
           zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame_max, sizeof(frame_max)) == 0 &&
           set(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) &&
           set(socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS) &&
           set(socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS) &&
           set(socket, ZMQ_HEARTBEAT_TTL, HEARTBEAT_TTL_MS) && set(socket, ZMQ_IPV6, 1);
}

static void *fail(void *socket, const char *what, const char *endpoint, char *why, size_t size)
{
    snprintf(why, size, "%s %s: %s", what, endpoint, zmq_strerror(errno));
    zsock_close(socket);
    return NULL;
}

void *zsock_router(void *ctx, const char *endpoint, char *why, size_t size)
{
    void *s = zmq_socket(ctx, ZMQ_ROUTER);
    if (!s || !set_common(s, 1000) || !set(s, ZMQ_ROUTER_MANDATORY, 1) ||
        !set(s, ZMQ_ROUTER_HANDOVER, 0) || !set(s, ZMQ_SNDHWM, ROUTER_HWM) ||
        !set(s, ZMQ_RCVHWM, ROUTER_HWM) || !set(s, ZMQ_BACKLOG, 4096))
        return fail(s, "cannot open a socket for", endpoint, why, size);
    if (zsock_bind(s, endpoint, why, size) != 0) {
        zsock_close(s);
        return NULL;
    }
    return s;
}

// Whether somebody listens on a unix socket's path.
static bool answers(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    int fd = len < sizeof(address.sun_path) ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0)
        return false;
    memcpy(address.sun_path, path, len + 1);
    bool yes = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return yes;
}

int zsock_bind(void *socket, const char *endpoint, char *why, size_t size)
{
    int e = 0;
    if (strncmp(endpoint, "ipc://", 6) == 0 && answers(endpoint + 6))
        e = EADDRINUSE;
    else if (zmq_bind(socket, endpoint) != 0)
        e = errno;
    if (e)
        snprintf(why, size, "cannot listen on %s: %s", endpoint, zmq_strerror(e));
    return -e;
}

// An unconnected DEALER with all options set.
static void *dealer(void *ctx, const char *endpoint, int linger_ms, char *why, size_t size)
{
    void *s = zmq_socket(ctx, ZMQ_DEALER);
    // No high-water mark: what can queue here is bounded by the credit that this peer holds, and a
    // reader at its mark would let its own heartbeat kill the link.
    if (!s || !set_common(s, linger_ms) || !set(s, ZMQ_IMMEDIATE, 1) ||
        !set(s, ZMQ_RECONNECT_IVL, 50) || !set(s, ZMQ_RECONNECT_IVL_MAX, 2000) ||
        !set(s, ZMQ_SNDHWM, 0) || !set(s, ZMQ_RCVHWM, 0))
        return fail(s, "cannot open a socket for", endpoint, why, size);
    return s;
}

void *zsock_dealer(void *ctx, const char *endpoint, int linger_ms, char *why, size_t size)
{
    void *s = dealer(ctx, endpoint, linger_ms, why, size);
    if (s && zmq_connect(s, endpoint) != 0)
        return fail(s, "cannot connect to", endpoint, why, size);
    return s;
}

void *zsock_dealer_monitored(void *ctx, const char *endpoint, int linger_ms, const char *where,
                             int events, void *monitor, char *why, size_t size)
{
    void *s = dealer(ctx, endpoint, linger_ms, why, size);
    if (!s)
        return NULL;
    if (zmq_socket_monitor(s, where, events) != 0 || !set(monitor, ZMQ_LINGER, 0) ||
        zmq_connect(monitor, where) != 0)
        return fail(s, "cannot watch the connection to", endpoint, why, size);
    if (zmq_connect(s, endpoint) != 0)
        return fail(s, "cannot connect to", endpoint, why, size);
    return s;
}

void zsock_close(void *socket)
{
    if (socket)
        zmq_close(socket);
}

int zsock_fd(void *socket)
{
    int fd = -1;
    size_t size = sizeof(fd);
    return zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0 ? fd : -1;
}

int zsock_events(void *socket)
{
    int events = 0;
    size_t size = sizeof(events);
    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0 ? events : 0;
}

bool endpoint_is_local(const char *endpoint)
{
    static const char *const local[] = {"ipc://", "inproc://", "tcp://127.",
                                        "tcp://localhost:", "tcp://[::1]:"};
    for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
        if (strncmp(endpoint, local[i], strlen(local[i])) == 0)
            return true;
    return false;
}
