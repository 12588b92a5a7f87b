// SPDX-License-Identifier: Apache-2.0
// The side socket: what ZeroMQ cannot carry, descriptors. Beside every ipc:// endpoint PATH that a
// broker binds it listens on the unix socket PATH.slabs (SOCK_SEQPACKET); a packet is one header of
// the protocol (wire.def) and at most one descriptor. Nothing here waits, but the
// last close of a stranger's descriptor may.
#ifndef SONIC_COMMON_SIDE_H
#define SONIC_COMMON_SIDE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/wire.h"

#define SIDE_PACKET_MAX 512u // the headers that travel here are short

// Listens beside the endpoint. A descriptor; -ENOTSUP: there is no side to this endpoint (not
// ipc://, or its path is too long); another negative errno.
int side_listen(const char *endpoint);
// Closes a listening descriptor and removes its socket.
void side_close(int fd, const char *endpoint);
// The next connection; -1: there is none.
int side_accept(int listener);
// Connects to the side of the endpoint; a descriptor or a negative errno.
int side_connect(const char *endpoint);

// Sends the header under construction and a descriptor (-1: none; it stays the caller's). False:
// the other side is gone or takes nothing now.
bool side_send(int fd, struct wire_header *h, int passed);
// 1: a packet, its length and its descriptor (-1: none), which is the caller's now; 0: nothing
// there; -1: the other side is gone, or sent what no packet of ours is.
int side_receive(int fd, void *packet, size_t size, size_t *len, int *passed);

#endif
