// SPDX-License-Identifier: Apache-2.0
// The executors that this build has; registry.c lists them.
#ifndef SONIC_WORKER_EXECUTORS_EXECUTORS_H
#define SONIC_WORKER_EXECUTORS_EXECUTORS_H

#include "worker/executor.h"

#define EXECUTOR_SLOTS_MAX 1024u // side by side on one device; the wire's bound is 4,096

extern const struct executor executor_cpu;
extern const struct executor executor_null;
extern const struct executor executor_delay;
extern const struct executor executor_opencl;
extern const struct executor executor_cuda;

#endif
