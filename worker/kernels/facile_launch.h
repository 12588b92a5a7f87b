// SPDX-License-Identifier: Apache-2.0
// How the kernel sonic_facile is launched: blocks, threads, and shared memory beyond its own. Pure.
#ifndef SONIC_WORKER_KERNELS_FACILE_LAUNCH_H
#define SONIC_WORKER_KERNELS_FACILE_LAUNCH_H

#include "worker/kernels/facile_math.h"

#define FACILE_KERNEL "sonic_facile"
#define FACILE_THREADS 64u
#define FACILE_TILE (FACILE_THREADS * FACILE_LANES) // rows of a block

// For n rows; of none there is nothing to launch: the grid is 0.
static inline void facile_launch(unsigned n, unsigned *grid, unsigned *block, unsigned *shared)
{
    *grid = n / FACILE_TILE + (n % FACILE_TILE != 0);
    *block = FACILE_THREADS;
    *shared = 0;
}

#endif
