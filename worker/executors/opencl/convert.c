// SPDX-License-Identifier: Apache-2.0
#include "worker/executors/opencl/convert.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static float limits_min(uint8_t type)
{
    return type == SONIC_INT8 ? INT8_MIN : type == SONIC_INT16 ? INT16_MIN : 0;
}

static float limits_max(uint8_t type)
{
    return type == SONIC_INT8    ? INT8_MAX
           : type == SONIC_UINT8 ? UINT8_MAX
           : type == SONIC_INT16 ? INT16_MAX
                                 : UINT16_MAX;
}

// Added and taken away again it leaves the nearest integer, to even, of all that is below 2^22.
#define ROUNDER 12582912.0f

// Within the type's limits, which are integers, first: so the rounding needs no library call, and
// the compiler makes vectors of the loops below. NaN becomes `low`: reported, not stored.
static inline int32_t quantise(float v, bool floored, float low, float high)
{
    v = v > low ? v : low;
    v = v < high ? v : high;
    if (!floored)
        return (int32_t)((v + ROUNDER) - ROUNDER);
    int32_t towards_zero = (int32_t)v;
    return towards_zero - (v < (float)towards_zero);
}

// ---- all elements alike, and elements with factors of their own ---------------------------------

// False: NaN, which no integer is.
#define QUANTISE(ctype, name)                                                                      \
    static inline bool uniform_as_##name(const struct bundle_io *io, const float *restrict x,      \
                                         ctype *restrict out, bool floored)                        \
    {                                                                                              \
        const float low = limits_min(io->type), high = limits_max(io->type);                       \
        const float scale = io->scale, offset = io->offset;                                        \
        int nans = 0;                                                                              \
        for (uint32_t k = 0; k < io->elements; k++) {                                              \
            float v = x[k] * scale + offset;                                                       \
            nans |= v != v;                                                                        \
            out[k] = (ctype)quantise(v, floored, low, high);                                       \
        }                                                                                          \
        return nans == 0;                                                                          \
    }                                                                                              \
    static bool uniform_##name(const struct bundle_io *io, const float *x, void *row)              \
    {                                                                                              \
        return io->floor ? uniform_as_##name(io, x, row, true)                                     \
                         : uniform_as_##name(io, x, row, false);                                   \
    }                                                                                              \
    static inline bool span_as_##name(const struct bundle_io *io, const struct bundle_span *s,     \
                                      const float *restrict row, ctype *restrict stored,           \
                                      bool floored)                                                \
    {                                                                                              \
        const float low = limits_min(io->type), high = limits_max(io->type);                       \
        const float *x = row + s->from, *scale = io->scales + s->first;                            \
        const float *offset = io->offsets + s->first;                                              \
        ctype *out = stored + s->to;                                                               \
        int nans = 0;                                                                              \
        for (uint32_t k = 0; k < s->count; k++) {                                                  \
            float v = x[k] * scale[k] + offset[k];                                                 \
            nans |= v != v;                                                                        \
            out[k] = (ctype)quantise(v, floored, low, high);                                       \
        }                                                                                          \
        return nans == 0;                                                                          \
    }                                                                                              \
    static bool span_##name(const struct bundle_io *io, const struct bundle_span *s,               \
                            const float *x, void *row)                                             \
    {                                                                                              \
        return io->floor ? span_as_##name(io, s, x, row, true)                                     \
                         : span_as_##name(io, s, x, row, false);                                   \
    }
QUANTISE(int8_t, int8)
QUANTISE(uint8_t, uint8)
QUANTISE(int16_t, int16)
QUANTISE(uint16_t, uint16)
#undef QUANTISE

static bool uniform_fp32(const struct bundle_io *io, const float *x, void *row)
{
    float *out = row;
    for (uint32_t k = 0; k < io->elements; k++)
        out[k] = x[k] * io->scale + io->offset;
    return true;
}

static bool span_fp32(const struct bundle_io *io, const struct bundle_span *s, const float *x,
                      void *row)
{
    float *out = (float *)row + s->to;
    for (uint32_t k = 0; k < s->count; k++)
        out[k] = x[s->from + k] * io->scales[s->first + k] + io->offsets[s->first + k];
    return true;
}

typedef bool (*uniform_fn)(const struct bundle_io *io, const float *x, void *row);
typedef bool (*span_fn)(const struct bundle_io *io, const struct bundle_span *s, const float *x,
                        void *row);

static uniform_fn uniform_of(uint8_t type)
{
    return type == SONIC_INT8     ? uniform_int8
           : type == SONIC_UINT8  ? uniform_uint8
           : type == SONIC_INT16  ? uniform_int16
           : type == SONIC_UINT16 ? uniform_uint16
                                  : uniform_fp32;
}

static span_fn span_of(uint8_t type)
{
    return type == SONIC_INT8     ? span_int8
           : type == SONIC_UINT8  ? span_uint8
           : type == SONIC_INT16  ? span_int16
           : type == SONIC_UINT16 ? span_uint16
                                  : span_fp32;
}

// ---- codes --------------------------------------------------------------------------------------

// 1 + the place of the one, 0 for none; -1: it is no one-hot code.
static int32_t place_of_one(const float *x, uint32_t count)
{
    int32_t ones = 0, place = 0, others = 0;
    for (uint32_t k = 0; k < count; k++) {
        int32_t one = x[k] == 1;
        others += !one && x[k] != 0; // NaN too
        ones += one;
        place += one * (int32_t)(k + 1);
    }
    return others == 0 && ones <= 1 ? place : -1;
}

static void store(uint8_t type, void *row, uint32_t at, int32_t v)
{
    switch (type) {
    case SONIC_INT8:
        ((int8_t *)row)[at] = (int8_t)v;
        break;
    case SONIC_UINT8:
        ((uint8_t *)row)[at] = (uint8_t)v;
        break;
    case SONIC_FP32:
        ((float *)row)[at] = (float)v;
        break;
    default: // a uint16 is stored as the same bits
        ((uint16_t *)row)[at] = (uint16_t)v;
        break;
    }
}

static bool put_indices(const struct bundle_io *io, const float *x, uint32_t row, void *out,
                        char *why, size_t size)
{
    for (uint32_t i = 0; i < io->nindices; i++) {
        const struct bundle_index *c = &io->indices[i];
        int32_t place = place_of_one(x + c->from, c->count);
        if (place < 0) {
            snprintf(why, size,
                     "input \"%s\", row %u: elements %u to %u are no one-hot code (one 1 at most, "
                     "else 0), which this device's bundle takes them for",
                     io->tensor, row, c->from, c->from + c->count - 1);
            return false;
        }
        store(io->type, out, c->to, place);
    }
    return true;
}

// ---- both ways ----------------------------------------------------------------------------------

static bool say_nan(char *why, size_t size, const struct bundle_io *io, uint32_t row, uint32_t at)
{
    snprintf(why, size,
             "input \"%s\", row %u, element %u is NaN, and this device computes with integers",
             io->tensor, row, at);
    return false;
}

static uint32_t first_nan(const float *x, uint32_t n)
{
    uint32_t k = 0;
    while (k + 1 < n && !isnan(x[k]))
        k++;
    return k;
}

static bool put_columns(const struct bundle_io *io, span_fn put, const float *x, uint32_t row,
                        void *out, char *why, size_t size)
{
    for (uint32_t i = 0; i < io->nspans; i++) {
        const struct bundle_span *s = &io->spans[i];
        if (!put(io, s, x, out))
            return say_nan(why, size, io, row, s->from + first_nan(x + s->from, s->count));
    }
    return true;
}

bool convert_input(const struct bundle_io *io, const float *rows, uint32_t n, void *buffer,
                   uint64_t room, char *why, size_t size)
{
    bool columns = io->ncolumns || io->nindices;
    span_fn put_span = span_of(io->type);
    uniform_fn put_all = uniform_of(io->type);
    for (uint32_t i = 0; i < n; i++) {
        const float *x = rows + (size_t)i * io->elements;
        uint8_t *out = (uint8_t *)buffer + i * io->stride;
        if (!columns) {
            if (!put_all(io, x, out))
                return say_nan(why, size, io, i, first_nan(x, io->elements));
            continue;
        }
        memset(out, 0, io->stride);
        if (!put_columns(io, put_span, x, i, out, why, size) ||
            !put_indices(io, x, i, out, why, size))
            return false;
    }
    memset((uint8_t *)buffer + n * io->stride, 0, room - n * io->stride);
    return true;
}

// One element after another from one place on: a row, or all rows where nothing is between them.
#define RESTORE(ctype, name)                                                                       \
    static void restore_##name(const struct bundle_io *io, const void *from, uint64_t n,           \
                               float *restrict out)                                                \
    {                                                                                              \
        const ctype *in = from;                                                                    \
        const float scale = io->scale, offset = io->offset, low = io->min, high = io->max;         \
        for (uint64_t k = 0; k < n; k++) {                                                         \
            float v = (float)in[k] * (io->scales ? io->scales[k] : scale) + offset;                \
            v = v < low ? low : v; /* in this order, so that NaN passes through */                 \
            out[k] = v > high ? high : v;                                                          \
        }                                                                                          \
    }
RESTORE(int8_t, int8)
RESTORE(uint8_t, uint8)
RESTORE(int16_t, int16)
RESTORE(uint16_t, uint16)
RESTORE(float, fp32)
#undef RESTORE

void convert_output(const struct bundle_io *io, const void *buffer, uint32_t n, float *rows)
{
    uint64_t together = io->elements;
    void (*restore)(const struct bundle_io *, const void *, uint64_t, float *) =
        io->type == SONIC_INT8     ? restore_int8
        : io->type == SONIC_UINT8  ? restore_uint8
        : io->type == SONIC_INT16  ? restore_int16
        : io->type == SONIC_UINT16 ? restore_uint16
                                   : restore_fp32;
    if (!io->scales && io->stride == io->elements * dtype_bytes(io->type) && n > 0) {
        together *= n;
        n = 1;
    }
    for (uint32_t i = 0; i < n; i++)
        restore(io, (const uint8_t *)buffer + i * io->stride, together, rows + i * together);
}
