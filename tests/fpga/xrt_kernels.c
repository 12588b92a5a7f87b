// SPDX-License-Identifier: Apache-2.0
#include "tests/fpga/xrt_kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fpga/fixed_reference.h"

#define ROW64 32u // int16 in 64 bytes
#define NUMBERS 17u
#define ONE 1024
#define ALVEO_ROWS 16384u

static struct fixed_network network;
static pthread_once_t network_once = PTHREAD_ONCE_INIT;

static void read_network(void)
{
    const char *path = getenv("SONIC_XRT_NETWORK");
    if (!path || fixed_read(&network, path) != 0) {
        fprintf(stderr, "xrt_kernels: SONIC_XRT_NETWORK names no network\n");
        abort();
    }
}

// A real kernel runs over its buffer's end without a word; this one says so.
static void need(const struct xrt_arg *a, size_t bytes)
{
    if (bytes <= a->bytes)
        return;
    fprintf(stderr, "xrt_kernels: %zu bytes of a buffer that has %zu\n", bytes, a->bytes);
    abort();
}

static void twice(const struct xrt_arg *args)
{
    size_t n = args[2].value * 16u;
    float x;
    need(&args[0], n * sizeof(x));
    need(&args[1], n * sizeof(x));
    for (size_t i = 0; i < n; i++) {
        memcpy(&x, args[0].memory + i * sizeof(x), sizeof(x));
        x *= 2;
        memcpy(args[1].memory + i * sizeof(x), &x, sizeof(x));
    }
}

static void add(const struct xrt_arg *args)
{
    size_t n = args[3].value * 16u;
    float x, w;
    need(&args[0], n * sizeof(x));
    need(&args[1], 16 * sizeof(x));
    need(&args[2], n * sizeof(x));
    for (size_t i = 0; i < n; i++) {
        memcpy(&x, args[0].memory + i * sizeof(x), sizeof(x));
        memcpy(&w, args[1].memory + i % 16 * sizeof(w), sizeof(w));
        x += w;
        memcpy(args[2].memory + i * sizeof(x), &x, sizeof(x));
    }
}

static void rows64(const struct xrt_arg *in, const struct xrt_arg *out, uint32_t rows)
{
    pthread_once(&network_once, read_network);
    need(in, rows * ROW64 * sizeof(int16_t));
    need(out, rows * sizeof(int16_t));
    for (uint32_t r = 0; r < rows; r++) {
        int16_t packed[ROW64], row[FIXED_WIDTH_MAX] = {0}, energy[FIXED_WIDTH_MAX];
        memcpy(packed, in->memory + r * sizeof(packed), sizeof(packed));
        memcpy(row, packed, NUMBERS * sizeof(row[0]));
        if (packed[NUMBERS] > 0 && packed[NUMBERS] + NUMBERS <= FIXED_ROW)
            row[NUMBERS + (uint32_t)packed[NUMBERS] - 1] = ONE;
        fixed_forward(&network, row, energy);
        memcpy(out->memory + r * sizeof(energy[0]), energy, sizeof(energy[0]));
    }
}

static void facile(const struct xrt_arg *args)
{
    rows64(&args[0], &args[1], args[2].value);
}

static void alveo_hls4ml(const struct xrt_arg *args)
{
    rows64(&args[0], &args[1], ALVEO_ROWS);
}

static void kernel_wrapper(const struct xrt_arg *args)
{
    pthread_once(&network_once, read_network);
    const size_t row_bytes = network.width[0] * sizeof(int16_t);
    need(&args[1], args[0].value * row_bytes);
    need(&args[2], args[0].value * sizeof(int16_t));
    for (uint32_t r = 0; r < args[0].value; r++) {
        int16_t row[FIXED_WIDTH_MAX], energy[FIXED_WIDTH_MAX];
        memcpy(row, args[1].memory + r * row_bytes, row_bytes);
        fixed_forward(&network, row, energy);
        memcpy(args[2].memory + r * sizeof(energy[0]), energy, sizeof(energy[0]));
    }
}

const struct xrt_kernel *xrt_kernel_find(const char *name)
{
    static const struct xrt_kernel KERNELS[] = {
        {"twice", 3, 3, twice},
        {"add", 4, 7, add},
        {"facile", 3, 3, facile},
        {"alveo_hls4ml", 2, 3, alveo_hls4ml},
        {"kernel_wrapper", 3, 6, kernel_wrapper},
    };
    for (size_t i = 0; i < sizeof(KERNELS) / sizeof(KERNELS[0]); i++)
        if (strcmp(KERNELS[i].name, name) == 0)
            return &KERNELS[i];
    return NULL;
}
