// SPDX-License-Identifier: Apache-2.0
// One random case of each kernel against its reference, bit for bit.
#ifndef SONIC_TESTS_KERNELS_CASES_H
#define SONIC_TESTS_KERNELS_CASES_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/kernels/device.h"
#include "tests/kernels/reference.h"

struct test {
    struct device *device;
    uint64_t random; // state
    bool small;      // shapes for a slow interpreter
    char what[512];  // the shape, for whoever looks into a failure
    char why[1024];  // the failure
};

struct kernel_case {
    const char *kernel;
    bool (*run)(struct test *t);
};

extern const struct kernel_case kernel_cases[];
extern const uint32_t kernel_cases_count;

// Uniform in from..to.
int draw(struct test *t, int from, int to);
// n random bytes, or n numbers in from..to, that the caller frees.
int8_t *draw_bytes(struct test *t, size_t n);
int32_t *draw_ints(struct test *t, size_t n, int from, int to);
// The number of groups of a launch: few, many, and more than there is work.
size_t draw_groups(struct test *t);
// What the convolutions, and maxpool, have in the middle of their arguments; returns the next one.
struct arg *shape_args(struct arg *a, const struct conv_shape *s);
struct arg *quant_args(struct arg *a, const struct quant *q);
struct quant draw_quant(struct test *t, int shift_min, int shift_max);
// Rows, image, windows and padding of a maxpool, and the slice that it goes to.
struct conv_shape draw_pool(struct test *t);

// Whether two results are the same; says where they differ.
bool same_bytes(struct test *t, const void *got, const void *expected, size_t n);

// cases_conv.c
bool case_conv(struct test *t);
bool case_conv_leaky(struct test *t);
bool case_conv_add(struct test *t);
bool case_conv_acc(struct test *t);

// cases_wide.c
bool case_wide_finish(struct test *t);
bool case_wide_finish_add(struct test *t);
bool case_wide_acc(struct test *t);
bool case_wide_add(struct test *t);
bool case_wide_maxpool(struct test *t);
bool case_wide_avgpool(struct test *t);
bool case_wide_stage(struct test *t);

#endif
