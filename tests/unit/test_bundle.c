// SPDX-License-Identifier: Apache-2.0
// A bundle's manifest, and how its rows are converted.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/executors/opencl/bundle.h"
#include "worker/executors/opencl/convert.h"

#define HEAD                                                                                       \
    "rows: 4\n"                                                                                    \
    "program { source: \"a.cl\" }\n"                                                               \
    "buffer { name: \"in\" use: INPUT bytes: 64 }\n"                                               \
    "buffer { name: \"w\" use: SCRATCH bytes: 5000 }\n"                                            \
    "buffer { name: \"out\" use: OUTPUT bytes: 5000 }\n"
#define LAUNCH "launch { kernel: \"k\" arg { buffer: \"in\" } arg { buffer: \"out\" } }\n"
#define IO(in, out)                                                                                \
    "input { tensor: \"x\" buffer: \"in\" " in "}\noutput { tensor: \"y\" buffer: \"out\" " out    \
    "}\n"
#define PLAIN IO("type: INT8 ", "type: FP32 ")

static struct bundle b;
static char why[1024];

// Reads a manifest against x FP32[nx] -> y FP32[ny].
static int read_bundle(const char *text, int64_t nx, int64_t ny)
{
    char dir[] = "/tmp/sonic-u-XXXXXX";
    char path[128];
    struct model_config c = {.name = "m", .batch_max = 8, .ninputs = 1, .noutputs = 1};
    c.inputs[0] = (struct tensor_spec){.name = "x", .dtype = SONIC_FP32, .ndim = 1, .dims = {nx}};
    c.outputs[0] = (struct tensor_spec){.name = "y", .dtype = SONIC_FP32, .ndim = 1, .dims = {ny}};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/opencl", dir);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/opencl/bundle.pbtxt", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    bundle_deinit(&b);
    int rc = bundle_read(&b, dir, &c, why, sizeof(why));
    unlink(path);
    snprintf(path, sizeof(path), "%s/opencl", dir);
    rmdir(path);
    rmdir(dir);
    return rc;
}

static void test_layout_is_in_pages(void **state)
{
    (void)state;
    assert_int_equal(read_bundle(HEAD PLAIN LAUNCH, 16, 3), 0);
    assert_int_equal(b.nbuffers, 3);
    assert_int_equal(bundle_slot_offset(&b, 0), 0);
    assert_int_equal(bundle_slot_offset(&b, 2), 4096); // scratch is not the host's
    assert_int_equal(bundle_slot_bytes(&b), 4096 + 8192);
    assert_int_equal(b.inputs[0].stride, 16);
    assert_int_equal(b.outputs[0].stride, 12);
    assert_int_equal(b.launches[0].nglobal, 0);
}

static void test_units_and_banks(void **state)
{
    (void)state;
    assert_int_equal(read_bundle("rows: 4\n"
                                 "program { binary: \"a\" units: \"u\" units: \"v\" }\n"
                                 "program { binary: \"b\" unchecked: true }\n"
                                 "buffer { name: \"in\" use: INPUT bytes: 64 bank: 3 bank: 1 }\n"
                                 "buffer { name: \"out\" use: OUTPUT bytes: 48 }\n" PLAIN LAUNCH,
                                 16, 3),
                     0);
    assert_int_equal(b.programs[0].nunits, 2);
    assert_string_equal(b.programs[0].units[1], "v");
    assert_false(b.programs[0].unchecked);
    assert_true(b.programs[1].unchecked);
    assert_int_equal(b.buffers[0].nbanks, 2);
    assert_int_equal(b.buffers[0].banks[0], 3);
    assert_int_equal(b.buffers[0].banks[1], 1);
    assert_int_equal(b.buffers[1].nbanks, 0); // wherever its units reach
}

static void test_launches_at_the_same_time(void **state)
{
    (void)state;
    assert_int_equal(read_bundle(HEAD PLAIN LAUNCH "launch { kernel: \"a\" }\n"
                                                   "launch { kernel: \"b\" concurrent: true }\n"
                                                   "launch { kernel: \"c\" concurrent: true }\n"
                                                   "launch { kernel: \"d\" }\n"
                                                   "launch { kernel: \"e\" concurrent: true }\n",
                                 16, 3),
                     0);
    const uint32_t lanes[] = {0, 1, 2, 3, 1, 2};
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(b.launches[i].lane, lanes[i]);
    assert_int_equal(b.nlanes, 3);
}

static void assert_refused(const char *text, int64_t nx, const char *words)
{
    assert_int_equal(read_bundle(text, nx, 3), -EINVAL);
    if (!strstr(why, words))
        fail_msg("\"%s\" does not say \"%s\"", why, words);
}

static void test_what_does_not_fit_is_refused_in_words(void **state)
{
    (void)state;
    assert_refused(HEAD PLAIN LAUNCH, 17, "4 rows of 17 bytes do not fit into buffer \"in\" of 64");
    assert_refused(HEAD PLAIN LAUNCH, -1, "dims must be fixed");
    assert_refused(HEAD IO("type: INT8 stride: 8 ", "type: FP32 ") LAUNCH, 16, "stride 8");
    assert_refused(HEAD IO("type: INT16 stride: 33 ", "type: FP32 ") LAUNCH, 16, "stride 33");
    assert_refused(HEAD IO("type: INT8 column { from: 16 } ", "type: FP32 ") LAUNCH, 16,
                   "column { from: 16 }, a row has 16");
    assert_refused(HEAD IO("type: INT8 index { from: 15 count: 2 } ", "type: FP32 ") LAUNCH, 16,
                   "index { from: 15 count: 2 }");
    assert_refused(HEAD IO("type: INT8 ", "type: FP32 scale: 1 scale: 2 ") LAUNCH, 16,
                   "2 scales for 3 elements");
    assert_refused(HEAD PLAIN, 16, "a launch is missing");
    assert_refused(HEAD PLAIN LAUNCH "buffer { name: \"in\" bytes: 1 }\n", 16, "already");
    assert_refused(HEAD PLAIN LAUNCH "buffer { name: \"big\" use: SCRATCH bytes: 68719476736 }\n",
                   16, "together");
    assert_refused(HEAD PLAIN "launch { kernel: \"k\" global { size: 10 } local: 4 }\n", 16,
                   "no multiple");
    assert_refused(HEAD PLAIN "launch { kernel: \"k\" arg { int: 1 float: 2 } }\n", 16,
                   "is one of");
    assert_refused(HEAD PLAIN "launch { kernel: \"k\" concurrent: true }\n", 16,
                   "the first launch has none before it");
    assert_refused(HEAD PLAIN LAUNCH "launch { kernel: \"k\" concurrent: false }\n", 16, "true");
    char many[64 * 40] = HEAD PLAIN LAUNCH;
    for (unsigned i = 0; i < BUNDLE_LANES_MAX; i++)
        strcat(many, "launch { kernel: \"k\" concurrent: true }\n");
    assert_refused(many, 16, "more than 32 launches at the same time");
    assert_refused(HEAD PLAIN LAUNCH PLAIN, 16, "not declared in config.pbtxt, or given twice");
}

// ---- conversion ---------------------------------------------------------------------------------

static void test_integers_round_and_saturate(void **state)
{
    const float x[16] = {0,    0.5f, 1.5f,  -0.5f, -1.5f,    126.6f,    127.4f, 127.6f,
                         1000, -129, -1e9f, 1e9f,  INFINITY, -INFINITY, 2.5f,   -2.5f};
    const int8_t nearest[16] = {0,   0,    2,    0,   -2,  127,  127, 127,
                                127, -128, -128, 127, 127, -128, 2,   -2};
    const int8_t floored[16] = {0,   0,    1,    -1,  -2,  126,  127, 127,
                                127, -128, -128, 127, 127, -128, 2,   -3};
    int8_t out[64];
    (void)state;
    assert_int_equal(read_bundle(HEAD PLAIN LAUNCH, 16, 3), 0);
    memset(out, 0x55, sizeof(out));
    assert_true(convert_input(&b.inputs[0], x, 1, out, sizeof(out), why, sizeof(why)));
    assert_memory_equal(out, nearest, 16);
    for (unsigned i = 16; i < 64; i++) // what is behind the rows is 0
        assert_int_equal(out[i], 0);
    b.inputs[0].floor = true;
    assert_true(convert_input(&b.inputs[0], x, 1, out, sizeof(out), why, sizeof(why)));
    assert_memory_equal(out, floored, 16);
}

static float any_number(unsigned *seed)
{
    static const float edges[] = {0, 0.5f, -0.5f, 1.5f, 32767.5f, -32768.5f, 3e9f, -3e9f, INFINITY};
    unsigned n = (unsigned)rand_r(seed);
    if (n % 8 == 0)
        return edges[n / 8 % (sizeof(edges) / sizeof(edges[0]))];
    return (float)((int)(n % 2000001) - 1000000) / 16;
}

// What is computed many at a time is what one by one gives by the C library's rounding.
static void test_vectors_round_as_the_library_does(void **state)
{
    static char text[8192];
    static float x[61];
    static int16_t out[61];
    unsigned seed = 7;
    (void)state;
    char *at = text + sprintf(text, "rows: 1\nprogram { source: \"a.cl\" }\n"
                                    "buffer { name: \"in\" use: INPUT bytes: 122 }\n"
                                    "buffer { name: \"out\" use: OUTPUT bytes: 12 }\n"
                                    "input { tensor: \"x\" buffer: \"in\" type: INT16\n");
    for (int k = 0; k < 61; k++) // two spans, crossed over
        at += sprintf(at, "column { from: %d to: %d scale: %d.5 offset: 0.25 }\n", k,
                      k < 20 ? k + 41 : k - 20, k % 7);
    sprintf(at, "}\noutput { tensor: \"y\" buffer: \"out\" type: FP32 }\n" LAUNCH);
    assert_int_equal(read_bundle(text, 61, 3), 0);
    assert_int_equal(b.inputs[0].nspans, 2);
    for (unsigned turn = 0; turn < 2000; turn++) {
        b.inputs[0].floor = turn % 2;
        for (unsigned k = 0; k < 61; k++)
            x[k] = any_number(&seed);
        assert_true(convert_input(&b.inputs[0], x, 1, out, sizeof(out), why, sizeof(why)));
        for (unsigned k = 0; k < 61; k++) {
            float v = x[k] * ((float)(k % 7) + 0.5f) + 0.25f;
            v = turn % 2 ? floorf(v) : rintf(v);
            v = fminf(fmaxf(v, INT16_MIN), INT16_MAX);
            assert_int_equal(out[k < 20 ? k + 41 : k - 20], (int16_t)v);
        }
    }
}

static void test_nan_is_no_integer(void **state)
{
    float x[32] = {0};
    int8_t out[64];
    (void)state;
    assert_int_equal(read_bundle(HEAD PLAIN LAUNCH, 16, 3), 0);
    x[16 + 5] = NAN;
    assert_false(convert_input(&b.inputs[0], x, 2, out, sizeof(out), why, sizeof(why)));
    assert_non_null(strstr(why, "row 1, element 5 is NaN"));
}

static void test_columns_and_codes(void **state)
{
    float x[2][16] = {{10, 20}, {-1, 0}};
    uint16_t out[2][8];
    (void)state;
    assert_int_equal(
        read_bundle("rows: 2\nprogram { source: \"a.cl\" }\n"
                    "buffer { name: \"in\" use: INPUT bytes: 32 }\n"
                    "buffer { name: \"out\" use: OUTPUT bytes: 5000 }\n" IO(
                        "type: INT16 stride: 16 rounding: FLOOR "
                        "column { from: 0 to: 1 scale: 0.5 offset: 0.75 } column { from: 1 to: 0 } "
                        "index { from: 2 count: 14 to: 3 } ",
                        "type: FP32 ") LAUNCH,
                    16, 3),
        0);
    x[0][2 + 13] = 1;
    assert_true(convert_input(&b.inputs[0], x[0], 2, out, sizeof(out), why, sizeof(why)));
    const uint16_t want[2][8] = {{20, 5, 0, 14}, {0, 0, 0, 0}};
    assert_memory_equal(out, want, sizeof(out));
    const float wrong[] = {0.5f, 2, -1, NAN};
    for (unsigned i = 0; i < 4; i++) {
        x[1][2] = wrong[i];
        assert_false(convert_input(&b.inputs[0], x[0], 2, out, sizeof(out), why, sizeof(why)));
        assert_non_null(strstr(why, "row 1: elements 2 to 15 are no one-hot code"));
    }
    x[1][2] = x[1][3] = 1; // two ones
    assert_false(convert_input(&b.inputs[0], x[0], 2, out, sizeof(out), why, sizeof(why)));
}

static void test_outputs_are_scaled_and_clamped(void **state)
{
    const int16_t stored[] = {1000, -1000, 32000, 7, 7, 7};
    float y[6];
    (void)state;
    assert_int_equal(
        read_bundle(HEAD IO("type: INT8 ", "type: INT16 scale: 0.5 offset: 1 min: 0.01 "
                                           "max: 1000 ") LAUNCH,
                    16, 3),
        0);
    convert_output(&b.outputs[0], stored, 2, y);
    const float want[] = {501, 0.01f, 1000, 4.5f, 4.5f, 4.5f};
    assert_memory_equal(y, want, sizeof(y));
    assert_int_equal(
        read_bundle(HEAD IO("type: INT8 ", "type: INT8 scale: 1 scale: 2 scale: 3 ") LAUNCH, 16, 3),
        0);
    const int8_t bytes[] = {1, -1, 100};
    convert_output(&b.outputs[0], bytes, 1, y);
    assert_true(y[0] == 1 && y[1] == -2 && y[2] == 300);
}

static void test_floats_pass_through_nan_too(void **state)
{
    const float x[16] = {1, NAN, INFINITY};
    float out[64], y[3];
    (void)state;
    assert_int_equal(read_bundle("rows: 4\nprogram { source: \"a.cl\" }\n"
                                 "buffer { name: \"in\" use: INPUT bytes: 256 }\n"
                                 "buffer { name: \"out\" use: OUTPUT bytes: 5000 }\n" IO(
                                     "type: FP32 ", "type: FP32 ") LAUNCH,
                                 16, 3),
                     0);
    assert_true(convert_input(&b.inputs[0], x, 1, out, sizeof(out), why, sizeof(why)));
    assert_memory_equal(out, x, sizeof(x));
    convert_output(&b.outputs[0], out, 1, y);
    assert_true(y[0] == 1 && isnan(y[1]));
}

static int end(void **state)
{
    (void)state;
    bundle_deinit(&b);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_is_in_pages),
        cmocka_unit_test(test_units_and_banks),
        cmocka_unit_test(test_launches_at_the_same_time),
        cmocka_unit_test(test_what_does_not_fit_is_refused_in_words),
        cmocka_unit_test(test_integers_round_and_saturate),
        cmocka_unit_test(test_vectors_round_as_the_library_does),
        cmocka_unit_test(test_nan_is_no_integer),
        cmocka_unit_test(test_columns_and_codes),
        cmocka_unit_test(test_outputs_are_scaled_and_clamped),
        cmocka_unit_test(test_floats_pass_through_nan_too),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
