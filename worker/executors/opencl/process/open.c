// SPDX-License-Identifier: Apache-2.0
// Which platform, which device; and errors in words.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "worker/executors/opencl/process/device.h"

#define PLATFORMS_MAX 16u
#define DEVICES_MAX 64u

// ---- words --------------------------------------------------------------------------------------

const char *device_error(cl_int e)
{
    static const struct {
        cl_int number;
        const char *name;
    } NAMES[] = {
#define NAME(n) {n, #n}
        NAME(CL_DEVICE_NOT_FOUND),
        NAME(CL_DEVICE_NOT_AVAILABLE),
        NAME(CL_COMPILER_NOT_AVAILABLE),
        NAME(CL_MEM_OBJECT_ALLOCATION_FAILURE),
        NAME(CL_OUT_OF_RESOURCES),
        NAME(CL_OUT_OF_HOST_MEMORY),
        NAME(CL_BUILD_PROGRAM_FAILURE),
        NAME(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST),
        NAME(CL_INVALID_VALUE),
        NAME(CL_INVALID_BINARY),
        NAME(CL_INVALID_PROGRAM_EXECUTABLE),
        NAME(CL_INVALID_KERNEL_NAME),
        NAME(CL_INVALID_KERNEL_DEFINITION),
        NAME(CL_INVALID_ARG_INDEX),
        NAME(CL_INVALID_ARG_VALUE),
        NAME(CL_INVALID_ARG_SIZE),
        NAME(CL_INVALID_KERNEL_ARGS),
        NAME(CL_INVALID_WORK_DIMENSION),
        NAME(CL_INVALID_WORK_GROUP_SIZE),
        NAME(CL_INVALID_WORK_ITEM_SIZE),
        NAME(CL_INVALID_BUFFER_SIZE),
#undef NAME
        {-1001, "CL_PLATFORM_NOT_FOUND_KHR"},
    };
    static _Thread_local char text[80];
    const char *name = "OpenCL error";
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++)
        if (NAMES[i].number == e)
            name = NAMES[i].name;
    snprintf(text, sizeof(text), "%s (%d)", name, (int)e);
    return text;
}

int device_fail(const struct device *d, cl_int e, const char *what, char *why, size_t size)
{
    snprintf(why, size, "%s, %s: %s: %s", d->platform_name, d->name, what, device_error(e));
    return -EIO;
}

// ---- choosing -----------------------------------------------------------------------------------

// A number that is the place, or a part of the name in any case; "": whatever it is.
static bool chosen(const char *wish, uint32_t place, const char *name)
{
    char *end;
    if (!wish[0])
        return true;
    unsigned long number = strtoul(wish, &end, 10);
    if (isdigit((unsigned char)wish[0]) && !*end)
        return number == place;
    for (; *name; name++)
        if (strncasecmp(name, wish, strlen(wish)) == 0)
            return true;
    return false;
}

// Notes what there is, for the error that names it.
static void list(char *names, size_t size, const char *name)
{
    size_t used = strlen(names);
    snprintf(names + used, size - used, "%s\"%s\"", used ? ", " : "", name);
}

static int find_platform(struct device *d, const char *wish, char *why, size_t size)
{
    cl_platform_id ids[PLATFORMS_MAX];
    cl_uint n = 0;
    char names[300] = "", broken[400];
    cl_int e = clGetPlatformIDs(PLATFORMS_MAX, ids, &n);
    uint32_t nlibraries = device_vendors(broken, sizeof(broken));
    if (e != CL_SUCCESS || n == 0) {
        if (nlibraries > 0)
            snprintf(why, size, "none of %u OpenCL libraries here shows a platform%s", nlibraries,
                     broken);
        else
            snprintf(
                why, size,
                "no OpenCL platform is installed here: install the vendor's runtime (its file in "
                "/etc/OpenCL/vendors names its library), or PoCL to compute on the processor");
        return -ENODEV;
    }
    for (cl_uint i = 0; i < n && i < PLATFORMS_MAX; i++) {
        if (clGetPlatformInfo(ids[i], CL_PLATFORM_NAME, sizeof(d->platform_name), d->platform_name,
                              NULL) != CL_SUCCESS)
            continue;
        list(names, sizeof(names), d->platform_name);
        if (!chosen(wish, i, d->platform_name))
            continue;
        d->platform = ids[i];
        return 0;
    }
    snprintf(why, size, "there is no OpenCL platform \"%s\"; there are: %s%s", wish, names, broken);
    return -ENODEV;
}

static int find_device(struct device *d, const char *wish, char *why, size_t size)
{
    cl_device_id ids[DEVICES_MAX];
    cl_uint n = 0;
    char names[300] = "";
    cl_int e = clGetDeviceIDs(d->platform, CL_DEVICE_TYPE_ALL, DEVICES_MAX, ids, &n);
    if (e != CL_SUCCESS || n == 0) {
        snprintf(why, size, "platform \"%s\" has no device: %s", d->platform_name,
                 device_error(e != CL_SUCCESS ? e : CL_DEVICE_NOT_FOUND));
        return -ENODEV;
    }
    for (cl_uint i = 0; i < n && i < DEVICES_MAX; i++) {
        if (clGetDeviceInfo(ids[i], CL_DEVICE_NAME, sizeof(d->name), d->name, NULL) != CL_SUCCESS)
            continue;
        if (!d->name[0]) // XRT without a card
            snprintf(d->name, sizeof(d->name), "device %u", (unsigned)i);
        list(names, sizeof(names), d->name);
        if (!chosen(wish, i, d->name))
            continue;
        d->id = ids[i];
        return 0;
    }
    snprintf(why, size, "platform \"%s\" has no device \"%s\"; it has: %s", d->platform_name, wish,
             names);
    return -ENODEV;
}

// ---- opening ------------------------------------------------------------------------------------

// One queue that runs out of order serves all slots; else each has one, or they would wait for
// each other.
static cl_int open_queues(struct device *d)
{
    cl_command_queue_properties can = 0;
    cl_int e = CL_SUCCESS;
    clGetDeviceInfo(d->id, CL_DEVICE_QUEUE_PROPERTIES, sizeof(can), &can, NULL);
    if (can & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE)
        d->queues[0] = clCreateCommandQueue(
            d->context, d->id, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE | CL_QUEUE_PROFILING_ENABLE,
            &e);
    for (uint32_t i = 0; i < d->nslots && e == CL_SUCCESS; i++)
        d->queues[i] = can & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE
                           ? d->queues[0]
                           : clCreateCommandQueue(d->context, d->id, CL_QUEUE_PROFILING_ENABLE, &e);
    return e;
}

int device_open(struct device *d, const char *platform, const char *device, uint32_t slots,
                char *why, size_t size)
{
    cl_int e;
    cl_ulong memory = 0, most = 0;
    int rc = find_platform(d, platform, why, size);
    if (rc == 0)
        rc = find_device(d, device, why, size);
    if (rc != 0)
        return rc;
    d->nslots = slots;
    clGetDeviceInfo(d->id, CL_DRIVER_VERSION, sizeof(d->driver), d->driver, NULL);
    clGetDeviceInfo(d->id, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(memory), &memory, NULL);
    clGetDeviceInfo(d->id, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof(most), &most, NULL);
    d->memory_bytes = memory;
    d->buffer_bytes_max = most;
    d->context = clCreateContext(NULL, 1, &d->id, NULL, NULL, &e);
    if (e == CL_SUCCESS)
        e = open_queues(d);
    return e == CL_SUCCESS ? 0 : device_fail(d, e, "the device cannot be opened", why, size);
}
