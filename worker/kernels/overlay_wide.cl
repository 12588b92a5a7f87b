// SPDX-License-Identifier: Apache-2.0
// Values of 16 bits on the int8 kernels, for networks that 8 bits are too coarse for; follows overlay.cl in
// one program. A value v lies as two planes of int8 in NHWC, v = 256 * high + low, and a weight likewise:
// conv_acc computes the high plane with both bytes of the weights (2 * c sums a pixel: c with the high
// bytes, c with the low ones) and the low plane with their high bytes (c sums). Here the three become t, in
// units of 256, and t an activation. Multipliers and t are bounded by the compiler so that t * mult fits
// into a long (models/overlay/wide.py is the arithmetic in numpy, bit for bit).

static void store_wide(__global char *high, __global char *low, long at, int4 v)
{
    int4 top = (v + 128) >> 8;
    vstore4(convert_char4(top), 0, high + at);
    vstore4(convert_char4(v - top * 256), 0, low + at);
}

static int4 load_wide(__global const char *high, __global const char *low, long at)
{
    return convert_int4(vload4(0, high + at)) * 256 + convert_int4(vload4(0, low + at));
}

static int4 rounded_wide(long4 sum, int shift, int zero, int lo, int hi)
{
    sum = ((sum + (1L << (shift - 1))) >> (long4)(shift)) + (long)zero;
    return convert_int4(clamp(sum, (long4)(lo), (long4)(hi)));
}

// t of four channels from k on of pixel p.
static long4 total_wide(__global const int *top, __global const int *middle, long p, int c, int k)
{
    long4 t = convert_long4(vload4(0, top + p * 2 * c + k)) * 256L;
    t += convert_long4(vload4(0, top + p * 2 * c + c + k));
    return t + convert_long4(vload4(0, middle + p * c + k));
}

// Multipliers of negative sums follow those of the others.
static long4 scaled_wide(long4 t, __global const int *mult, int c, int k)
{
    long4 positive = convert_long4(vload4(0, mult + k)), negative = convert_long4(vload4(0, mult + c + k));
    return t * select(positive, negative, t < 0L);
}

KERNEL void wide_finish(__global const int *restrict top, __global const int *restrict middle,
                        __global const int *restrict mult, __global char *restrict out_high,
                        __global char *restrict out_low, int rows, int pixels, int c, int shift,
                        int zero, int lo, int hi)
{
    long end = last_unit((long)rows * pixels);
    for (long p = first_unit((long)rows * pixels); p < end; p++)
        for (int k = 0; k < c; k += 4) {
            long4 sum = scaled_wide(total_wide(top, middle, p, c, k), mult, c, k);
            store_wide(out_high, out_low, p * c + k, rounded_wide(sum, shift, zero, lo, hi));
        }
}

// With the residual, before the one rounding.
KERNEL void wide_finish_add(__global const int *restrict top, __global const int *restrict middle,
                            __global const int *restrict mult, __global char *restrict out_high,
                            __global char *restrict out_low, __global const char *restrict res_high,
                            __global const char *restrict res_low, int rows, int pixels, int c,
                            int shift, int zero, int lo, int hi, int mult_b, int zero_b)
{
    long end = last_unit((long)rows * pixels);
    for (long p = first_unit((long)rows * pixels); p < end; p++)
        for (int k = 0; k < c; k += 4) {
            long4 sum = scaled_wide(total_wide(top, middle, p, c, k), mult, c, k);
            sum += convert_long4(load_wide(res_high, res_low, p * c + k) - zero_b) * (long)mult_b;
            store_wide(out_high, out_low, p * c + k, rounded_wide(sum, shift, zero, lo, hi));
        }
}

// For a head: t itself, shifted so that it fits.
KERNEL void wide_acc(__global const int *restrict top, __global const int *restrict middle,
                     __global int *restrict out, int rows, int pixels, int c, int shift)
{
    long end = last_unit((long)rows * pixels);
    for (long p = first_unit((long)rows * pixels); p < end; p++)
        for (int k = 0; k < c; k += 4) {
            long4 t = total_wide(top, middle, p, c, k);
            t = (t + (1L << shift >> 1)) >> (long4)(shift);
            vstore4(convert_int4(t), 0, out + p * c + k);
        }
}

KERNEL void wide_add(__global const char *restrict a_high, __global const char *restrict a_low,
                     __global const char *restrict b_high, __global const char *restrict b_low,
                     __global char *restrict out_high, __global char *restrict out_low, int rows,
                     int n, int mult_a, int zero_a, int mult_b, int zero_b, int shift, int zero, int lo,
                     int hi)
{
    long fours = (long)rows * n / 4, end = last_unit(fours);
    for (long i = first_unit(fours); i < end; i++) {
        long4 sum = convert_long4(load_wide(a_high, a_low, i * 4) - zero_a) * (long)mult_a;
        sum += convert_long4(load_wide(b_high, b_low, i * 4) - zero_b) * (long)mult_b;
        store_wide(out_high, out_low, i * 4, rounded_wide(sum, shift, zero, lo, hi));
    }
}

// Outside the image is ignored.
KERNEL void wide_maxpool(__global const char *restrict in_high, __global const char *restrict in_low,
                         __global char *restrict out_high, __global char *restrict out_low, int rows,
                         int in_h, int in_w, int c, int out_h, int out_w, int k_h, int k_w,
                         int stride_h, int stride_w, int pad_top, int pad_left)
{
    long end = last_unit((long)rows * out_h * out_w);
    for (long p = first_unit((long)rows * out_h * out_w); p < end; p++) {
        int top = (int)(p / out_w % out_h) * stride_h - pad_top;
        int left = (int)(p % out_w) * stride_w - pad_left;
        int bottom = min(top + k_h, in_h), right = min(left + k_w, in_w);
        long image = p / out_w / out_h * in_h * in_w * c;
        for (int k = 0; k < c; k += 4) {
            int4 most = -32768;
            for (int y = max(top, 0); y < bottom; y++)
                for (int x = max(left, 0); x < right; x++)
                    most = max(most, load_wide(in_high, in_low, image + ((long)y * in_w + x) * c + k));
            store_wide(out_high, out_low, p * c + k, most);
        }
    }
}

// Over the whole image; the multiplier holds 1 / pixels.
KERNEL void wide_avgpool(__global const char *restrict in_high, __global const char *restrict in_low,
                         __global char *restrict out_high, __global char *restrict out_low, int rows,
                         int pixels, int c, int zero_in, int mult, int shift, int zero, int lo, int hi)
{
    long fours = c / 4, end = last_unit(rows * fours);
    for (long i = first_unit(rows * fours); i < end; i++) {
        long at = i / fours * pixels * c + i % fours * 4;
        long4 sum = 0;
        for (int p = 0; p < pixels; p++)
            sum += convert_long4(load_wide(in_high, in_low, at + (long)p * c) - zero_in);
        sum *= (long)mult;
        store_wide(out_high, out_low, i * 4, rounded_wide(sum, shift, zero, lo, hi));
    }
}

// The model's input, in either order of axes (strides in elements), to planes with padded channels.
KERNEL void wide_stage(__global const short *restrict in, __global char *restrict out_high,
                       __global char *restrict out_low, int rows, int pixels, int channels,
                       int in_pixel, int in_channel, int c)
{
    long end = last_unit((long)rows * pixels);
    for (long p = first_unit((long)rows * pixels); p < end; p++) {
        __global const short *pixel = in + p / pixels * pixels * channels + p % pixels * in_pixel;
        for (int k = 0; k < c; k += 4) {
            int4 v = 0;
            v.x = pixel[(long)k * in_channel];
            if (k + 1 < channels)
                v.y = pixel[(long)(k + 1) * in_channel];
            if (k + 2 < channels)
                v.z = pixel[(long)(k + 2) * in_channel];
            if (k + 3 < channels)
                v.w = pixel[(long)(k + 3) * in_channel];
            // Both bytes are signed, so the uppermost 128 numbers have no code.
            store_wide(out_high, out_low, p * c + k, min(v, (int4)(32639)));
        }
    }
}
