// SPDX-License-Identifier: Apache-2.0
// An .xclbin as far as one must look into it before XRT does: XRT copies by the lengths that the
// file names, whatever its size, and enqueues kernels whose connections are not there. Pure.
#ifndef SONIC_WORKER_EXECUTORS_OPENCL_PROCESS_XCLBIN_H
#define SONIC_WORKER_EXECUTORS_OPENCL_PROCESS_XCLBIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xclbin_table {
    const unsigned char *items;
    uint32_t n;
};

// Views into the bytes that were read, which must outlive it.
struct xclbin {
    struct xclbin_table banks, units, links;
};

// Checks magic, length and the tables that kernels need. 0, or -EINVAL with "PATH: ..." in `why`.
int xclbin_read(struct xclbin *x, const void *bytes, size_t len, const char *path, char *why,
                size_t size);

// Whether there is a compute unit `unit` ("": any) of the kernel.
bool xclbin_has(const struct xclbin *x, const char *kernel, const char *unit);
// "kernel:unit, ..." of all compute units, for people.
void xclbin_names(const struct xclbin *x, char *names, size_t size);

// Whether argument `arg` of a unit ("": of any unit) of the kernel is wired to the bank.
bool xclbin_reaches(const struct xclbin *x, const char *kernel, const char *unit, uint32_t arg,
                    uint32_t bank);
// The bank's name ("bank0", "DDR[1]"); "" of a bank that is not there or not used.
const char *xclbin_bank_name(const struct xclbin *x, uint32_t bank, char name[17]);

#endif
