// SPDX-License-Identifier: Apache-2.0
// sonic-device-opencl: started by sonic-worker, talks to it alone (pipe.h).
#include <stdio.h>
#include <stdlib.h>

#include "common/exitcode.h"
#include "worker/device/serve.h"
#include "worker/executors/opencl/process/device.h"

static struct device device = {.busy_lock = PTHREAD_MUTEX_INITIALIZER};

static void run(uint32_t slot, const struct pipe_run *rows, struct pipe_done *done)
{
    device_run(&device, slot, rows, done);
}

static void load(const struct pipe_load *model, int memory, struct pipe_ready *ready)
{
    ready->status =
        device_load(&device, model, memory, &ready->memory_bytes, ready->text, sizeof(ready->text));
    if (ready->status == 0)
        device_describe(&device, model->model, ready);
}

int main(int argc, char **argv)
{
    static const struct serve_device served = {.load = load, .run = run};
    struct pipe_ready ready = {0};
    if (argc != 4) {
        fprintf(stderr, "sonic-device-opencl: is started by sonic-worker --device opencl\n");
        return EXIT_USAGE;
    }
    serve_begin();
    device_describe_machine();
    uint32_t slots = (uint32_t)atoi(argv[3]);
    ready.status = device_open(&device, argv[1], argv[2], slots, ready.text, sizeof(ready.text));
    snprintf(ready.name, sizeof(ready.name), "%.*s, %.*s", 62, device.platform_name, 62,
             device.name);
    ready.memory_bytes = device.memory_bytes;
    serve(&served, slots, &ready);
}
