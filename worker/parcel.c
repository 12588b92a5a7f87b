// SPDX-License-Identifier: Apache-2.0
#include "worker/parcel.h"

#include <stdatomic.h>
#include <stdlib.h>

struct parcel {
    atomic_uint refs;
    atomic_uint frame_refs[SONIC_FRAMES_MAX];
    struct message message;
};

struct parcel *parcel_new(void)
{
    // 9 KiB, of which a short message touches little: not cleared but for the counts.
    struct parcel *p = malloc(sizeof(*p));
    if (!p)
        abort(); // cannot even receive: the leases go to other workers when the link breaks
    atomic_init(&p->refs, 1);
    for (uint32_t i = 0; i < SONIC_FRAMES_MAX; i++)
        atomic_init(&p->frame_refs[i], 0);
    message_init(&p->message);
    return p;
}

struct message *parcel_message(struct parcel *p)
{
    return &p->message;
}

void parcel_ref(struct parcel *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
}

void parcel_unref(struct parcel *p)
{
    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    message_clear(&p->message);
    free(p);
}

void parcel_ref_frame(struct parcel *p, uint32_t frame)
{
    atomic_fetch_add_explicit(&p->frame_refs[frame], 1, memory_order_relaxed);
}

void parcel_unref_frame(struct parcel *p, uint32_t frame)
{
    zmq_msg_t *f = &p->message.frames[frame];
    if (atomic_fetch_sub_explicit(&p->frame_refs[frame], 1, memory_order_acq_rel) != 1)
        return;
    zmq_msg_close(f);
    zmq_msg_init(f); // message_clear closes it again
}
