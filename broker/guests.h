// SPDX-License-Identifier: Apache-2.0
// The side sockets' door: a thread of its own that accepts, reads and closes. A stranger's
// descriptor can make its last close take as long as he likes (a lingering socket, a file system of
// his own), which must never be the broker's loop. What comes out of here are packets that can be
// decoded, with a connection or a descriptor of sealed memory whose closing is quick.
#ifndef SONIC_BROKER_GUESTS_H
#define SONIC_BROKER_GUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/peers.h"
#include "common/side.h"

struct guests;

struct guest_packet {
    enum peer_side side;
    size_t len;
    uint8_t bytes[SIDE_PACKET_MAX];
    int connection; // a worker's, for the taker to keep; -1: closed already
    int passed;     // the memory that came along, not over the size that is taken; -1: none
};

// NULL: out of memory, descriptors or threads. `bytes_max`: of memory that is passed on.
struct guests *guests_new(uint64_t bytes_max);
void guests_free(struct guests *g);
// Listens beside the endpoint, before guests_start. False with errno: it cannot.
bool guests_listen(struct guests *g, enum peer_side side, const char *endpoint);
// False: the thread cannot be started.
bool guests_start(struct guests *g);
int guests_fd(const struct guests *g); // readable when guests_next has something
// The next packet. False: there is none.
bool guests_next(struct guests *g, struct guest_packet *p);
// Closes a connection that was handed out.
void guests_dismiss(struct guests *g, int connection);

#endif
