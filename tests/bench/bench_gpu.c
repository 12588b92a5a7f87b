// SPDX-License-Identifier: Apache-2.0
// A GPU without worker and broker: one thread keeps all slots' batches queued, inputs lie in pinned
// memory already, nothing is sent. alone_us is what a batch takes
// by itself, span_us what it adds to those before it: less, where copies hide. It is the device
// process's own code: the yardstick of what the farm adds to it, not of that code. One JSON line.
//
//   bench_gpu MODELS NAME ROWS SECONDS [KERNEL]      KERNEL: as sonic_cuda_kernel
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/exitcode.h"
#include "common/model_repository.h"
#include "worker/executors/cuda/process/device.h"

#define SLOTS 4u
#define ALONE 20

static struct device device;
static struct pipe_load load;
static char why[1024];

static _Noreturn void leave(const char *words)
{
    fprintf(stderr, "bench_gpu: %s\n", words);
    exit(EXIT_MODEL);
}

static void read_model(const char *models, const char *name, const char *kernel)
{
    static struct model_entry entry;
    if (model_repository_read(models, name, &entry, NULL, NULL, why, sizeof(why)) != 0)
        leave(why);
    load.config = entry.config;
    memcpy(load.version_dir, entry.dir, sizeof(load.version_dir));
    if (!kernel)
        return;
    if (load.config.nparameters == MODEL_PARAMETERS_MAX)
        leave("too many parameters");
    struct model_parameter *p = &load.config.parameters[load.config.nparameters++];
    snprintf(p->key, sizeof(p->key), "sonic_cuda_kernel");
    snprintf(p->value, sizeof(p->value), "%s", kernel);
}

static struct device_model *open_model(void)
{
    struct cuda_layout l;
    uint64_t bytes;
    if (cuda_layout_make(&l, &load.config, SLOTS, why, sizeof(why)) != 0)
        leave(why);
    int fd = memfd_create("bench", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)l.bytes) != 0)
        leave("no shared memory");
    if (device_open(&device, "", SLOTS, why, sizeof(why)) != 0 ||
        device_load(&device, &load, fd, &bytes, why, sizeof(why)) != 0)
        leave(why);
    return atomic_load(&device.models[0]);
}

// What a batch takes while no other is there to hide behind, by the GPU's own events: with others,
// an event also waits for them.
static double alone_us(struct device_model *m, uint32_t rows)
{
    struct pipe_done done = {0};
    for (int i = 0; i < ALONE; i++)
        if (device_begin(&device, 0, m, 0, rows, 0, why, sizeof(why)) != DEVICE_OK)
            leave(why);
        else if (device_end(&device, 0, &done) != DEVICE_OK)
            leave(done.text);
    return (double)(done.write_ns + done.kernel_ns + done.read_ns) / 1e3 / ALONE;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        leave("bench_gpu MODELS NAME ROWS SECONDS [KERNEL]");
    read_model(argv[1], argv[2], argc > 5 ? argv[5] : NULL);
    struct device_model *m = open_model();
    uint32_t rows = (uint32_t)strtoul(argv[3], NULL, 10);
    if (rows < 1 || rows > m->layout.rows)
        leave("so many rows are not possible");
    double alone = alone_us(m, rows);
    struct pipe_done done = {0};
    uint64_t start_us = clock_now_us(), until_us = start_us + (uint64_t)(atof(argv[4]) * 1e6);
    uint64_t begun = 0, ended = 0;
    while (ended < begun || clock_now_us() < until_us) {
        bool more = clock_now_us() < until_us;
        if (more && begun - ended < SLOTS) {
            uint32_t slot = (uint32_t)(begun++ % SLOTS);
            if (device_begin(&device, slot, m, 0, rows, slot, why, sizeof(why)) != DEVICE_OK)
                leave(why);
        } else if (device_end(&device, (uint32_t)(ended++ % SLOTS), &done) != DEVICE_OK) {
            leave(done.text);
        }
    }
    double took_s = (double)(clock_now_us() - start_us) / 1e6;
    printf("{\"device\": \"%s\", \"rows_per_s\": %.1f, \"in_us\": %.1f, \"compute_us\": %.1f, "
           "\"out_us\": %.1f, \"span_us\": %.1f, \"alone_us\": %.1f}\n",
           device.name, (double)(ended * rows) / took_s,
           (double)done.write_ns / 1e3 / (double)ended,
           (double)done.kernel_ns / 1e3 / (double)ended, (double)done.read_ns / 1e3 / (double)ended,
           took_s * 1e6 / (double)ended, alone);
    fflush(stdout);
    _exit(EXIT_OK); // without the libraries' own ends
}
