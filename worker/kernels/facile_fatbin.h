// SPDX-License-Identifier: Apache-2.0
// The kernel FACILE_KERNEL as the GPU's driver takes it (cuModuleLoadData). Only in a build that
// had nvcc: there SONIC_FACILE_FATBIN is defined.
#ifndef SONIC_WORKER_KERNELS_FACILE_FATBIN_H
#define SONIC_WORKER_KERNELS_FACILE_FATBIN_H

#include <stddef.h>

extern const unsigned char sonic_facile_fatbin[];
extern const size_t sonic_facile_fatbin_bytes;

#endif
