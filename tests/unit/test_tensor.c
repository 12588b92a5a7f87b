// SPDX-License-Identifier: Apache-2.0
// Sizes of tensors, without overflow, and how types and shapes are written for people.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/checked.h"
#include "common/tensor.h"

static void test_types_have_names_and_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *name, *triton, *numpy;
        unsigned dtype, bytes;
    } types[] = {
        {"BOOL", "TYPE_BOOL", "|b1", 1, 1},     {"UINT8", "TYPE_UINT8", "|u1", 2, 1},
        {"UINT16", "TYPE_UINT16", "<u2", 3, 2}, {"UINT32", "TYPE_UINT32", "<u4", 4, 4},
        {"UINT64", "TYPE_UINT64", "<u8", 5, 8}, {"INT8", "TYPE_INT8", "|i1", 6, 1},
        {"INT16", "TYPE_INT16", "<i2", 7, 2},   {"INT32", "TYPE_INT32", "<i4", 8, 4},
        {"INT64", "TYPE_INT64", "<i8", 9, 8},   {"FP16", "TYPE_FP16", "<f2", 10, 2},
        {"BF16", "TYPE_BF16", "<u2", 11, 2},    {"FP32", "TYPE_FP32", "<f4", 12, 4},
        {"FP64", "TYPE_FP64", "<f8", 13, 8},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        assert_int_equal(dtype_bytes(types[i].dtype), types[i].bytes);
        assert_string_equal(dtype_name(types[i].dtype), types[i].name);
        assert_string_equal(dtype_numpy(types[i].dtype), types[i].numpy);
        assert_int_equal(dtype_parse(types[i].name), types[i].dtype);
        assert_int_equal(dtype_parse(types[i].triton), types[i].dtype);
    }
    static const unsigned none[] = {0, 14, 255, UINT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(dtype_bytes(none[i]), 0);
        assert_string_equal(dtype_name(none[i]), "INVALID");
        assert_null(dtype_numpy(none[i]));
    }
    assert_int_equal(dtype_parse(""), SONIC_DTYPE_INVALID);
    assert_int_equal(dtype_parse("fp32"), SONIC_DTYPE_INVALID);
    assert_int_equal(dtype_parse("TYPE_STRING"), SONIC_DTYPE_INVALID);
}

static void test_bytes(void **state)
{
    (void)state;
    const uint64_t dims[SONIC_DIMS_MAX + 1] = {16000, 47, 1, 1, 1, 1, 1, 1, 1};
    uint64_t bytes = 7;
    assert_true(tensor_bytes(SONIC_FP32, 2, dims, &bytes));
    assert_int_equal(bytes, 16000 * 47 * 4);
    assert_true(tensor_bytes(SONIC_FP64, 0, dims, &bytes));
    assert_int_equal(bytes, 8);
    assert_true(tensor_bytes(SONIC_INT8, SONIC_DIMS_MAX, dims, &bytes));
    assert_false(tensor_bytes(SONIC_INT8, SONIC_DIMS_MAX + 1, dims, &bytes));
    assert_false(tensor_bytes(SONIC_DTYPE_INVALID, 1, dims, &bytes));
    const uint64_t most[] = {UINT64_MAX}, over[] = {1ull << 32, 1ull << 32};
    assert_true(tensor_bytes(SONIC_UINT8, 1, most, &bytes));
    assert_int_equal(bytes, UINT64_MAX);
    bytes = 7;
    assert_false(tensor_bytes(SONIC_UINT16, 1, most, &bytes));
    assert_false(tensor_bytes(SONIC_UINT8, 2, over, &bytes));
    assert_int_equal(bytes, 7); // untouched by a failure
    const uint64_t empty[] = {0, UINT64_MAX};
    assert_true(tensor_bytes(SONIC_FP64, 2, empty, &bytes));
    assert_int_equal(bytes, 0);
}

static void test_rows_of_a_declaration(void **state)
{
    (void)state;
    struct tensor_spec spec = {.dtype = SONIC_FP16, .ndim = 2, .dims = {3, 5}};
    uint64_t bytes = 0;
    assert_true(tensor_spec_row_bytes(&spec, &bytes));
    assert_int_equal(bytes, 30);
    spec.dims[1] = -1;
    assert_false(tensor_spec_row_bytes(&spec, &bytes));
    spec.dims[0] = spec.dims[1] = INT64_MAX;
    assert_false(tensor_spec_row_bytes(&spec, &bytes));
    spec.ndim = SONIC_DIMS_MAX + 1;
    assert_false(tensor_spec_row_bytes(&spec, &bytes));
}

static void test_in_words(void **state)
{
    (void)state;
    const uint64_t dims[] = {16000, 47};
    struct tensor_spec spec = {.dtype = SONIC_FP32, .ndim = 2, .dims = {-1, 47}};
    char text[64];
    tensor_print(text, sizeof(text), SONIC_FP32, 2, dims);
    assert_string_equal(text, "FP32[16000,47]");
    tensor_print(text, sizeof(text), 99, 0, dims);
    assert_string_equal(text, "INVALID[]");
    tensor_spec_print(text, sizeof(text), &spec, true);
    assert_string_equal(text, "FP32[rows,any,47]");
    tensor_spec_print(text, sizeof(text), &spec, false);
    assert_string_equal(text, "FP32[any,47]");
    spec.ndim = 0;
    tensor_spec_print(text, sizeof(text), &spec, true);
    assert_string_equal(text, "FP32[rows]");
    memset(text, 'z', sizeof(text));
    tensor_print(text, 9, SONIC_FP32, 2, dims);
    assert_string_equal(text, "FP32[160");
    assert_int_equal(text[9], 'z');
}

static void test_checked_arithmetic(void **state)
{
    (void)state;
    uint64_t v = 7;
    assert_false(checked_add(UINT64_MAX, 1, &v));
    assert_false(checked_mul(1ull << 33, 1ull << 31, &v));
    assert_false(checked_align(UINT64_MAX - 5, 64, &v));
    assert_int_equal(v, 7);
    assert_true(checked_align(65, 64, &v));
    assert_int_equal(v, 128);
    assert_true(checked_align(128, 64, &v));
    assert_int_equal(v, 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_have_names_and_sizes), cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_rows_of_a_declaration),      cmocka_unit_test(test_in_words),
        cmocka_unit_test(test_checked_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
