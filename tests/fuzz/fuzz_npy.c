// SPDX-License-Identifier: Apache-2.0
// A .npy header of any bytes: refused in words, or one whose numbers agree with each other. What is
// understood is written again as we write it, and must then read the same.
#include <stdlib.h>
#include <string.h>

#include "client/submit/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct npy_header h, again;
    char why[512] = "", buf[512];
    uint64_t bytes;
    if (!npy_parse(data, size, &h, why, sizeof(why))) {
        check(why[0]);
        return 0;
    }
    check(h.data_at <= size && h.ndim <= NPY_DIMS_MAX && dtype_bytes(h.dtype));
    if (h.ndim > SONIC_DIMS_MAX)
        return 0;
    check(tensor_bytes(h.dtype, h.ndim, h.shape, &bytes) && bytes == h.bytes);
    size_t len = npy_write_header(buf, h.dtype, h.ndim, h.shape);
    check(npy_parse((const uint8_t *)buf, len, &again, why, sizeof(why)));
    check(again.dtype == h.dtype && again.ndim == h.ndim && again.bytes == h.bytes);
    check(memcmp(again.shape, h.shape, sizeof(h.shape[0]) * h.ndim) == 0);
    return 0;
}
