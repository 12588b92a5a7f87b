// SPDX-License-Identifier: Apache-2.0
// null[:SLOTS]: the device that takes no time, to measure and test all that is around a device.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/executors/echo.h"
#include "worker/executors/executors.h"

struct executor_device {
    uint32_t slots;
};

struct executor_model {
    uint32_t unused;
};

static int probe(const char *argument, struct device_info *info, char *why, size_t size)
{
    *info = (struct device_info){.slots = 1, .name = "echo, no time"};
    int rc = echo_numbers(argument, &info->slots, 1, why, size);
    if (rc < 0)
        return rc;
    if (info->slots >= 1 && info->slots <= EXECUTOR_SLOTS_MAX)
        return 0;
    snprintf(why, size, "1 to %u slots are possible", EXECUTOR_SLOTS_MAX);
    return -EINVAL;
}

static int open_device(const char *argument, struct executor_device **d, char *why, size_t size)
{
    struct device_info info;
    int rc = probe(argument, &info, why, size);
    if (rc != 0)
        return rc;
    *d = malloc(sizeof(**d));
    if (!*d) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    (*d)->slots = info.slots;
    return 0;
}

static void close_device(struct executor_device *d)
{
    free(d);
}

static int load(struct executor_device *d, const struct model_entry *entry,
                struct executor_model **m, uint64_t *memory_bytes, char *why, size_t size)
{
    (void)d;
    int rc = echo_check(entry, why, size);
    if (rc != 0)
        return rc;
    *memory_bytes = 0;
    *m = calloc(1, sizeof(**m));
    if (*m)
        return 0;
    snprintf(why, size, "out of memory");
    return -ENOMEM;
}

static void unload(struct executor_model *m)
{
    free(m);
}

static enum executor_outcome execute(struct executor_model *m, uint32_t slot, struct execution *x)
{
    (void)m;
    (void)slot;
    echo_execute(x);
    return EXECUTOR_OK;
}

const struct executor executor_null = {
    .kind = "null",
    .backend = "null",
    .instances = INSTANCE_AUTO,
    .immediate = true,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .load = load,
    .unload = unload,
    .execute = execute,
};
