// SPDX-License-Identifier: Apache-2.0
// Kernels of SONIC's own, chosen by sonic_cuda_kernel: FACILE's.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/executors/cuda/process/device.h"
#include "worker/kernels/facile_fatbin.h"
#include "worker/kernels/facile_launch.h"
#include "worker/kernels/facile_weights.h"

struct native {
    void *module, *function;
    float *weights; // on the GPU
};

static int check_shape(const struct device_model *m, char *why, size_t size)
{
    const struct model_config *c = &m->config;
    const char *kernel = model_config_parameter(c, "sonic_cuda_kernel");
    if (strcmp(kernel, "facile") != 0) {
        snprintf(why, size,
                 "model %s: there is no native kernel \"%s\" (there is: facile); without "
                 "sonic_cuda_kernel in config.pbtxt ONNX Runtime computes it",
                 c->name, kernel);
        return -EINVAL;
    }
    if (c->batch_max > 0 && c->ninputs == 1 && c->noutputs == 1 &&
        c->inputs[0].dtype == SONIC_FP32 && c->outputs[0].dtype == SONIC_FP32 &&
        m->layout.input_row[0] == FACILE_INPUTS * sizeof(float) &&
        m->layout.output_row[0] == sizeof(float))
        return 0;
    snprintf(why, size,
             "model %s: the kernel facile takes rows of FP32[%u] and gives FP32[1]; config.pbtxt "
             "declares something else",
             c->name, FACILE_INPUTS);
    return -EINVAL;
}

static int load_weights(struct device_model *m, const char *version_dir, char *why, size_t size)
{
    struct native *k = m->compute_data;
    float weights[FACILE_WEIGHTS];
    char path[4300];
    void *at = NULL;
    cuda_stream stream = m->lane[0].stream;
    snprintf(path, sizeof(path), "%s/" FACILE_FILE, version_dir);
    int rc = facile_weights_read(path, weights, why, size);
    if (rc != 0)
        return rc;
    int e = cuda.cudaMalloc(&at, sizeof(weights));
    k->weights = at;
    if (e == CUDA_OK)
        e = cuda.cudaMemcpyAsync(at, weights, sizeof(weights), CUDA_TO_DEVICE, stream);
    if (e == CUDA_OK)
        e = cuda.cudaStreamSynchronize(stream); // `weights` is read until then
    return device_fail(m->device, e, "loading weights", why, size);
}

#ifdef SONIC_FACILE_FATBIN
static int load_module(struct device_model *m, char *why, size_t size)
{
    struct native *k = m->compute_data;
    int e = cuda.cuModuleLoadData(&k->module, sonic_facile_fatbin);
    if (e == CUDA_OK)
        e = cuda.cuModuleGetFunction(&k->function, k->module, FACILE_KERNEL);
    if (e == CUDA_OK)
        return 0;
    snprintf(why, size,
             "%s: model %s: the kernel " FACILE_KERNEL " of this build cannot be loaded: %s (a GPU "
             "of compute capability 7.5 or newer is wanted)",
             m->device->name, m->config.name, cuda_driver_error(e));
    return -EIO;
}
#else
static int load_module(struct device_model *m, char *why, size_t size)
{
    snprintf(
        why, size,
        "model %s: this build has no native kernel (nvcc was missing): build it where the CUDA "
        "toolkit is, or remove sonic_cuda_kernel from config.pbtxt",
        m->config.name);
    return -ENOTSUP;
}
#endif

static enum device_outcome queue(struct device_model *m, uint32_t lane, uint32_t slot,
                                 uint32_t rows, char *why, size_t size)
{
    const struct native *k = m->compute_data;
    unsigned grid, block, shared;
    void *in = device_input(m, slot, 0), *out = device_output(m, slot, 0);
    const float *weights = k->weights;
    void *args[] = {&in, &out, &weights, &rows};
    facile_launch(rows, &grid, &block, &shared);
    int e = cuda.cuLaunchKernel(k->function, grid, 1, 1, block, 1, 1, shared, m->lane[lane].stream,
                                args, NULL);
    if (e == CUDA_OK)
        return DEVICE_OK;
    snprintf(why, size, "launching " FACILE_KERNEL ": %s", cuda_driver_error(e));
    return e == CUDA_OUT_OF_MEMORY ? DEVICE_NO_MEMORY : DEVICE_FAILED;
}

static int warm_up(struct device_model *m, char *why, size_t size)
{
    for (uint32_t i = 0; i < m->lanes.n; i++) {
        char reason[300];
        if (queue(m, i, 0, m->layout.rows, reason, sizeof(reason)) != DEVICE_OK) {
            snprintf(why, size, "%s: model %s: %s", m->device->name, m->config.name, reason);
            return -EIO;
        }
        int e = cuda.cudaStreamSynchronize(m->lane[i].stream);
        if (device_fail(m->device, e, "running " FACILE_KERNEL " for the first time", why, size) !=
            0)
            return -EIO;
    }
    return 0;
}

static int load(struct device_model *m, const char *version_dir, char *why, size_t size)
{
    int rc = check_shape(m, why, size);
    m->compute_data = calloc(1, sizeof(struct native));
    if (!m->compute_data) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    if (rc == 0)
        rc = load_module(m, why, size);
    if (rc == 0)
        rc = load_weights(m, version_dir, why, size);
    return rc == 0 ? warm_up(m, why, size) : rc;
}

const struct compute compute_native = {.load = load, .queue = queue};
