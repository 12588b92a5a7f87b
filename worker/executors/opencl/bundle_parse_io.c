// SPDX-License-Identifier: Apache-2.0
// The manifest's inputs and outputs: how tensors become buffers and back.
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "worker/executors/opencl/bundle_parse.h"

// A tensor, and the bundle whose buffers it names.
struct io_draft {
    struct bundle_io io;
    const struct bundle *bundle;
    bool input;
};

static bool take_tensor(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct io_draft *d = into;
    (void)i;
    return rules_string(r, f, d->io.tensor, sizeof(d->io.tensor));
}

static bool take_io_buffer(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct io_draft *d = into;
    (void)i;
    return bundle_find_buffer(r, f, d->bundle, &d->io.buffer);
}

static bool take_type(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    static const char *const TYPES[] = {"INT8", "UINT8", "INT16", "UINT16", "FP32", NULL};
    static const uint8_t DTYPES[] = {SONIC_INT8, SONIC_UINT8, SONIC_INT16, SONIC_UINT16,
                                     SONIC_FP32};
    unsigned type;
    (void)i;
    if (!rules_word(r, f, TYPES, &type))
        return false;
    ((struct io_draft *)into)->io.type = DTYPES[type];
    return true;
}

static bool take_stride(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_u64(r, f, BUNDLE_BUFFER_BYTES_MAX, &((struct io_draft *)into)->io.stride);
}

static bool take_rounding(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    static const char *const WORDS[] = {"NEAREST", "FLOOR", NULL};
    unsigned word;
    (void)i;
    if (!rules_word(r, f, WORDS, &word))
        return false;
    ((struct io_draft *)into)->io.floor = word == 1;
    return true;
}

// Several of them: one an element.
static bool take_scale(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct io_draft *d = into;
    (void)i;
    if (d->input && d->io.nscales == 1)
        return rules_fail(r, f, "scale is given a second time");
    float *scale =
        bundle_append(r, f, &d->io.scales, &d->io.nscales, BUNDLE_COLUMNS_MAX, sizeof(*scale));
    return scale && bundle_take_float(r, f, scale);
}

static bool take_offset(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_float(r, f, &((struct io_draft *)into)->io.offset);
}

static bool take_min(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_float(r, f, &((struct io_draft *)into)->io.min);
}

static bool take_max(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_float(r, f, &((struct io_draft *)into)->io.max);
}

static bool take_column_from(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return rules_u32(r, f, UINT32_MAX, &((struct bundle_column *)into)->from);
}

static bool take_column_to(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return rules_u32(r, f, UINT32_MAX, &((struct bundle_column *)into)->to);
}

static bool take_column_scale(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_float(r, f, &((struct bundle_column *)into)->scale);
}

static bool take_column_offset(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_float(r, f, &((struct bundle_column *)into)->offset);
}

static bool take_column(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    static const struct rule COLUMN[] = {{"from", take_column_from, RULE_ONCE},
                                         {"to", take_column_to, RULE_ONCE},
                                         {"scale", take_column_scale, RULE_ONCE},
                                         {"offset", take_column_offset, RULE_ONCE},
                                         BUNDLE_RULES_END};
    struct io_draft *d = into;
    struct bundle_column *c =
        bundle_append(r, f, &d->io.columns, &d->io.ncolumns, BUNDLE_COLUMNS_MAX, sizeof(*c));
    if (!c)
        return false;
    c->scale = 1;
    return rules_walk(r, i, COLUMN, c);
}

static bool take_index_from(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return rules_u32(r, f, UINT32_MAX, &((struct bundle_index *)into)->from);
}

static bool take_index_count(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    // What is stored is a place, in the smallest type.
    return rules_u32(r, f, INT8_MAX, &((struct bundle_index *)into)->count);
}

static bool take_index_to(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return rules_u32(r, f, UINT32_MAX, &((struct bundle_index *)into)->to);
}

static bool take_index(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    static const struct rule INDEX[] = {{"from", take_index_from, RULE_ONCE},
                                        {"count", take_index_count, RULE_ONCE},
                                        {"to", take_index_to, RULE_ONCE},
                                        BUNDLE_RULES_END};
    struct io_draft *d = into;
    if (d->io.nindices == BUNDLE_INDICES_MAX)
        return rules_fail(r, f, "more than %u indices", BUNDLE_INDICES_MAX);
    return rules_walk(r, i, INDEX, &d->io.indices[d->io.nindices++]);
}

static const struct rule INPUT[] = {
    {"tensor", take_tensor, RULE_ONCE},     {"buffer", take_io_buffer, RULE_ONCE},
    {"type", take_type, RULE_ONCE},         {"stride", take_stride, RULE_ONCE},
    {"rounding", take_rounding, RULE_ONCE}, {"scale", take_scale, RULE_MANY},
    {"offset", take_offset, RULE_ONCE},     {"column", take_column, RULE_MANY},
    {"index", take_index, RULE_MANY},       BUNDLE_RULES_END};

static const struct rule OUTPUT[] = {{"tensor", take_tensor, RULE_ONCE},
                                     {"buffer", take_io_buffer, RULE_ONCE},
                                     {"type", take_type, RULE_ONCE},
                                     {"stride", take_stride, RULE_ONCE},
                                     {"scale", take_scale, RULE_MANY},
                                     {"offset", take_offset, RULE_ONCE},
                                     {"min", take_min, RULE_ONCE},
                                     {"max", take_max, RULE_ONCE},
                                     BUNDLE_RULES_END};

bool bundle_take_io(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct bundle *b = into;
    bool input = strcmp(f->name, "input") == 0;
    struct bundle_io *list = input ? b->inputs : b->outputs;
    uint32_t *n = input ? &b->ninputs : &b->noutputs;
    struct io_draft d = {.io = {.scale = 1, .min = -FLT_MAX, .max = FLT_MAX, .buffer = UINT32_MAX},
                         .bundle = b,
                         .input = input};
    if (*n == SONIC_TENSORS_MAX)
        return rules_fail(r, f, "more than %u of %s", SONIC_TENSORS_MAX, f->name);
    bool taken = rules_walk(r, i, input ? INPUT : OUTPUT, &d);
    if (d.io.nscales == 1) {
        d.io.scale = d.io.scales[0];
        d.io.nscales = 0;
        free(d.io.scales);
        d.io.scales = NULL;
    }
    list[(*n)++] = d.io; // owns the lists now, also when it is refused
    if (!taken)
        return false;
    if (!d.io.tensor[0] || d.io.buffer == UINT32_MAX || d.io.type == SONIC_DTYPE_INVALID)
        return rules_fail(r, f, "%s needs a tensor, a buffer and a type", f->name);
    return true;
}
