// SPDX-License-Identifier: Apache-2.0
#define CL_TARGET_OPENCL_VERSION 120
#include "tests/kernels/device.h"

#include <CL/cl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CANARY_BYTES 4096u // a multiple of every device's alignment of parts of a buffer
#define CANARY 0xc5
#define ARGS_MAX 32u
#define PLATFORMS_MAX 16u
#define SOURCE_BYTES_MAX (1u << 20)

struct device {
    char name[256];
    bool exact;
    cl_context context;
    cl_command_queue queue;
    cl_program program;
};

// A buffer as the kernel sees it, and with its canaries.
struct guarded {
    cl_mem whole, part;
};

const char *device_name(const struct device *d)
{
    return d->name;
}

static bool find(struct device *d, const char *wanted, cl_device_id *id)
{
    cl_platform_id platforms[PLATFORMS_MAX];
    cl_uint n = 0;
    if (clGetPlatformIDs(PLATFORMS_MAX, platforms, &n) != CL_SUCCESS)
        return false;
    for (cl_uint i = 0; i < n && i < PLATFORMS_MAX; i++) {
        clGetPlatformInfo(platforms[i], CL_PLATFORM_NAME, sizeof d->name, d->name, NULL);
        if (strstr(d->name, wanted) &&
            clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, 1, id, NULL) == CL_SUCCESS)
            return true;
    }
    return false;
}

// The sources one after another, as bundles have them.
static bool read_all(char *text, char **sources, char *why, size_t size)
{
    size_t at = 0;
    for (char **source = sources; *source; source++) {
        FILE *f = fopen(*source, "r");
        size_t n = f ? fread(text + at, 1, SOURCE_BYTES_MAX - 1 - at, f) : 0;
        if (f)
            fclose(f);
        if (n == 0) {
            snprintf(why, size, "%s cannot be read", *source);
            return false;
        }
        at += n;
    }
    return true;
}

static bool build(struct device *d, cl_device_id id, char **sources, const char *options, char *why,
                  size_t size)
{
    char *text = calloc(1, SOURCE_BYTES_MAX);
    const char *const_text = text;
    if (!read_all(text, sources, why, size)) {
        free(text);
        return false;
    }
    d->program = clCreateProgramWithSource(d->context, 1, &const_text, NULL, NULL);
    free(text);
    if (clBuildProgram(d->program, 1, &id, options, NULL, NULL) == CL_SUCCESS)
        return true;
    int n = snprintf(why, size, "%s is not built for %s: ", *sources, d->name);
    if (n > 0 && (size_t)n < size)
        clGetProgramBuildInfo(d->program, id, CL_PROGRAM_BUILD_LOG, size - (size_t)n, why + n,
                              NULL);
    return false;
}

struct device *device_open(const char *platform, char **sources, const char *options, bool exact,
                           bool *absent, char *why, size_t size)
{
    struct device *d = calloc(1, sizeof *d);
    cl_device_id id = NULL;
    *absent = !find(d, platform, &id);
    if (*absent) {
        snprintf(why, size, "no OpenCL platform has \"%s\" in its name", platform);
        free(d);
        return NULL;
    }
    d->exact = exact;
    d->context = clCreateContext(NULL, 1, &id, NULL, NULL, NULL);
    d->queue = clCreateCommandQueue(d->context, id, 0, NULL);
    if (d->queue && build(d, id, sources, options, why, size))
        return d;
    if (!d->queue)
        snprintf(why, size, "%s does not open", d->name);
    device_close(d);
    return NULL;
}

void device_close(struct device *d)
{
    if (!d)
        return;
    if (d->program)
        clReleaseProgram(d->program);
    if (d->queue)
        clReleaseCommandQueue(d->queue);
    if (d->context)
        clReleaseContext(d->context);
    free(d);
}

static cl_int guard(struct device *d, struct guarded *g, const void *bytes, size_t n)
{
    cl_int error;
    cl_buffer_region region = {CANARY_BYTES, n};
    size_t before = d->exact ? 0 : CANARY_BYTES, all = n + 2 * before;
    unsigned char *image = malloc(all);
    memset(image, CANARY, all);
    memcpy(image + before, bytes, n);
    g->whole =
        clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, all, image, &error);
    free(image);
    if (error == CL_SUCCESS && !d->exact)
        g->part = clCreateSubBuffer(g->whole, CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION,
                                    &region, &error);
    return error;
}

// Takes an OUT back, and checks what must not have changed.
static bool check(struct device *d, struct guarded *g, const struct arg *a, uint32_t i, char *why,
                  size_t size)
{
    size_t before = d->exact ? 0 : CANARY_BYTES, all = a->bytes + 2 * before;
    unsigned char *image = malloc(all);
    bool good = false;
    if (clEnqueueReadBuffer(d->queue, g->whole, CL_TRUE, 0, all, image, 0, NULL, NULL) !=
        CL_SUCCESS) {
        snprintf(why, size, "argument %u is not read back", i);
        goto out;
    }
    for (size_t k = 0; k < before; k++)
        if (image[k] != CANARY || image[before + a->bytes + k] != CANARY) {
            snprintf(why, size, "argument %u: written %s its %zu bytes, %zu away", i,
                     image[k] != CANARY ? "before" : "after", a->bytes,
                     image[k] != CANARY ? before - k : k);
            goto out;
        }
    if (a->kind == ARG_IN && memcmp(image + before, a->is.in, a->bytes) != 0) {
        snprintf(why, size, "argument %u, an input, was written", i);
        goto out;
    }
    if (a->kind == ARG_OUT)
        memcpy(a->is.out, image + before, a->bytes);
    good = true;
out:
    free(image);
    return good;
}

static cl_int set_arg(struct device *d, cl_kernel k, struct guarded *g, const struct arg *a,
                      uint32_t i)
{
    cl_int error;
    switch (a->kind) {
    case ARG_INT:
        return clSetKernelArg(k, i, sizeof(cl_int), &a->is.integer);
    case ARG_FLOAT:
        return clSetKernelArg(k, i, sizeof(cl_float), &a->is.real);
    default:
        error = guard(d, g, a->kind == ARG_IN ? a->is.in : a->is.out, a->bytes);
        return error ? error
                     : clSetKernelArg(k, i, sizeof(cl_mem), d->exact ? &g->whole : &g->part);
    }
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double run(struct device *d, const char *kernel, const struct arg *args, uint32_t nargs,
                  size_t groups, int repeats, char *why, size_t size)
{
    struct guarded g[ARGS_MAX] = {0};
    cl_int error;
    size_t one = 1;
    double best = -1;
    cl_kernel k = clCreateKernel(d->program, kernel, &error);
    if (error)
        snprintf(why, size, "%s is not in the program: OpenCL error %d", kernel, error);
    for (uint32_t i = 0; i < nargs && error == CL_SUCCESS; i++) {
        error = set_arg(d, k, &g[i], &args[i], i);
        if (error)
            snprintf(why, size, "argument %u of %s: OpenCL error %d", i, kernel, error);
    }
    for (int i = 0; i < repeats && error == CL_SUCCESS; i++) {
        double start = seconds();
        error = clEnqueueNDRangeKernel(d->queue, k, 1, NULL, &groups, &one, 0, NULL, NULL);
        error = error ? error : clFinish(d->queue);
        double took = seconds() - start;
        if (error)
            snprintf(why, size, "%s: OpenCL error %d", kernel, error);
        else if (best < 0 || took < best)
            best = took;
    }
    for (uint32_t i = 0; i < nargs; i++) {
        if (g[i].whole && error == CL_SUCCESS && best >= 0 &&
            !check(d, &g[i], &args[i], i, why, size))
            best = -1;
        if (g[i].part)
            clReleaseMemObject(g[i].part);
        if (g[i].whole)
            clReleaseMemObject(g[i].whole);
    }
    if (k)
        clReleaseKernel(k);
    return error ? -1 : best;
}

bool device_launch(struct device *d, const char *kernel, const struct arg *args, uint32_t nargs,
                   size_t groups, char *why, size_t size)
{
    return run(d, kernel, args, nargs, groups, 1, why, size) >= 0;
}

double device_time(struct device *d, const char *kernel, const struct arg *args, uint32_t nargs,
                   size_t groups, int repeats)
{
    char why[256];
    return run(d, kernel, args, nargs, groups, repeats, why, sizeof why);
}
