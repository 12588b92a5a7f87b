// SPDX-License-Identifier: Apache-2.0
// The farm's registry in Redis: who is alive, what is loaded where, how loaded it is. It is a
// cache: a thread of its own renews this process's record with a TTL and reads the others', with
// time limits everywhere, so no request ever waits for Redis. When Redis is away, flushed or
// replaced, the next beat writes everything again.
#ifndef SONIC_COMMON_REGISTRY_H
#define SONIC_COMMON_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Keys, all below "sonic:{farm}:" (one Redis Cluster slot a farm). Every record is a hash with a
// TTL.
#define REGISTRY_KEY_BROKER "broker:" // + name: endpoint_client endpoint_worker epoch load...
#define REGISTRY_KEY_WORKER                                                                        \
    "worker:"                       // + name: host device_kind device_name memory... models load...
#define REGISTRY_KEY_MODEL "model:" // + name: queued leased rate service_us workers
#define REGISTRY_KEY_BROKERS "brokers" // sorted set: name -> last beat, for discovery
#define REGISTRY_KEY_WORKERS "workers"
#define REGISTRY_KEY_MODELS "models"

// Fields of one record.
#define REGISTRY_FIELDS_MAX 32

struct registry;

struct registry_options {
    const char *url;  // "unix:///run/.../redis.sock", "redis://[:password@]host:port[/db]"
    const char *farm; // name of the farm, "default"
    uint32_t beat_ms; // renewal, 0 = 1,000; the TTL is four beats
    bool watch;       // reads everybody's records each beat, for registry_placement
};

// Starts the thread. NULL with `why` when the URL or the farm's name makes no sense; a Redis that
// is not there is not an error.
struct registry *registry_open(const struct registry_options *o, char *why, size_t size);
// Removes this process's records (as far as Redis answers within a second) and ends the thread.
void registry_close(struct registry *r);

// Replaces the record `kind` (REGISTRY_KEY_...) `name` by these n fields. Copied; returns at once.
void registry_publish(struct registry *r, const char *kind, const char *name, size_t n,
                      const char *const *fields, const char *const *values);
// Removes it at the next beat.
void registry_withdraw(struct registry *r, const char *kind, const char *name);
// Whether the last beat reached Redis; `why` says what is wrong when not.
bool registry_healthy(struct registry *r, char *why, size_t size);
// The last placement read, as text: a table of brokers, of workers and of models, a line each.
// Malloc'd; NULL before the first, and without `watch`.
char *registry_placement(struct registry *r);

#endif
