// SPDX-License-Identifier: Apache-2.0
// NVML of the tests' own: a machine with one GPU, cut into parts where SONIC_STUB_MIG is set. The
// steps of SONIC_STUB_FAULTS (stub_faults.h) are its functions.
#include <stdlib.h>
#include <string.h>

#include "tests/stub_faults.h"

#define API __attribute__((visibility("default")))
#define WHOLE "GPU-00112233-4455-6677-8899-aabbccddeeff"
#define PART "MIG-00112233-4455-6677-8899-aabbccddeeff"
#define BUS "0000:65:00.0"

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

struct device {
    int part; // of the whole
};
typedef struct device *handle;
static struct device whole = {0}, part = {1};
static int begun;

struct utilization {
    unsigned gpu, memory;
};
struct memory {
    unsigned long long total, free, used;
};

API int nvmlInit_v2(void);
API int nvmlShutdown(void);
API int nvmlDeviceGetHandleByUUID(const char *uuid, handle *device);
API int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, handle *device);
API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle of, handle *device);
API int nvmlDeviceGetUtilizationRates(handle device, struct utilization *u);
API int nvmlDeviceGetMemoryInfo(handle device, struct memory *m);
API int nvmlDeviceGetPowerUsage(handle device, unsigned *mw);
API int nvmlDeviceGetTemperature(handle device, int sensor, unsigned *celsius);
API const char *nvmlErrorString(int e);

// Each function's own fault; nothing works before the beginning or after the end.
static int step(const char *name)
{
    int e = stub_fault(name);
    return e != 0 ? e : begun > 0 ? OK : 1; // uninitialized
}

int nvmlInit_v2(void)
{
    begun++;
    return step("nvmlInit_v2");
}

int nvmlShutdown(void)
{
    int e = step("nvmlShutdown");
    begun--;
    return e;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, handle *device)
{
    int e = step("nvmlDeviceGetHandleByUUID");
    if (e != OK)
        return e;
    *device = getenv("SONIC_STUB_MIG") ? &part : &whole;
    return strcmp(uuid, (*device)->part ? PART : WHOLE) == 0 ? OK : NOT_FOUND;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, handle *device)
{
    int e = step("nvmlDeviceGetHandleByPciBusId_v2");
    *device = &whole;
    return e != OK ? e : strcmp(bus, BUS) == 0 ? OK : NOT_FOUND;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle of, handle *device)
{
    int e = step("nvmlDeviceGetDeviceHandleFromMigDeviceHandle");
    *device = &whole;
    return e != OK ? e : of == &part ? OK : INVALID_ARGUMENT;
}

int nvmlDeviceGetUtilizationRates(handle device, struct utilization *u)
{
    int e = step("nvmlDeviceGetUtilizationRates");
    *u = (struct utilization){87, 12};
    return e != OK ? e : device == &whole ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetMemoryInfo(handle device, struct memory *m)
{
    int e = step("nvmlDeviceGetMemoryInfo");
    unsigned long long total = device == &whole ? 80ull << 30 : 10ull << 30, used = 3ull << 30;
    *m = (struct memory){total, total - used, used};
    return e;
}

int nvmlDeviceGetPowerUsage(handle device, unsigned *mw)
{
    int e = step("nvmlDeviceGetPowerUsage");
    *mw = 312500;
    return e != OK ? e : device == &whole ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetTemperature(handle device, int sensor, unsigned *celsius)
{
    int e = step("nvmlDeviceGetTemperature");
    *celsius = 61;
    return e != OK ? e : device == &whole && sensor == 0 ? OK : NOT_SUPPORTED;
}

const char *nvmlErrorString(int e)
{
    return e == 15 ? "GPU is lost" : e == NOT_FOUND ? "Not Found" : "Another Error";
}
