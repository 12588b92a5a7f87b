// SPDX-License-Identifier: Apache-2.0
// The options that every socket of the farm is opened with (why: docs/decisions/zeromq.md).
#ifndef SONIC_COMMON_ZSOCK_H
#define SONIC_COMMON_ZSOCK_H

#include <stdbool.h>
#include <stddef.h>

// The one context of a process: 1 I/O thread, no zero-copy receive (a kept small frame would pin
// its whole receive buffer), 4,096 sockets. NULL on failure with errno.
void *zctx_open(int io_threads);
// Ends the context; lingering sockets have the time of their LINGER.
void zctx_close(void *ctx);

// A bound ROUTER: MANDATORY, no HANDOVER, finite LINGER and HWM, heartbeats, MAXMSGSIZE. NULL and
// `why` filled on failure ("tcp://…: address already in use").
void *zsock_router(void *ctx, const char *endpoint, char *why, size_t size);
// Binds one more endpoint. An ipc:// path that another process answers on is refused: libzmq would
// take it over in silence. 0 or a negative errno with `why`.
int zsock_bind(void *socket, const char *endpoint, char *why, size_t size);
// A connected DEALER: IMMEDIATE 1, reconnect back-off, finite LINGER, heartbeats.
void *zsock_dealer(void *ctx, const char *endpoint, int linger_ms, char *why, size_t size);
// The same with its connection's events (ZMQ_EVENT_...) sent to `monitor`, a PAIR of the same
// context that is connected to the inproc address `where` here.
void *zsock_dealer_monitored(void *ctx, const char *endpoint, int linger_ms, const char *where,
                             int events, void *monitor, char *why, size_t size);
void zsock_close(void *socket);

// ZMQ_FD (edge-triggered: re-read zsock_events after each send and receive), ZMQ_EVENTS.
int zsock_fd(void *socket);
int zsock_events(void *socket);

// Whether the endpoint is ipc://, inproc:// or a loopback tcp:// address.
bool endpoint_is_local(const char *endpoint);

#endif
