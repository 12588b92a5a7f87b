// SPDX-License-Identifier: Apache-2.0
// An .xclbin of any bytes: refused in words, or one whose tables lie within it.
#include <stdlib.h>
#include <string.h>

#include "worker/executors/opencl/process/xclbin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xclbin x;
    char why[512] = "", names[256], kernel[256], bank[17];
    if (xclbin_read(&x, data, size, "f", why, sizeof(why)) != 0) {
        check(strncmp(why, "f: ", 3) == 0);
        return 0;
    }
    xclbin_names(&x, names, sizeof(names));
    check(strlen(names) < sizeof(names));
    memcpy(kernel, names, sizeof(names));
    kernel[strcspn(kernel, ":,")] = '\0';
    if (names[strlen(kernel)] == ':')
        check(xclbin_has(&x, kernel, ""));
    for (uint32_t i = 0; i < x.banks.n && i < 64; i++) {
        check(strlen(xclbin_bank_name(&x, i, bank)) < sizeof(bank));
        xclbin_reaches(&x, kernel, "", i, i);
    }
    check(!xclbin_bank_name(&x, x.banks.n, bank)[0]);
    return 0;
}
