// SPDX-License-Identifier: Apache-2.0
// The overlay: int8 kernels that execute a CNN layer by layer, OpenCL C 1.2. One idea a kernel; a
// bundle's launches (docs/bundle.md) string them together. All arithmetic up to the head is exact
// integers, so every device gives the same bytes; tests/kernels/ holds each kernel against plain C.
//
// Activations are int8 in NHWC, channels padded to a multiple of 4; real = scale * (q - zero).
// Weights are int8 in blocks of 8 output channels x 4 of K, K in the order (ky, kx, ci). `rows` is
// the images of a run. Every kernel works with any number of groups of one item: they share the
// work by ranges.
//
// Build options, for speed only: TILE_PIXELS, TILE_BLOCKS, TILE_K and PAIRS
// (docs/decisions/int8-kernels.md).

#ifndef TILE_PIXELS // output pixels whose sums are in registers at once
#define TILE_PIXELS 7
#endif
#ifndef TILE_BLOCKS // blocks of 8 output channels, likewise
#define TILE_BLOCKS 1
#endif
// How much of K of each of those pixels is in local memory at once, a multiple of 4. As it is that
// takes 28 KiB; every device has 32.
#ifndef TILE_K
#define TILE_K 1024
#endif

#define KERNEL __kernel __attribute__((reqd_work_group_size(1, 1, 1)))

// ---- Shared: ranges, rounding

// This group's part of so many units of work.
static long first_unit(long units)
{
    return units * (long)get_group_id(0) / (long)get_num_groups(0);
}

static long last_unit(long units)
{
    return units * ((long)get_group_id(0) + 1) / (long)get_num_groups(0);
}

// Sums are scaled by mul_hi with a multiplier and by this shift, with one rounding (half up):
// together floor(acc * mult / 2^(32 + shift) + 1/2). (Vectors as bounds: Oclgrind misreads scalars
// there.)
static int8 requantized8(int8 sum, int shift, int zero, int lo, int hi)
{
    return clamp(((sum + (1 << (shift - 1))) >> shift) + zero, (int8)lo, (int8)hi);
}

static int4 requantized4(int4 sum, int shift, int zero, int lo, int hi)
{
    return clamp(((sum + (1 << (shift - 1))) >> shift) + zero, (int4)lo, (int4)hi);
}

// An activation that is added rather than multiplied: 20 bits up, so that mul_hi leaves precision.
static int8 scaled8(char8 q, int zero, int mult)
{
    return mul_hi((convert_int8(q) - zero) << 20, (int8)mult);
}

static int4 scaled4(char4 q, int zero, int mult)
{
    return mul_hi((convert_int4(q) - zero) << 20, (int4)mult);
}

static void copy_bytes(__global char *to, __global const char *from, int n) // n: a multiple of 4
{
    int i = 0;
    for (; i + 16 <= n; i += 16)
        vstore16(vload16(0, from + i), 0, to + i);
    for (; i < n; i += 4)
        vstore4(vload4(0, from + i), 0, to + i);
}

// ---- Convolution, as a tiled matrix product: output pixels x output channels, summed over K

// A tile's pixels lie in local memory as rows of K, widened; a half block of weights is 4 channels
// x 4 of K. Which product of int8 vectors is fastest depends on the compiler: PAIRS where it knows
// x86's multiply-add of 16-bit pairs, lanes of 32 bits elsewhere.
#ifdef PAIRS
typedef short lane;
typedef short4 lane4;
typedef short16 lanes;
typedef int8 sums; // 4 channels x 2
#define WIDEN4 convert_short4
#define WIDEN16 convert_short16

static sums product(lanes a, lanes b)
{
    return convert_int8(a.even) * convert_int8(b.even) + convert_int8(a.odd) * convert_int8(b.odd);
}

static int4 totals(sums s)
{
    return s.even + s.odd;
}
#else
typedef int lane;
typedef int4 lane4;
typedef int16 lanes;
typedef int16 sums; // 4 channels x 4
#define WIDEN4 convert_int4
#define WIDEN16 convert_int16

static sums product(lanes a, lanes b)
{
    return a * b;
}

static int4 totals(sums s)
{
    int8 pairs = s.even + s.odd;
    return pairs.even + pairs.odd;
}
#endif

struct conv {
    int rows, in_h, in_w, in_c, out_h, out_w, out_c, k_h, k_w, stride_h, stride_w, pad_top,
        pad_left;
};

// Writes K's elements [from, to) of the window of one output pixel to `line`: runs of bytes that
// lie together in the image, or pad where the window leaves it. A pixel beyond the last is all pad.
static void gather_window(__local lane *line, const struct conv *c, __global const char *in,
                          __global const char *pad_row, int pixel, int from, int to)
{
    int image = pixel / (c->out_h * c->out_w), place = pixel % (c->out_h * c->out_w);
    int top = place / c->out_w * c->stride_h - c->pad_top;
    int left = place % c->out_w * c->stride_w - c->pad_left;
    int tap = from / c->in_c, ci = from % c->in_c;
    int ky = tap / c->k_w, kx = tap % c->k_w;

    for (int k = from; k < to;) {
        int y = top + ky, x = left + kx, taps = 1;
        __global const char *bytes = pad_row + ci;
        if (image < c->rows && y >= 0 && y < c->in_h && x >= 0 && x < c->in_w) {
            taps = min(c->k_w - kx, c->in_w - x);
            bytes = in + (((long)image * c->in_h + y) * c->in_w + x) * c->in_c + ci;
        }
        int run = min(taps * c->in_c - ci, to - k), i = 0;
        for (; i + 16 <= run; i += 16)
            vstore16(WIDEN16(vload16(0, bytes + i)), 0, line + k - from + i);
        for (; i < run; i += 4)
            vstore4(WIDEN4(vload4(0, bytes + i)), 0, line + k - from + i);
        k += run;
        ci = 0;
        kx += taps;
        if (kx == c->k_w) {
            kx = 0;
            ky++;
        }
    }
}

// acc += the product of the tile's pixels and of its blocks' weights over n elements of K.
static void multiply(sums acc[TILE_PIXELS][2 * TILE_BLOCKS], __local const lane *panel,
                     __global const char *weights[TILE_BLOCKS], int n)
{
    for (int k = 0; k < n; k += 4) {
        lanes w[2 * TILE_BLOCKS];
#pragma unroll
        for (int b = 0; b < 2 * TILE_BLOCKS; b++)
            w[b] = WIDEN16(vload16(0, weights[b / 2] + k * 8 + b % 2 * 16));
#pragma unroll
        for (int p = 0; p < TILE_PIXELS; p++) {
            lane4 x = vload4(0, panel + p * TILE_K + k);
            lanes xs = (lanes)(x, x, x, x);
#pragma unroll
            for (int b = 0; b < 2 * TILE_BLOCKS; b++)
                acc[p][b] += product(w[b], xs);
        }
    }
}

enum finish { FINISH_PLAIN, FINISH_LEAKY, FINISH_ADD, FINISH_RAW };

// Where a convolution's sums go, and how. `finish` is a constant at each call, so each kernel has
// only its own.
struct result {
    enum finish finish;
    __global const int *bias, *mult;
    __global char *out;       // all but RAW
    __global int *out_raw;    // RAW
    __global const char *res; // ADD
    int stride, at, shift, zero, lo, hi, mult_b, zero_b;
};

// The sums of 8 channels of one pixel, from channel co on. Of the last 8 only 4 may be wanted.
static void finish_block(const struct result *r, int8 acc, int pixel, int co, int out_c)
{
    long to = (long)pixel * r->stride + r->at + co;
    bool four = out_c - co < 8;
    acc += vload8(0, r->bias + co);
    if (r->finish == FINISH_RAW) {
        vstore4(acc.lo, 0, r->out_raw + to);
        if (!four)
            vstore4(acc.hi, 0, r->out_raw + to + 4);
        return;
    }
    int8 mult = vload8(0, r->mult + co);
    if (r->finish == FINISH_LEAKY) // the multipliers of negative sums follow those of the others
        mult = select(mult, vload8(0, r->mult + (out_c + 7) / 8 * 8 + co), acc < 0);
    int8 sum = mul_hi(acc, mult);
    if (r->finish == FINISH_ADD) {
        __global const char *res = r->res + (long)pixel * out_c + co;
        char8 b = (char8)(vload4(0, res), four ? (char4)0 : vload4(1, res));
        sum += scaled8(b, r->zero_b, r->mult_b);
    }
    char8 q = convert_char8(requantized8(sum, r->shift, r->zero, r->lo, r->hi));
    if (four)
        vstore4(q.lo, 0, r->out + to);
    else
        vstore8(q, 0, r->out + to);
}

// One tile: out pixels from `pixel` on, channels from block `block` on. The panel is filled here
// unless it holds these pixels already, which it can only where all of K fits.
static void convolve_tile(const struct conv *c, const struct result *r, __global const char *in,
                          __global const char *pad_row, __global const char *weights,
                          __local lane *panel, bool filled, int pixel, int block)
{
    int k_all = c->k_h * c->k_w * c->in_c, blocks = (c->out_c + 7) / 8;
    __global const char *w[TILE_BLOCKS];
    sums acc[TILE_PIXELS][2 * TILE_BLOCKS];
#pragma unroll
    for (int b = 0; b < TILE_BLOCKS; b++) // beyond the last block: that block again, not stored
        w[b] = weights + (long)min(block + b, blocks - 1) * k_all * 8;
#pragma unroll
    for (int p = 0; p < TILE_PIXELS; p++)
#pragma unroll
        for (int b = 0; b < 2 * TILE_BLOCKS; b++)
            acc[p][b] = 0;

    for (int k = 0; k < k_all; k += TILE_K) {
        int n = min(TILE_K, k_all - k);
        for (int p = 0; p < TILE_PIXELS && !filled; p++)
            gather_window(panel + p * TILE_K, c, in, pad_row, pixel + p, k, k + n);
        multiply(acc, panel, w, n);
#pragma unroll
        for (int b = 0; b < TILE_BLOCKS; b++)
            w[b] += n * 8;
    }

    int pixels = c->rows * c->out_h * c->out_w;
#pragma unroll
    for (int p = 0; p < TILE_PIXELS; p++)
#pragma unroll
        for (int b = 0; b < TILE_BLOCKS; b++)
            if (pixel + p < pixels && block + b < blocks)
                finish_block(r, (int8)(totals(acc[p][2 * b]), totals(acc[p][2 * b + 1])), pixel + p,
                             (block + b) * 8, c->out_c);
}

// This group's tiles; those of the same pixels follow one another.
static void convolve(const struct conv *c, const struct result *r, __global const char *in,
                     __global const char *pad_row, __global const char *weights,
                     __local lane *panel)
{
    int pixel_tiles = (c->rows * c->out_h * c->out_w + TILE_PIXELS - 1) / TILE_PIXELS;
    int block_tiles = ((c->out_c + 7) / 8 + TILE_BLOCKS - 1) / TILE_BLOCKS;
    bool fits = c->k_h * c->k_w * c->in_c <= TILE_K;
    long end = last_unit((long)pixel_tiles * block_tiles);
    int filled = -1; // the pixels that the panel holds
    for (long tile = first_unit((long)pixel_tiles * block_tiles); tile < end; tile++) {
        int pixel = (int)(tile / block_tiles) * TILE_PIXELS;
        int block = (int)(tile % block_tiles) * TILE_BLOCKS;
        convolve_tile(c, r, in, pad_row, weights, panel, fits && filled == pixel, pixel, block);
        filled = pixel;
    }
}

// What the four have in common, in their arguments' order.
#define CONV_IN                                                                                    \
    __global const char *restrict in, __global const char *restrict pad_row,                       \
        __global const char *restrict weights, __global const int *restrict bias
#define CONV_SHAPE                                                                                 \
    int rows, int in_h, int in_w, int in_c, int out_h, int out_w, int out_c, int k_h, int k_w,     \
        int stride_h, int stride_w, int pad_top, int pad_left, int out_stride, int out_at
#define CONV_QUANT int shift, int zero_out, int lo, int hi
#define CONV_RUN(...)                                                                              \
    __local lane panel[TILE_PIXELS * TILE_K];                                                      \
    struct conv c = {rows, in_h, in_w,     in_c,     out_h,   out_w,   out_c,                      \
                     k_h,  k_w,  stride_h, stride_w, pad_top, pad_left};                           \
    struct result r = {.bias = bias, .stride = out_stride, .at = out_at, __VA_ARGS__};             \
    convolve(&c, &r, in, pad_row, weights, panel)

KERNEL void conv(CONV_IN, __global const int *restrict mult, __global char *restrict out,
                 CONV_SHAPE, CONV_QUANT)
{
    CONV_RUN(.finish = FINISH_PLAIN, .mult = mult, .out = out, .shift = shift, .zero = zero_out,
             .lo = lo, .hi = hi);
}

KERNEL void conv_leaky(CONV_IN, __global const int *restrict mult, __global char *restrict out,
                       CONV_SHAPE, CONV_QUANT)
{
    CONV_RUN(.finish = FINISH_LEAKY, .mult = mult, .out = out, .shift = shift, .zero = zero_out,
             .lo = lo, .hi = hi);
}

// With the residual: the sums and `res` are added before the one rounding.
KERNEL void conv_add(CONV_IN, __global const int *restrict mult, __global char *restrict out,
                     __global const char *restrict res, CONV_SHAPE, CONV_QUANT, int mult_b,
                     int zero_b)
{
    CONV_RUN(.finish = FINISH_ADD, .mult = mult, .out = out, .res = res, .shift = shift,
             .zero = zero_out, .lo = lo, .hi = hi, .mult_b = mult_b, .zero_b = zero_b);
}

// For a head: the sums themselves.
KERNEL void conv_acc(CONV_IN, __global int *restrict out, CONV_SHAPE)
{
    CONV_RUN(.finish = FINISH_RAW, .out_raw = out);
}

// ---- Element by element

KERNEL void add(__global const char *restrict a, __global const char *restrict b,
                __global char *restrict out, int rows, int n, int mult_a, int zero_a, int mult_b,
                int zero_b, int shift, int zero_out, int lo, int hi)
{
    long fours = (long)rows * n / 4, i = first_unit(fours) * 4, end = last_unit(fours) * 4;
    for (; i + 8 <= end; i += 8) {
        int8 sum =
            scaled8(vload8(0, a + i), zero_a, mult_a) + scaled8(vload8(0, b + i), zero_b, mult_b);
        vstore8(convert_char8(requantized8(sum, shift, zero_out, lo, hi)), 0, out + i);
    }
    for (; i < end; i += 4) {
        int4 sum =
            scaled4(vload4(0, a + i), zero_a, mult_a) + scaled4(vload4(0, b + i), zero_b, mult_b);
        vstore4(convert_char4(requantized4(sum, shift, zero_out, lo, hi)), 0, out + i);
    }
}

KERNEL void requant(__global const char *restrict a, __global char *restrict out, int rows,
                    int pixels, int c, int out_stride, int out_at, int mult_a, int zero_a,
                    int shift, int zero_out, int lo, int hi)
{
    long end = last_unit((long)rows * pixels);
    for (long p = first_unit((long)rows * pixels); p < end; p++)
        for (int k = 0; k < c; k += 4) {
            int4 sum = scaled4(vload4(0, a + p * c + k), zero_a, mult_a);
            vstore4(convert_char4(requantized4(sum, shift, zero_out, lo, hi)), 0,
                    out + p * out_stride + out_at + k);
        }
}

// ---- Pooling, and other ways to move pixels

// Outside the image is ignored.
KERNEL void maxpool(__global const char *restrict in, __global char *restrict out, int rows,
                    int in_h, int in_w, int c, int out_h, int out_w, int k_h, int k_w, int stride_h,
                    int stride_w, int pad_top, int pad_left, int out_stride, int out_at)
{
    long end = last_unit((long)rows * out_h * out_w);
    for (long p = first_unit((long)rows * out_h * out_w); p < end; p++) {
        int top = (int)(p / out_w % out_h) * stride_h - pad_top;
        int left = (int)(p % out_w) * stride_w - pad_left;
        int bottom = min(top + k_h, in_h), right = min(left + k_w, in_w);
        __global const char *image = in + p / out_w / out_h * in_h * in_w * c;
        for (int k = 0; k < c; k += 4) {
            char4 most = -128;
            for (int y = max(top, 0); y < bottom; y++)
                for (int x = max(left, 0); x < right; x++)
                    most = max(most, vload4(0, image + ((long)y * in_w + x) * c + k));
            vstore4(most, 0, out + p * out_stride + out_at + k);
        }
    }
}

// Over the whole image; the multiplier holds 1 / pixels.
KERNEL void avgpool(__global const char *restrict in, __global char *restrict out, int rows,
                    int pixels, int c, int zero_in, int mult, int shift, int zero_out, int lo,
                    int hi)
{
    long fours = c / 4, end = last_unit(rows * fours);
    for (long i = first_unit(rows * fours); i < end; i++) {
        __global const char *image = in + i / fours * pixels * c + i % fours * 4;
        int4 sum = 0;
        for (int p = 0; p < pixels; p++)
            sum += convert_int4(vload4(0, image + (long)p * c)) - zero_in;
        sum = mul_hi(sum << 4, (int4)mult);
        vstore4(convert_char4(requantized4(sum, shift, zero_out, lo, hi)), 0, out + i * 4);
    }
}

// To the nearest.
KERNEL void upsample_nearest(__global const char *restrict in, __global char *restrict out,
                             int rows, int in_h, int in_w, int c, int factor_h, int factor_w,
                             int out_stride, int out_at)
{
    int out_h = in_h * factor_h, out_w = in_w * factor_w;
    long end = last_unit((long)rows * out_h * out_w);
    for (long p = first_unit((long)rows * out_h * out_w); p < end; p++) {
        long line = p / out_w / factor_h; // of all images: out_h is whole factors
        copy_bytes(out + p * out_stride + out_at, in + (line * in_w + p % out_w / factor_w) * c, c);
    }
}

// The model's input, in either order of axes, to NHWC with padded channels.
KERNEL void stage(__global const char *restrict in, __global char *restrict out, int rows,
                  int pixels, int channels, int in_row, int in_pixel, int in_channel, int c)
{
    long end = last_unit((long)rows * pixels);
    for (long p = first_unit((long)rows * pixels); p < end; p++) {
        __global const char *pixel = in + p / pixels * in_row + p % pixels * in_pixel;
        for (int k = 0; k < c; k++)
            out[p * c + k] = k < channels ? pixel[(long)k * in_channel] : 0;
    }
}

// ---- The head: from sums to numbers

enum activation {
    ACTIVATION_NONE,
    ACTIVATION_RELU,
    ACTIVATION_CLIP,
    ACTIVATION_SIGMOID,
    ACTIVATION_SOFTMAX
};

static float activated(float x, int activation, float lo, float hi)
{
    switch (activation) {
    case ACTIVATION_RELU:
        return max(x, 0.0f);
    case ACTIVATION_CLIP:
        return clamp(x, lo, hi);
    case ACTIVATION_SIGMOID:
        return 1.0f / (1.0f + exp(-x));
    default:
        return x;
    }
}

static void softmax(__global float *x, int n)
{
    float most = x[0], sum = 0.0f;
    for (int i = 1; i < n; i++)
        most = max(most, x[i]);
    for (int i = 0; i < n; i++) {
        x[i] = exp(x[i] - most);
        sum += x[i];
    }
    for (int i = 0; i < n; i++)
        x[i] /= sum;
}

KERNEL void head(__global const int *restrict acc, __global const float *restrict fscale,
                 __global float *restrict out, int rows, int pixels, int n, int c, int activation,
                 float lo, float hi)
{
    long end = last_unit((long)rows * pixels);
    for (long p = first_unit((long)rows * pixels); p < end; p++) {
        for (int i = 0; i < n; i++)
            out[p * n + i] = activated((float)acc[p * c + i] * fscale[i], activation, lo, hi);
        if (activation == ACTIVATION_SOFTMAX)
            softmax(out + p * n, n);
    }
}
