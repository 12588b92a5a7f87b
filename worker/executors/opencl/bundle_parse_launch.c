// SPDX-License-Identifier: Apache-2.0
// The manifest's plan: kernel launches with their arguments and sizes.
#include <string.h>

#include "worker/executors/opencl/bundle_parse.h"

struct launch_draft {
    struct bundle_launch *launch;
    const struct bundle *bundle;
};

struct arg_draft {
    struct bundle_arg arg;
    const struct bundle *bundle;
    uint32_t given;
};

static bool take_kernel(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    return bundle_take_label(r, f, ((struct launch_draft *)into)->launch->kernel);
}

static bool take_arg_buffer(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct arg_draft *a = into;
    (void)i;
    a->given++;
    a->arg.kind = BUNDLE_ARG_BUFFER;
    return bundle_find_buffer(r, f, a->bundle, &a->arg.is.buffer);
}

static bool take_arg_int(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct arg_draft *a = into;
    long long v;
    (void)i;
    a->given++;
    a->arg.kind = BUNDLE_ARG_INT;
    if (!rules_number(r, f, INT32_MIN, INT32_MAX, &v))
        return false;
    a->arg.is.integer = (int32_t)v;
    return true;
}

static bool take_arg_float(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct arg_draft *a = into;
    (void)i;
    a->given++;
    a->arg.kind = BUNDLE_ARG_FLOAT;
    return bundle_take_float(r, f, &a->arg.is.real);
}

static bool take_arg_local(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct arg_draft *a = into;
    (void)i;
    a->given++;
    a->arg.kind = BUNDLE_ARG_LOCAL;
    return rules_u32(r, f, 1u << 24, &a->arg.is.local_bytes);
}

bool bundle_take_true(struct rules *r, bundle_field f)
{
    static const char *const WORDS[] = {"true", NULL};
    unsigned word;
    return rules_word(r, f, WORDS, &word);
}

static bool take_arg_rows(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct arg_draft *a = into;
    (void)i;
    a->given++;
    a->arg.kind = BUNDLE_ARG_ROWS;
    return bundle_take_true(r, f);
}

static bool take_arg(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    static const struct rule ARG[] = {
        {"buffer", take_arg_buffer, RULE_ONCE}, {"int", take_arg_int, RULE_ONCE},
        {"float", take_arg_float, RULE_ONCE},   {"local", take_arg_local, RULE_ONCE},
        {"rows", take_arg_rows, RULE_ONCE},     BUNDLE_RULES_END};
    const struct launch_draft *d = into;
    struct arg_draft a = {.bundle = d->bundle};
    if (d->launch->nargs == BUNDLE_ARGS_MAX)
        return rules_fail(r, f, "more than %u args", BUNDLE_ARGS_MAX);
    if (!rules_walk(r, i, ARG, &a))
        return false;
    d->launch->args[d->launch->nargs++] = a.arg;
    return a.given == 1 || rules_fail(r, f, "an arg is one of buffer, int, float, local, rows");
}

static bool take_size(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct bundle_size *s = into;
    (void)i;
    return bundle_take_u64(r, f, UINT32_MAX, &s->size);
}

static bool take_size_rows(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    ((struct bundle_size *)into)->rows = true;
    return bundle_take_true(r, f);
}

static bool take_global(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    static const struct rule SIZE[] = {
        {"size", take_size, RULE_ONCE}, {"rows", take_size_rows, RULE_ONCE}, BUNDLE_RULES_END};
    struct bundle_launch *l = ((struct launch_draft *)into)->launch;
    if (l->nglobal == 3)
        return rules_fail(r, f, "more than three dimensions");
    struct bundle_size *s = &l->global[l->nglobal++];
    return rules_walk(r, i, SIZE, s) && (s->size > 0 || rules_fail(r, f, "global needs a size"));
}

static bool take_local(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    struct bundle_launch *l = ((struct launch_draft *)into)->launch;
    (void)i;
    if (l->nlocal == 3)
        return rules_fail(r, f, "more than three dimensions");
    if (!bundle_take_u64(r, f, 1u << 20, &l->local[l->nlocal]))
        return false;
    return l->local[l->nlocal++] > 0 || rules_fail(r, f, "a local size is at least 1");
}

static bool take_concurrent(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    (void)i;
    ((struct launch_draft *)into)->launch->concurrent = true;
    return bundle_take_true(r, f);
}

// Launches that run at the same time get a lane each.
static bool choose_lane(struct rules *r, bundle_field f, struct bundle *b)
{
    struct bundle_launch *l = &b->launches[b->nlaunches - 1];
    if (!l->concurrent)
        return true;
    if (b->nlaunches == 1)
        return rules_fail(r, f, "the first launch has none before it to run with");
    if (l[-1].lane == 0)
        l[-1].lane = 1;
    l->lane = l[-1].lane + 1;
    if (l->lane > BUNDLE_LANES_MAX)
        return rules_fail(r, f, "more than %u launches at the same time", BUNDLE_LANES_MAX);
    if (b->nlanes < l->lane)
        b->nlanes = l->lane;
    return true;
}

bool bundle_take_launch(struct rules *r, bundle_field f, uint32_t i, void *into)
{
    static const struct rule LAUNCH[] = {
        {"kernel", take_kernel, RULE_ONCE},         {"arg", take_arg, RULE_MANY},
        {"global", take_global, RULE_MANY},         {"local", take_local, RULE_MANY},
        {"concurrent", take_concurrent, RULE_ONCE}, BUNDLE_RULES_END};
    struct bundle *b = into;
    struct bundle_launch *l =
        bundle_append(r, f, &b->launches, &b->nlaunches, BUNDLE_LAUNCHES_MAX, sizeof(*l));
    struct launch_draft d = {l, b};
    if (!l || !rules_walk(r, i, LAUNCH, &d))
        return false;
    if (!l->kernel[0])
        return rules_fail(r, f, "a launch needs a kernel");
    if (l->nlocal && l->nlocal != l->nglobal)
        return rules_fail(r, f, "%u local sizes for %u global ones", l->nlocal, l->nglobal);
    for (uint32_t k = 0; k < l->nlocal; k++)
        if (l->global[k].size % l->local[k] != 0)
            return rules_fail(r, f, "global size %llu is no multiple of local size %llu",
                              (unsigned long long)l->global[k].size,
                              (unsigned long long)l->local[k]);
    return choose_lane(r, f, b);
}
