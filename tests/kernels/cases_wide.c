// SPDX-License-Identifier: Apache-2.0
// The kernels for values of 16 bits (worker/kernels/overlay_wide.cl).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/cases.h"

#define COUNT(x) (sizeof(x) / sizeof(x)[0])
#define LOWEST (-32768)
#define HIGHEST 32639 // both bytes are signed
#define UNWRITTEN 0x5a

struct planes {
    int8_t *high, *low;
    size_t n;
};

static struct planes unwritten(int n)
{
    struct planes p = {malloc((size_t)n), malloc((size_t)n), (size_t)n};
    memset(p.high, UNWRITTEN, p.n);
    memset(p.low, UNWRITTEN, p.n);
    return p;
}

static void put(struct planes *p, int i, int v)
{
    p->high[i] = ref_high(v);
    p->low[i] = ref_low(v);
}

static int get(const struct planes *p, int i)
{
    return ref_value(p->high[i], p->low[i]);
}

static struct planes draw_planes(struct test *t, int n)
{
    struct planes p = unwritten(n);
    for (int i = 0; i < n; i++)
        put(&p, i, draw(t, LOWEST, HIGHEST));
    return p;
}

static void drop(struct planes *p)
{
    free(p->high);
    free(p->low);
}

static int draw_zero(struct test *t)
{
    return 256 * draw(t, -128, 127);
}

static struct quant draw_wide_quant(struct test *t, int shift_min, int shift_max)
{
    struct quant q = {.shift = draw(t, shift_min, shift_max), .zero_out = draw_zero(t)};
    q.lo = draw(t, 0, 1) ? q.zero_out : LOWEST;
    q.hi = draw(t, 0, 3) ? HIGHEST : draw(t, q.lo, HIGHEST);
    return q;
}

static struct arg *in_planes(struct arg *a, const struct planes *p)
{
    *a++ = IN(p->high, p->n);
    *a++ = IN(p->low, p->n);
    return a;
}

static struct arg *out_planes(struct arg *a, struct planes *p)
{
    *a++ = OUT(p->high, p->n);
    *a++ = OUT(p->low, p->n);
    return a;
}

static struct arg *ints(struct arg *a, const int *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *a++ = INT(values[i]);
    return a;
}
#define INTS(a, ...) ints(a, (const int[]){__VA_ARGS__}, COUNT(((const int[]){__VA_ARGS__})))

// Launches with `out` as the output, compares, and frees both.
static bool settle(struct test *t, const char *kernel, const struct arg *args,
                   const struct arg *end, struct planes *out, struct planes *expected)
{
    bool good = device_launch(t->device, kernel, args, (uint32_t)(end - args), draw_groups(t),
                              t->why, sizeof t->why) &&
                same_bytes(t, out->high, expected->high, out->n) &&
                same_bytes(t, out->low, expected->low, out->n);
    drop(out);
    drop(expected);
    return good;
}

// conv_acc's sums of `all` pixels.
static int32_t *draw_sums(struct test *t, int n)
{
    int reach = 1 << draw(t, 6, 21);
    return draw_ints(t, (size_t)n, -reach, reach);
}

static bool finish(struct test *t, bool add)
{
    int rows = draw(t, 1, 3), pixels = draw(t, 1, t->small ? 8 : 60), c = 4 * draw(t, 1, 16);
    int all = rows * pixels, mult_b = draw(t, 0, INT32_MAX), zero_b = draw_zero(t);
    struct quant q = draw_wide_quant(t, draw(t, 0, 3) ? 25 : 1, 46);
    int32_t *top = draw_sums(t, all * 2 * c), *middle = draw_sums(t, all * c);
    int32_t *mult = draw_ints(t, (size_t)(2 * c), 0, 1 << 23);
    struct planes res = draw_planes(t, all * c), out = unwritten(all * c),
                  expected = unwritten(all * c);
    snprintf(t->what, sizeof t->what, "rows %d pixels %d c %d shift %d zero %d range %d..%d", rows,
             pixels, c, q.shift, q.zero_out, q.lo, q.hi);
    for (int i = 0; i < all * c; i++) {
        int64_t sum = ref_wide_total(top, middle, i / c, c, i % c);
        sum *= mult[sum < 0 ? c + i % c : i % c];
        if (add)
            sum += (int64_t)(get(&res, i) - zero_b) * mult_b;
        put(&expected, i, ref_round(sum, &q));
    }
    struct arg args[32] = {IN(top, (size_t)(all * 2 * c) * 4), IN(middle, (size_t)(all * c) * 4),
                           IN(mult, (size_t)(2 * c) * 4)};
    struct arg *a = out_planes(args + 3, &out);
    if (add)
        a = in_planes(a, &res);
    a = quant_args(INTS(a, rows, pixels, c), &q);
    if (add)
        a = INTS(a, mult_b, zero_b);
    bool good = settle(t, add ? "wide_finish_add" : "wide_finish", args, a, &out, &expected);
    drop(&res);
    free(top);
    free(middle);
    free(mult);
    return good;
}

bool case_wide_finish(struct test *t)
{
    return finish(t, false);
}

bool case_wide_finish_add(struct test *t)
{
    return finish(t, true);
}

bool case_wide_acc(struct test *t)
{
    int rows = draw(t, 1, 4), pixels = draw(t, 1, 5), c = 4 * draw(t, 1, 16), all = rows * pixels;
    int32_t *top = draw_sums(t, all * 2 * c), *middle = draw_sums(t, all * c);
    int shift = draw(t, 0, 12);
    size_t n = (size_t)(all * c) * 4;
    int32_t *out = calloc(1, n), *expected = calloc(1, n);
    snprintf(t->what, sizeof t->what, "rows %d pixels %d c %d shift %d", rows, pixels, c, shift);
    for (int i = 0; i < all * c; i++) {
        int64_t total = ref_wide_total(top, middle, i / c, c, i % c);
        expected[i] = (int32_t)((total + ((INT64_C(1) << shift) >> 1)) >> shift);
    }
    struct arg args[32] = {IN(top, 2 * n), IN(middle, n), OUT(out, n)};
    struct arg *end = INTS(args + 3, rows, pixels, c, shift);
    bool good = device_launch(t->device, "wide_acc", args, (uint32_t)(end - args), draw_groups(t),
                              t->why, sizeof t->why) &&
                same_bytes(t, out, expected, n);
    free(top);
    free(middle);
    free(out);
    free(expected);
    return good;
}

bool case_wide_add(struct test *t)
{
    int rows = draw(t, 1, 4), n = 4 * draw(t, 1, t->small ? 20 : 300), all = rows * n;
    int mult_a = draw(t, 0, INT32_MAX), zero_a = draw_zero(t);
    int mult_b = draw(t, 0, INT32_MAX), zero_b = draw_zero(t);
    struct quant q = draw_wide_quant(t, draw(t, 0, 3) ? 25 : 1, 40);
    struct planes a = draw_planes(t, all), b = draw_planes(t, all), out = unwritten(all),
                  expected = unwritten(all);
    snprintf(t->what, sizeof t->what, "rows %d n %d shift %d", rows, n, q.shift);
    for (int i = 0; i < all; i++)
        put(&expected, i,
            ref_round((int64_t)(get(&a, i) - zero_a) * mult_a +
                          (int64_t)(get(&b, i) - zero_b) * mult_b,
                      &q));
    struct arg args[32], *end = out_planes(in_planes(in_planes(args, &a), &b), &out);
    end = quant_args(INTS(end, rows, n, mult_a, zero_a, mult_b, zero_b), &q);
    bool good = settle(t, "wide_add", args, end, &out, &expected);
    drop(&a);
    drop(&b);
    return good;
}

// The high bytes decide; among equal ones the low bytes do.
static int most(const struct conv_shape *s, const struct planes *in, int pixel, int c)
{
    int image = pixel / (s->out_h * s->out_w), found = LOWEST;
    int top = pixel / s->out_w % s->out_h * s->stride_h - s->pad_top;
    int left = pixel % s->out_w * s->stride_w - s->pad_left;
    for (int y = top; y < top + s->k_h; y++)
        for (int x = left; x < left + s->k_w; x++)
            if (y >= 0 && y < s->in_h && x >= 0 && x < s->in_w) {
                int v = get(in, ((image * s->in_h + y) * s->in_w + x) * s->in_c + c);
                found = v > found ? v : found;
            }
    return found;
}

bool case_wide_maxpool(struct test *t)
{
    struct conv_shape s = draw_pool(t);
    int n = s.rows * s.out_h * s.out_w * s.in_c;
    struct planes in = draw_planes(t, s.rows * s.in_h * s.in_w * s.in_c), out = unwritten(n),
                  expected = unwritten(n);
    snprintf(t->what, sizeof t->what,
             "rows %d in %dx%dx%d out %dx%d kernel %dx%d stride %dx%d pad %d,%d", s.rows, s.in_h,
             s.in_w, s.in_c, s.out_h, s.out_w, s.k_h, s.k_w, s.stride_h, s.stride_w, s.pad_top,
             s.pad_left);
    for (int i = 0; i < n; i++)
        put(&expected, i, most(&s, &in, i / s.in_c, i % s.in_c));
    struct arg args[32], *end = out_planes(in_planes(args, &in), &out);
    end = INTS(end, s.rows, s.in_h, s.in_w, s.in_c, s.out_h, s.out_w, s.k_h, s.k_w, s.stride_h,
               s.stride_w, s.pad_top, s.pad_left);
    bool good = settle(t, "wide_maxpool", args, end, &out, &expected);
    drop(&in);
    return good;
}

bool case_wide_avgpool(struct test *t)
{
    int rows = draw(t, 1, 3), pixels = draw(t, 1, t->small ? 10 : 100), c = 4 * draw(t, 1, 20);
    int zero_in = draw_zero(t), mult = draw(t, 1, 1 << 30);
    struct quant q = draw_wide_quant(t, draw(t, 0, 3) ? 30 : 1, 40);
    struct planes in = draw_planes(t, rows * pixels * c), out = unwritten(rows * c),
                  expected = unwritten(rows * c);
    snprintf(t->what, sizeof t->what, "rows %d pixels %d c %d shift %d", rows, pixels, c, q.shift);
    for (int i = 0; i < rows * c; i++) {
        int64_t sum = 0;
        for (int p = 0; p < pixels; p++)
            sum += get(&in, (i / c * pixels + p) * c + i % c) - zero_in;
        put(&expected, i, ref_round(sum * mult, &q));
    }
    struct arg args[32], *end = out_planes(in_planes(args, &in), &out);
    end = quant_args(INTS(end, rows, pixels, c, zero_in, mult), &q);
    bool good = settle(t, "wide_avgpool", args, end, &out, &expected);
    drop(&in);
    return good;
}

bool case_wide_stage(struct test *t)
{
    int rows = draw(t, 1, 3), pixels = draw(t, 1, 60), channels = draw(t, 1, 9),
        planar = draw(t, 0, 1);
    int c = (channels + 3) / 4 * 4, row = pixels * channels;
    int pixel_step = planar ? 1 : channels, channel_step = planar ? pixels : 1;
    int16_t *in = malloc((size_t)(rows * row) * 2);
    for (int i = 0; i < rows * row; i++)
        in[i] = (int16_t)draw(t, INT16_MIN, INT16_MAX); // those without a code too
    struct planes out = unwritten(rows * pixels * c), expected = unwritten(rows * pixels * c);
    snprintf(t->what, sizeof t->what, "rows %d pixels %d channels %d planar %d", rows, pixels,
             channels, planar);
    for (int i = 0; i < rows * pixels * c; i++) {
        int p = i / c, k = i % c, at = p / pixels * row + p % pixels * pixel_step;
        int v = k < channels ? in[at + k * channel_step] : 0;
        put(&expected, i, v > HIGHEST ? HIGHEST : v);
    }
    struct arg args[32] = {IN(in, (size_t)(rows * row) * 2)}, *end = out_planes(args + 1, &out);
    end = INTS(end, rows, pixels, channels, pixel_step, channel_step, c);
    bool good = settle(t, "wide_stage", args, end, &out, &expected);
    free(in);
    return good;
}
