// SPDX-License-Identifier: Apache-2.0
#include "common/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/checked.h"

static const struct {
    const char *name;
    uint8_t bytes;
    const char *numpy;
    const char *triton;
} DTYPES[] = {
#define DTYPE(name, number, bytes, numpy, triton) [number] = {#name, bytes, numpy, triton},
#include "common/dtype.def"
#undef DTYPE
};
#define NDTYPES (sizeof(DTYPES) / sizeof(DTYPES[0]))

size_t dtype_bytes(unsigned dtype)
{
    return dtype < NDTYPES ? DTYPES[dtype].bytes : 0;
}

const char *dtype_name(unsigned dtype)
{
    return dtype < NDTYPES && DTYPES[dtype].name ? DTYPES[dtype].name : "INVALID";
}

const char *dtype_numpy(unsigned dtype)
{
    return dtype < NDTYPES ? DTYPES[dtype].numpy : NULL;
}

enum sonic_dtype dtype_parse(const char *text)
{
    for (unsigned i = 1; i < NDTYPES; i++)
        if (DTYPES[i].name &&
            (strcmp(text, DTYPES[i].name) == 0 || strcmp(text, DTYPES[i].triton) == 0))
            return (enum sonic_dtype)i;
    return SONIC_DTYPE_INVALID;
}

bool tensor_bytes(unsigned dtype, unsigned ndim, const uint64_t *dims, uint64_t *bytes)
{
    uint64_t total = dtype_bytes(dtype);
    if (total == 0 || ndim > SONIC_DIMS_MAX)
        return false;
    for (unsigned i = 0; i < ndim; i++)
        if (!checked_mul(total, dims[i], &total))
            return false;
    *bytes = total;
    return true;
}

bool tensor_packed_after(uint64_t *offset, uint64_t bytes)
{
    return checked_add(*offset, bytes, offset) && checked_align(*offset, SONIC_PACK_ALIGN, offset);
}

bool tensor_spec_row_bytes(const struct tensor_spec *spec, uint64_t *bytes)
{
    uint64_t dims[SONIC_DIMS_MAX] = {0};
    for (unsigned i = 0; i < spec->ndim && i < SONIC_DIMS_MAX; i++) {
        if (spec->dims[i] < 0)
            return false;
        dims[i] = (uint64_t)spec->dims[i];
    }
    return tensor_bytes(spec->dtype, spec->ndim, dims, bytes);
}

// Appends to a bounded string; what does not fit is cut, the string stays terminated.
static void append(char *buf, size_t size, size_t *used, const char *text)
{
    while (*text && *used + 1 < size)
        buf[(*used)++] = *text++;
    if (size)
        buf[*used] = '\0';
}

void tensor_print(char *buf, size_t size, unsigned dtype, unsigned ndim, const uint64_t *dims)
{
    size_t used = 0;
    append(buf, size, &used, dtype_name(dtype));
    append(buf, size, &used, "[");
    for (unsigned i = 0; i < ndim && i < SONIC_DIMS_MAX; i++) {
        char number[24];
        snprintf(number, sizeof(number), i ? ",%" PRIu64 : "%" PRIu64, dims[i]);
        append(buf, size, &used, number);
    }
    append(buf, size, &used, "]");
}

void tensor_spec_print(char *buf, size_t size, const struct tensor_spec *spec, bool batched)
{
    size_t used = 0;
    append(buf, size, &used, dtype_name(spec->dtype));
    append(buf, size, &used, batched ? "[rows" : "[");
    for (unsigned i = 0; i < spec->ndim && i < SONIC_DIMS_MAX; i++) {
        char number[24];
        snprintf(number, sizeof(number), "%s%" PRId64, i || batched ? "," : "", spec->dims[i]);
        append(buf, size, &used, spec->dims[i] < 0 ? (i || batched ? ",any" : "any") : number);
    }
    append(buf, size, &used, "]");
}
