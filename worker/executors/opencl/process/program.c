// SPDX-License-Identifier: Apache-2.0
// The program of a bundle for this device: a binary as it is, or source, built once for each
// device, driver, options and text, and kept.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/executors/opencl/process/device.h"
#include "worker/executors/opencl/process/xilinx.h"

#define FILE_BYTES_MAX (1l << 30)

static const struct bundle_program *choose(const struct device *d, const struct bundle *b)
{
    for (uint32_t i = 0; i < b->nprograms; i++)
        if (strstr(d->platform_name, b->programs[i].platform) &&
            strstr(d->name, b->programs[i].device))
            return &b->programs[i];
    return NULL;
}

// A whole file and a 0 behind it; NULL with errno.
static char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *bytes = NULL;
    long n = -1;
    if (f && fseek(f, 0, SEEK_END) == 0 && (n = ftell(f)) >= 0 && n <= FILE_BYTES_MAX &&
        fseek(f, 0, SEEK_SET) == 0 && (bytes = malloc((size_t)n + 1)) &&
        fread(bytes, 1, (size_t)n, f) == (size_t)n) {
        bytes[n] = '\0';
        *len = (size_t)n;
    } else {
        int e = errno ? errno : EIO;
        free(bytes);
        bytes = NULL;
        errno = e;
    }
    if (f)
        fclose(f);
    return bytes;
}

static int build(const struct device *d, cl_program program, const char *options, const char *path,
                 char *why, size_t size)
{
    char log[400] = "";
    cl_int e = clBuildProgram(program, 1, &d->id, options, NULL, NULL);
    if (e == CL_SUCCESS)
        return 0;
    char *all = NULL;
    size_t n = 0;
    clGetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &n);
    if (n > 0 && (all = malloc(n + 1)) &&
        clGetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, n, all, NULL) == CL_SUCCESS) {
        all[n] = '\0';
        snprintf(log, sizeof(log), "%s", all);
    }
    free(all);
    for (char *c = log; *c; c++)
        if (*c == '\n')
            *c = ' ';
    snprintf(why, size, "%s, %s: %s does not build: %s: %s", d->platform_name, d->name, path,
             device_error(e), log);
    return -EIO;
}

static int from_binary(const struct device *d, const char *bytes, size_t len, const char *path,
                       cl_program *program, char *why, size_t size)
{
    const unsigned char *binary = (const unsigned char *)bytes;
    cl_int status = CL_SUCCESS, e;
    *program = clCreateProgramWithBinary(d->context, 1, &d->id, &len, &binary, &status, &e);
    if (e == CL_SUCCESS)
        e = status;
    if (e != CL_SUCCESS) {
        snprintf(why, size, "%s, %s: %s is no program for this device: %s", d->platform_name,
                 d->name, path, device_error(e));
        return -EIO;
    }
    return build(d, *program, "", path, why, size); // some want it for a binary, too
}

// ---- the cache ----------------------------------------------------------------------------------

// What a built program depends on, all of it: a kept one is used only if it is the same. One
// allocation; NULL when out of memory.
static char *cache_key(const struct device *d, const char *options, const char *source, size_t *len)
{
    size_t n = strlen(d->platform_name) + strlen(d->name) + strlen(d->driver) + strlen(options) +
               strlen(source) + 64;
    char *key = malloc(n);
    if (key)
        *len = (size_t)snprintf(key, n, "sonic 1\n%s\n%s\n%s\n%s\n%zu\n%s", d->platform_name,
                                d->name, d->driver, options, strlen(source), source);
    return key;
}

// Behind the key stands what the binary behind that must be: a runtime may abort over a harmed one.
struct seal {
    uint64_t bytes, hash;
};

static uint64_t fnv1a(const void *data, size_t n)
{
    const unsigned char *bytes = data;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ bytes[i]) * 0x100000001b3u;
    return h;
}

// False: there is no place for a cache.
static bool cache_path(char *path, size_t size, const char *key, size_t len)
{
    char dir[512];
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && cache[0] == '/')
        snprintf(dir, sizeof(dir), "%s", cache);
    else if (home && home[0] == '/')
        snprintf(dir, sizeof(dir), "%s/.cache", home);
    else
        return false;
    mkdir(dir, 0700);
    strncat(dir, "/sonic-opencl", sizeof(dir) - strlen(dir) - 1);
    mkdir(dir, 0700);
    snprintf(path, size, "%s/%016llx.bin", dir, (unsigned long long)fnv1a(key, len));
    return true;
}

static bool cache_load(const struct device *d, const char *path, const char *key, size_t len,
                       cl_program *program)
{
    char why[64];
    size_t n;
    char *bytes = read_file(path, &n);
    struct seal seal;
    const size_t head = len + sizeof(seal);
    bool same = bytes && n > head && memcmp(bytes, key, len) == 0;
    if (same) {
        memcpy(&seal, bytes + len, sizeof(seal));
        same = seal.bytes == n - head && seal.hash == fnv1a(bytes + head, n - head);
    }
    bool fine =
        same && from_binary(d, bytes + head, n - head, path, program, why, sizeof(why)) == 0;
    free(bytes);
    return fine;
}

// Failing only costs time at the next start.
static void cache_store(const char *path, const char *key, size_t len, cl_program program)
{
    char temporary[700];
    size_t n = 0;
    unsigned char *binary = NULL;
    if (clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof(n), &n, NULL) != CL_SUCCESS ||
        n == 0 || !(binary = malloc(n)) ||
        clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof(binary), &binary, NULL) !=
            CL_SUCCESS) {
        free(binary);
        return;
    }
    struct seal seal = {n, fnv1a(binary, n)};
    snprintf(temporary, sizeof(temporary), "%s.%d", path, (int)getpid());
    FILE *f = fopen(temporary, "wb");
    bool fine = f && fwrite(key, 1, len, f) == len &&
                fwrite(&seal, 1, sizeof(seal), f) == sizeof(seal) && fwrite(binary, 1, n, f) == n;
    if (f && (fclose(f) != 0 || !fine || rename(temporary, path) != 0))
        unlink(temporary);
    free(binary);
}

static int from_source(const struct device *d, const struct bundle_program *p, const char *source,
                       const char *path, cl_program *program, char *why, size_t size)
{
    char kept[600];
    size_t len = 0;
    cl_int e;
    char *key = cache_key(d, p->options, source, &len);
    bool cached = key && cache_path(kept, sizeof(kept), key, len);
    if (cached && cache_load(d, kept, key, len, program)) {
        free(key);
        return 0;
    }
    *program = clCreateProgramWithSource(d->context, 1, &source, NULL, &e);
    int rc = e == CL_SUCCESS ? build(d, *program, p->options, path, why, size)
                             : device_fail(d, e, path, why, size);
    if (rc == 0 && cached)
        cache_store(kept, key, len, *program);
    free(key);
    return rc;
}

// Only a board is what its program makes of it; processors keep many programs side by side.
static bool is_board(const struct device *d)
{
    cl_device_type type = 0;
    clGetDeviceInfo(d->id, CL_DEVICE_TYPE, sizeof(type), &type, NULL);
    return type & CL_DEVICE_TYPE_ACCELERATOR;
}

static int from_xclbin(struct device *d, struct device_model *m, const char *bytes, size_t len,
                       const char *path, char *why, size_t size)
{
    int rc = xilinx_program(d, bytes, len, path, &m->program, why, size);
    if (rc != 0 || m->program)
        return rc;
    m->reconfigured = true;
    rc = from_binary(d, bytes, len, path, &m->program, why, size);
    return rc == 0 ? xilinx_loaded(d, bytes, len, path, m->program, why, size) : rc;
}

int device_program(struct device *d, struct device_model *m, char *why, size_t size)
{
    char path[4400];
    size_t len;
    int rc;
    const struct bundle_program *p = m->chosen = choose(d, &m->bundle);
    if (!p) {
        snprintf(why, size,
                 "%s/" BUNDLE_FILE ": no program of it is for platform \"%s\", device \"%s\"",
                 m->bundle.dir, d->platform_name, d->name);
        return -EINVAL;
    }
    snprintf(path, sizeof(path), "%s/%s", m->bundle.dir, p->file);
    char *bytes = read_file(path, &len);
    if (!bytes) {
        int e = errno;
        snprintf(why, size, "%s: %s", path, strerror(e));
        return -e;
    }
    if (p->source) {
        rc = from_source(d, p, bytes, path, &m->program, why, size);
    } else if (xilinx_card(d)) {
        rc = from_xclbin(d, m, bytes, len, path, why, size);
    } else {
        m->reconfigured = is_board(d);
        rc = from_binary(d, bytes, len, path, &m->program, why, size);
    }
    free(bytes);
    return rc;
}

uint32_t device_units(const struct device_model *m)
{
    return m->chosen->nunits ? m->chosen->nunits : 1;
}
