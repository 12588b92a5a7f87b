// SPDX-License-Identifier: Apache-2.0
// NVIDIA's management library, loaded when it is asked for: what the driver says of one GPU, or of
// one part of a GPU (MIG). A machine without it, or with an old one, has no sensors and no fault.
// Functions, structures and error numbers are those of NVIDIA's NVML reference.
#ifndef SONIC_WORKER_EXECUTORS_CUDA_PROCESS_NVML_H
#define SONIC_WORKER_EXECUTORS_CUDA_PROCESS_NVML_H

#include <stddef.h>

#include "worker/device/sensors.h"

#define NVML_UUID_BYTES 16u

struct nvml;

// Finds the GPU, or the part of one, that CUDA gives these 16 bytes for, and where it has none (all
// zero), or NVML does not know them, the one at `bus` ("0000:65:00.0"). NULL with words.
// The environment's SONIC_NVML names another library than libnvidia-ml.so.1.
struct nvml *nvml_open(const unsigned char uuid[NVML_UUID_BYTES], const char *bus, char *why,
                       size_t size);
void nvml_close(struct nvml *n);

// What it says now; it takes milliseconds. 0, or -ENODEV with words: the GPU is off the bus, or the
// driver gone.
int nvml_read(struct nvml *n, struct device_sensors *s, char *why, size_t size);

#endif
