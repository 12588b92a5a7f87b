// SPDX-License-Identifier: Apache-2.0
#include "client/submit/convert.h"

#include <math.h>
#include <string.h>

#include "common/tensor.h"

static bool is_float(unsigned dtype)
{
    return dtype == SONIC_FP16 || dtype == SONIC_BF16 || dtype == SONIC_FP32 || dtype == SONIC_FP64;
}

static bool is_signed(unsigned dtype)
{
    return dtype >= SONIC_INT8 && dtype <= SONIC_INT64;
}

bool convert_possible(unsigned from, unsigned to)
{
    return is_float(to) || !is_float(from);
}

bool convert_needed(unsigned from, bool big_endian, unsigned to)
{
    return from != to || big_endian;
}

// ---- half precision (IEEE 754 binary16) and bfloat16, rounding to nearest even
// -------------------

static double half_value(uint16_t h)
{
    int exponent = (h >> 10) & 31;
    double fraction = h & 1023, v;
    if (exponent == 31)
        v = fraction != 0.0 ? (double)NAN : (double)INFINITY;
    else
        v = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h & 0x8000 ? -v : v;
}

static uint16_t half_bits(double v)
{
    uint16_t sign = signbit(v) ? 0x8000 : 0;
    int exponent;
    v = fabs(v);
    if (isnan(v))
        return sign | 0x7e00;
    if (v >= 65520.0) // rounds to infinity
        return sign | 0x7c00;
    if (v < ldexp(1, -14)) // subnormal: a multiple of 2^-24 (and 2^-14 itself after rounding up)
        return sign | (uint16_t)nearbyint(ldexp(v, 24));
    frexp(v, &exponent);
    double mantissa = nearbyint(ldexp(v, 11 - exponent)); // 1024..2048
    return sign | (uint16_t)(((exponent + 14) << 10) + (int)mantissa - 1024);
}

// By way of a float that keeps in its lowest bit whether anything was cut off: rounding to the
// nearest float first would make ties of what are none.
static uint16_t bf16_bits(double v)
{
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    if (isnan(v))
        return (uint16_t)(bits >> 16 | 0x40);
    if (fabs((double)f) > fabs(v))
        bits--;
    if ((double)f != v)
        bits |= 1;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// ---- one element --------------------------------------------------------------------------------

static uint64_t load_bits(const uint8_t *src, size_t bytes, bool big_endian)
{
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)src[big_endian ? bytes - 1 - i : i] << (8 * i);
    return v;
}

static double float_value(uint64_t bits, unsigned dtype)
{
    float f;
    double d;
    uint32_t word = (uint32_t)bits;
    switch (dtype) {
    case SONIC_FP16:
        return half_value((uint16_t)bits);
    case SONIC_BF16:
        word <<= 16;
        /* fall through */
    case SONIC_FP32:
        memcpy(&f, &word, sizeof(f));
        return (double)f;
    default:
        memcpy(&d, &bits, sizeof(d));
        return d;
    }
}

static uint64_t float_bits(double v, unsigned dtype)
{
    float f = (float)v;
    uint32_t word;
    uint64_t bits;
    switch (dtype) {
    case SONIC_FP16:
        return half_bits(v);
    case SONIC_BF16:
        return bf16_bits(v);
    case SONIC_FP32:
        memcpy(&word, &f, sizeof(word));
        return word;
    default:
        memcpy(&bits, &v, sizeof(bits));
        return bits;
    }
}

// Sign-extends an integer of `bytes` bytes.
static int64_t sign_extend(uint64_t bits, size_t bytes)
{
    unsigned shift = (unsigned)(64 - 8 * bytes);
    return (int64_t)(bits << shift) >> shift;
}

// An integer as a double that rounds to any narrower float as the integer itself does: of what a
// double cannot hold, one bit says whether there was anything.
static double integer_value(uint64_t bits, bool negative)
{
    uint64_t magnitude = negative ? 0 - bits : bits;
    if (magnitude >> 53)
        magnitude = (magnitude & ~0x7ffull) | (uint64_t)((magnitude & 0x7ff) != 0) << 11;
    return negative ? -(double)magnitude : (double)magnitude;
}

static uint64_t integer_to_float(uint64_t bits, bool is_negative, unsigned to)
{
    if (to == SONIC_FP64)
        return float_bits(is_negative ? (double)(int64_t)bits : (double)bits, to);
    return float_bits(integer_value(bits, is_negative), to);
}

// Whether an integer of type `from` (in bits, extended) is one of type `to`.
static bool fits(uint64_t bits, unsigned from, unsigned to)
{
    bool negative = is_signed(from) && (int64_t)bits < 0;
    if (to == SONIC_BOOL)
        return bits <= 1;
    size_t width = 8 * dtype_bytes(to);
    if (is_signed(to)) {
        if (negative)
            return width == 64 || (int64_t)bits >= -(1ll << (width - 1));
        return bits <= (1ull << (width - 1)) - 1;
    }
    return !negative && (width == 64 || bits < 1ull << width);
}

bool convert(void *dst, unsigned to, const void *src, unsigned from, bool big_endian, size_t n,
             size_t *at)
{
    const uint8_t *in = src;
    uint8_t *out = dst;
    size_t from_bytes = dtype_bytes(from), to_bytes = dtype_bytes(to);
    for (size_t i = 0; i < n; i++, in += from_bytes, out += to_bytes) {
        uint64_t bits = load_bits(in, from_bytes, big_endian);
        if (from != to && is_float(from)) {
            bits = float_bits(float_value(bits, from), to);
        } else if (from != to) {
            if (is_signed(from))
                bits = (uint64_t)sign_extend(bits, from_bytes);
            if (is_float(to)) {
                bits = integer_to_float(bits, is_signed(from) && (int64_t)bits < 0, to);
            } else if (!fits(bits, from, to)) {
                *at = i;
                return false;
            }
        }
        for (size_t k = 0; k < to_bytes; k++)
            out[k] = (uint8_t)(bits >> (8 * k));
    }
    return true;
}
