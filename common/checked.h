// SPDX-License-Identifier: Apache-2.0
// Size arithmetic that cannot wrap. Every product or sum of a number that came from a peer or a
// file goes through here; each function returns false on overflow and leaves *out untouched.
#ifndef SONIC_COMMON_CHECKED_H
#define SONIC_COMMON_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

// Rounds n up to a multiple of align, a power of two.
static inline bool checked_align(uint64_t n, uint64_t align, uint64_t *out)
{
    uint64_t r;
    if (!checked_add(n, align - 1, &r))
        return false;
    *out = r & ~(align - 1);
    return true;
}

#endif
