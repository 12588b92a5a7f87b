// SPDX-License-Identifier: Apache-2.0
// Element conversion against bit patterns that the formats' standards give: rounding ties, the ends
// of ranges, integers that do not fit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "client/submit/convert.h"
#include "common/tensor.h"

static bool one(void *dst, unsigned to, const void *src, unsigned from)
{
    size_t at = 99;
    bool ok = convert(dst, to, src, from, false, 1, &at);
    assert_int_equal(at, ok ? 99 : 0);
    return ok;
}

static uint16_t half_of(double v)
{
    uint16_t bits;
    assert_true(one(&bits, SONIC_FP16, &v, SONIC_FP64));
    return bits;
}

static uint16_t bf16_of(double v)
{
    uint16_t bits;
    assert_true(one(&bits, SONIC_BF16, &v, SONIC_FP64));
    return bits;
}

static double from_16(uint16_t bits, unsigned from)
{
    double v;
    assert_true(one(&v, SONIC_FP64, &bits, from));
    return v;
}

static void test_what_is_possible(void **state)
{
    (void)state;
    assert_true(convert_possible(SONIC_FP64, SONIC_FP16));
    assert_true(convert_possible(SONIC_INT64, SONIC_FP32));
    assert_true(convert_possible(SONIC_BOOL, SONIC_INT8));
    assert_false(convert_possible(SONIC_FP16, SONIC_INT64));
    assert_false(convert_possible(SONIC_FP32, SONIC_BOOL));
    assert_false(convert_needed(SONIC_FP32, false, SONIC_FP32));
    assert_true(convert_needed(SONIC_FP32, true, SONIC_FP32));
    assert_true(convert_needed(SONIC_FP64, false, SONIC_FP32));
}

static void test_half_bits(void **state)
{
    (void)state;
    static const struct {
        double v;
        uint16_t bits;
    } known[] = {
        {0.0, 0x0000},         {-0.0, 0x8000},        {1.0, 0x3c00},
        {-2.0, 0xc000},        {65504.0, 0x7bff},     {65519.99, 0x7bff},
        {65520.0, 0x7c00},     {-1e300, 0xfc00},      {0x1p-14, 0x0400},
        {0x1p-24, 0x0001},     {0x1p-25, 0x0000},     {0x1.8p-24, 0x0002},
        {0x1.8p-25, 0x0001},   {0x1.ff8p-15, 0x03ff}, {0x1.ffcp-15, 0x0400},
        {1 + 0x1p-11, 0x3c00}, {1 + 0x3p-11, 0x3c02}, {1 + 0x1p-11 + 0x1p-40, 0x3c01},
        {0x1.ffdp0, 0x3fff},   {0x1.ffep0, 0x4000},   {1.0 / 3, 0x3555},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        assert_int_equal(half_of(known[i].v), known[i].bits);
    assert_int_equal(half_of((double)INFINITY), 0x7c00);
    assert_int_equal(half_of((double)NAN) & 0x7e00, 0x7e00);
}

// All 65,536 halves are exactly themselves again; between two neighbours the even one wins a tie.
static void test_every_half_survives_and_ties_go_to_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h <= 0xffff; h++) {
        double v = from_16((uint16_t)h, SONIC_FP16);
        if (isnan(v))
            assert_true((h & 0x7c00) == 0x7c00 && (h & 0x3ff));
        else
            assert_int_equal(half_of(v), h);
        if ((h & 0x7fff) < 0x7bff) {
            double middle = (v + from_16((uint16_t)(h + 1), SONIC_FP16)) / 2;
            assert_int_equal(half_of(middle), h + (h & 1));
            assert_int_equal(half_of(nextafter(middle, 0.0)), h);
            assert_int_equal(half_of(nextafter(middle, 2 * middle)), h + 1);
        }
    }
}

static void test_bf16_bits(void **state)
{
    (void)state;
    assert_int_equal(bf16_of(1.0), 0x3f80);
    assert_int_equal(bf16_of(-3.140625), 0xc049);
    assert_int_equal(bf16_of(1e300), 0x7f80);
    assert_int_equal(bf16_of((double)-INFINITY), 0xff80);
    assert_true((bf16_of((double)NAN) & 0x7fff) > 0x7f80);
    assert_int_equal(bf16_of(0x1p-133), 0x0001); // the smallest subnormal
    uint32_t quiet = 0x7f800001;                 // a NaN whose upper half alone would be infinity
    uint16_t bits;
    assert_true(one(&bits, SONIC_BF16, &quiet, SONIC_FP32));
    assert_int_equal(bits & 0x7fc0, 0x7fc0);
}

static void test_every_bf16_survives_and_ties_go_to_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h <= 0xffff; h++) {
        double v = from_16((uint16_t)h, SONIC_BF16);
        if (isnan(v))
            continue;
        assert_int_equal(bf16_of(v), h);
        if ((h & 0x7fff) < 0x7f7f) {
            double middle = (v + from_16((uint16_t)(h + 1), SONIC_BF16)) / 2;
            assert_int_equal(bf16_of(middle), h + (h & 1));
            // One bit of a double off the tie: rounding by way of a float would lose it.
            assert_int_equal(bf16_of(nextafter(middle, 0.0)), h);
            assert_int_equal(bf16_of(nextafter(middle, 2 * middle)), h + 1);
        }
    }
}

static void test_doubles_to_floats(void **state)
{
    (void)state;
    double v = 1 + 0x1p-24; // a tie
    float f;
    assert_true(one(&f, SONIC_FP32, &v, SONIC_FP64));
    assert_true(f == 1.0f);
    v = 1e39;
    assert_true(one(&f, SONIC_FP32, &v, SONIC_FP64));
    assert_true(isinf(f));
    uint16_t half = 0x3c01;
    assert_true(one(&f, SONIC_FP32, &half, SONIC_FP16));
    assert_true(f == 1 + 0x1p-10f);
}

static void test_integers_to_floats_round_once(void **state)
{
    (void)state;
    // Just over the middle between two floats, by a bit that a double does not have.
    int64_t over = (1ll << 60) + (1ll << 36) + 1, under = -(1ll << 60) - (1ll << 36) - 1;
    uint64_t most = UINT64_MAX, over_bf16 = (1ull << 60) + (1ull << 52) + 1;
    float f;
    double d;
    uint16_t bits;
    assert_true(one(&f, SONIC_FP32, &over, SONIC_INT64));
    assert_true(f == (float)over);
    assert_true(one(&f, SONIC_FP32, &under, SONIC_INT64));
    assert_true(f == (float)under);
    assert_true(one(&f, SONIC_FP32, &most, SONIC_UINT64));
    assert_true(f == 0x1p64f);
    assert_true(one(&d, SONIC_FP64, &most, SONIC_UINT64));
    assert_true(d == 0x1p64);
    assert_true(one(&bits, SONIC_BF16, &over_bf16, SONIC_UINT64));
    assert_int_equal(bits, 0x5d81);
    int8_t minus = -128;
    assert_true(one(&bits, SONIC_FP16, &minus, SONIC_INT8));
    assert_int_equal(bits, 0xd800);
    int32_t large = 65520;
    assert_true(one(&bits, SONIC_FP16, &large, SONIC_INT32));
    assert_int_equal(bits, 0x7c00);
    int64_t least = INT64_MIN;
    assert_true(one(&f, SONIC_FP32, &least, SONIC_INT64));
    assert_true(f == -0x1p63f);
}

// Every pair of integer types, at the ends of both: it fits exactly when the value is in range.
static void test_integers_fit_or_fail(void **state)
{
    (void)state;
    static const struct {
        unsigned dtype;
        int64_t min;
        uint64_t max;
    } types[] = {
        {SONIC_BOOL, 0, 1},
        {SONIC_UINT8, 0, UINT8_MAX},
        {SONIC_UINT16, 0, UINT16_MAX},
        {SONIC_UINT32, 0, UINT32_MAX},
        {SONIC_UINT64, 0, UINT64_MAX},
        {SONIC_INT8, INT8_MIN, INT8_MAX},
        {SONIC_INT16, INT16_MIN, INT16_MAX},
        {SONIC_INT32, INT32_MIN, INT32_MAX},
        {SONIC_INT64, INT64_MIN, INT64_MAX},
    };
    const size_t n = sizeof(types) / sizeof(types[0]);
    for (size_t from = 0; from < n; from++)
        for (size_t to = 0; to < n; to++) {
            uint64_t out = 0, most = types[from].max;
            int64_t least = types[from].min;
            assert_int_equal(one(&out, types[to].dtype, &most, types[from].dtype),
                             most <= types[to].max);
            if (most <= types[to].max)
                assert_int_equal(out, most);
            out = 0;
            assert_int_equal(one(&out, types[to].dtype, &least, types[from].dtype),
                             least >= types[to].min);
            if (least >= types[to].min)
                assert_memory_equal(&out, &least, dtype_bytes(types[to].dtype));
        }
}

static void test_the_failing_element_is_named(void **state)
{
    (void)state;
    static const int16_t in[] = {1, 255, 256, -1};
    uint8_t out[4];
    size_t at = 0;
    assert_false(convert(out, SONIC_UINT8, in, SONIC_INT16, false, 4, &at));
    assert_int_equal(at, 2);
    assert_true(convert(out, SONIC_UINT8, in, SONIC_INT16, false, 2, &at));
    assert_int_equal(out[1], 255);
}

static void test_big_endian(void **state)
{
    (void)state;
    static const uint8_t words[] = {0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0};
    static const uint8_t longs[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe};
    float f[2];
    int8_t byte;
    size_t at;
    assert_true(convert(f, SONIC_FP32, words, SONIC_FP32, true, 2, &at));
    assert_true(f[0] == 1.0f && f[1] == -2.0f);
    assert_true(convert(&byte, SONIC_INT8, longs, SONIC_INT64, true, 1, &at));
    assert_int_equal(byte, -2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_possible),
        cmocka_unit_test(test_half_bits),
        cmocka_unit_test(test_every_half_survives_and_ties_go_to_even),
        cmocka_unit_test(test_bf16_bits),
        cmocka_unit_test(test_every_bf16_survives_and_ties_go_to_even),
        cmocka_unit_test(test_doubles_to_floats),
        cmocka_unit_test(test_integers_to_floats_round_once),
        cmocka_unit_test(test_integers_fit_or_fail),
        cmocka_unit_test(test_the_failing_element_is_named),
        cmocka_unit_test(test_big_endian),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
