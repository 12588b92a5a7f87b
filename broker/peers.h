// SPDX-License-Identifier: Apache-2.0
// Who is connected: one small record a peer, found by the routing id its messages come with or by
// the session it opened. A routing id is only a return address; the session is who it is.
#ifndef SONIC_BROKER_PEERS_H
#define SONIC_BROKER_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/core/farm.h"
#include "common/message.h"

struct shared_slab;

enum peer_side { PEER_CLIENT, PEER_WORKER };

// A message that its socket would not take yet.
struct outgoing {
    struct outgoing *next;
    struct wire_header *header;
    struct payload *payload;
};

// What a worker's last beat said of its device.
struct peer_device {
    uint64_t write_us, kernel_us, read_us, idle_us;
    uint32_t faults;
    uint32_t sensors; // which of these its driver tells, as in HEARTBEAT
    uint32_t busy_percent, power_mw, temperature_c;
    uint64_t memory_used_bytes;
};

struct peer {
    enum peer_side side;
    uint64_t session;
    union {
        farm_client_id client;
        farm_worker_id worker;
    } id;
    uint64_t heard_us; // last message from it
    uint64_t sent_us;  // last message to it: a link that is silent both ways is probed
    uint64_t refused_us;
    struct outgoing *first, **last; // held back, oldest first
    uint32_t nheld;
    struct shared_slab *slab;  // a client's, NULL: it has offered none
    struct peer *blocked_next; // in the broker's list of those with something held back
    bool blocked;
    bool leaving;              // said BYE
    struct peer_device *usage; // a worker's, NULL: its device says nothing of itself
    char *quarantined;         // a worker's: why it gave its device up; NULL: it works
    char name[SONIC_NAME_MAX + 1];
    char device[SONIC_NAME_MAX + 1]; // a worker's device kind
    uint8_t routing_len;
    uint8_t routing[]; // last: a client's id is five bytes, not 255
};

struct peers;

struct peers *peers_new(uint64_t hash_seed);
void peers_free(struct peers *ps);
struct peer *peers_find(struct peers *ps, enum peer_side side, const struct message *m);
struct peer *peers_session(struct peers *ps, enum peer_side side, uint64_t session);
// A new record for the sender of m. NULL: out of memory.
struct peer *peers_add(struct peers *ps, enum peer_side side, const struct message *m,
                       uint64_t session);
// Forgets the peer and frees it with all that it holds back.
void peers_remove(struct peers *ps, struct peer *p);
// Walks all peers; removing the one just returned is allowed.
struct peer *peers_first(struct peers *ps);
struct peer *peers_next(struct peers *ps);
size_t peers_count(const struct peers *ps);

void outgoing_free(struct outgoing *o);

#endif
