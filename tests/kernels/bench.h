// SPDX-License-Identifier: Apache-2.0
// The kernels' speed beside the C compiler's, in one run.
#ifndef SONIC_TESTS_KERNELS_BENCH_H
#define SONIC_TESTS_KERNELS_BENCH_H

#include "tests/kernels/device.h"

// Prints a table; the number of launches that failed.
int bench(struct device *d);

#endif
