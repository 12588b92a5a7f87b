// SPDX-License-Identifier: Apache-2.0
#include "tests/kernels/cases.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNWRITTEN 0x5a // what the outputs hold before: bytes between slices must stay
#define COUNT(x) (sizeof(x) / sizeof(x)[0])

static uint64_t next(struct test *t) // xorshift64*
{
    t->random ^= t->random >> 12;
    t->random ^= t->random << 25;
    t->random ^= t->random >> 27;
    return (t->random * UINT64_C(0x2545f4914f6cdd1d)) >> 16;
}

int draw(struct test *t, int from, int to)
{
    return from + (int)(next(t) % (uint64_t)((int64_t)to - from + 1));
}

int8_t *draw_bytes(struct test *t, size_t n)
{
    int8_t *bytes = malloc(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (int8_t)draw(t, -128, 127);
    return bytes;
}

int32_t *draw_ints(struct test *t, size_t n, int from, int to)
{
    int32_t *ints = malloc(n * 4);
    for (size_t i = 0; i < n; i++)
        ints[i] = draw(t, from, to);
    return ints;
}

size_t draw_groups(struct test *t)
{
    static const size_t groups[] = {1, 2, 3, 16, 64, 1000};
    return groups[draw(t, 0, t->small ? 3 : 5)];
}

struct quant draw_quant(struct test *t, int shift_min, int shift_max)
{
    struct quant q = {.shift = draw(t, shift_min, shift_max), .zero_out = draw(t, -128, 127)};
    q.lo = draw(t, 0, 1) ? q.zero_out : -128;
    q.hi = draw(t, 0, 3) ? 127 : draw(t, q.lo, 127);
    return q;
}

struct arg *shape_args(struct arg *a, const struct conv_shape *s)
{
    const int fields[] = {s->rows,     s->in_h,    s->in_w,     s->in_c,       s->out_h,
                          s->out_w,    s->out_c,   s->k_h,      s->k_w,        s->stride_h,
                          s->stride_w, s->pad_top, s->pad_left, s->out_stride, s->out_at};
    for (size_t i = 0; i < COUNT(fields); i++)
        *a++ = INT(fields[i]);
    return a;
}

struct arg *quant_args(struct arg *a, const struct quant *q)
{
    *a++ = INT(q->shift);
    *a++ = INT(q->zero_out);
    *a++ = INT(q->lo);
    *a++ = INT(q->hi);
    return a;
}

bool same_bytes(struct test *t, const void *got, const void *expected, size_t n)
{
    const int8_t *a = got, *b = expected;
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i]) {
            snprintf(t->why, sizeof t->why, "byte %zu of %zu is %d, not %d", i, n, a[i], b[i]);
            return false;
        }
    return true;
}

static int8_t *unwritten(size_t n)
{
    int8_t *bytes = malloc(n);
    memset(bytes, UNWRITTEN, n);
    return bytes;
}

// Launches with `out` as the output, compares, and frees both.
static bool settle(struct test *t, const char *kernel, const struct arg *args,
                   const struct arg *end, void *out, void *expected, size_t n)
{
    bool good = device_launch(t->device, kernel, args, (uint32_t)(end - args), draw_groups(t),
                              t->why, sizeof t->why) &&
                same_bytes(t, out, expected, n);
    free(out);
    free(expected);
    return good;
}

static bool case_add(struct test *t)
{
    int rows = draw(t, 1, 4), n = 4 * draw(t, 1, t->small ? 20 : 300), all = rows * n;
    struct addend sa = {draw(t, 0, INT_MAX), draw(t, -128, 127)};
    struct addend sb = {draw(t, 0, INT_MAX), draw(t, -128, 127)};
    struct quant q = draw_quant(t, draw(t, 0, 3) ? 18 : 1, 20);
    int8_t *a = draw_bytes(t, (size_t)all), *b = draw_bytes(t, (size_t)all);
    int8_t *out = unwritten((size_t)all), *expected = unwritten((size_t)all);
    snprintf(t->what, sizeof t->what, "add rows %d n %d shift %d", rows, n, q.shift);
    for (int i = 0; i < all; i++)
        expected[i] = ref_requant(ref_addend(a[i], &sa) + ref_addend(b[i], &sb), &q);
    struct arg args[32] = {
        IN(a, (size_t)all), IN(b, (size_t)all), OUT(out, (size_t)all), INT(rows),   INT(n),
        INT(sa.mult),       INT(sa.zero),       INT(sb.mult),          INT(sb.zero)};
    bool good = settle(t, "add", args, quant_args(args + 9, &q), out, expected, (size_t)all);
    free(a);
    free(b);
    return good;
}

static bool case_requant(struct test *t)
{
    int rows = draw(t, 1, 3), pixels = draw(t, 1, 30), c = 4 * draw(t, 1, 20),
        at = 4 * draw(t, 0, 2);
    int stride = at + c + 4 * draw(t, 0, 2);
    size_t in_bytes = (size_t)(rows * pixels * c), out_bytes = (size_t)(rows * pixels * stride);
    struct addend sa = {draw(t, 0, INT_MAX), draw(t, -128, 127)};
    struct quant q = draw_quant(t, draw(t, 0, 3) ? 18 : 1, 20);
    if (draw(t, 0, 3) == 0) { // scale 1: a copy
        sa.mult = 1 << 30;
        q = (struct quant){.shift = 18, .zero_out = sa.zero, .lo = -128, .hi = 127};
    }
    int8_t *a = draw_bytes(t, in_bytes), *out = unwritten(out_bytes),
           *expected = unwritten(out_bytes);
    snprintf(t->what, sizeof t->what, "requant rows %d pixels %d c %d slice %d of %d shift %d",
             rows, pixels, c, at, stride, q.shift);
    for (int p = 0; p < rows * pixels; p++)
        for (int k = 0; k < c; k++)
            expected[p * stride + at + k] = ref_requant(ref_addend(a[p * c + k], &sa), &q);
    struct arg args[32] = {IN(a, in_bytes), OUT(out, out_bytes), INT(rows), INT(pixels),
                           INT(c),          INT(stride),         INT(at),   INT(sa.mult),
                           INT(sa.zero)};
    bool good = settle(t, "requant", args, quant_args(args + 9, &q), out, expected, out_bytes);
    free(a);
    return good;
}

struct conv_shape draw_pool(struct test *t)
{
    struct conv_shape s = {.rows = draw(t, 1, 3),
                           .in_h = draw(t, 1, 12),
                           .in_w = draw(t, 1, 12),
                           .in_c = 4 * draw(t, 1, 10),
                           .k_h = draw(t, 1, 4),
                           .k_w = draw(t, 1, 4),
                           .stride_h = draw(t, 1, 3),
                           .stride_w = draw(t, 1, 3),
                           .out_at = 4 * draw(t, 0, 2)};
    s.pad_top = draw(t, 0, s.k_h);
    s.pad_left = draw(t, 0, s.k_w);
    s.out_h = draw(t, 1, (s.in_h + s.pad_top) / s.stride_h + 1);
    s.out_w = draw(t, 1, (s.in_w + s.pad_left) / s.stride_w + 1);
    s.out_stride = s.out_at + s.in_c + 4 * draw(t, 0, 2);
    return s;
}

static bool case_maxpool(struct test *t)
{
    struct conv_shape s = draw_pool(t);
    int pixels = s.rows * s.out_h * s.out_w;
    size_t in_bytes = (size_t)(s.rows * s.in_h * s.in_w * s.in_c);
    size_t out_bytes = (size_t)(pixels * s.out_stride);
    int8_t *in = draw_bytes(t, in_bytes), *out = unwritten(out_bytes),
           *expected = unwritten(out_bytes);
    snprintf(t->what, sizeof t->what,
             "maxpool rows %d in %dx%dx%d out %dx%d kernel %dx%d stride %dx%d pad %d,%d", s.rows,
             s.in_h, s.in_w, s.in_c, s.out_h, s.out_w, s.k_h, s.k_w, s.stride_h, s.stride_w,
             s.pad_top, s.pad_left);
    for (int p = 0; p < pixels; p++)
        for (int k = 0; k < s.in_c; k++)
            expected[p * s.out_stride + s.out_at + k] = ref_maxpool(&s, in, p, k);
    const int fields[] = {s.rows,    s.in_h,     s.in_w,       s.in_c,     s.out_h,
                          s.out_w,   s.k_h,      s.k_w,        s.stride_h, s.stride_w,
                          s.pad_top, s.pad_left, s.out_stride, s.out_at};
    struct arg args[32] = {IN(in, in_bytes), OUT(out, out_bytes)}, *a = args + 2;
    for (size_t i = 0; i < COUNT(fields); i++)
        *a++ = INT(fields[i]);
    bool good = settle(t, "maxpool", args, a, out, expected, out_bytes);
    free(in);
    return good;
}

static bool case_avgpool(struct test *t)
{
    int rows = draw(t, 1, 3), pixels = draw(t, 1, t->small ? 10 : 100), c = 4 * draw(t, 1, 20);
    int zero_in = draw(t, -128, 127), mult = draw(t, 1 << 30, INT_MAX);
    struct quant q = draw_quant(t, 1, 12);
    size_t in_bytes = (size_t)(rows * pixels * c), out_bytes = (size_t)(rows * c);
    int8_t *in = draw_bytes(t, in_bytes), *out = unwritten(out_bytes),
           *expected = unwritten(out_bytes);
    snprintf(t->what, sizeof t->what, "avgpool rows %d pixels %d c %d shift %d", rows, pixels, c,
             q.shift);
    for (int i = 0; i < rows * c; i++)
        expected[i] = ref_avgpool(in, pixels, c, i / c, i % c, zero_in, mult, &q);
    struct arg args[32] = {IN(in, in_bytes), OUT(out, out_bytes), INT(rows), INT(pixels),
                           INT(c),           INT(zero_in),        INT(mult)};
    bool good = settle(t, "avgpool", args, quant_args(args + 7, &q), out, expected, out_bytes);
    free(in);
    return good;
}

static bool case_upsample(struct test *t)
{
    int rows = draw(t, 1, 3), h = draw(t, 1, 6), w = draw(t, 1, 6), c = 4 * draw(t, 1, 12);
    int fh = draw(t, 1, 3), fw = draw(t, 1, 3), at = 4 * draw(t, 0, 2),
        stride = at + c + 4 * draw(t, 0, 2);
    size_t in_bytes = (size_t)(rows * h * w * c),
           out_bytes = (size_t)(rows * h * fh * w * fw * stride);
    int8_t *in = draw_bytes(t, in_bytes), *out = unwritten(out_bytes),
           *expected = unwritten(out_bytes);
    snprintf(t->what, sizeof t->what, "upsample_nearest rows %d in %dx%dx%d factors %dx%d", rows, h,
             w, c, fh, fw);
    for (int r = 0; r < rows; r++)
        for (int y = 0; y < h * fh; y++)
            for (int x = 0; x < w * fw; x++)
                memcpy(expected + ((r * h * fh + y) * w * fw + x) * stride + at,
                       in + ((r * h + y / fh) * w + x / fw) * c, (size_t)c);
    struct arg args[] = {
        IN(in, in_bytes), OUT(out, out_bytes), INT(rows), INT(h), INT(w), INT(c), INT(fh),
        INT(fw),          INT(stride),         INT(at)};
    bool good = settle(t, "upsample_nearest", args, args + COUNT(args), out, expected, out_bytes);
    free(in);
    return good;
}

static bool case_stage(struct test *t)
{
    int rows = draw(t, 1, 3), pixels = draw(t, 1, 60), channels = draw(t, 1, 9),
        planar = draw(t, 0, 1);
    int c = (channels + 3) / 4 * 4, row = pixels * channels + draw(t, 0, 7);
    int pixel_step = planar ? 1 : channels, channel_step = planar ? pixels : 1;
    size_t in_bytes = (size_t)(rows * row), out_bytes = (size_t)(rows * pixels * c);
    int8_t *in = draw_bytes(t, in_bytes), *out = unwritten(out_bytes),
           *expected = calloc(1, out_bytes);
    snprintf(t->what, sizeof t->what, "stage rows %d pixels %d channels %d planar %d row %d", rows,
             pixels, channels, planar, row);
    for (int p = 0; p < rows * pixels; p++)
        for (int k = 0; k < channels; k++)
            expected[p * c + k] = in[p / pixels * row + p % pixels * pixel_step + k * channel_step];
    struct arg args[] = {IN(in, in_bytes), OUT(out, out_bytes), INT(rows),
                         INT(pixels),      INT(channels),       INT(row),
                         INT(pixel_step),  INT(channel_step),   INT(c)};
    bool good = settle(t, "stage", args, args + COUNT(args), out, expected, out_bytes);
    free(in);
    return good;
}

// exp is not the same to the last bit everywhere: sigmoid and softmax have a tolerance, the others
// none.
static bool near(struct test *t, const float *got, const float *expected, int n, int activation)
{
    float tolerance = activation >= ACTIVATION_SIGMOID ? 2e-6f : 0;
    for (int i = 0; i < n; i++)
        if (!(fabsf(got[i] - expected[i]) <= tolerance)) {
            snprintf(t->why, sizeof t->why, "number %d is %.9g, not %.9g", i, (double)got[i],
                     (double)expected[i]);
            return false;
        }
    return true;
}

static bool case_head(struct test *t)
{
    int rows = draw(t, 1, 4), pixels = draw(t, 1, 5), n = draw(t, 1, 20), c = (n + 3) / 4 * 4;
    int activation = draw(t, ACTIVATION_NONE, ACTIVATION_SOFTMAX), all = rows * pixels;
    int32_t *acc = draw_ints(t, (size_t)(all * c), -100000, 100000);
    float *fscale = malloc((size_t)n * 4), *out = calloc((size_t)(all * n), 4);
    float *expected = malloc((size_t)(all * n) * 4), lo = -1.5f, hi = 3.25f;
    for (int i = 0; i < n; i++)
        fscale[i] = (float)draw(t, 1, 1000) * 1e-7f;
    snprintf(t->what, sizeof t->what, "head rows %d pixels %d n %d activation %d", rows, pixels, n,
             activation);
    for (int p = 0; p < all; p++)
        ref_head(expected + p * n, acc + p * c, fscale, n, activation, lo, hi);
    struct arg args[] = {IN(acc, (size_t)(all * c) * 4),
                         IN(fscale, (size_t)n * 4),
                         OUT(out, (size_t)(all * n) * 4),
                         INT(rows),
                         INT(pixels),
                         INT(n),
                         INT(c),
                         INT(activation),
                         FLOAT(lo),
                         FLOAT(hi)};
    bool good = device_launch(t->device, "head", args, COUNT(args), draw_groups(t), t->why,
                              sizeof t->why) &&
                near(t, out, expected, all * n, activation);
    free(acc);
    free(fscale);
    free(out);
    free(expected);
    return good;
}

const struct kernel_case kernel_cases[] = {{"conv", case_conv},
                                           {"conv_leaky", case_conv_leaky},
                                           {"conv_add", case_conv_add},
                                           {"conv_acc", case_conv_acc},
                                           {"add", case_add},
                                           {"requant", case_requant},
                                           {"maxpool", case_maxpool},
                                           {"avgpool", case_avgpool},
                                           {"upsample_nearest", case_upsample},
                                           {"stage", case_stage},
                                           {"wide_finish", case_wide_finish},
                                           {"wide_finish_add", case_wide_finish_add},
                                           {"wide_acc", case_wide_acc},
                                           {"wide_add", case_wide_add},
                                           {"wide_maxpool", case_wide_maxpool},
                                           {"wide_avgpool", case_wide_avgpool},
                                           {"wide_stage", case_wide_stage},
                                           {"head", case_head}};
const uint32_t kernel_cases_count = COUNT(kernel_cases);
