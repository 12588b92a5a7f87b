// SPDX-License-Identifier: Apache-2.0
// Large inputs to workers on this host: one slab a handle, made when the first large input is sent
// and offered to each broker that the handle has a session with. Until that has taken it, and
// whenever it is full, inputs travel in frames as they do to any other host.
#include "client/handle.h"

#include <string.h>
#include <unistd.h>

#include "client/extents.h"
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

static bool make_slab(struct sonic *s)
{
    uint64_t bytes = s->window_bytes < s->slab_bytes_max ? s->window_bytes : s->slab_bytes_max;
    struct slab *slab = slab_new(bytes);
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
    if (s->slab ? slab_bytes(s->slab) > s->slab_bytes_max : !make_slab(s))
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

bool share_input(struct sonic *s, struct call *c, unsigned i, struct tensor *t)
{
    const sonic_tensor_t *in = &c->inputs[i];
    if (s->slab_bytes_max == 0 || !slab_takes(in->type))
        return false;
    if (s->slab_number == 0 && s->now_us >= s->slab_offer_us)
        offer(s);
    if (s->slab_number == 0)
        return false;
    if (!(c->shared & 1u << i)) {
        uint64_t offset = extents_take(s->room, in->bytes);
        if (offset == EXTENTS_NONE)
            return false;
        memcpy((char *)slab_data(s->slab) + offset, in->data, in->bytes);
        c->offsets[i] = offset;
        c->shared |= (uint16_t)(1u << i);
    }
    t->place = TENSOR_IN_SLAB;
    t->where = s->slab_number;
    t->offset = c->offsets[i];
    return true;
}

void share_return(struct sonic *s, struct call *c)
{
    for (unsigned i = 0; c->shared; i++, c->shared >>= 1)
        if (c->shared & 1)
            extents_give(s->room, c->offsets[i], c->inputs[i].bytes);
}
