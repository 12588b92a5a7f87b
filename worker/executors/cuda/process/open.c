// SPDX-License-Identifier: Apache-2.0
// Finds the GPU and opens it, or says what is missing.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/executors/cuda/process/device.h"

int device_fail(const struct device *d, int e, const char *what, char *why, size_t size)
{
    if (e == CUDA_OK)
        return 0;
    snprintf(why, size, "%s: %s: %s", d->name, what, cuda_error(e));
    return -EIO;
}

void device_enter(const struct device *d)
{
    cuda.cudaSetDevice(d->ordinal); // an error shows again at the thread's first use
}

static const char *visible(void)
{
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    return text ? text : "not set";
}

// CUDA numbers the GPUs that CUDA_VISIBLE_DEVICES names: one UUID there is GPU 0.
static int choose(struct device *d, const char *which, char *why, size_t size)
{
    bool uuid = which[0] && (which[0] < '0' || which[0] > '9');
    const char *allowed = getenv("CUDA_VISIBLE_DEVICES");
    d->ordinal = uuid ? 0 : atoi(which);
    d->gpu = uuid ? -1 : d->ordinal;
    snprintf(d->name, sizeof(d->name), "GPU %s", which[0] ? which : "0");
    if (!uuid)
        return 0;
    // A batch system that gave this job other GPUs means it: by their numbers, or none,
    if (allowed && !strchr(allowed, '-')) {
        d->ordinal = -1;
        return 0;
    }
    // or by their UUIDs.
    if (allowed && !strstr(allowed, which)) {
        snprintf(why, size, "%s is not among the GPUs of this job: CUDA_VISIBLE_DEVICES is %s",
                 which, allowed);
        return -ENODEV;
    }
    return setenv("CUDA_VISIBLE_DEVICES", which, 1) == 0 ? 0 : -ENOMEM;
}

static int check_driver(const struct device *d, char *why, size_t size)
{
    int driver = 0, runtime = 0;
    int e = cuda.cudaDriverGetVersion(&driver);
    if (e == CUDA_OK)
        e = cuda.cudaRuntimeGetVersion(&runtime);
    if (e != CUDA_OK)
        return device_fail(d, e, "asking for CUDA's versions", why, size);
    if (driver == 0) {
        snprintf(why, size,
                 "there is no NVIDIA driver on this machine (install the driver, and in a "
                 "container pass the GPU through)");
        return -ENODEV;
    }
    // One major version of CUDA works with any of its drivers.
    if (driver / 1000 >= runtime / 1000)
        return 0;
    snprintf(why, size,
             "the NVIDIA driver is of CUDA %d.%d, the CUDA runtime here is %d.%d: install a newer "
             "driver, or the runtime of CUDA %d (SONIC_CUDART names its library)",
             driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, driver / 1000);
    return -ENODEV;
}

// CUDA's bytes against a UUID as people write it, or its beginning. A part's (MIG) are its own.
static bool is_uuid(const char *text, const unsigned char *uuid)
{
    char hex[33], *at = hex;
    for (int i = 0; i < 16; i++)
        at += snprintf(at, 3, "%02x", uuid[i]);
    at = hex;
    for (text += 4; *text; text++) // after GPU- or MIG-
        if (*text != '-' && *text != *at++)
            return false;
    return at > hex;
}

static int find_uuid(struct device *d, int n, const char *which, char *why, size_t size)
{
    unsigned char uuid[16];
    int handle;
    int e = cuda.cuInit(0);
    for (int i = 0; i < n && e == CUDA_OK; i++)
        if (cuda.cuDeviceGet(&handle, i) == CUDA_OK &&
            cuda.cuDeviceGetUuid_v2(uuid, handle) == CUDA_OK && is_uuid(which, uuid)) {
            d->ordinal = i;
            return 0;
        }
    snprintf(why, size, "%s is not among the GPUs of this job: CUDA_VISIBLE_DEVICES is %s%s%s",
             which, visible(), e == CUDA_OK ? "" : ": ", e == CUDA_OK ? "" : cuda_driver_error(e));
    return -ENODEV;
}

static int find(struct device *d, const char *which, char *why, size_t size)
{
    int n = 0, e = cuda.cudaGetDeviceCount(&n);
    if (e == CUDA_NO_DEVICE || (e == CUDA_OK && n == 0)) {
        snprintf(why, size,
                 "CUDA shows no GPU (CUDA_VISIBLE_DEVICES is %s): nvidia-smi lists what the driver "
                 "has",
                 visible());
        return -ENODEV;
    }
    if (e != CUDA_OK)
        return device_fail(d, e, "looking for GPUs", why, size);
    if (d->ordinal < 0)
        return find_uuid(d, n, which, why, size);
    if (d->ordinal < n)
        return 0;
    snprintf(why, size, "there is no GPU %d: CUDA shows %d, 0 to %d (CUDA_VISIBLE_DEVICES is %s)",
             d->ordinal, n, n - 1, visible());
    return -ENODEV;
}

static void take_name(struct device *d)
{
    int handle;
    char name[90] = "GPU";
    if (cuda.cuInit(0) == CUDA_OK && cuda.cuDeviceGet(&handle, d->ordinal) == CUDA_OK)
        cuda.cuDeviceGetName(name, sizeof(name), handle);
    snprintf(d->name, sizeof(d->name), "%s (GPU %d)", name, d->ordinal);
}

static int take(struct device *d, char *why, size_t size)
{
    size_t left, all;
    int e = cuda.cudaSetDevice(d->ordinal);
    // The first use makes the context, if setting it did not.
    if (e == CUDA_OK)
        e = cuda.cudaMemGetInfo(&left, &all);
    if (e == CUDA_DEVICES_UNAVAILABLE) {
        snprintf(why, size,
                 "%s is busy: another process has it for itself, or its compute mode lets none in "
                 "(nvidia-smi shows both; nvidia-smi -c DEFAULT lets several in): %s",
                 d->name, cuda_error(e));
        return -EBUSY;
    }
    if (e != CUDA_OK)
        return device_fail(d, e, "opening it", why, size);
    d->memory_bytes = all;
    return 0;
}

static int make_slot(struct device_slot *s)
{
    cuda_event *const events[] = {&s->in_begins, &s->in_done, &s->compute_begins, &s->compute_done,
                                  &s->out_done};
    int e = cuda.cudaStreamCreateWithFlags(&s->stream, CUDA_STREAM_NON_BLOCKING);
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]) && e == CUDA_OK; i++)
        e = cuda.cudaEventCreateWithFlags(events[i], CUDA_EVENT_BLOCKING_SYNC);
    return e;
}

int device_open(struct device *d, const char *which, uint32_t slots, char *why, size_t size)
{
    int e = CUDA_OK;
    d->nslots = slots;
    pthread_mutex_init(&d->busy_lock, NULL);
    // Streams share so many queues to the GPU, where one may wait for another without need.
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
    int rc = choose(d, which, why, size);
    if (rc == 0)
        rc = cuda_load(why, size);
    if (rc == 0)
        rc = check_driver(d, why, size);
    if (rc == 0)
        rc = find(d, which, why, size);
    if (rc != 0)
        return rc;
    take_name(d);
    rc = take(d, why, size);
    for (uint32_t i = 0; i < slots && rc == 0 && e == CUDA_OK; i++)
        e = make_slot(&d->slots[i]);
    return rc != 0 ? rc : device_fail(d, e, "making streams and events", why, size);
}
