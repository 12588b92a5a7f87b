// SPDX-License-Identifier: Apache-2.0
#include "tests/kernels/bench.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/kernels/cases.h"

#define GROUPS 64 // as bundles launch them
#define REPEATS 20
#define THREADS_MAX 64

// ---- The C compiler's best: rows of K bytes each, no windows, for each instruction set

#if defined __x86_64__ && !defined __clang__ && !defined __SANITIZE_ADDRESS__ &&                   \
    !defined __SANITIZE_THREAD__
#define BEST_LOOP                                                                                  \
    __attribute__((optimize("O3"), target_clones("default", "avx2", "arch=skylake-avx512",         \
                                                 "arch=icelake-server")))
#else
#define BEST_LOOP // as good as the compiler's options allow
#endif

struct product {
    const int8_t *a, *b; // m rows and n rows of k
    int32_t *out;
    int m, n, k;
};

BEST_LOOP static void product(const struct product *p)
{
    for (int i = 0; i < p->m; i++)
        for (int j = 0; j < p->n; j++) {
            const int8_t *a = p->a + i * p->k, *b = p->b + j * p->k;
            int32_t sum = 0;
            for (int k = 0; k < p->k; k++)
                sum += a[k] * b[k];
            p->out[i * p->n + j] = sum;
        }
}

static void *product_thread(void *p)
{
    product(p);
    return NULL;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// The seconds of the product on all cores.
static double product_time(struct test *t, int m, int n, int k)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : (int)cores;
    int8_t *a = draw_bytes(t, (size_t)m * (size_t)k), *b = draw_bytes(t, (size_t)n * (size_t)k);
    int32_t *out = malloc((size_t)m * (size_t)n * 4);
    double best = 1e9;
    for (int repeat = 0; repeat < REPEATS / 4; repeat++) {
        pthread_t ids[THREADS_MAX];
        struct product parts[THREADS_MAX];
        double start = seconds();
        for (int i = 0; i < threads; i++) {
            int from = m * i / threads, to = m * (i + 1) / threads;
            parts[i] = (struct product){a + from * k, b, out + from * n, to - from, n, k};
            if (pthread_create(&ids[i], NULL, product_thread, &parts[i]) != 0)
                abort();
        }
        for (int i = 0; i < threads; i++)
            pthread_join(ids[i], NULL);
        double took = seconds() - start;
        best = took < best ? took : best;
    }
    free(a);
    free(b);
    free(out);
    return best;
}

// ---- Convolutions

struct layer {
    int side, in_c, out_c, kernel, stride,
        count; // of ResNet-50 with its strides in the 3x3; count 0: none
};

static const struct layer layers[] = {
    {224, 4, 64, 7, 2, 1},   {56, 64, 64, 1, 1, 1},     {56, 256, 64, 1, 1, 2},
    {56, 64, 64, 3, 1, 3},   {56, 64, 256, 1, 1, 4},    {56, 256, 128, 1, 1, 1},
    {56, 128, 128, 3, 2, 1}, {56, 256, 512, 1, 2, 1},   {28, 512, 128, 1, 1, 3},
    {28, 128, 128, 3, 1, 3}, {28, 128, 512, 1, 1, 4},   {28, 512, 256, 1, 1, 1},
    {28, 256, 256, 3, 2, 1}, {28, 512, 1024, 1, 2, 1},  {14, 1024, 256, 1, 1, 5},
    {14, 256, 256, 3, 1, 5}, {14, 256, 1024, 1, 1, 6},  {14, 1024, 512, 1, 1, 1},
    {14, 512, 512, 3, 2, 1}, {14, 1024, 2048, 1, 2, 1}, {7, 2048, 512, 1, 1, 2},
    {7, 512, 512, 3, 1, 2},  {7, 512, 2048, 1, 1, 3},   {1, 2048, 1000, 1, 1, 1}};

static double conv_time(struct device *d, struct test *t, const struct conv_shape *s)
{
    size_t k = (size_t)(s->k_h * s->k_w * s->in_c), co8 = (size_t)(s->out_c + 7) / 8 * 8;
    size_t in_bytes = (size_t)(s->rows * s->in_h * s->in_w * s->in_c);
    size_t out_bytes = (size_t)(s->rows * s->out_h * s->out_w * s->out_c);
    int8_t *in = draw_bytes(t, in_bytes), *pad = draw_bytes(t, (size_t)s->in_c);
    int8_t *weights = draw_bytes(t, co8 * k), *out = calloc(1, out_bytes);
    int32_t *numbers = draw_ints(t, co8, 1 << 30, INT32_MAX);
    struct quant q = {.shift = 12, .zero_out = -128, .lo = -128, .hi = 127};
    struct arg args[32] = {IN(in, in_bytes),     IN(pad, (size_t)s->in_c), IN(weights, co8 * k),
                           IN(numbers, co8 * 4), IN(numbers, co8 * 4),     OUT(out, out_bytes)};
    struct arg *end = quant_args(shape_args(args + 6, s), &q);
    double best = device_time(d, "conv", args, (uint32_t)(end - args), GROUPS, REPEATS);
    free(in);
    free(pad);
    free(weights);
    free(out);
    free(numbers);
    return best;
}

static int print_layer(struct device *d, struct test *t, const struct layer *l, double *device_s,
                       double *c_s, double *macs)
{
    int pad = l->kernel / 2, out = (l->side + 2 * pad - l->kernel) / l->stride + 1;
    struct conv_shape s = {1,         l->side,  l->side,   l->in_c,   out,
                           out,       l->out_c, l->kernel, l->kernel, l->stride,
                           l->stride, pad,      pad,       l->out_c,  0};
    double mac = (double)out * out * l->out_c * l->kernel * l->kernel * l->in_c;
    double device = conv_time(d, t, &s);
    double c = product_time(t, out * out, l->out_c, l->kernel * l->kernel * l->in_c);
    if (device < 0)
        return 1;
    printf("%dx%d %4d -> %4d at %3d / %d %7.1f %9.1f %7.2f\n", l->kernel, l->kernel, l->in_c,
           l->out_c, l->side, l->stride, mac / device * 1e-9, mac / c * 1e-9, c / device);
    *device_s += l->count * device;
    *c_s += l->count * c;
    *macs += l->count * mac;
    return 0;
}

static int bench_convolutions(struct device *d, struct test *t)
{
    double device_s = 0, c_s = 0, macs = 0;
    static const struct layer square = {1, 512, 512, 1, 1, 0};
    int failed = 0;
    printf("%-29s %7s %9s %7s\n", "convolution, GMAC/s", "device", "C loop", "ratio");
    struct conv_shape s = {512, 1, 1, square.in_c,  1, 1, square.out_c, 1, 1, 1,
                           1,   0, 0, square.out_c, 0};
    double device = conv_time(d, t, &s), c = product_time(t, 512, 512, 512);
    printf("%-29s %7.1f %9.1f %7.2f\n", "product 512 x 512 x 512", 0.134217728 / device,
           0.134217728 / c, c / device);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        failed += print_layer(d, t, &layers[i], &device_s, &c_s, &macs);
    printf("ResNet-50's %.2f GMAC: %.1f images/s on the device, %.1f by the C loop\n", macs * 1e-9,
           1 / device_s, 1 / c_s);
    return failed;
}

// ---- What moves bytes: their rate beside the reference's, which gcc compiles as it compiles the
// farm

static void print_rate(const char *kernel, double bytes, double device, double c)
{
    printf("%-29s %7.2f %9.2f %7.2f\n", kernel, bytes / device * 1e-9, bytes / c * 1e-9,
           c / device);
}

static int bench_add(struct device *d, struct test *t)
{
    enum { N = 56 * 56 * 256 };
    struct addend a = {1 << 30, -128}, b = {(1 << 30) + 12345, 3};
    struct quant q = {.shift = 18, .zero_out = -128, .lo = -128, .hi = 127};
    int8_t *x = draw_bytes(t, N), *y = draw_bytes(t, N), *out = calloc(1, N);
    struct arg args[32] = {IN(x, N),    IN(y, N),    OUT(out, N), INT(1),     INT(N),
                           INT(a.mult), INT(a.zero), INT(b.mult), INT(b.zero)};
    struct arg *end = quant_args(args + 9, &q);
    double device = device_time(d, "add", args, (uint32_t)(end - args), GROUPS, REPEATS);
    double start = seconds();
    for (int i = 0; i < N; i++)
        out[i] = ref_requant(ref_addend(x[i], &a) + ref_addend(y[i], &b), &q);
    double c = seconds() - start;
    print_rate("add 56x56x256", 3.0 * N, device, c);
    free(x);
    free(y);
    free(out);
    return device < 0;
}

static int bench_maxpool(struct device *d, struct test *t)
{
    struct conv_shape s = {1, 112, 112, 64, 56, 56, 64, 3, 3, 2, 2, 1, 1, 64, 0};
    enum { IN_BYTES = 112 * 112 * 64, OUT_BYTES = 56 * 56 * 64 };
    int8_t *in = draw_bytes(t, IN_BYTES), *out = calloc(1, OUT_BYTES);
    struct arg args[] = {IN(in, IN_BYTES), OUT(out, OUT_BYTES),
                         INT(1),           INT(112),
                         INT(112),         INT(64),
                         INT(56),          INT(56),
                         INT(3),           INT(3),
                         INT(2),           INT(2),
                         INT(1),           INT(1),
                         INT(64),          INT(0)};
    double device = device_time(d, "maxpool", args, sizeof args / sizeof *args, GROUPS, REPEATS);
    double start = seconds();
    for (int p = 0; p < 56 * 56; p++)
        for (int c = 0; c < 64; c++)
            out[p * 64 + c] = ref_maxpool(&s, in, p, c);
    double c = seconds() - start;
    print_rate("maxpool 112x112x64 3x3/2", IN_BYTES + OUT_BYTES, device, c);
    free(in);
    free(out);
    return device < 0;
}

static int bench_avgpool(struct device *d, struct test *t)
{
    enum { C = 2048, IN_BYTES = 49 * C };
    struct quant q = {.shift = 5, .zero_out = -128, .lo = -128, .hi = 127};
    int8_t *in = draw_bytes(t, IN_BYTES), *out = calloc(1, C);
    struct arg args[32] = {IN(in, IN_BYTES), OUT(out, C), INT(1),      INT(49),
                           INT(C),           INT(-128),   INT(1 << 30)};
    struct arg *end = quant_args(args + 7, &q);
    double device = device_time(d, "avgpool", args, (uint32_t)(end - args), GROUPS, REPEATS);
    double start = seconds();
    for (int c = 0; c < C; c++)
        out[c] = ref_avgpool(in, 49, C, 0, c, -128, 1 << 30, &q);
    double c = seconds() - start;
    print_rate("avgpool 7x7x2048", IN_BYTES + C, device, c);
    free(in);
    free(out);
    return device < 0;
}

static int bench_moves(struct device *d, struct test *t)
{
    enum { PIXELS = 224 * 224, SMALL = 28 * 28 * 256 };
    int8_t *in = draw_bytes(t, 4 * SMALL), *out = calloc(1, 4 * SMALL);
    struct arg stage[] = {IN(in, 3 * PIXELS),
                          OUT(out, 4 * PIXELS),
                          INT(1),
                          INT(PIXELS),
                          INT(3),
                          INT(3 * PIXELS),
                          INT(1),
                          INT(PIXELS),
                          INT(4)};
    struct arg upsample[] = {IN(in, SMALL), OUT(out, 4 * SMALL),
                             INT(1),        INT(28),
                             INT(28),       INT(256),
                             INT(2),        INT(2),
                             INT(256),      INT(0)};
    double stage_s = device_time(d, "stage", stage, sizeof stage / sizeof *stage, GROUPS, REPEATS);
    double upsample_s = device_time(d, "upsample_nearest", upsample,
                                    sizeof upsample / sizeof *upsample, GROUPS, REPEATS);
    double start = seconds();
    memcpy(out, in, 4 * SMALL);
    double copy_s = seconds() - start;
    print_rate("stage 3x224x224, to memcpy", 7 * PIXELS, stage_s,
               copy_s * 7 * PIXELS / (8 * SMALL));
    print_rate("upsample 28x28x256, to memcpy", 5 * SMALL, upsample_s, copy_s * 5 / 8);
    free(in);
    free(out);
    return (stage_s < 0) + (upsample_s < 0);
}

int bench(struct device *d)
{
    struct test t = {.random = 1};
    int failed = bench_convolutions(d, &t);
    printf("\n%-29s %7s %9s %7s\n", "bytes in and out, GB/s", "device", "C, 1 core", "ratio");
    return failed + bench_add(d, &t) + bench_maxpool(d, &t) + bench_avgpool(d, &t) +
           bench_moves(d, &t);
}
