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

// Every type fits into 32 bits, and the compiler makes vectors of the loops below.
static void store(uint8_t type, void *row, uint32_t at, int32_t v)
{
    switch (type) {
    case SONIC_INT8:
        ((int8_t *)row)[at] = (int8_t)v;
        break;
    case SONIC_UINT8:
        ((uint8_t *)row)[at] = (uint8_t)v;
        break;
    default: // a uint16 is stored as the same bits
        ((uint16_t *)row)[at] = (uint16_t)v;
        break;
    }
}

// False: NaN, which no integer is.
static bool quantise(const struct bundle_io *io, float x, float scale, float offset, int32_t *out)
{
    float v = x * scale + offset;
    if (isnan(v))
        return false;
    v = io->floor ? floorf(v) : rintf(v);
    v = fminf(fmaxf(v, limits_min(io->type)), limits_max(io->type));
    *out = (int32_t)v;
    return true;
}

static bool say_nan(char *why, size_t size, const struct bundle_io *io, uint32_t row, uint32_t at)
{
    snprintf(why, size,
             "input \"%s\", row %u, element %u is NaN, and this device computes with integers",
             io->tensor, row, at);
    return false;
}

// ---- all elements alike -------------------------------------------------------------------------

#define UNIFORM(ctype, name)                                                                       \
    static bool uniform_##name(const struct bundle_io *io, const float *x, void *row)              \
    {                                                                                              \
        ctype *out = row;                                                                          \
        const float low = limits_min(io->type), high = limits_max(io->type);                       \
        const float scale = io->scale, offset = io->offset;                                        \
        bool fine = true;                                                                          \
        for (uint32_t k = 0; k < io->elements; k++) {                                              \
            float v = x[k] * scale + offset;                                                       \
            fine &= v == v;                                                                        \
            v = io->floor ? floorf(v) : rintf(v);                                                  \
            v = v > low ? v : low; /* NaN too: reported, not stored */                             \
            out[k] = (ctype)(v < high ? v : high);                                                 \
        }                                                                                          \
        return fine;                                                                               \
    }
UNIFORM(int8_t, int8)
UNIFORM(uint8_t, uint8)
UNIFORM(int16_t, int16)
UNIFORM(uint16_t, uint16)
#undef UNIFORM

static bool uniform_fp32(const struct bundle_io *io, const float *x, void *row)
{
    float *out = row;
    for (uint32_t k = 0; k < io->elements; k++)
        out[k] = x[k] * io->scale + io->offset;
    return true;
}

static bool uniform(const struct bundle_io *io, const float *x, void *row)
{
    switch (io->type) {
    case SONIC_INT8:
        return uniform_int8(io, x, row);
    case SONIC_UINT8:
        return uniform_uint8(io, x, row);
    case SONIC_INT16:
        return uniform_int16(io, x, row);
    case SONIC_UINT16:
        return uniform_uint16(io, x, row);
    default:
        return uniform_fp32(io, x, row);
    }
}

// ---- by columns ---------------------------------------------------------------------------------

// 1 + the place of the one, 0 for none; -1: it is no one-hot code.
static int32_t place_of_one(const float *x, uint32_t count)
{
    float sum = 0, place = 0;
    bool fine = true;
    for (uint32_t k = 0; k < count; k++) {
        fine &= x[k] == 0 || x[k] == 1;
        sum += x[k];
        place += x[k] * (float)(k + 1);
    }
    return fine && sum <= 1 ? (int32_t)place : -1;
}

static bool put_columns(const struct bundle_io *io, const float *x, uint32_t row, void *out,
                        char *why, size_t size)
{
    for (uint32_t i = 0; i < io->ncolumns; i++) {
        const struct bundle_column *c = &io->columns[i];
        int32_t v;
        if (io->type == SONIC_FP32)
            ((float *)out)[c->to] = x[c->from] * c->scale + c->offset;
        else if (quantise(io, x[c->from], c->scale, c->offset, &v))
            store(io->type, out, c->to, v);
        else
            return say_nan(why, size, io, row, c->from);
    }
    return true;
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
        if (io->type == SONIC_FP32)
            ((float *)out)[c->to] = (float)place;
        else
            store(io->type, out, c->to, place);
    }
    return true;
}

// ---- both ways ----------------------------------------------------------------------------------

static uint32_t first_nan(const float *x, uint32_t n)
{
    uint32_t k = 0;
    while (k + 1 < n && !isnan(x[k]))
        k++;
    return k;
}

bool convert_input(const struct bundle_io *io, const float *rows, uint32_t n, void *buffer,
                   uint64_t room, char *why, size_t size)
{
    bool columns = io->ncolumns || io->nindices;
    for (uint32_t i = 0; i < n; i++) {
        const float *x = rows + (size_t)i * io->elements;
        uint8_t *out = (uint8_t *)buffer + i * io->stride;
        if (!columns) {
            if (!uniform(io, x, out))
                return say_nan(why, size, io, i, first_nan(x, io->elements));
            continue;
        }
        memset(out, 0, io->stride);
        if (!put_columns(io, x, i, out, why, size) || !put_indices(io, x, i, out, why, size))
            return false;
    }
    memset((uint8_t *)buffer + n * io->stride, 0, room - n * io->stride);
    return true;
}

static float load(uint8_t type, const void *row, uint32_t at)
{
    switch (type) {
    case SONIC_INT8:
        return ((const int8_t *)row)[at];
    case SONIC_UINT8:
        return ((const uint8_t *)row)[at];
    case SONIC_INT16:
        return ((const int16_t *)row)[at];
    case SONIC_UINT16:
        return ((const uint16_t *)row)[at];
    default:
        return ((const float *)row)[at];
    }
}

void convert_output(const struct bundle_io *io, const void *buffer, uint32_t n, float *rows)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *row = (const uint8_t *)buffer + i * io->stride;
        for (uint32_t k = 0; k < io->elements; k++) {
            float scale = io->scales ? io->scales[k] : io->scale;
            float v = load(io->type, row, k) * scale + io->offset;
            // In this order, so that NaN passes through.
            v = v < io->min ? io->min : v;
            rows[(size_t)i * io->elements + k] = v > io->max ? io->max : v;
        }
    }
}
