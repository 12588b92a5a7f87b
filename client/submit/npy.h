// SPDX-License-Identifier: Apache-2.0
// NumPy's .npy files (format versions 1 to 3): reading by memory map, writing the header. The file
// is a stranger's: every length is checked before it is used.
#ifndef SONIC_CLIENT_SUBMIT_NPY_H
#define SONIC_CLIENT_SUBMIT_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/tensor.h"

#define NPY_DIMS_MAX 16

struct npy_header {
    uint8_t dtype;   // enum sonic_dtype
    bool big_endian; // elements must be swapped
    unsigned ndim;
    uint64_t shape[NPY_DIMS_MAX];
    uint64_t bytes; // of the data
    size_t data_at; // where it begins
};

// Parses a header from the first `len` bytes of a file. False with words that do not name the file.
bool npy_parse(const uint8_t *file, size_t len, struct npy_header *h, char *why, size_t size);

// Writes a version 1 header for little-endian C-order data into buf (a multiple of 64 bytes).
// Returns its length; buf must have room for 512 bytes.
size_t npy_write_header(char *buf, unsigned dtype, unsigned ndim, const uint64_t *shape);

struct npy {
    struct npy_header header;
    const uint8_t *data;
    char path[4096];
    uint64_t file_bytes, mtime_ns; // of stdin: a hash of all its bytes instead of the time
    void *map;
    size_t map_bytes;
};

// Opens a file, or standard input for "-" (spooled into an unnamed temporary file). 0, or a
// negative errno with words that name the file and the way out.
int npy_open(struct npy *n, const char *path, char *why, size_t size);
void npy_close(struct npy *n);

#endif
