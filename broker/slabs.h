// SPDX-License-Identifier: Apache-2.0
// Shared slabs: which client has offered one, and which workers on this host read it. A request
// whose inputs lie in a slab is dispatched by place to a worker that has mapped it, and in frames
// to any other; both are the same request.
#ifndef SONIC_BROKER_SLABS_H
#define SONIC_BROKER_SLABS_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/peers.h"
#include "common/slab.h"

struct broker;
struct slabs;

// One client's slab. Requests hold references, so that it outlives its client's session by them.
struct shared_slab {
    struct shared_slab *next;
    uint32_t number;     // a tensor's `where`; never given twice in a broker's life
    uint32_t refs;       // the client's and its requests'; the broker's thread counts
    struct slab *memory; // libzmq counts too, while it sends from there
    uint64_t told;       // a bit for each attendant that was sent the descriptor ...
    uint64_t ready;      // ... and that has mapped it
};

// NULL: out of memory or descriptors. Listens beside the broker's ipc:// endpoints; where that is
// not possible there are no slabs, which is logged.
struct slabs *slabs_open(struct broker *b);
void slabs_close(struct slabs *ss);
// Readable when slabs_serve has something to do.
int slabs_fd(const struct slabs *ss);
// Largest slab that a client may offer; 0: none.
uint64_t slabs_bytes_max(const struct slabs *ss);
uint32_t slabs_count(const struct slabs *ss);

// Takes what came at the side sockets. Sends TAKEN, so a peer may be forgotten.
void slabs_serve(struct broker *b);
// Whether the worker reads this slab by now; if it could, it is told of it.
bool slabs_ready(struct broker *b, struct shared_slab *s, const struct peer *worker);
// The worker says that it has mapped the slab.
void slabs_mapped(struct slabs *ss, const struct peer *worker, uint32_t number);
// The peer is forgotten: a client's slab goes, a worker attends no more.
void slabs_forget(struct broker *b, struct peer *p);

void shared_slab_ref(struct shared_slab *s);
void shared_slab_unref(struct shared_slab *s);

#endif
