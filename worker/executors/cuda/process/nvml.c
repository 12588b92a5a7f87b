// SPDX-License-Identifier: Apache-2.0
#include "worker/executors/cuda/process/nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libnvidia-ml.so.1"

enum { OK = 0, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, RESET_REQUIRED = 16 };
enum { TEMPERATURE_GPU = 0 };

typedef struct nvmlDevice_st *handle;

struct utilization {
    unsigned gpu, memory; // per cent of the time
};

struct memory {
    unsigned long long total, free, used;
};

// X(name, arguments): all return an error number.
#define FUNCTIONS(X)                                                                               \
    X(nvmlInit_v2, (void))                                                                         \
    X(nvmlShutdown, (void))                                                                        \
    X(nvmlDeviceGetHandleByUUID, (const char *uuid, handle *device))                               \
    X(nvmlDeviceGetHandleByPciBusId_v2, (const char *bus, handle *device))                         \
    X(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, (handle part, handle * whole))                 \
    X(nvmlDeviceGetUtilizationRates, (handle device, struct utilization * u))                      \
    X(nvmlDeviceGetMemoryInfo, (handle device, struct memory * m))                                 \
    X(nvmlDeviceGetPowerUsage, (handle device, unsigned *mw))                                      \
    X(nvmlDeviceGetTemperature, (handle device, int sensor, unsigned *celsius))

struct nvml {
    void *library;
    bool begun;
    handle device; // may be a part of `board`
    handle board;
#define MEMBER(name, args) int(*name) args;
    FUNCTIONS(MEMBER)
#undef MEMBER
    const char *(*nvmlErrorString)(int e);
};

static bool take(struct nvml *n, const char *name, void *into, char *why, size_t size)
{
    void *found = dlsym(n->library, name);
    if (!found) {
        snprintf(why, size, "the NVIDIA driver's " LIBRARY " has no %s: install a newer driver",
                 name);
        return false;
    }
    memcpy(into, &found, sizeof(found));
    return true;
}

static bool load(struct nvml *n, char *why, size_t size)
{
    const char *named = getenv("SONIC_NVML");
    n->library = dlopen(named && named[0] ? named : LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!n->library) {
        snprintf(why, size, "NVML cannot be loaded: %s (it comes with the NVIDIA driver)",
                 dlerror());
        return false;
    }
    bool all = take(n, "nvmlErrorString", &n->nvmlErrorString, why, size);
#define TAKE(name, args) all = all && take(n, #name, &n->name, why, size);
    FUNCTIONS(TAKE)
#undef TAKE
    return all;
}

// "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
static void spell(const char *kind, const unsigned char *uuid, char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size, "%s", kind);
    for (unsigned i = 0; i < NVML_UUID_BYTES; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%02x",
                              i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

// CUDA's 16 bytes do not tell a part from a whole GPU; no two have the same.
static int find(struct nvml *n, const unsigned char *uuid, const char *bus)
{
    static const unsigned char none[NVML_UUID_BYTES];
    char text[64];
    int e = -1;
    if (memcmp(uuid, none, sizeof(none)) != 0) {
        spell("MIG-", uuid, text, sizeof(text));
        e = n->nvmlDeviceGetHandleByUUID(text, &n->device);
        if (e == OK)
            return n->nvmlDeviceGetDeviceHandleFromMigDeviceHandle(n->device, &n->board);
        spell("GPU-", uuid, text, sizeof(text));
        e = n->nvmlDeviceGetHandleByUUID(text, &n->device);
    }
    if (e != OK)
        e = n->nvmlDeviceGetHandleByPciBusId_v2(bus, &n->device);
    n->board = n->device;
    return e;
}

struct nvml *nvml_open(const unsigned char uuid[NVML_UUID_BYTES], const char *bus, char *why,
                       size_t size)
{
    struct nvml *n = calloc(1, sizeof(*n));
    if (!n) {
        snprintf(why, size, "out of memory");
        return NULL;
    }
    if (!load(n, why, size)) {
        nvml_close(n);
        return NULL;
    }
    int e = n->nvmlInit_v2();
    n->begun = e == OK;
    if (e == OK)
        e = find(n, uuid, bus);
    if (e == OK)
        return n;
    snprintf(why, size, "NVML does not show the GPU at %s: %s", bus, n->nvmlErrorString(e));
    nvml_close(n);
    return NULL;
}

void nvml_close(struct nvml *n)
{
    if (!n)
        return;
    if (n->begun)
        n->nvmlShutdown();
    if (n->library)
        dlclose(n->library);
    free(n);
}

// Whether the value is there; of errors only those count that say that the GPU is not.
static bool has(int e, int *gone)
{
    if (e == GPU_IS_LOST || e == DRIVER_NOT_LOADED || e == RESET_REQUIRED)
        *gone = e;
    return e == OK;
}

int nvml_read(struct nvml *n, struct device_sensors *s, char *why, size_t size)
{
    struct utilization utilization;
    struct memory memory;
    int gone = OK;
    *s = (struct device_sensors){.known = 0};
    if (has(n->nvmlDeviceGetUtilizationRates(n->device, &utilization), &gone)) {
        s->known |= SENSOR_BUSY;
        s->busy_percent = utilization.gpu;
    }
    if (has(n->nvmlDeviceGetMemoryInfo(n->device, &memory), &gone)) {
        s->known |= SENSOR_MEMORY;
        s->memory_used_bytes = memory.used;
        s->memory_bytes = memory.total;
    }
    if (has(n->nvmlDeviceGetPowerUsage(n->board, &s->power_mw), &gone))
        s->known |= SENSOR_POWER;
    if (has(n->nvmlDeviceGetTemperature(n->board, TEMPERATURE_GPU, &s->temperature_c), &gone))
        s->known |= SENSOR_TEMPERATURE;
    if (gone == OK)
        return 0;
    s->known = 0;
    snprintf(why, size, "%s", n->nvmlErrorString(gone));
    return -ENODEV;
}
