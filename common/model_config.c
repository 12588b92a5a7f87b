// SPDX-License-Identifier: Apache-2.0
#include "common/model_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/checked.h"
#include "common/name.h"

const char *model_config_parameter(const struct model_config *c, const char *key)
{
    for (uint32_t i = 0; i < c->nparameters; i++)
        if (strcmp(c->parameters[i].key, key) == 0)
            return c->parameters[i].value;
    return NULL;
}

// ---- requests and results against the declaration
// -------------------------------------------------

// "FP32[rows,47]" of the declaration and "FP32[16000,46]" of what came.
static bool mismatch(const struct model_config *c, const struct tensor_spec *spec,
                     const struct tensor *t, char *why, size_t size)
{
    char got[160], want[160];
    tensor_print(got, sizeof(got), t->dtype, t->ndim, t->dims);
    tensor_spec_print(want, sizeof(want), spec, c->batch_max > 0);
    snprintf(why, size, "tensor \"%s\" is %s, declared is %s", spec->name, got, want);
    return false;
}

static bool fits_spec(const struct model_config *c, const struct tensor_spec *spec,
                      const struct tensor *t)
{
    unsigned batch = c->batch_max > 0;
    if (t->dtype != spec->dtype || t->ndim != spec->ndim + batch)
        return false;
    for (unsigned i = 0; i < spec->ndim; i++)
        if (spec->dims[i] >= 0 && t->dims[i + batch] != (uint64_t)spec->dims[i])
            return false;
    return true;
}

bool model_check_tensors(const struct model_config *c, const struct tensor_spec *specs,
                         uint32_t nspecs, const struct tensor *tensors, uint32_t ntensors,
                         uint32_t *rows, uint64_t *bytes, char *why, size_t size)
{
    uint64_t total = 0, n = 1;
    if (ntensors != nspecs) {
        snprintf(why, size, "%u tensors came, declared are %u", ntensors, nspecs);
        return false;
    }
    for (uint32_t i = 0; i < ntensors; i++) {
        const struct tensor *t = &tensors[i];
        if (!fits_spec(c, &specs[i], t))
            return mismatch(c, &specs[i], t, why, size);
        if (c->batch_max > 0 && i == 0)
            n = t->dims[0];
        if (c->batch_max > 0 && t->dims[0] != n) {
            snprintf(why, size, "tensor \"%s\" has %" PRIu64 " rows, \"%s\" has %" PRIu64,
                     specs[i].name, t->dims[0], specs[0].name, n);
            return false;
        }
        if (t->bytes > SONIC_FRAME_BYTES_MAX || !checked_add(total, t->bytes, &total)) {
            snprintf(why, size, "tensor \"%s\" is over %llu bytes", specs[i].name,
                     SONIC_FRAME_BYTES_MAX);
            return false;
        }
    }
    if (n == 0 || (c->batch_max > 0 && n > c->batch_max)) {
        snprintf(why, size,
                 "%" PRIu64 " rows in one request, allowed are 1 to %u "
                 "(max_batch_size)",
                 n, c->batch_max);
        return false;
    }
    *rows = (uint32_t)n;
    *bytes = total;
    return true;
}

// ---- the wire -----------------------------------------------------------------------------------

static void specs_to_wire(const struct tensor_spec *specs, uint32_t n, struct wire_specs *out)
{
    out->n = n;
    memcpy(out->at, specs, n * sizeof(*specs));
}

// JOIN and CATALOG items have the same fields: one macro serves both directions of each.
#define TO_WIRE(c, item)                                                                           \
    memset((item), 0, sizeof(*(item)));                                                            \
    (item)->name = wire_str((c)->name);                                                            \
    (item)->version = (c)->version;                                                                \
    (item)->batch_max = (c)->batch_max;                                                            \
    (item)->default_rows = (c)->default_rows;                                                      \
    (item)->queue_delay_us = (c)->queue_delay_us;                                                  \
    (item)->preferred.n = (c)->npreferred;                                                         \
    memcpy((item)->preferred.at, (c)->preferred, sizeof((c)->preferred));                          \
    (item)->priority_levels = (c)->priority_levels;                                                \
    (item)->default_priority = (c)->default_priority;                                              \
    (item)->default_deadline_us = (c)->default_deadline_us;                                        \
    (item)->queue_max = (c)->queue_max;                                                            \
    specs_to_wire((c)->inputs, (c)->ninputs, &(item)->inputs);                                     \
    specs_to_wire((c)->outputs, (c)->noutputs, &(item)->outputs)

void model_config_to_wire(const struct model_config *c, struct wire_join_item *item)
{
    TO_WIRE(c, item);
}

void model_config_to_catalog(const struct model_config *c, struct wire_catalog_item *item)
{
    TO_WIRE(c, item);
}

static bool specs_from_wire(const struct wire_specs *in, const char *what,
                            struct tensor_spec *specs, uint32_t *n, char *why, size_t size)
{
    *n = in->n;
    memcpy(specs, in->at, in->n * sizeof(*specs));
    if (in->n == 0) {
        snprintf(why, size, "no %s is declared", what);
        return false;
    }
    for (uint32_t i = 0; i < in->n; i++) {
        if (!name_is_label(specs[i].name, strlen(specs[i].name))) {
            snprintf(why, size, "%s %u has no usable name", what, i);
            return false;
        }
        for (unsigned k = 0; k < specs[i].ndim; k++)
            if (specs[i].dims[k] == 0) {
                snprintf(why, size, "%s \"%s\" has a dimension of 0", what, specs[i].name);
                return false;
            }
    }
    return true;
}

static bool name_from_wire(struct wire_str name, struct model_config *c, char *why, size_t size)
{
    if (!name_is_model(name.data, name.len)) {
        snprintf(why, size, "a model's name is 1 to 64 of a-z 0-9 . _ - without a leading dot");
        return false;
    }
    memcpy(c->name, name.data, name.len);
    return true;
}

#define FROM_WIRE(item, c)                                                                         \
    memset((c), 0, sizeof(*(c)));                                                                  \
    (c)->version = (item)->version;                                                                \
    (c)->batch_max = (item)->batch_max;                                                            \
    (c)->default_rows = (item)->default_rows ? (item)->default_rows : 1;                           \
    (c)->queue_delay_us = (item)->queue_delay_us;                                                  \
    (c)->npreferred = (item)->preferred.n;                                                         \
    memcpy((c)->preferred, (item)->preferred.at, (item)->preferred.n * sizeof(uint32_t));          \
    (c)->priority_levels = (item)->priority_levels;                                                \
    (c)->default_priority = (item)->default_priority;                                              \
    (c)->default_deadline_us = (item)->default_deadline_us;                                        \
    (c)->queue_max = (item)->queue_max;                                                            \
    return name_from_wire((item)->name, (c), why, size) &&                                         \
           specs_from_wire(&(item)->inputs, "input", (c)->inputs, &(c)->ninputs, why, size) &&     \
           specs_from_wire(&(item)->outputs, "output", (c)->outputs, &(c)->noutputs, why, size)

bool model_config_from_wire(const struct wire_join_item *item, struct model_config *c, char *why,
                            size_t size)
{
    FROM_WIRE(item, c);
}

bool model_config_from_catalog(const struct wire_catalog_item *item, struct model_config *c,
                               char *why, size_t size)
{
    FROM_WIRE(item, c);
}

// ---- agreement ----------------------------------------------------------------------------------

static bool same_spec(const struct tensor_spec *a, const struct tensor_spec *b)
{
    bool same = strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->ndim == b->ndim;
    for (unsigned i = 0; same && i < a->ndim; i++)
        same = a->dims[i] == b->dims[i] || (a->dims[i] < 0 && b->dims[i] < 0);
    return same;
}

static bool specs_agree(const struct tensor_spec *a, uint32_t na, const struct tensor_spec *b,
                        uint32_t nb, bool batched, char *why, size_t size)
{
    char first[160], second[160];
    if (na != nb) {
        snprintf(why, size, "%u tensors here, %u there", na, nb);
        return false;
    }
    for (uint32_t i = 0; i < na; i++) {
        if (!same_spec(&a[i], &b[i])) {
            tensor_spec_print(first, sizeof(first), &a[i], batched);
            tensor_spec_print(second, sizeof(second), &b[i], batched);
            snprintf(why, size, "the farm knows tensor \"%s\" %s, this worker declares \"%s\" %s",
                     a[i].name, first, b[i].name, second);
            return false;
        }
    }
    return true;
}

bool model_config_agrees(const struct model_config *a, const struct model_config *b, char *why,
                         size_t size)
{
    if (a->batch_max != b->batch_max) {
        snprintf(why, size, "the farm knows max_batch_size %u, this worker declares %u",
                 a->batch_max, b->batch_max);
        return false;
    }
    bool batched = a->batch_max > 0;
    return specs_agree(a->inputs, a->ninputs, b->inputs, b->ninputs, batched, why, size) &&
           specs_agree(a->outputs, a->noutputs, b->outputs, b->noutputs, batched, why, size);
}
