// SPDX-License-Identifier: Apache-2.0
// What a tensor is, on the wire and in a model's declaration: element type, shape, and (on the
// wire) where its bytes are. Bytes are little-endian and row-major, always.
#ifndef SONIC_COMMON_TENSOR_H
#define SONIC_COMMON_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

enum sonic_dtype {
    SONIC_DTYPE_INVALID = 0,
#define DTYPE(name, number, bytes, numpy, triton) SONIC_##name = (number),
#include "common/dtype.def"
#undef DTYPE
};

// Where a tensor's bytes are.
enum tensor_place {
    TENSOR_IN_FRAME = 0, // frame `where` of the message, at byte `offset`
    TENSOR_IN_SLAB = 1,  // shared slab `where` (slab.h), at byte `offset`
};

// A tensor of one request, as a message describes it. `bytes` is derived (dtype x dims,
// overflow-checked by the decoder), never sent.
struct tensor {
    uint8_t dtype;
    uint8_t ndim;
    uint8_t place;
    uint32_t where;
    uint64_t offset;
    uint64_t bytes;
    uint64_t dims[SONIC_DIMS_MAX];
};

// One input or output as a model declares it, without the batch dimension. dims < 0: any size.
struct tensor_spec {
    char name[SONIC_NAME_MAX + 1];
    uint8_t dtype;
    uint8_t ndim;
    int64_t dims[SONIC_DIMS_MAX];
};

// Bytes of one element; 0 for a number that is no type.
size_t dtype_bytes(unsigned dtype);
// "FP32", or "INVALID". Never NULL.
const char *dtype_name(unsigned dtype);
// The NumPy descr, "<f4"; NULL for no type.
const char *dtype_numpy(unsigned dtype);
// From "TYPE_FP32" (config.pbtxt) or "FP32"; SONIC_DTYPE_INVALID when unknown.
enum sonic_dtype dtype_parse(const char *text);

// dtype x dims in bytes. False on overflow, an unknown type, or more than SONIC_DIMS_MAX dims.
bool tensor_bytes(unsigned dtype, unsigned ndim, const uint64_t *dims, uint64_t *bytes);
// Where a packed tensor begins that follows one of `bytes` at *offset; false on overflow.
bool tensor_packed_after(uint64_t *offset, uint64_t bytes);
// Elements of one row of a spec; false when a dimension is free (< 0) or the product overflows.
bool tensor_spec_row_bytes(const struct tensor_spec *spec, uint64_t *bytes);
// Writes "FP32[16000,47]" into buf (always terminated), for messages to people.
void tensor_print(char *buf, size_t size, unsigned dtype, unsigned ndim, const uint64_t *dims);
void tensor_spec_print(char *buf, size_t size, const struct tensor_spec *spec, bool batched);

#endif
