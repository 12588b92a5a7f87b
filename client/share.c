// SPDX-License-Identifier: Apache-2.0
// Large inputs to workers on this host: one slab a handle, made when the first large input is sent
// and offered to each broker that the handle has a session with. Until that has taken it, and
// whenever it is full, inputs travel in frames as they do to any other host.
#include "client/handle.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/extents.h"
#include "common/checked.h"
#include "common/limits.h"
#include "common/side.h"
#include "common/slab.h"

#define OFFER_EVERY_US 5000000u

void share_open(struct sonic *s, uint64_t slab_bytes_max)
{
    s->slab_bytes_max = slab_bytes_max;
    s->slab_number = 0;
    s->slab_offer_us = 0;
}

void share_close(struct sonic *s)
{
    if (s->slab)
        slab_unref(s->slab);
    extents_free(s->room);
}

static bool make_slab(struct sonic *s, uint64_t bytes_max)
{
    struct slab *slab = slab_new(s->window_bytes < bytes_max ? s->window_bytes : bytes_max);
    struct extents *room = slab ? extents_new(slab_bytes(slab)) : NULL;
    if (!room) {
        if (slab)
            slab_unref(slab);
        return false;
    }
    s->slab = slab;
    s->room = room;
    return true;
}

// The answer is TAKEN, or none: a broker may be short of what it takes, or its door full.
static void offer(struct sonic *s)
{
    s->slab_offer_us = s->now_us + OFFER_EVERY_US;
    if (s->slab ? slab_bytes(s->slab) > s->slab_bytes_max : !make_slab(s, s->slab_bytes_max))
        return;
    int fd = side_connect(s->endpoint);
    if (fd < 0)
        return;
    struct wire_offer fields = {
        .epoch = s->epoch, .session = s->session, .bytes = slab_bytes(s->slab)};
    wire_begin_offer(s->side_header, &fields);
    side_send(fd, s->side_header, slab_fd(s->slab));
    close(fd); // what was sent is read all the same
}

void share_taken(struct sonic *s, const struct wire_taken *m)
{
    if (s->link == LINK_OPEN && m->epoch == s->epoch && s->slab)
        s->slab_number = m->slab;
}

// ---- a request's inputs -------------------------------------------------------------------------

// Where in the slab the caller's data lies already; EXTENTS_NONE: nowhere that could be told.
static uint64_t lies_at(const struct sonic *s, const sonic_tensor_t *in)
{
    uintptr_t at = (uintptr_t)in->data - (uintptr_t)slab_data(s->slab);
    bool inside = at < slab_bytes(s->slab) && in->bytes <= slab_bytes(s->slab) - at;
    return inside && at % SONIC_PACK_ALIGN == 0 ? at : EXTENTS_NONE;
}

bool share_input(struct sonic *s, struct call *c, unsigned i, struct tensor *t)
{
    const sonic_tensor_t *in = &c->inputs[i];
    if (s->slab_bytes_max == 0 || !slab_takes(in->type))
        return false;
    if (s->slab_number == 0 && s->now_us >= s->slab_offer_us)
        offer(s);
    if (s->slab_number == 0)
        return false;
    uint64_t place = lies_at(s, in);
    if (place == EXTENTS_NONE && !(c->shared & 1u << i)) {
        uint64_t offset = extents_take(s->room, in->bytes);
        if (offset == EXTENTS_NONE)
            return false;
        memcpy((char *)slab_data(s->slab) + offset, in->data, in->bytes);
        c->offsets[i] = offset;
        c->shared |= (uint16_t)(1u << i);
    }
    t->place = TENSOR_IN_SLAB;
    t->where = s->slab_number;
    t->offset = place == EXTENTS_NONE ? c->offsets[i] : place;
    return true;
}

void share_return(struct sonic *s, struct call *c)
{
    for (unsigned i = 0; c->shared; i++, c->shared >>= 1)
        if (c->shared & 1)
            extents_give(s->room, c->offsets[i], c->inputs[i].bytes);
}

// ---- memory of the caller's own -----------------------------------------------------------------

void *sonic_alloc(sonic_t *s, size_t bytes)
{
    uint64_t offset = EXTENTS_NONE, whole;
    if (bytes == 0 || !checked_align(bytes, EXTENTS_ALIGN, &whole))
        return NULL;
    // Before a broker said how much it takes: with one that takes less, inputs travel in frames.
    uint64_t bytes_max = s->slab_bytes_max ? s->slab_bytes_max : SONIC_SLAB_BYTES_MAX;
    if (bytes > SONIC_PACK_BYTES_MAX && (s->slab || make_slab(s, bytes_max)))
        offset = extents_take(s->room, bytes);
    if (offset != EXTENTS_NONE)
        return (char *)slab_data(s->slab) + offset;
    return aligned_alloc(EXTENTS_ALIGN, whole);
}

void sonic_free(sonic_t *s, void *data, size_t bytes)
{
    uintptr_t at = s->slab ? (uintptr_t)data - (uintptr_t)slab_data(s->slab) : UINTPTR_MAX;
    if (s->slab && data && at < slab_bytes(s->slab))
        extents_give(s->room, at, bytes);
    else
        free(data);
}
