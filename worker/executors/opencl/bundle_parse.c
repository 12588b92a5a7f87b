// SPDX-License-Identifier: Apache-2.0
// bundle.pbtxt into struct bundle: a table for each message, with who takes each field.
#include "worker/executors/opencl/bundle_parse.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/checked.h"

void *bundle_append(struct rules *r, bundle_field f, void *list, uint32_t *n, uint32_t max,
                    size_t bytes)
{
    void **at = list;
    if (*n == max) {
        rules_fail(r, f, "more than %u of %s", max, f->name);
        return NULL;
    }
    // Grown by powers of two: when n is one, the room is used up.
    if ((*n & (*n - 1)) == 0) {
        void *grown = realloc(*at, (*n ? *n * 2u : 1u) * bytes);
        if (!grown) {
            rules_fail(r, f, "out of memory");
            return NULL;
        }
        *at = grown;
    }
    void *item = (char *)*at + *n * bytes;
    memset(item, 0, bytes);
    ++*n;
    return item;
}

bool bundle_take_u64(struct rules *r, bundle_field f, uint64_t max, uint64_t *out)
{
    long long v;
    if (!rules_number(r, f, 0, (long long)max, &v))
        return false;
    *out = (uint64_t)v;
    return true;
}

bool bundle_take_label(struct rules *r, bundle_field f, char *out)
{
    if (!rules_string(r, f, out, BUNDLE_NAME_MAX + 1))
        return false;
    if (!out[0] || strchr(out, '/'))
        return rules_fail(r, f, "%s takes a name without slashes", f->name);
    return true;
}

bool bundle_find_buffer(struct rules *r, bundle_field f, const struct bundle *b, uint32_t *out)
{
    char name[BUNDLE_NAME_MAX + 1];
    if (!rules_string(r, f, name, sizeof(name)))
        return false;
    for (uint32_t i = 0; i < b->nbuffers; i++)
        if (strcmp(b->buffers[i].name, name) == 0) {
            *out = i;
            return true;
        }
    return rules_fail(r, f, "there is no buffer \"%s\" above this line", name);
}

bool bundle_take_float(struct rules *r, bundle_field f, float *out)
{
    char *end = NULL;
    float v = f->kind == PBTXT_NUMBER ? strtof(f->value, &end) : 0;
    if (f->kind != PBTXT_NUMBER || *end || !isfinite(v))
        return rules_fail(r, f, "%s takes a number", f->name);
    *out = v;
    return true;
}

// ---- program ------------------------------------------------------------------------------------

static bool take_platform(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return rules_string(r, f, ((struct bundle_program *)into)->platform, BUNDLE_NAME_MAX + 1);
}

static bool take_device(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return rules_string(r, f, ((struct bundle_program *)into)->device, BUNDLE_NAME_MAX + 1);
}

static bool take_program_file(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct bundle_program *p = into;
    (void)i;
    if (p->file[0])
        return rules_fail(r, f, "a program has a source or a binary, once");
    p->source = strcmp(f->name, "source") == 0;
    return bundle_take_label(r, f, p->file);
}

static bool take_options(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct bundle_program *p = into;
    (void)i;
    return rules_string(r, f, p->options, sizeof(p->options));
}

static bool take_unit(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct bundle_program *p = into;
    (void)i;
    if (p->nunits == BUNDLE_UNITS_MAX)
        return rules_fail(r, f, "more than %u units", BUNDLE_UNITS_MAX);
    return bundle_take_label(r, f, p->units[p->nunits++]);
}

static bool take_unchecked(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    ((struct bundle_program *)into)->unchecked = true;
    return bundle_take_true(r, f);
}

static bool take_program(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    static const struct rule PROGRAM[] = {
        {"platform", take_platform, RULE_ONCE},   {"device", take_device, RULE_ONCE},
        {"source", take_program_file, RULE_ONCE}, {"binary", take_program_file, RULE_ONCE},
        {"options", take_options, RULE_ONCE},     {"units", take_unit, RULE_MANY},
        {"unchecked", take_unchecked, RULE_ONCE}, BUNDLE_RULES_END};
    struct bundle *b = into;
    if (b->nprograms == BUNDLE_PROGRAMS_MAX)
        return rules_fail(r, f, "more than %u programs", BUNDLE_PROGRAMS_MAX);
    struct bundle_program *p = &b->programs[b->nprograms++];
    if (!rules_walk(r, i, PROGRAM, p))
        return false;
    return p->file[0] || rules_fail(r, f, "a program needs a source or a binary");
}

// ---- buffer -------------------------------------------------------------------------------------

static bool take_buffer_name(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_label(r, f, ((struct bundle_buffer *)into)->name);
}

static bool take_use(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    static const char *const USES[] = {"INPUT", "OUTPUT", "WEIGHTS", "SCRATCH", NULL};
    unsigned use;
    (void)i;
    if (!rules_word(r, f, USES, &use))
        return false;
    ((struct bundle_buffer *)into)->use = (enum bundle_use)use;
    return true;
}

static bool take_bytes(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_u64(r, f, BUNDLE_BUFFER_BYTES_MAX, &((struct bundle_buffer *)into)->bytes);
}

static bool take_buffer_offset(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_u64(r, f, BUNDLE_BUFFER_BYTES_MAX, &((struct bundle_buffer *)into)->offset);
}

static bool take_bank(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct bundle_buffer *x = into;
    (void)i;
    if (x->nbanks == BUNDLE_UNITS_MAX)
        return rules_fail(r, f, "more than %u banks", BUNDLE_UNITS_MAX);
    return rules_u32(r, f, 255, &x->banks[x->nbanks++]);
}

static bool take_buffer(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    static const struct rule BUFFER[] = {
        {"name", take_buffer_name, RULE_ONCE}, {"use", take_use, RULE_ONCE},
        {"bytes", take_bytes, RULE_ONCE},      {"offset", take_buffer_offset, RULE_ONCE},
        {"bank", take_bank, RULE_MANY},        BUNDLE_RULES_END};
    struct bundle *b = into;
    struct bundle_buffer *x =
        bundle_append(r, f, &b->buffers, &b->nbuffers, BUNDLE_BUFFERS_MAX, sizeof(*x));
    if (!x || !rules_walk(r, i, BUFFER, x))
        return false;
    if (!x->name[0] || x->bytes == 0)
        return rules_fail(r, f, "a buffer needs a name and bytes");
    for (uint32_t k = 0; k + 1 < b->nbuffers; k++)
        if (strcmp(b->buffers[k].name, x->name) == 0)
            return rules_fail(r, f, "there is a buffer \"%s\" already", x->name);
    return true;
}

// ---- the file -----------------------------------------------------------------------------------

static bool take_rows(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return rules_u32(r, f, BUNDLE_ROWS_MAX, &((struct bundle *)into)->rows);
}

static bool take_weights(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_label(r, f, ((struct bundle *)into)->weights);
}

static const struct rule BUNDLE[] = {{"rows", take_rows, RULE_ONCE},
                                     {"program", take_program, RULE_MANY},
                                     {"weights", take_weights, RULE_ONCE},
                                     {"buffer", take_buffer, RULE_MANY},
                                     {"input", bundle_take_io, RULE_MANY},
                                     {"output", bundle_take_io, RULE_MANY},
                                     {"launch", bundle_take_launch, RULE_MANY},
                                     BUNDLE_RULES_END};

// What only the whole file shows.
static bool complete(const struct bundle *b, const char *path, char *why, size_t size)
{
    uint64_t sum = 0, bytes;
    const char *missing = b->rows == 0        ? "rows"
                          : b->nprograms == 0 ? "a program"
                          : b->nlaunches == 0 ? "a launch"
                          : b->ninputs == 0   ? "an input"
                          : b->noutputs == 0  ? "an output"
                                              : NULL;
    if (missing) {
        snprintf(why, size, "%s: %s is missing", path, missing);
        return false;
    }
    for (uint32_t i = 0; i < b->nbuffers; i++) {
        if (b->buffers[i].use == BUNDLE_WEIGHTS && !b->weights[0]) {
            snprintf(why, size, "%s: buffer \"%s\" is of weights, and no weights file is named",
                     path, b->buffers[i].name);
            return false;
        }
        if (!checked_align(b->buffers[i].bytes, 4096, &bytes) || !checked_add(sum, bytes, &sum) ||
            sum > BUNDLE_BUFFER_BYTES_MAX) {
            snprintf(why, size, "%s: its buffers are over %llu bytes together", path,
                     (unsigned long long)BUNDLE_BUFFER_BYTES_MAX);
            return false;
        }
    }
    return true;
}

int bundle_parse(const char *text, size_t len, const char *path, struct bundle *b, char *why,
                 size_t size)
{
    struct pbtxt p;
    int rc = pbtxt_parse(text, len, path, &p, why, size);
    if (rc != 0)
        return rc;
    struct rules r = {.text = &p, .path = path, .why = why, .size = size};
    bool ok = rules_walk(&r, RULES_TOP, BUNDLE, b) && complete(b, path, why, size);
    pbtxt_deinit(&p);
    return ok ? 0 : -EINVAL;
}
