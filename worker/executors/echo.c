// SPDX-License-Identifier: Apache-2.0
#include "worker/executors/echo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool same_spec(const struct tensor_spec *a, const struct tensor_spec *b)
{
    return a->dtype == b->dtype && a->ndim == b->ndim &&
           memcmp(a->dims, b->dims, a->ndim * sizeof(a->dims[0])) == 0;
}

int echo_check(const struct model_entry *entry, char *why, size_t size)
{
    const struct model_config *c = &entry->config;
    bool same = c->ninputs == c->noutputs;
    for (uint32_t i = 0; same && i < c->ninputs; i++)
        same = same_spec(&c->inputs[i], &c->outputs[i]);
    if (same)
        return 0;
    snprintf(why, size,
             "%s: backend \"%s\" returns the inputs: declare as many outputs as inputs, with the "
             "same data_type and dims",
             entry->dir, c->backend);
    return -EINVAL;
}

void echo_execute(struct execution *x)
{
    memcpy(x->outputs, x->inputs, x->ninputs * sizeof(x->inputs[0]));
    x->noutputs = x->ninputs;
    x->borrows_inputs = true;
}

int echo_numbers(const char *argument, uint32_t *numbers, int max, char *why, size_t size)
{
    const char *at = argument;
    for (int n = 0; n < max && *at; n++) {
        char *end;
        errno = 0;
        unsigned long long v = strtoull(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || errno || v > UINT32_MAX || (*end && *end != ','))
            break;
        numbers[n] = (uint32_t)v;
        at = *end ? end + 1 : end;
        if (!*end)
            return n + 1;
    }
    if (!*argument)
        return 0;
    snprintf(why, size, "\"%s\" is not a list of up to %d whole numbers", argument, max);
    return -EINVAL;
}
