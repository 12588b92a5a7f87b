// SPDX-License-Identifier: Apache-2.0
// Every bound that both ends of a wire must agree on, each with its reason.
// What only one program bounds (a queue, a cache) is that program's configuration, not here.
#ifndef SONIC_COMMON_LIMITS_H
#define SONIC_COMMON_LIMITS_H

// Protocol versions that this build speaks. A peer whose range does not overlap is refused in
// words.
#define SONIC_PROTOCOL_VERSION 1
#define SONIC_PROTOCOL_VERSION_MIN 1

// A header is control data: 64 KiB holds about a thousand small requests and is decoded from cache.
#define SONIC_HEADER_BYTES_MAX (64u * 1024u)
// Items in one message. One loop turn rarely has more; the bound sizes the decoder's scratch.
#define SONIC_ITEMS_MAX 1024u
// Frames in one message, the header included. A reader stops counting a peer's frames here.
#define SONIC_FRAMES_MAX 128u
// One frame (one large tensor). Also what ZMQ_MAXMSGSIZE is set to.
#define SONIC_FRAME_BYTES_MAX (256ull * 1024ull * 1024ull)

// Tensors up to this size are packed into the shared payload frame, larger ones travel in a frame
// of their own: packing wins up to 32 KiB over tcp and 64 KiB over ipc (zeromq.md, measured).
#define SONIC_PACK_BYTES_MAX (16u * 1024u)
// Packed tensors start on this boundary, so that vector loads from the frame are aligned.
#define SONIC_PACK_ALIGN 64u
// The frame that packed tensors are in. A fixed place lets a tensor's place be written before it is
// known what else the message will carry.
#define SONIC_PACKED_FRAME 1u

// One shared slab. A client needs what it has in flight, which is 64 MiB unless told otherwise.
#define SONIC_SLAB_BYTES_MAX (1024ull * 1024ull * 1024ull)

// Tensors of one request in one direction; the largest published model has three.
#define SONIC_TENSORS_MAX 16u
// ONNX models in practice use up to six dimensions.
#define SONIC_DIMS_MAX 8u

// Names are [a-z0-9._-]{1,64} for models (they become paths on the worker's side, never on the
// wire's), and printable ASCII without spaces for the rest.
#define SONIC_NAME_MAX 64u
// A human-readable reason in an answer or a refusal.
#define SONIC_TEXT_MAX 512u
// preferred_batch_size entries of one model.
#define SONIC_PREFERRED_MAX 16u
// Models that one worker may offer, and that one farm knows.
#define SONIC_MODELS_MAX 256u
// Priority levels; 1 is the most urgent (Triton's numbering), 0 on the wire means the default.
#define SONIC_PRIORITY_LEVELS_MAX 8u

#endif
