// SPDX-License-Identifier: Apache-2.0
// Kernels of SONIC's own, chosen by sonic_cuda_kernel.
#include <errno.h>
#include <stdio.h>

#include "worker/executors/cuda/process/device.h"

static int load(struct device_model *m, const char *version_dir, char *why, size_t size)
{
    (void)version_dir;
    snprintf(why, size,
             "model %s: this build has no native kernel \"%s\": remove sonic_cuda_kernel from "
             "config.pbtxt, and ONNX Runtime computes it",
             m->config.name, model_config_parameter(&m->config, "sonic_cuda_kernel"));
    return -ENOTSUP;
}

const struct compute compute_native = {.load = load};
