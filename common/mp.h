// SPDX-License-Identifier: Apache-2.0
// A bounded reader of MessagePack over one borrowed buffer: no allocation, no recursion, nothing
// sized by a number that the sender chose. The first error sticks; reads after it return zeroes, so
// callers check once at the end of a group. Format: msgpack spec (int, str, bin, array; maps and
// floats can be skipped, so that a newer peer's fields do no harm).
#ifndef SONIC_COMMON_MP_H
#define SONIC_COMMON_MP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

struct mp_reader {
    const uint8_t *at, *end;
    enum wire_error error;
};

static inline void mp_init(struct mp_reader *r, const void *data, size_t len)
{
    r->at = data;
    r->end = r->at + len;
    r->error = WIRE_OK;
}

// An unsigned number of at most `max`. Most are below 128 and read in place.
uint64_t mp_uint_any(struct mp_reader *r, uint64_t max);
static inline uint64_t mp_uint(struct mp_reader *r, uint64_t max)
{
    if (r->at < r->end && *r->at <= 0x7f && *r->at <= max)
        return *r->at++;
    return mp_uint_any(r, max);
}
// Passes over a nil, if that is what comes next.
static inline bool mp_nil(struct mp_reader *r)
{
    bool nil = r->at < r->end && *r->at == 0xc0;
    r->at += nil;
    return nil;
}
// A signed number (dims of a declaration).
int64_t mp_int(struct mp_reader *r);
// A str or bin of at most `max` bytes; *data borrows the buffer.
uint32_t mp_bytes(struct mp_reader *r, uint32_t max, const char **data);
// An array header: its number of elements, at most `max`. Also fails when fewer bytes are left than
// elements (each takes at least one), so a count can never lead anybody far.
uint32_t mp_array_any(struct mp_reader *r, uint32_t max);
static inline uint32_t mp_array(struct mp_reader *r, uint32_t max)
{
    uint32_t n = r->at < r->end ? *r->at ^ 0x90u : UINT32_MAX; // 0..15: a short array
    if (n <= 0x0f && n <= max && n < (size_t)(r->end - r->at)) {
        r->at++;
        return n;
    }
    return mp_array_any(r, max);
}
// Skips n values of any kind, nested up to 8 deep.
void mp_skip_any(struct mp_reader *r, uint32_t n);
static inline void mp_skip(struct mp_reader *r, uint32_t n)
{
    if (n)
        mp_skip_any(r, n);
}

#endif
