// SPDX-License-Identifier: Apache-2.0
// What the tests' card under XRT computes (xrt_double.c): kernels by name, in plain C.
//
//     twice(in*, out*, rows)                 y = 2 x, rows of 16 floats
//     add(x*, w*, y*, rows)                  y = x + w, w being one row of 16 floats
//     facile(in*, out*, rows)                64 B a row, as models/spatial.py's kernel takes them
//     alveo_hls4ml(in*, out*)                the same, always 16,384 rows
//     kernel_wrapper(batchsize, in*, out*)   hls4ml's: dense rows of int16
//
// The last three are the network of SONIC_XRT_NETWORK, a file as fixed_reference.h reads.
#ifndef SONIC_TESTS_FPGA_XRT_KERNELS_H
#define SONIC_TESTS_FPGA_XRT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define XRT_ARGS_MAX 4u

struct xrt_arg {
    uint32_t value;
    unsigned char *memory; // of a pointer: to so many bytes
    size_t bytes;
};

struct xrt_kernel {
    const char *name;
    uint32_t nargs, pointers; // which arguments are: a bit each
    void (*run)(const struct xrt_arg *args);
};

// NULL: there is none of that name.
const struct xrt_kernel *xrt_kernel_find(const char *name);

#endif
