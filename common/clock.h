// SPDX-License-Identifier: Apache-2.0
// The one clock of the shells. Pure code never includes this: it is handed `now_us`.
#ifndef SONIC_COMMON_CLOCK_H
#define SONIC_COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

// CLOCK_MONOTONIC in microseconds.
static inline uint64_t clock_now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

#endif
