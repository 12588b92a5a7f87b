// SPDX-License-Identifier: Apache-2.0
// The C reference of the fixed-point pipeline against what hls4ml gave for 10,000 rows.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tests/fpga/fixed_reference.h"

static void equals_hls4ml(void **state)
{
    struct fixed_network n;
    uint64_t random = 1;
    uint32_t wrapped = 0;
    (void)state;
    assert_int_equal(fixed_read(&n, TEST_VECTORS), 0);
    assert_int_equal(n.width[0], FIXED_ROW);
    assert_int_equal(n.width[n.nlayers], 1);
    assert_int_equal(n.nrows, 10000);
    for (uint32_t i = 0; i < n.nrows; i++) {
        int16_t row[FIXED_ROW], out;
        fixed_row(&random, i, row);
        fixed_forward(&n, row, &out);
        if (out != n.recorded[i])
            fail_msg("row %u: %d, hls4ml gives %d", i, out, n.recorded[i]);
        wrapped += out < -30000 || out > 30000;
    }
    assert_true(wrapped > 0); // else the rows are too tame to tell wrapping from saturation
    fixed_deinit(&n);
}

// A layer by hand: floor, not truncation, of a negative product; a product and a sum that wrap.
static void floors_and_wraps(void **state)
{
    static const int16_t weight[] = {1, 32767, 1024}, bias[] = {0, 0, 32767};
    struct fixed_network n = {.nlayers = 1, .width = {1, 3}, .weight = {weight}, .bias = {bias}};
    int16_t in = -1, out[3];
    (void)state;
    fixed_forward(&n, &in, out);
    assert_int_equal(out[0], -1);    // -1 / 1024, down
    assert_int_equal(out[1], -32);   // -32767 / 1024 = -31.999
    assert_int_equal(out[2], 32766); // 32767 - 1
    in = 32767;
    fixed_forward(&n, &in, out);
    assert_int_equal(out[1], -64); // 1,048,512 and 0.001: its low 16 bits
    assert_int_equal(out[2], -2);
}

static void other_files_are_refused(void **state)
{
    struct fixed_network n;
    (void)state;
    assert_int_equal(fixed_read(&n, "/nonexistent"), -1);
    assert_int_equal(fixed_read(&n, "/dev/null"), -1);
    assert_int_equal(fixed_read(&n, __FILE__), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_hls4ml),
        cmocka_unit_test(floors_and_wraps),
        cmocka_unit_test(other_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
