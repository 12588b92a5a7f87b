// SPDX-License-Identifier: Apache-2.0
// The broker's shell: two ROUTER sockets, the pure farm between them, and what both halves of the
// shell (door: what comes in, outbox: what goes out) share.
#ifndef SONIC_BROKER_BROKER_H
#define SONIC_BROKER_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/body.h"
#include "broker/catalog.h"
#include "broker/core/farm.h"
#include "broker/peers.h"
#include "broker/slabs.h"
#include "common/registry.h"
#include "common/wire.h"

#define BROKER_ENDPOINTS_MAX 8

struct broker_options {
    const char *client_endpoints[BROKER_ENDPOINTS_MAX];
    const char *worker_endpoints[BROKER_ENDPOINTS_MAX];
    size_t nclient_endpoints, nworker_endpoints;
    const char *models;    // repository to know models from, or NULL
    const char *redis_url; // or NULL
    const char *farm_name;
    const char *name;
    uint64_t memory_bytes;
    uint64_t lease_us;   // 0: the default
    uint64_t slab_bytes; // largest that a client may share; 0: none
    bool insecure;       // binds beyond this machine although nothing is encrypted yet
};

// What the broker counts beside the farm's own figures.
struct broker_counts {
    uint64_t messages_in, messages_out;
    uint64_t wire_errors[WIRE_ERR_COUNT];
    uint64_t too_many_frames;
    uint64_t bad_requests, bad_results, unknown_models;
    uint64_t unknown_peers, wrong_epoch, version_refused;
    uint64_t held_back, peers_lost, peers_cut;
    uint64_t questions_dropped;
    uint64_t slabs_taken, slabs_refused;
    uint64_t in_place; // dispatches of inputs that stayed where they are
};

struct broker {
    const struct broker_options *options;
    void *ctx;
    void *sockets[2]; // by enum peer_side
    struct farm *farm;
    struct catalog *catalog;
    struct peers *peers;
    struct slabs *slabs;
    struct registry *registry; // NULL without --redis
    uint64_t epoch, started_us, now_us;
    uint64_t lease_us; // as workers are told
    uint64_t next_beat_us, next_publish_us, next_look_us;
    uint64_t refusals_left;   // to peers that we do not know, this second
    uint64_t complaints_left; // the same, about garbage
    uint64_t refusals_until_us;
    int64_t reply_bytes_left; // to questions, which need no session
    uint64_t reply_refill_us;
    struct peer *blocked; // with messages held back
    struct wire_decoder *decoder;
    struct message *message;
    struct wire_header *header;
    struct payload *payload;
    struct broker_counts counts;
    bool forgot;         // a peer, after the farm's tick: what it held waits for another
    uint32_t turn_items; // taken from one side in this turn
    int signals;         // signalfd of SIGTERM and SIGINT, or -1
    bool stopping;       // answers what was accepted, takes nothing more
    uint64_t stop_us;    // gives up on that then
};

// How often silent peers are sent a BEAT and workers are expected to send a HEARTBEAT.
#define BROKER_BEAT_US 500000u

// What a stopping broker answers to whatever is new: by then it is gone, or another is there.
#define BROKER_STOP_RETRY_MS 1000u
#define BROKER_STOP_TEXT "the broker is stopping"

// Opens everything and blocks SIGTERM and SIGINT, which broker_run takes from a descriptor. 0, or
// an exitcode with `why`; broker_close either way.
int broker_open(struct broker *b, const struct broker_options *o, char *why, size_t size);
void broker_close(struct broker *b);
// Serves until SIGTERM or SIGINT. An exitcode.
int broker_run(struct broker *b);
// One turn at b->now_us: takes what is there, does what is due, sends what comes of it. *taken:
// messages there were. Returns when the next turn is due at the latest.
uint64_t broker_turn(struct broker *b, unsigned *taken);

// ---- limits.c: file descriptors ----
// Raises this process' limit as far as is of use; once, before broker_open.
void limits_raise(void);
uint64_t limits_turned_away(void); // connections over it, closed as they came
bool limits_short(void);           // whether only those are left that are kept for other things

// ---- door.c: one message from a peer, in b->message ----
void door_take(struct broker *b, enum peer_side side);
void door_take_client(struct broker *b, struct peer *p, struct wire_message *m);
void door_take_worker(struct broker *b, struct peer *p, struct wire_message *m);
// Tells the sender of b->message that it was not taken, at most once a second each.
void door_refuse(struct broker *b, enum peer_side side, struct peer *p, enum sonic_status status,
                 uint32_t retry_after_ms, const char *text);
// Whether both speak a version; the highest common one.
bool door_version(uint32_t min, uint32_t max, uint32_t *version, char *why, size_t size);
// Takes a peer off the farm and forgets it. `died`: its link is gone (a worker's leases count it).
void door_forget(struct broker *b, struct peer *p, bool died);

// ---- outbox.c: what goes out ----
// Sends b->header and b->payload to a peer, or holds them back while its socket is full. False: the
// peer is gone (or holds back too much) and was forgotten.
bool outbox_send(struct broker *b, struct peer *p);
// Sends to the sender of b->message, which may be no peer of ours; lost when it cannot be sent.
void outbox_reply(struct broker *b, enum peer_side side);
// Drains the farm's outboxes and whatever was held back.
void outbox_drain(struct broker *b);
// Proves the link to peers that were silent both ways, and so learns which are gone.
void outbox_beat(struct broker *b);

// ---- status.c: what it says about itself ----
// The text of `sonic-submit status`, malloc'd. NULL: out of memory.
char *status_text(struct broker *b);
// Puts this broker's and its models' records into the registry.
void status_publish(struct broker *b);

#endif
