// SPDX-License-Identifier: Apache-2.0
// A received message that outlives its turn: the requests in it point into its frames until they
// have been executed. Every request holds a reference, every tensor one on its frame, so that a
// large frame is freed when its own request is done, not the whole message. References are dropped
// from any thread.
#ifndef SONIC_WORKER_PARCEL_H
#define SONIC_WORKER_PARCEL_H

#include "common/message.h"

struct parcel;
struct parcel *parcel_new(void); // with one reference; an empty message
struct message *parcel_message(struct parcel *p);
void parcel_ref(struct parcel *p);
void parcel_unref(struct parcel *p);
void parcel_ref_frame(struct parcel *p, uint32_t frame);
void parcel_unref_frame(struct parcel *p, uint32_t frame);

#endif
