// SPDX-License-Identifier: Apache-2.0
#include "common/mp.h"

static uint64_t fail(struct mp_reader *r, enum wire_error e)
{
    if (r->error == WIRE_OK)
        r->error = e;
    r->at = r->end;
    return 0;
}

// n big-endian bytes.
static uint64_t take(struct mp_reader *r, unsigned n)
{
    if ((size_t)(r->end - r->at) < n)
        return fail(r, WIRE_ERR_TRUNCATED);
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | *r->at++;
    return v;
}

uint64_t mp_uint_any(struct mp_reader *r, uint64_t max)
{
    uint64_t v;
    if (r->at == r->end)
        return fail(r, WIRE_ERR_TRUNCATED);
    uint8_t tag = *r->at++;
    if (tag <= 0x7f)
        v = tag;
    else if (tag >= 0xcc && tag <= 0xcf)
        v = take(r, 1u << (tag - 0xcc));
    else
        return fail(r, WIRE_ERR_FORMAT);
    return v <= max ? v : fail(r, WIRE_ERR_LIMIT);
}

int64_t mp_int(struct mp_reader *r)
{
    if (r->at == r->end)
        return (int64_t)fail(r, WIRE_ERR_TRUNCATED);
    uint8_t tag = *r->at;
    if (tag >= 0xe0) {
        r->at++;
        return (int8_t)tag;
    }
    if (tag >= 0xd0 && tag <= 0xd3) {
        r->at++;
        unsigned n = 1u << (tag - 0xd0);
        uint64_t v = take(r, n);
        unsigned shift = 64 - 8 * n;
        return (int64_t)(v << shift) >> shift;
    }
    return (int64_t)mp_uint(r, INT64_MAX);
}

uint32_t mp_bytes(struct mp_reader *r, uint32_t max, const char **data)
{
    uint64_t n;
    *data = (const char *)r->at;
    if (r->at == r->end)
        return (uint32_t)fail(r, WIRE_ERR_TRUNCATED);
    uint8_t tag = *r->at++;
    if (tag >= 0xa0 && tag <= 0xbf)
        n = tag & 0x1f;
    else if (tag >= 0xd9 && tag <= 0xdb)
        n = take(r, 1u << (tag - 0xd9));
    else if (tag >= 0xc4 && tag <= 0xc6)
        n = take(r, 1u << (tag - 0xc4));
    else
        return (uint32_t)fail(r, WIRE_ERR_FORMAT);
    if (n > max)
        return (uint32_t)fail(r, WIRE_ERR_LIMIT);
    if (n > (size_t)(r->end - r->at))
        return (uint32_t)fail(r, WIRE_ERR_TRUNCATED);
    *data = (const char *)r->at;
    r->at += n;
    return (uint32_t)n;
}

uint32_t mp_array_any(struct mp_reader *r, uint32_t max)
{
    uint64_t n;
    if (r->at == r->end)
        return (uint32_t)fail(r, WIRE_ERR_TRUNCATED);
    uint8_t tag = *r->at++;
    if (tag >= 0x90 && tag <= 0x9f)
        n = tag & 0x0f;
    else if (tag == 0xdc || tag == 0xdd)
        n = take(r, tag == 0xdc ? 2 : 4);
    else
        return (uint32_t)fail(r, WIRE_ERR_FORMAT);
    if (n > max)
        return (uint32_t)fail(r, WIRE_ERR_LIMIT);
    if (n > (size_t)(r->end - r->at))
        return (uint32_t)fail(r, WIRE_ERR_TRUNCATED);
    return (uint32_t)n;
}

// What follows a tag: plain bytes to pass over, and values nested in it.
static void tag_extent(struct mp_reader *r, uint8_t tag, uint64_t *bytes, uint64_t *values)
{
    static const uint8_t FIXED[32] = {
        // 0xc0..0xdf: bytes after the tag for the fixed-size ones, 0xff = handled below
        0, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 4,    8,    1,    2,    4,    8,
        1, 2,    4, 8, 2,    3,    5,    9,    17,   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    };
    *bytes = 0;
    *values = 0;
    if (tag <= 0x7f || tag >= 0xe0)
        return;
    if (tag <= 0x8f)
        *values = 2 * (tag & 0x0fu);
    else if (tag <= 0x9f)
        *values = tag & 0x0fu;
    else if (tag <= 0xbf)
        *bytes = tag & 0x1fu;
    else if (FIXED[tag - 0xc0] != 0xff)
        *bytes = FIXED[tag - 0xc0];
    else if (tag >= 0xc4 && tag <= 0xc6)
        *bytes = take(r, 1u << (tag - 0xc4));
    else if (tag >= 0xc7 && tag <= 0xc9)
        *bytes = take(r, 1u << (tag - 0xc7)) + 1;
    else if (tag >= 0xd9 && tag <= 0xdb)
        *bytes = take(r, 1u << (tag - 0xd9));
    else if (tag == 0xdc || tag == 0xdd)
        *values = take(r, tag == 0xdc ? 2 : 4);
    else if (tag == 0xde || tag == 0xdf)
        *values = 2 * take(r, tag == 0xde ? 2 : 4);
    else
        fail(r, WIRE_ERR_FORMAT);
}

void mp_skip_any(struct mp_reader *r, uint32_t n)
{
    uint64_t left[8] = {n};
    unsigned depth = 0;
    while (r->error == WIRE_OK) {
        while (left[depth] == 0) {
            if (depth-- == 0)
                return;
        }
        left[depth]--;
        if (r->at == r->end) {
            fail(r, WIRE_ERR_TRUNCATED);
            return;
        }
        uint64_t bytes, values;
        tag_extent(r, *r->at++, &bytes, &values);
        if (bytes > (size_t)(r->end - r->at)) {
            fail(r, WIRE_ERR_TRUNCATED);
            return;
        }
        r->at += bytes;
        if (values && ++depth == 8) {
            fail(r, WIRE_ERR_LIMIT);
            return;
        }
        if (values)
            left[depth] = values;
    }
}
