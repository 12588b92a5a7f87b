// SPDX-License-Identifier: Apache-2.0
#include "broker/peers.h"

#include <czmq.h>
#include <stdlib.h>
#include <string.h>

// Seeded, so that a peer that chooses its routing id cannot choose its bucket. One broker a
// process.
static uint64_t hash_seed;

struct peers {
    zhashx_t *by_address; // key: a peer (side, routing id)
    zhashx_t *by_session; // key: a peer (side, session)
    zlistx_t *walk;       // snapshot for peers_first/next
};

static uint64_t mix(uint64_t h)
{
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

static size_t address_hash(const void *key)
{
    const struct peer *p = key;
    uint64_t h = hash_seed ^ p->side;
    for (unsigned i = 0; i < p->routing_len; i++)
        h = mix(h ^ p->routing[i]);
    return (size_t)h;
}

static int address_compare(const void *a, const void *b)
{
    const struct peer *x = a, *y = b;
    if (x->side != y->side || x->routing_len != y->routing_len)
        return 1;
    return memcmp(x->routing, y->routing, x->routing_len);
}

static size_t session_hash(const void *key)
{
    const struct peer *p = key;
    return (size_t)mix(hash_seed ^ p->session ^ p->side);
}

static int session_compare(const void *a, const void *b)
{
    const struct peer *x = a, *y = b;
    return x->side != y->side || x->session != y->session;
}

static zhashx_t *table_new(size_t (*hash)(const void *), int (*compare)(const void *, const void *))
{
    zhashx_t *t = zhashx_new();
    if (!t)
        return NULL;
    // The peers are their own keys: nothing is copied, nothing is destroyed here.
    zhashx_set_key_duplicator(t, NULL);
    zhashx_set_key_destructor(t, NULL);
    zhashx_set_duplicator(t, NULL);
    zhashx_set_destructor(t, NULL);
    zhashx_set_key_hasher(t, hash);
    zhashx_set_key_comparator(t, compare);
    return t;
}

struct peers *peers_new(uint64_t seed)
{
    struct peers *ps = calloc(1, sizeof(*ps));
    if (!ps)
        return NULL;
    hash_seed = seed;
    ps->by_address = table_new(address_hash, address_compare);
    ps->by_session = table_new(session_hash, session_compare);
    ps->walk = zlistx_new();
    if (!ps->by_address || !ps->by_session || !ps->walk) {
        peers_free(ps);
        return NULL;
    }
    return ps;
}

void outgoing_free(struct outgoing *o)
{
    if (!o)
        return;
    wire_header_free(o->header);
    payload_free(o->payload);
    free(o);
}

static void peer_free(struct peer *p)
{
    while (p->first) {
        struct outgoing *o = p->first;
        p->first = o->next;
        outgoing_free(o);
    }
    free(p->usage);
    free(p->quarantined);
    free(p);
}

void peers_free(struct peers *ps)
{
    if (!ps)
        return;
    if (ps->by_address)
        for (struct peer *p = zhashx_first(ps->by_address); p; p = zhashx_next(ps->by_address))
            peer_free(p);
    zhashx_destroy(&ps->by_address);
    zhashx_destroy(&ps->by_session);
    zlistx_destroy(&ps->walk);
    free(ps);
}

// A key to look up with: a peer with room for the longest routing id.
union probe {
    struct peer peer;
    uint8_t bytes[sizeof(struct peer) + 255];
};

static void probe_init(union probe *k, enum peer_side side, const struct message *m)
{
    k->peer.side = side;
    k->peer.routing_len = m->routing_len;
    memcpy(k->bytes + offsetof(struct peer, routing), m->routing, m->routing_len);
}

struct peer *peers_find(struct peers *ps, enum peer_side side, const struct message *m)
{
    union probe key;
    probe_init(&key, side, m);
    return zhashx_lookup(ps->by_address, &key.peer);
}

struct peer *peers_session(struct peers *ps, enum peer_side side, uint64_t session)
{
    struct peer key = {.side = side, .session = session};
    return zhashx_lookup(ps->by_session, &key);
}

struct peer *peers_add(struct peers *ps, enum peer_side side, const struct message *m,
                       uint64_t session)
{
    struct peer *p = calloc(1, sizeof(*p) + m->routing_len);
    if (!p)
        return NULL;
    p->side = side;
    p->session = session;
    p->last = &p->first;
    p->routing_len = m->routing_len;
    memcpy(p->routing, m->routing, m->routing_len);
    if (zhashx_insert(ps->by_address, p, p) != 0 || zhashx_insert(ps->by_session, p, p) != 0) {
        peers_remove(ps, p);
        return NULL;
    }
    return p;
}

void peers_remove(struct peers *ps, struct peer *p)
{
    // A failed insert leaves another peer under the same key: take out only this one.
    if (zhashx_lookup(ps->by_address, p) == p)
        zhashx_delete(ps->by_address, p);
    if (zhashx_lookup(ps->by_session, p) == p)
        zhashx_delete(ps->by_session, p);
    peer_free(p);
}

struct peer *peers_first(struct peers *ps)
{
    zlistx_purge(ps->walk);
    for (struct peer *p = zhashx_first(ps->by_address); p; p = zhashx_next(ps->by_address))
        zlistx_add_end(ps->walk, p);
    return zlistx_first(ps->walk);
}

struct peer *peers_next(struct peers *ps)
{
    return zlistx_next(ps->walk);
}

size_t peers_count(const struct peers *ps)
{
    return zhashx_size(ps->by_address);
}
