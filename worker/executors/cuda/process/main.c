// SPDX-License-Identifier: Apache-2.0
// sonic-device-cuda: started by sonic-worker, talks to it alone (pipe.h).
#include <stdio.h>
#include <stdlib.h>

#include "common/exitcode.h"
#include "common/log.h"
#include "worker/device/serve.h"
#include "worker/executors/cuda/process/device.h"
#include "worker/executors/cuda/process/nvml.h"

static struct device device;

static void enter(uint32_t slot)
{
    (void)slot;
    device_enter(&device);
}

static void load(const struct pipe_load *model, int memory, struct pipe_ready *ready)
{
    ready->status =
        device_load(&device, model, memory, &ready->memory_bytes, ready->text, sizeof(ready->text));
}

static void run(uint32_t slot, const struct pipe_run *rows, struct pipe_done *done)
{
    device_run(&device, slot, rows, done);
}

// Whatever is wrong with NVML, the GPU computes as well without.
static bool sense(struct device_sensors *s)
{
    static struct nvml *nvml;
    unsigned char uuid[NVML_UUID_BYTES] = {0};
    char why[512] = "", bus[32] = "";
    int handle = 0;
    if (!nvml) {
        if (cuda.cuDeviceGet(&handle, device.ordinal) == CUDA_OK)
            cuda.cuDeviceGetUuid_v2(uuid, handle);
        cuda.cudaDeviceGetPCIBusId(bus, sizeof(bus), device.ordinal);
        nvml = nvml_open(uuid, bus, why, sizeof(why));
    }
    if (nvml && nvml_read(nvml, s, why, sizeof(why)) == 0)
        return true;
    log_warn("no_sensors", "device=\"%s\" why=\"%s\"", device.name, why);
    return false;
}

int main(int argc, char **argv)
{
    static const struct serve_device served = {
        .enter = enter, .load = load, .run = run, .sense = sense};
    struct pipe_ready ready = {0};
    if (argc != 3) {
        fprintf(stderr, "sonic-device-cuda: is started by sonic-worker --device cuda\n");
        return EXIT_USAGE;
    }
    serve_begin();
    log_open("sonic-device-cuda", LOG_LEVEL_INFO);
    uint32_t slots = (uint32_t)atoi(argv[2]);
    ready.status = device_open(&device, argv[1], slots, ready.text, sizeof(ready.text));
    snprintf(ready.name, sizeof(ready.name), "%s", device.name);
    ready.memory_bytes = device.memory_bytes;
    serve(&served, slots, &ready);
}
