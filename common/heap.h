// SPDX-License-Identifier: Apache-2.0
// malloc for programs through which multi-megabyte frames stream (docs/decisions/malloc.md).
#ifndef SONIC_COMMON_HEAP_H
#define SONIC_COMMON_HEAP_H

#include <malloc.h>

// By default glibc maps each large block afresh and gives it back on free, and gives every thread
// an arena that shrinks the same way: a 3 MB frame then costs 750 page faults, as much as its copy.
// Large blocks stay on one heap instead. 32 MiB is the largest threshold that glibc
// documents; some versions refuse more. Call first thing, before threads.
static inline void heap_keep_large_blocks(void)
{
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
    mallopt(M_TOP_PAD, 16 << 20);
    mallopt(M_ARENA_MAX, 1);
}

#endif
