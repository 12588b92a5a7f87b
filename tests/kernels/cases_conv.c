// SPDX-License-Identifier: Apache-2.0
// The convolutions: one case draws everything, the four kernels differ in what becomes of the sums.
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/cases.h"

#define UNWRITTEN 0x5a // what the outputs hold before: bytes between slices must stay

enum finish { PLAIN, LEAKY, ADD, RAW };

static const char *const names[] = {"conv", "conv_leaky", "conv_add", "conv_acc"};

struct conv_case {
    struct conv_shape s;
    struct quant q;
    struct addend b;
    int k, co8;
    size_t in_bytes, pixels, out_elements;
    int8_t *in, *pad_row, *weights, *packed, *res;
    int32_t *bias, *mult;
};

static void draw_shape(struct test *t, struct conv_shape *s)
{
    int side = t->small ? 5 : 13, channels = t->small ? 4 : 17;
    bool dense = draw(t, 0, 4) == 0, point = draw(t, 0, 3) == 0; // no window; a window of one
    s->rows = draw(t, 1, dense ? 9 : 3);
    s->k_h = dense || point ? 1 : draw(t, 1, t->small ? 3 : 7);
    s->k_w = dense || point ? 1 : draw(t, 1, t->small ? 3 : 7);
    s->stride_h = dense ? 1 : draw(t, 1, 3);
    s->stride_w = dense ? 1 : draw(t, 1, 3);
    s->pad_top = dense || point ? 0 : draw(t, 0, s->k_h);
    s->pad_left = dense || point ? 0 : draw(t, 0, s->k_w);
    s->in_h = dense ? 1 : draw(t, 1, side);
    s->in_w = dense ? 1 : draw(t, 1, side);
    s->in_c = 4 * draw(t, 1, dense && !t->small ? 400 : channels);
    // As many outputs as windows begin inside the padded image, or fewer.
    s->out_h = draw(t, 1, (s->in_h + s->pad_top - 1) / s->stride_h + 1);
    s->out_w = draw(t, 1, (s->in_w + s->pad_left - 1) / s->stride_w + 1);
    s->out_c = 4 * draw(t, 1, channels);
    s->out_at = 4 * draw(t, 0, 2);
    s->out_stride = s->out_at + s->out_c + 4 * draw(t, 0, 2);
}

static int8_t *draw_extreme(struct test *t, size_t n)
{
    int8_t *bytes = draw_bytes(t, n);
    if (draw(t, 0, 7) == 0)
        memset(bytes, draw(t, 0, 1) ? -128 : 127, n);
    return bytes;
}

static void draw_case(struct test *t, struct conv_case *c, enum finish finish)
{
    struct conv_shape *s = &c->s;
    draw_shape(t, s);
    c->k = s->k_h * s->k_w * s->in_c;
    c->co8 = (s->out_c + 7) / 8 * 8;
    c->pixels = (size_t)s->rows * (size_t)s->out_h * (size_t)s->out_w;
    c->in_bytes = (size_t)s->rows * (size_t)s->in_h * (size_t)s->in_w * (size_t)s->in_c;
    c->out_elements = c->pixels * (size_t)s->out_stride;
    c->in = draw_extreme(t, c->in_bytes);
    c->pad_row = malloc((size_t)s->in_c);
    memset(c->pad_row, draw(t, -128, 127), (size_t)s->in_c);
    c->weights = draw_extreme(t, (size_t)s->out_c * (size_t)c->k);
    c->packed = malloc((size_t)c->co8 * (size_t)c->k);
    pack_weights(c->packed, c->weights, s->out_c, c->k);
    c->bias = draw_ints(t, (size_t)c->co8, -1000000, 1000000);
    c->mult = draw_ints(t, 2 * (size_t)c->co8, draw(t, 0, 1) ? 1 << 30 : 0, INT_MAX);
    c->res = draw_bytes(t, c->pixels * (size_t)s->out_c);
    // Most sums shall land inside the bytes: their spread is about 5,500 x sqrt(K).
    int shift = (int)log2(5500 * sqrt((double)c->k) / 64) - 1;
    c->q = draw(t, 0, 3) ? draw_quant(t, shift, shift) : draw_quant(t, 1, 30);
    c->b = (struct addend){draw(t, 0, INT_MAX), draw(t, -128, 127)};
    snprintf(
        t->what, sizeof t->what,
        "%s rows %d in %dx%dx%d out %dx%dx%d kernel %dx%d stride %dx%d pad %d,%d slice %d of %d "
        "shift %d zero %d in %d..%d",
        names[finish], s->rows, s->in_h, s->in_w, s->in_c, s->out_h, s->out_w, s->out_c, s->k_h,
        s->k_w, s->stride_h, s->stride_w, s->pad_top, s->pad_left, s->out_at, s->out_stride,
        c->q.shift, c->q.zero_out, c->q.lo, c->q.hi);
}

static void free_case(struct conv_case *c)
{
    free(c->in);
    free(c->pad_row);
    free(c->weights);
    free(c->packed);
    free(c->bias);
    free(c->mult);
    free(c->res);
}

static void expect(const struct conv_case *c, enum finish finish, void *expected)
{
    const struct conv_shape *s = &c->s;
    for (int p = 0; p < (int)c->pixels; p++)
        for (int co = 0; co < s->out_c; co++) {
            int at = p * s->out_stride + s->out_at + co;
            int32_t acc = ref_conv_sum(s, c->in, c->pad_row[0], c->weights, c->bias[co], p, co);
            int32_t mult = c->mult[finish == LEAKY && acc < 0 ? c->co8 + co : co];
            int64_t sum = ref_mul_hi(acc, mult);
            if (finish == ADD)
                sum += ref_addend(c->res[p * s->out_c + co], &c->b);
            if (finish == RAW)
                ((int32_t *)expected)[at] = acc;
            else
                ((int8_t *)expected)[at] = ref_requant(sum, &c->q);
        }
}

static bool run(struct test *t, enum finish finish)
{
    struct conv_case c;
    struct arg args[32], *a = args;
    draw_case(t, &c, finish);
    size_t out_bytes = c.out_elements * (finish == RAW ? 4 : 1);
    size_t mult_bytes = (size_t)c.co8 * (finish == LEAKY ? 8 : 4);
    void *out = malloc(out_bytes), *expected = malloc(out_bytes);
    memset(out, UNWRITTEN, out_bytes);
    memset(expected, UNWRITTEN, out_bytes);
    expect(&c, finish, expected);

    *a++ = IN(c.in, c.in_bytes);
    *a++ = IN(c.pad_row, (size_t)c.s.in_c);
    *a++ = IN(c.packed, (size_t)c.co8 * (size_t)c.k);
    *a++ = IN(c.bias, (size_t)c.co8 * 4);
    if (finish != RAW)
        *a++ = IN(c.mult, mult_bytes);
    *a++ = OUT(out, out_bytes);
    if (finish == ADD)
        *a++ = IN(c.res, c.pixels * (size_t)c.s.out_c);
    a = shape_args(a, &c.s);
    if (finish != RAW)
        a = quant_args(a, &c.q);
    if (finish == ADD) {
        *a++ = INT(c.b.mult);
        *a++ = INT(c.b.zero);
    }
    bool good = device_launch(t->device, names[finish], args, (uint32_t)(a - args), draw_groups(t),
                              t->why, sizeof t->why) &&
                same_bytes(t, out, expected, out_bytes);
    free(out);
    free(expected);
    free_case(&c);
    return good;
}

bool case_conv(struct test *t)
{
    return run(t, PLAIN);
}

bool case_conv_leaky(struct test *t)
{
    return run(t, LEAKY);
}

bool case_conv_add(struct test *t)
{
    return run(t, ADD);
}

bool case_conv_acc(struct test *t)
{
    return run(t, RAW);
}
