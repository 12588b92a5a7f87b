// SPDX-License-Identifier: Apache-2.0
// What the overlay's kernels (worker/kernels/overlay.cl) must give, in plain C: the shortest loops
// that say it. Arguments have the kernels' names; weights are in the order [channel][k] here,
// packed by pack_weights.
#ifndef SONIC_TESTS_KERNELS_REFERENCE_H
#define SONIC_TESTS_KERNELS_REFERENCE_H

#include <stdint.h>

struct conv_shape {
    int rows, in_h, in_w, in_c, out_h, out_w, out_c, k_h, k_w, stride_h, stride_w, pad_top,
        pad_left;
    int out_stride, out_at;
};

struct quant {
    int shift, zero_out, lo, hi;
};

// Scales of what is added: real / 2^(12 + shift).
struct addend {
    int mult, zero;
};

enum { ACTIVATION_NONE, ACTIVATION_RELU, ACTIVATION_CLIP, ACTIVATION_SIGMOID, ACTIVATION_SOFTMAX };

// To blocks of 8 channels x 4 of k, channels beyond the last 0. `packed` holds co8 * k bytes.
void pack_weights(int8_t *packed, const int8_t *weights, int channels, int k);

// The sum of one output element, bias included; outside the image is `pad`.
int32_t ref_conv_sum(const struct conv_shape *s, const int8_t *in, int8_t pad,
                     const int8_t *weights, int32_t bias, int pixel, int co);
// Rounded once, moved to the zero, clamped: an activation of 8 or 16 bits.
int ref_round(int64_t sum, const struct quant *q);
int8_t ref_requant(int64_t sum, const struct quant *q);
// floor(a * b / 2^32), which is OpenCL's mul_hi.
int64_t ref_mul_hi(int64_t a, int64_t b);
int64_t ref_addend(int8_t q, const struct addend *a);

int8_t ref_maxpool(const struct conv_shape *s, const int8_t *in, int pixel, int c);
// Of values of 16 bits (worker/kernels/overlay_wide.cl): the bytes of v = 256 * high + low, both
// signed.
int8_t ref_high(int v);
int8_t ref_low(int v);
int ref_value(int8_t high, int8_t low);
// The sum of channel k of a pixel, in units of 256, from conv_acc's.
int64_t ref_wide_total(const int32_t *top, const int32_t *middle, int pixel, int c, int k);
int8_t ref_avgpool(const int8_t *in, int pixels, int c, int row, int channel, int zero_in, int mult,
                   const struct quant *q);
// One pixel's n numbers from its sums.
void ref_head(float *out, const int32_t *acc, const float *fscale, int n, int activation, float lo,
              float hi);

#endif
