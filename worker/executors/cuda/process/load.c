// SPDX-License-Identifier: Apache-2.0
// A model onto the GPU: shared memory pinned, device buffers for all slots, lanes, and what
// computes.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/executors/cuda/process/device.h"

void *device_input(const struct device_model *m, uint32_t slot, uint32_t input)
{
    return m->buffers + (slot * m->layout.inputs_bytes + m->layout.input_at[input]);
}

void *device_output(const struct device_model *m, uint32_t slot, uint32_t output)
{
    const struct cuda_layout *l = &m->layout;
    return m->buffers +
           (l->slots * l->inputs_bytes + slot * l->outputs_bytes + l->output_at[output]);
}

static int pin(struct device_model *m, int fd, char *why, size_t size)
{
    struct stat st;
    bool large = fstat(fd, &st) == 0 && (uint64_t)st.st_size >= m->layout.bytes;
    void *at =
        large ? mmap(NULL, m->layout.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (at == MAP_FAILED) {
        snprintf(why, size, "model %s: cannot map %llu bytes of shared memory", m->config.name,
                 (unsigned long long)m->layout.bytes);
        return -ENOMEM;
    }
    m->pinned = at;
    int e = cuda.cudaHostRegister(at, m->layout.bytes, CUDA_HOST_PORTABLE);
    char what[200];
    snprintf(what, sizeof(what),
             "model %s: pinning %llu bytes (lower max_batch_size or the slots, or raise the limit "
             "on locked memory)",
             m->config.name, (unsigned long long)m->layout.bytes);
    return device_fail(m->device, e, what, why, size);
}

static int no_memory(const struct device_model *m, uint64_t bytes, int e, char *why, size_t size)
{
    size_t left = 0, all = 0;
    cuda.cudaGetLastError(); // or the next call would report it again
    cuda.cudaMemGetInfo(&left, &all);
    snprintf(
        why, size,
        "%s: model %s: no memory for the buffers of %u slots, %llu MiB where %zu MiB are free: "
        "%s (lower max_batch_size, name fewer slots (--device cuda:N:SLOTS), or serve fewer "
        "models here)",
        m->device->name, m->config.name, m->layout.slots, (unsigned long long)(bytes >> 20),
        left >> 20, cuda_error(e));
    return -ENOMEM;
}

// Zeros, because a padded batch computes over rows that nobody has sent.
static int make_buffers(struct device_model *m, char *why, size_t size)
{
    uint64_t bytes = m->layout.slots * (m->layout.inputs_bytes + m->layout.outputs_bytes);
    void *at = NULL;
    cuda_stream stream = m->device->slots[0].stream;
    int e = cuda.cudaMalloc(&at, bytes);
    if (e == CUDA_OUT_OF_MEMORY)
        return no_memory(m, bytes, e, why, size);
    m->buffers = at;
    if (e == CUDA_OK)
        e = cuda.cudaMemsetAsync(at, 0, bytes, stream);
    if (e == CUDA_OK)
        e = cuda.cudaStreamSynchronize(stream);
    return device_fail(m->device, e, "making buffers", why, size);
}

static int make_lanes(struct device_model *m, char *why, size_t size)
{
    uint32_t n = model_config_instances(&m->config, INSTANCE_GPU, m->device->gpu, 1);
    int e = CUDA_OK;
    n = n < m->layout.slots ? n : m->layout.slots;
    m->lanes.n = n == 0 ? 1 : n < LANES_MAX ? n : LANES_MAX;
    for (uint32_t i = 0; i < m->lanes.n && e == CUDA_OK; i++) {
        pthread_mutex_init(&m->lane[i].queuing, NULL);
        e = cuda.cudaStreamCreateWithFlags(&m->lane[i].stream, CUDA_STREAM_NON_BLOCKING);
    }
    return device_fail(m->device, e, "making streams", why, size);
}

static uint64_t taken_bytes(void)
{
    size_t left = 0, all = 0;
    cuda.cudaMemGetInfo(&left, &all);
    return all - left;
}

int device_load(struct device *d, const struct pipe_load *load, int memory, uint64_t *bytes,
                char *why, size_t size)
{
    struct device_model *m = calloc(1, sizeof(*m));
    if (!m) {
        close(memory);
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    uint64_t before = taken_bytes();
    m->device = d;
    m->config = load->config;
    m->compute =
        model_config_parameter(&m->config, "sonic_cuda_kernel") ? &compute_native : &compute_onnx;
    pthread_mutex_init(&m->lock, NULL);
    int rc = cuda_layout_make(&m->layout, &m->config, d->nslots, why, size);
    if (rc == 0)
        rc = pin(m, memory, why, size);
    else
        close(memory);
    if (rc == 0)
        rc = make_buffers(m, why, size);
    if (rc == 0)
        rc = make_lanes(m, why, size);
    if (rc == 0)
        rc = m->compute->load(m, load->version_dir, why, size);
    if (rc != 0)
        return rc;
    uint64_t after = taken_bytes();
    *bytes = after > before ? after - before : 0;
    atomic_store(&d->models[load->model], m);
    return 0;
}
