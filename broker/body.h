// SPDX-License-Identifier: Apache-2.0
// The payload of a request or a result while the broker holds it: the tensors' descriptions, small
// ones' bytes copied once behind them, large ones' frames by reference. The broker never looks in.
#ifndef SONIC_BROKER_BODY_H
#define SONIC_BROKER_BODY_H

#include <stddef.h>
#include <stdint.h>

#include "common/message.h"
#include "common/wire.h"

struct body;
struct shared_slab;

// Takes the tensors out of a message: copies small ones, moves the frames of large ones (which are
// empty in the message afterwards), leaves those where they are that lie in `slab` (the sender's,
// NULL: it has none). `text` (may be empty) is copied along. NULL with `why` when a tensor does not
// lie where it claims, or memory is short.
struct body *body_take(struct message *m, const struct wire_tensors *tensors, struct wire_str text,
                       struct shared_slab *slab, char *why, size_t size);
// A body without tensors, for an answer in words.
struct body *body_text(const char *text);
void body_free(struct body *b);

uint32_t body_ntensors(const struct body *b);
const char *body_reason(const struct body *b); // "" when there is none

// The slab that tensors of it lie in, NULL: none do.
struct shared_slab *body_slab(const struct body *b);

// Whether the tensors still fit behind the header under construction. `in_place`: the receiver
// reads the slab.
bool body_fits(const struct body *b, const struct payload *p, bool in_place);
// Adds the tensors to a message and describes them in *tensors. The body stays whole (large frames
// are sent by reference), so that it can be sent again.
void body_put(struct body *b, struct payload *p, struct wire_tensors *tensors, bool in_place);

#endif
