// SPDX-License-Identifier: Apache-2.0
// The weights file of the native kernel, as models/native.py writes it: 16 bytes of header (below),
// then the floats in the order of facile_math.h; all little-endian.
#ifndef SONIC_WORKER_KERNELS_FACILE_WEIGHTS_H
#define SONIC_WORKER_KERNELS_FACILE_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "worker/kernels/facile_math.h"

#define FACILE_FILE "cuda/facile.bin" // in a version's folder
#define FACILE_FILE_VERSION 1u

struct facile_header {
    char magic[4];    // "SNCF"
    uint32_t version; // FACILE_FILE_VERSION
    uint32_t count;   // floats: FACILE_WEIGHTS
    uint32_t check;   // FNV-1a, 32 bits, of the floats' bytes
};

// Reads and checks it. 0, or a negative errno with words that name the file and the cure.
int facile_weights_read(const char *path, float weights[FACILE_WEIGHTS], char *why, size_t size);

#endif
