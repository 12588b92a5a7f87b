// SPDX-License-Identifier: Apache-2.0
// From rows of FP32 to what a bundle's buffers store, and back (docs/bundle.md says how).
#ifndef SONIC_WORKER_EXECUTORS_OPENCL_CONVERT_H
#define SONIC_WORKER_EXECUTORS_OPENCL_CONVERT_H

#include "worker/executors/opencl/bundle.h"

// n rows, io->elements floats each, into the buffer of `room` bytes; what is behind them becomes 0.
// False with words (which row, which element): a value that the stored type cannot mean.
bool convert_input(const struct bundle_io *io, const float *rows, uint32_t n, void *buffer,
                   uint64_t room, char *why, size_t size);
// n rows back.
void convert_output(const struct bundle_io *io, const void *buffer, uint32_t n, float *rows);

#endif
