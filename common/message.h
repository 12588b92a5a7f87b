// SPDX-License-Identifier: Apache-2.0
// A message as it travels: the header frame, one shared payload frame for small tensors, and a
// frame of its own for each large one. This is the one place that knows how tensors map to frames.
#ifndef SONIC_COMMON_MESSAGE_H
#define SONIC_COMMON_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#include "common/limits.h"
#include "common/tensor.h"
#include "common/wire.h"

// ---- receiving ----------------------------------------------------------------------------------
// A received message: frames[0] is the header. The routing id (of a ROUTER) is kept apart.
struct message {
    uint32_t nframes;
    zmq_msg_t frames[SONIC_FRAMES_MAX];
    uint8_t routing[255];
    uint8_t routing_len;
};

// Receives one whole message without waiting. 1: received; 0: none there; -EMSGSIZE: too many
// frames (drained, routing set, frames empty); other negative errno: the socket failed.
// `routed`: the first frame is a routing id.
int message_receive(void *socket, bool routed, struct message *m);
void message_init(struct message *m);  // empty
void message_clear(struct message *m); // closes all frames

// The tensor's bytes inside the message. NULL when the place is not a frame of it, the range leaves
// the frame, a packed one is not aligned, or a large one does not fill its frame exactly.
const void *message_tensor(struct message *m, const struct tensor *t);
// Frame index of a tensor that has a frame of its own, else 0.
uint32_t message_own_frame(const struct message *m, const struct tensor *t);

// Gives the link that the message came over a send buffer that takes a large tensor in few pieces:
// with the kernel's usual 208 KiB a 3 MB tensor over a unix socket is fifteen pieces, each waited
// for by both sides. Once a link is enough. A tcp link is left alone: its buffer grows by itself.
void message_widen_link(const struct message *m);

// ---- sending ------------------------------------------------------------------------------------
// The frames behind a header under construction. Add each tensor's bytes, get its place; the header
// item is then packed with those places; message_send sends all.
struct payload;
struct payload *payload_new(void);
void payload_free(struct payload *p);
void payload_reset(struct payload *p);
// Whether `n` more tensors with these sizes still fit (frames, bytes of the packed frame).
bool payload_fits(const struct payload *p, uint32_t n, const uint64_t *bytes);
// Copies a small tensor into the packed frame and fills in t's place.
void payload_pack(struct payload *p, struct tensor *t, const void *data);
// Takes over *frame (zmq_msg_move: *frame is empty afterwards) as a frame of its own.
void payload_attach(struct payload *p, struct tensor *t, zmq_msg_t *frame);
// Sends [routing,] header, frames; never waits. 0: all given to the socket, p is reset. -EAGAIN,
// -EHOSTUNREACH or another negative errno: nothing was sent, p is as it was.
int message_send(void *socket, const void *routing, size_t routing_len, struct wire_header *h,
                 struct payload *p);

#endif
