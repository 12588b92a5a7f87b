// SPDX-License-Identifier: Apache-2.0
// delay:FIXED_US[,PER_ROW_US[,SLOTS]]: a simulated device that sleeps for as long as one would
// compute, and returns the inputs.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "worker/executors/echo.h"
#include "worker/executors/executors.h"

struct executor_device {
    uint32_t fixed_us, per_row_us, slots;
};

struct executor_model {
    const struct executor_device *device;
};

static int parse(const char *argument, struct executor_device *d, char *why, size_t size)
{
    uint32_t numbers[3] = {1000, 0, 1}; // a millisecond an execution
    int rc = echo_numbers(argument, numbers, 3, why, size);
    if (rc < 0)
        return rc;
    *d = (struct executor_device){numbers[0], numbers[1], numbers[2]};
    if (d->slots >= 1 && d->slots <= EXECUTOR_SLOTS_MAX)
        return 0;
    snprintf(why, size, "1 to %u slots are possible", EXECUTOR_SLOTS_MAX);
    return -EINVAL;
}

static int probe(const char *argument, struct device_info *info, char *why, size_t size)
{
    struct executor_device d;
    int rc = parse(argument, &d, why, size);
    if (rc != 0)
        return rc;
    *info = (struct device_info){.slots = d.slots};
    snprintf(info->name, sizeof(info->name), "echo, %u us and %u us a row", d.fixed_us,
             d.per_row_us);
    return 0;
}

static int open_device(const char *argument, struct executor_device **d, char *why, size_t size)
{
    struct executor_device parsed;
    int rc = parse(argument, &parsed, why, size);
    if (rc != 0)
        return rc;
    *d = malloc(sizeof(**d));
    if (!*d) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    **d = parsed;
    return 0;
}

static void close_device(struct executor_device *d)
{
    free(d);
}

static int load(struct executor_device *d, const struct model_entry *entry,
                struct executor_model **m, uint64_t *memory_bytes, char *why, size_t size)
{
    int rc = echo_check(entry, why, size);
    if (rc != 0)
        return rc;
    *memory_bytes = 0;
    *m = malloc(sizeof(**m));
    if (!*m) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    (*m)->device = d;
    return 0;
}

static void unload(struct executor_model *m)
{
    free(m);
}

static enum executor_outcome execute(struct executor_model *m, uint32_t slot, struct execution *x)
{
    (void)slot;
    uint64_t us = m->device->fixed_us + (uint64_t)m->device->per_row_us * x->rows;
    struct timespec left = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
        ;
    echo_execute(x);
    return EXECUTOR_OK;
}

const struct executor executor_delay = {
    .kind = "delay",
    .backend = "delay",
    .instances = INSTANCE_AUTO,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .load = load,
    .unload = unload,
    .execute = execute,
};
