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

static bool names_gpu(const struct model_instances *g, int gpu)
{
    for (uint32_t i = 0; i < g->ngpus; i++)
        if (gpu >= 0 && g->gpus[i] == (uint32_t)gpu)
            return true;
    return g->ngpus == 0 || gpu < 0;
}

uint32_t model_config_instances(const struct model_config *c, enum instance_kind kind, int gpu,
                                uint32_t otherwise)
{
    uint32_t n = 0;
    if (c->ngroups == 0)
        return otherwise;
    for (uint32_t i = 0; i < c->ngroups; i++) {
        const struct model_instances *g = &c->groups[i];
        if ((kind == INSTANCE_AUTO || g->kind == INSTANCE_AUTO || g->kind == kind) &&
            names_gpu(g, gpu))
            n += g->count ? g->count : otherwise;
    }
    return n;
}

// ---- requests and results against the declaration ----------------------------------------------

bool model_row_fits(const struct tensor_spec *spec)
{
    uint64_t bytes = dtype_bytes(spec->dtype);
    for (unsigned i = 0; i < spec->ndim; i++)
        if (spec->dims[i] > 0 && !checked_mul(bytes, (uint64_t)spec->dims[i], &bytes))
            return false;
    return bytes <= SONIC_FRAME_BYTES_MAX;
}

static uint64_t rows_of(const struct tensor_spec *specs, uint32_t n, uint64_t most)
{
    uint64_t bytes;
    for (uint32_t i = 0; i < n; i++)
        if (tensor_spec_row_bytes(&specs[i], &bytes) && bytes > 0 &&
            SONIC_FRAME_BYTES_MAX / bytes < most)
            most = SONIC_FRAME_BYTES_MAX / bytes;
    return most;
}

uint32_t model_rows_that_fit(const struct model_config *c)
{
    uint64_t rows = c->batch_max ? c->batch_max : 1;
    rows = rows_of(c->inputs, c->ninputs, rows);
    rows = rows_of(c->outputs, c->noutputs, rows);
    return rows > 0 ? (uint32_t)rows : 1;
}

// Which side of the declaration, for messages.
static const char *side(const struct model_config *c, const struct tensor_spec *specs)
{
    return specs == c->outputs ? "output" : "input";
}

// input "channels": got FP32[16000,46], the model takes FP32[1..65536,47]
static bool mismatch(const struct model_config *c, const struct tensor_spec *specs, uint32_t i,
                     const struct tensor *t, char *why, size_t size)
{
    char got[200], want[200], dims[200];
    tensor_print(got, sizeof(got), t->dtype, t->ndim, t->dims);
    tensor_spec_print(want, sizeof(want), &specs[i], false);
    if (c->batch_max > 0) {
        snprintf(dims, sizeof(dims), "%s", strchr(want, '[') + 1);
        snprintf(want, sizeof(want), "%s[1..%u%s%.160s", dtype_name(specs[i].dtype), c->batch_max,
                 specs[i].ndim ? "," : "", dims);
    }
    snprintf(why, size, "%s \"%s\": got %s, the model %s %s", side(c, specs), specs[i].name, got,
             specs == c->outputs ? "gives" : "takes", want);
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
        snprintf(why, size, "%u %s%s came, the model has %u", ntensors, side(c, specs),
                 ntensors == 1 ? "" : "s", nspecs);
        return false;
    }
    for (uint32_t i = 0; i < ntensors; i++) {
        const struct tensor *t = &tensors[i];
        if (!fits_spec(c, &specs[i], t))
            return mismatch(c, specs, i, t, why, size);
        if (c->batch_max > 0 && i == 0)
            n = t->dims[0];
        if (c->batch_max > 0 && t->dims[0] != n) {
            snprintf(why, size, "%s \"%s\" has %" PRIu64 " rows, \"%s\" has %" PRIu64,
                     side(c, specs), specs[i].name, t->dims[0], specs[0].name, n);
            return false;
        }
        if (t->bytes > SONIC_FRAME_BYTES_MAX || !checked_add(total, t->bytes, &total)) {
            snprintf(why, size, "%s \"%s\" is over %llu bytes: send fewer rows at once",
                     side(c, specs), specs[i].name, SONIC_FRAME_BYTES_MAX);
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

static bool spec_is_sound(struct tensor_spec *s, bool batched, const char *what, char *why,
                          size_t size)
{
    if (!name_is_label(s->name, strnlen(s->name, sizeof(s->name)))) {
        snprintf(why, size, "an %s has no usable name", what);
        return false;
    }
    if (dtype_bytes(s->dtype) == 0 || s->ndim + (batched ? 1u : 0u) > SONIC_DIMS_MAX) {
        snprintf(why, size, "%s \"%s\" is of no known type or has over %u dimensions", what,
                 s->name, SONIC_DIMS_MAX - batched);
        return false;
    }
    for (unsigned k = 0; k < s->ndim; k++) {
        if (s->dims[k] == 0 || s->dims[k] > MODEL_DIM_MAX) {
            snprintf(why, size, "%s \"%s\" has a dimension of %" PRId64, what, s->name, s->dims[k]);
            return false;
        }
        s->dims[k] = s->dims[k] < 0 ? -1 : s->dims[k];
    }
    if (model_row_fits(s))
        return true;
    snprintf(why, size, "one row of %s \"%s\" is over %llu bytes", what, s->name,
             SONIC_FRAME_BYTES_MAX);
    return false;
}

static bool specs_from_wire(const struct wire_specs *in, bool batched, const char *what,
                            struct tensor_spec *specs, uint32_t *n, char *why, size_t size)
{
    if (in->n == 0 || in->n > SONIC_TENSORS_MAX) {
        snprintf(why, size, "%u %ss are declared; 1 to %u are possible", in->n, what,
                 SONIC_TENSORS_MAX);
        return false;
    }
    *n = in->n;
    memcpy(specs, in->at, in->n * sizeof(*specs));
    for (uint32_t i = 0; i < in->n; i++) {
        if (!spec_is_sound(&specs[i], batched, what, why, size))
            return false;
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(specs[i].name, specs[k].name) == 0) {
                snprintf(why, size, "two %ss are named \"%s\"", what, specs[i].name);
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

static bool numbers_are_sound(const struct model_config *c, char *why, size_t size)
{
    uint32_t most = c->batch_max ? c->batch_max : 1;
    uint32_t levels = c->priority_levels ? c->priority_levels : 1;
    if (c->batch_max > MODEL_BATCH_MAX || c->default_rows > most) {
        snprintf(why, size, "max_batch_size is %u, rows by default are %u", c->batch_max,
                 c->default_rows);
        return false;
    }
    for (uint32_t i = 0; i < c->npreferred; i++)
        if (c->preferred[i] == 0 || c->preferred[i] > c->batch_max) {
            snprintf(why, size, "preferred_batch_size %u is not within max_batch_size %u",
                     c->preferred[i], c->batch_max);
            return false;
        }
    if (levels > SONIC_PRIORITY_LEVELS_MAX || c->default_priority > levels) {
        snprintf(why, size, "default_priority_level %u is not within priority_levels %u",
                 c->default_priority, c->priority_levels);
        return false;
    }
    if (c->queue_delay_us > MODEL_TIME_US_MAX || c->default_deadline_us > MODEL_TIME_US_MAX) {
        snprintf(why, size, "a delay or timeout is over a day");
        return false;
    }
    return true;
}

// The numbers of an item of either kind; names and specs are verified apart.
#define NUMBERS_FROM_WIRE(item, c)                                                                 \
    memset((c), 0, sizeof(*(c)));                                                                  \
    (c)->version = (item)->version;                                                                \
    (c)->batch_max = (item)->batch_max;                                                            \
    (c)->default_rows = (item)->default_rows ? (item)->default_rows : 1;                           \
    (c)->queue_delay_us = (item)->queue_delay_us;                                                  \
    (c)->npreferred =                                                                              \
        (item)->preferred.n < SONIC_PREFERRED_MAX ? (item)->preferred.n : SONIC_PREFERRED_MAX;     \
    memcpy((c)->preferred, (item)->preferred.at, (c)->npreferred * sizeof(uint32_t));              \
    (c)->priority_levels = (item)->priority_levels;                                                \
    (c)->default_priority = (item)->default_priority;                                              \
    (c)->default_deadline_us = (item)->default_deadline_us;                                        \
    (c)->queue_max = (item)->queue_max

static bool declarations_from_wire(struct wire_str name, const struct wire_specs *inputs,
                                   const struct wire_specs *outputs, struct model_config *c,
                                   char *why, size_t size)
{
    bool batched = c->batch_max > 0;
    return name_from_wire(name, c, why, size) && numbers_are_sound(c, why, size) &&
           specs_from_wire(inputs, batched, "input", c->inputs, &c->ninputs, why, size) &&
           specs_from_wire(outputs, batched, "output", c->outputs, &c->noutputs, why, size);
}

bool model_config_from_wire(const struct wire_join_item *item, struct model_config *c, char *why,
                            size_t size)
{
    NUMBERS_FROM_WIRE(item, c);
    return declarations_from_wire(item->name, &item->inputs, &item->outputs, c, why, size);
}

bool model_config_from_catalog(const struct wire_catalog_item *item, struct model_config *c,
                               char *why, size_t size)
{
    NUMBERS_FROM_WIRE(item, c);
    return declarations_from_wire(item->name, &item->inputs, &item->outputs, c, why, size);
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
