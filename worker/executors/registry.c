// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "worker/executors/executors.h"

static const struct executor *const EXECUTORS[] = {&executor_cpu, &executor_null, &executor_delay,
                                                   &executor_opencl, &executor_cuda};

const struct executor *executor_at(size_t i)
{
    return i < sizeof(EXECUTORS) / sizeof(EXECUTORS[0]) ? EXECUTORS[i] : NULL;
}

const struct executor *executor_find(const char *kind)
{
    for (size_t i = 0; executor_at(i); i++)
        if (strcmp(executor_at(i)->kind, kind) == 0)
            return executor_at(i);
    return NULL;
}
