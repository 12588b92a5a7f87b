// SPDX-License-Identifier: Apache-2.0
// What is particular to Xilinx' cards under XRT: one .xclbin at a time, compute units by name, and
// buffers that must lie in a memory bank that their unit is wired to. Built without XRT's headers.
#ifndef SONIC_WORKER_EXECUTORS_OPENCL_PROCESS_XILINX_H
#define SONIC_WORKER_EXECUTORS_OPENCL_PROCESS_XILINX_H

#include "worker/executors/opencl/process/device.h"

bool xilinx_card(const struct device *d);

// Whether the card has this .xclbin already: then its program is retained into *program. 0 (which
// is NULL where the card is free, or bytes are to be loaded), -EINVAL: no .xclbin that XRT could
// take; -EBUSY: the card has another; words in `why`.
int xilinx_program(const struct device *d, const void *bytes, size_t len, const char *path,
                   cl_program *program, char *why, size_t size);
// Notes what has been loaded onto the card. 0 or -ENOMEM.
int xilinx_loaded(struct device *d, const void *bytes, size_t len, const char *path,
                  cl_program program, char *why, size_t size);

// Sets m->banks: for each unit and buffer the bank that every launch reaches, or the manifest's,
// checked. 0, or a negative errno with words that name launch, kernel, unit and bank.
int xilinx_place(const struct device *d, struct device_model *m, char *why, size_t size);
// clCreateBuffer, in a bank.
cl_mem xilinx_buffer(cl_context context, cl_mem_flags flags, size_t bytes, void *host,
                     uint32_t bank, cl_int *e);

#endif
