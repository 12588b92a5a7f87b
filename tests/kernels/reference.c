// SPDX-License-Identifier: Apache-2.0
#include "tests/kernels/reference.h"

#include <math.h>
#include <string.h>

void pack_weights(int8_t *packed, const int8_t *weights, int channels, int k)
{
    memset(packed, 0, (size_t)((channels + 7) / 8 * 8) * (size_t)k);
    for (int co = 0; co < channels; co++)
        for (int i = 0; i < k; i++)
            packed[(co / 8 * (k / 4) + i / 4) * 32 + co % 8 * 4 + i % 4] = weights[co * k + i];
}

int32_t ref_conv_sum(const struct conv_shape *s, const int8_t *in, int8_t pad,
                     const int8_t *weights, int32_t bias, int pixel, int co)
{
    int image = pixel / (s->out_h * s->out_w);
    int oy = pixel / s->out_w % s->out_h, ox = pixel % s->out_w;
    const int8_t *w = weights + co * s->k_h * s->k_w * s->in_c;
    int32_t sum = bias;
    for (int ky = 0; ky < s->k_h; ky++)
        for (int kx = 0; kx < s->k_w; kx++) {
            int y = oy * s->stride_h - s->pad_top + ky, x = ox * s->stride_w - s->pad_left + kx;
            int inside = y >= 0 && y < s->in_h && x >= 0 && x < s->in_w;
            for (int ci = 0; ci < s->in_c; ci++)
                sum += *w++ *
                       (inside ? in[((image * s->in_h + y) * s->in_w + x) * s->in_c + ci] : pad);
        }
    return sum;
}

int64_t ref_mul_hi(int64_t a, int64_t b)
{
    return (a * b) >> 32;
}

int64_t ref_addend(int8_t q, const struct addend *a)
{
    return ref_mul_hi((int64_t)(q - a->zero) * (1 << 20), a->mult);
}

int ref_round(int64_t sum, const struct quant *q)
{
    int64_t value = ((sum + (INT64_C(1) << (q->shift - 1))) >> q->shift) + q->zero_out;
    return (int)(value < q->lo ? q->lo : value > q->hi ? q->hi : value);
}

int8_t ref_requant(int64_t sum, const struct quant *q)
{
    return (int8_t)ref_round(sum, q);
}

int8_t ref_high(int v)
{
    return (int8_t)((v + 128) >> 8);
}

int8_t ref_low(int v)
{
    return (int8_t)(v - 256 * ref_high(v));
}

int ref_value(int8_t high, int8_t low)
{
    return 256 * high + low;
}

int64_t ref_wide_total(const int32_t *top, const int32_t *middle, int pixel, int c, int k)
{
    const int32_t *pair = top + pixel * 2 * c;
    return 256 * (int64_t)pair[k] + pair[c + k] + middle[pixel * c + k];
}

int8_t ref_maxpool(const struct conv_shape *s, const int8_t *in, int pixel, int c)
{
    int image = pixel / (s->out_h * s->out_w);
    int oy = pixel / s->out_w % s->out_h, ox = pixel % s->out_w;
    int8_t most = INT8_MIN;
    for (int ky = 0; ky < s->k_h; ky++)
        for (int kx = 0; kx < s->k_w; kx++) {
            int y = oy * s->stride_h - s->pad_top + ky, x = ox * s->stride_w - s->pad_left + kx;
            if (y < 0 || y >= s->in_h || x < 0 || x >= s->in_w)
                continue;
            int8_t q = in[((image * s->in_h + y) * s->in_w + x) * s->in_c + c];
            most = q > most ? q : most;
        }
    return most;
}

int8_t ref_avgpool(const int8_t *in, int pixels, int c, int row, int channel, int zero_in, int mult,
                   const struct quant *q)
{
    int64_t sum = 0;
    for (int p = 0; p < pixels; p++)
        sum += in[(row * pixels + p) * c + channel] - zero_in;
    return ref_requant(ref_mul_hi(sum * 16, mult), q);
}

void ref_head(float *out, const int32_t *acc, const float *fscale, int n, int activation, float lo,
              float hi)
{
    double most = -INFINITY, total = 0;
    for (int i = 0; i < n; i++) {
        float x = (float)acc[i] * fscale[i];
        most = fmax(most, x);
        if (activation == ACTIVATION_RELU)
            x = x > 0 ? x : 0;
        else if (activation == ACTIVATION_CLIP)
            x = x < lo ? lo : x > hi ? hi : x;
        else if (activation == ACTIVATION_SIGMOID)
            x = (float)(1 / (1 + exp(-(double)x)));
        out[i] = x;
    }
    if (activation != ACTIVATION_SOFTMAX)
        return;
    for (int i = 0; i < n; i++)
        total += exp(out[i] - most);
    for (int i = 0; i < n; i++)
        out[i] = (float)(exp(out[i] - most) / total);
}
