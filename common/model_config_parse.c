// SPDX-License-Identifier: Apache-2.0
// config.pbtxt into struct model_config. Each message has a table of the fields we honour; a field
// of Triton's that we do not honour is reported with its line, a name that is no field is an error.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model_config.h"
#include "common/model_repository.h"
#include "common/name.h"
#include "common/pbtxt.h"

struct parser {
    const struct pbtxt *text;
    const char *path;
    struct model_config *config;
    model_warn_fn warn;
    void *user;
    char *why;
    size_t size;
};

static bool fail(struct parser *p, const struct pbtxt_field *f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool fail(struct parser *p, const struct pbtxt_field *f, const char *fmt, ...)
{
    int n = snprintf(p->why, p->size, "%s:%u:%u: ", p->path, f->line, f->column);
    va_list ap;
    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < p->size)
        vsnprintf(p->why + n, p->size - (size_t)n, fmt, ap);
    va_end(ap);
    return false;
}

static void report(struct parser *p, const struct pbtxt_field *f, const char *what)
{
    char line[512];
    snprintf(line, sizeof(line), "%s:%u: %s %s", p->path, f->line, f->name, what);
    if (p->warn)
        p->warn(line, p->user);
}

// ---- values -------------------------------------------------------------------------------------

static bool number(struct parser *p, const struct pbtxt_field *f, long long min, long long max,
                   long long *out)
{
    char *end;
    errno = 0;
    long long v = f->kind == PBTXT_NUMBER ? strtoll(f->value, &end, 0) : 0;
    if (f->kind != PBTXT_NUMBER || errno || *end)
        return fail(p, f, "%s takes a whole number", f->name);
    if (v < min || v > max)
        return fail(p, f, "%s is %s; %lld to %lld is possible", f->name, f->value, min, max);
    *out = v;
    return true;
}

static bool u32(struct parser *p, const struct pbtxt_field *f, uint32_t max, uint32_t *out)
{
    long long v = 0;
    if (!number(p, f, 0, max, &v))
        return false;
    *out = (uint32_t)v;
    return true;
}

static bool u64(struct parser *p, const struct pbtxt_field *f, uint64_t *out)
{
    long long v = 0;
    if (!number(p, f, 0, 86400000000ll, &v)) // a day in microseconds
        return false;
    *out = (uint64_t)v;
    return true;
}

static bool string(struct parser *p, const struct pbtxt_field *f, char *out, size_t size)
{
    if (f->kind != PBTXT_STRING)
        return fail(p, f, "%s takes text in quotes", f->name);
    if (strlen(f->value) >= size)
        return fail(p, f, "%s is longer than %zu characters", f->name, size - 1);
    memcpy(out, f->value, strlen(f->value) + 1);
    return true;
}

// ---- walking ------------------------------------------------------------------------------------

typedef bool (*field_fn)(struct parser *p, const struct pbtxt_field *f, uint32_t index, void *into);

struct rule {
    const char *name;
    field_fn take; // NULL: a field of Triton's that we do not honour
};

static unsigned distance(const char *a, const char *b)
{
    // Levenshtein over two rows; names are at most 63 characters.
    unsigned row[64], n = (unsigned)strlen(b);
    for (unsigned j = 0; j <= n && j < 64; j++)
        row[j] = j;
    for (unsigned i = 1; a[i - 1]; i++) {
        unsigned corner = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= n; j++) {
            unsigned change = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            unsigned least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = change < least ? change : least;
        }
    }
    return row[n];
}

static bool unknown(struct parser *p, const struct pbtxt_field *f, const struct rule *rules)
{
    const char *nearest = NULL;
    unsigned least = 4;
    for (const struct rule *r = rules; r->name; r++)
        if (distance(f->name, r->name) < least) {
            least = distance(f->name, r->name);
            nearest = r->name;
        }
    if (nearest)
        return fail(p, f, "there is no field \"%s\" here; did you mean %s?", f->name, nearest);
    return fail(p, f, "there is no field \"%s\" here", f->name);
}

// Applies the rules to the fields of the message at `index` (UINT32_MAX: the top level).
static bool walk(struct parser *p, uint32_t index, const struct rule *rules, void *into)
{
    const struct pbtxt *t = p->text;
    bool top = index == UINT32_MAX;
    if (!top && t->fields[index].kind != PBTXT_MESSAGE)
        return fail(p, &t->fields[index], "%s takes { ... }", t->fields[index].name);
    uint32_t depth = top ? 0 : t->fields[index].depth + 1;
    for (uint32_t i = top ? 0 : index + 1; i < t->n && t->fields[i].depth >= depth; i++) {
        const struct pbtxt_field *f = &t->fields[i];
        const struct rule *r = rules;
        if (f->depth > depth)
            continue;
        while (r->name && strcmp(r->name, f->name) != 0)
            r++;
        if (!r->name)
            return unknown(p, f, rules);
        if (!r->take)
            report(p, f, "is not honoured by SONIC");
        else if (!r->take(p, f, i, into))
            return false;
    }
    return true;
}

// ---- inputs and outputs -------------------------------------------------------------------------

struct io {
    struct tensor_spec spec;
    struct tensor_spec runtime;
    bool reshaped;
};

static bool take_io_name(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct io *io = into;
    (void)i;
    if (!string(p, f, io->spec.name, sizeof(io->spec.name)))
        return false;
    if (!name_is_label(io->spec.name, strlen(io->spec.name)))
        return fail(p, f, "a tensor's name is printable, without spaces or quotes");
    return true;
}

static bool take_io_type(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct io *io = into;
    (void)i;
    io->spec.dtype = (uint8_t)(f->kind == PBTXT_IDENT ? dtype_parse(f->value) : 0);
    if (strcmp(f->value, "TYPE_STRING") == 0)
        return fail(p, f, "TYPE_STRING tensors are not served: send numbers");
    if (io->spec.dtype == SONIC_DTYPE_INVALID)
        return fail(p, f, "data_type is %s; TYPE_FP32, TYPE_INT8, TYPE_UINT16, ... are possible",
                    f->value);
    return true;
}

static bool add_dim(struct parser *p, const struct pbtxt_field *f, struct tensor_spec *spec)
{
    long long v = 0;
    if (!number(p, f, -1, 1ll << 40, &v))
        return false;
    if (v == 0)
        return fail(p, f, "a dimension is -1 (any) or at least 1");
    if (spec->ndim == SONIC_DIMS_MAX - 1) // one is left for the batch
        return fail(p, f, "more than %u dimensions", SONIC_DIMS_MAX - 1);
    spec->dims[spec->ndim++] = v;
    return true;
}

static bool take_io_dim(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return add_dim(p, f, &((struct io *)into)->spec);
}

static bool take_shape_dim(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return add_dim(p, f, &((struct io *)into)->runtime);
}

static bool take_reshape(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const struct rule rules[] = {{"shape", take_shape_dim}, {NULL, NULL}};
    struct io *io = into;
    (void)f;
    io->reshaped = true;
    io->runtime.ndim = 0;
    return walk(p, i, rules, io);
}

static uint64_t elements(const struct tensor_spec *s)
{
    uint64_t n = 1;
    for (unsigned i = 0; i < s->ndim; i++)
        n *= s->dims[i] > 0 ? (uint64_t)s->dims[i] : 1;
    return n;
}

static bool finish_io(struct parser *p, const struct pbtxt_field *f, struct io *io)
{
    uint64_t bytes;
    if (!io->spec.name[0] || !io->spec.dtype || !io->spec.ndim)
        return fail(p, f, "%s needs a name, a data_type and dims", f->name);
    if (!io->reshaped) {
        io->runtime = io->spec;
        return true;
    }
    memcpy(io->runtime.name, io->spec.name, sizeof(io->spec.name));
    io->runtime.dtype = io->spec.dtype;
    if (!tensor_spec_row_bytes(&io->spec, &bytes) || elements(&io->spec) != elements(&io->runtime))
        return fail(p, f, "reshape of \"%s\" needs fixed dims with the same number of elements",
                    io->spec.name);
    return true;
}

static bool take_io(struct parser *p, const struct pbtxt_field *f, uint32_t index,
                    struct tensor_spec *specs, struct tensor_spec *runtime, uint32_t *n)
{
    static const struct rule rules[] = {{"name", take_io_name},
                                        {"data_type", take_io_type},
                                        {"dims", take_io_dim},
                                        {"reshape", take_reshape},
                                        {"format", NULL},
                                        {"label_filename", NULL},
                                        {"is_shape_tensor", NULL},
                                        {"allow_ragged_batch", NULL},
                                        {"optional", NULL},
                                        {"is_non_linear_format_io", NULL},
                                        {NULL, NULL}};
    struct io io = {0};
    if (*n == SONIC_TENSORS_MAX)
        return fail(p, f, "more than %u %ss", SONIC_TENSORS_MAX, f->name);
    if (!walk(p, index, rules, &io) || !finish_io(p, f, &io))
        return false;
    for (uint32_t i = 0; i < *n; i++)
        if (strcmp(specs[i].name, io.spec.name) == 0)
            return fail(p, f, "there are two %ss named \"%s\"", f->name, io.spec.name);
    specs[*n] = io.spec;
    runtime[*n] = io.runtime;
    (*n)++;
    return true;
}

static bool take_input(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_config *c = into;
    return take_io(p, f, i, c->inputs, c->runtime_inputs, &c->ninputs);
}

static bool take_output(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_config *c = into;
    return take_io(p, f, i, c->outputs, c->runtime_outputs, &c->noutputs);
}

// ---- instance groups ----------------------------------------------------------------------------

static bool take_kind(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const char *const kinds[] = {"KIND_AUTO", "KIND_CPU", "KIND_GPU", "KIND_FPGA"};
    struct model_instances *g = into;
    (void)i;
    for (unsigned k = 0; k < 4; k++)
        if (strcmp(f->value, kinds[k]) == 0) {
            g->kind = (enum instance_kind)k;
            return true;
        }
    return fail(p, f, "kind is %s; KIND_AUTO, KIND_CPU, KIND_GPU and KIND_FPGA are possible",
                f->value);
}

static bool take_count(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return u32(p, f, 4096, &((struct model_instances *)into)->count);
}

static bool take_group(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const struct rule rules[] = {{"count", take_count},
                                        {"kind", take_kind},
                                        {"name", NULL},
                                        {"gpus", NULL},
                                        {"profile", NULL},
                                        {"passive", NULL},
                                        {"rate_limiter", NULL},
                                        {"host_policy", NULL},
                                        {"secondary_devices", NULL},
                                        {NULL, NULL}};
    struct model_config *c = into;
    if (c->ngroups == MODEL_INSTANCE_GROUPS_MAX)
        return fail(p, f, "more than %u instance groups", MODEL_INSTANCE_GROUPS_MAX);
    struct model_instances *g = &c->groups[c->ngroups++];
    return walk(p, i, rules, g);
}

// ---- batching -----------------------------------------------------------------------------------

static bool take_preferred(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_config *c = into;
    (void)i;
    if (c->npreferred == SONIC_PREFERRED_MAX)
        return fail(p, f, "more than %u preferred sizes", SONIC_PREFERRED_MAX);
    return u32(p, f, 1u << 24, &c->preferred[c->npreferred++]);
}

static bool take_delay(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return u64(p, f, &((struct model_config *)into)->queue_delay_us);
}

static bool take_level(struct parser *p, const struct pbtxt_field *f, uint8_t *out)
{
    uint32_t v;
    if (!u32(p, f, SONIC_PRIORITY_LEVELS_MAX, &v))
        return false;
    *out = (uint8_t)v;
    return true;
}

static bool take_levels(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return take_level(p, f, &((struct model_config *)into)->priority_levels);
}

static bool take_default_level(struct parser *p, const struct pbtxt_field *f, uint32_t i,
                               void *into)
{
    (void)i;
    return take_level(p, f, &((struct model_config *)into)->default_priority);
}

static bool take_timeout(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return u64(p, f, &((struct model_config *)into)->default_deadline_us);
}

static bool take_queue_max(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return u32(p, f, UINT32_MAX, &((struct model_config *)into)->queue_max);
}

static bool take_timeout_action(struct parser *p, const struct pbtxt_field *f, uint32_t i,
                                void *into)
{
    (void)i;
    (void)into;
    if (strcmp(f->value, "REJECT") != 0)
        report(p, f, "is taken as REJECT: a request past its deadline is refused");
    return true;
}

static bool take_policy(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const struct rule rules[] = {{"timeout_action", take_timeout_action},
                                        {"default_timeout_microseconds", take_timeout},
                                        {"max_queue_size", take_queue_max},
                                        {"allow_timeout_override", NULL},
                                        {NULL, NULL}};
    (void)f;
    return walk(p, i, rules, into);
}

static bool take_batching(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const struct rule rules[] = {{"preferred_batch_size", take_preferred},
                                        {"max_queue_delay_microseconds", take_delay},
                                        {"priority_levels", take_levels},
                                        {"default_priority_level", take_default_level},
                                        {"default_queue_policy", take_policy},
                                        {"priority_queue_policy", NULL},
                                        {"preserve_ordering", NULL},
                                        {NULL, NULL}};
    (void)f;
    return walk(p, i, rules, into);
}

// ---- versions and parameters --------------------------------------------------------------------

static bool take_num_versions(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return u32(p, f, UINT32_MAX, &((struct model_config *)into)->version_latest);
}

static bool take_latest(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const struct rule rules[] = {{"num_versions", take_num_versions}, {NULL, NULL}};
    struct model_config *c = into;
    if (!walk(p, i, rules, into))
        return false;
    if (c->version_latest > 1)
        report(p, f, "of more than one version: only the highest is served");
    return true;
}

static bool take_version(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_config *c = into;
    (void)i;
    if (c->nversions == MODEL_VERSIONS_MAX)
        return fail(p, f, "more than %u versions", MODEL_VERSIONS_MAX);
    return u32(p, f, UINT32_MAX, &c->versions[c->nversions++]);
}

static bool take_specific(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const struct rule rules[] = {{"versions", take_version}, {NULL, NULL}};
    (void)f;
    return walk(p, i, rules, into);
}

static bool take_all_versions(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    (void)into;
    report(p, f, "versions: only the highest is served");
    return true;
}

static bool take_version_policy(struct parser *p, const struct pbtxt_field *f, uint32_t i,
                                void *into)
{
    static const struct rule rules[] = {{"latest", take_latest},
                                        {"all", take_all_versions},
                                        {"specific", take_specific},
                                        {NULL, NULL}};
    (void)f;
    return walk(p, i, rules, into);
}

static bool take_parameter_key(struct parser *p, const struct pbtxt_field *f, uint32_t i,
                               void *into)
{
    struct model_parameter *m = into;
    (void)i;
    return string(p, f, m->key, sizeof(m->key));
}

static bool take_string_value(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_parameter *m = into;
    (void)i;
    return string(p, f, m->value, sizeof(m->value));
}

static bool take_parameter_value(struct parser *p, const struct pbtxt_field *f, uint32_t i,
                                 void *into)
{
    static const struct rule rules[] = {{"string_value", take_string_value}, {NULL, NULL}};
    (void)f;
    return walk(p, i, rules, into);
}

static bool take_parameter(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const struct rule rules[] = {
        {"key", take_parameter_key}, {"value", take_parameter_value}, {NULL, NULL}};
    struct model_config *c = into;
    if (c->nparameters == MODEL_PARAMETERS_MAX)
        return fail(p, f, "more than %u parameters", MODEL_PARAMETERS_MAX);
    return walk(p, i, rules, &c->parameters[c->nparameters++]);
}

// ---- the top ------------------------------------------------------------------------------------

static bool take_name(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_config *c = into;
    (void)i;
    if (!string(p, f, c->name, sizeof(c->name)))
        return false;
    if (!name_is_model(c->name, strlen(c->name)))
        return fail(p, f, "a model's name is 1 to 64 of a-z 0-9 . _ - without a leading dot");
    return true;
}

static bool take_backend(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_config *c = into;
    (void)i;
    return string(p, f, c->backend, sizeof(c->backend));
}

static bool take_platform(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_config *c = into;
    char platform[64];
    (void)i;
    if (!string(p, f, platform, sizeof(platform)))
        return false;
    if (strcmp(platform, "onnxruntime_onnx") != 0)
        return fail(p, f,
                    "platform \"%s\" is not served; \"onnxruntime_onnx\" is, or name a "
                    "backend instead",
                    platform);
    if (!c->backend[0])
        snprintf(c->backend, sizeof(c->backend), "onnxruntime");
    return true;
}

static bool take_batch_max(struct parser *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return u32(p, f, 1u << 24, &((struct model_config *)into)->batch_max);
}

static const struct rule TOP[] = {{"name", take_name},
                                  {"platform", take_platform},
                                  {"backend", take_backend},
                                  {"max_batch_size", take_batch_max},
                                  {"input", take_input},
                                  {"output", take_output},
                                  {"instance_group", take_group},
                                  {"dynamic_batching", take_batching},
                                  {"version_policy", take_version_policy},
                                  {"parameters", take_parameter},
                                  {"default_model_filename", NULL},
                                  {"cc_model_filenames", NULL},
                                  {"metric_tags", NULL},
                                  {"model_warmup", NULL},
                                  {"model_operations", NULL},
                                  {"model_transaction_policy", NULL},
                                  {"model_repository_agents", NULL},
                                  {"optimization", NULL},
                                  {"sequence_batching", NULL},
                                  {"ensemble_scheduling", NULL},
                                  {"batch_input", NULL},
                                  {"batch_output", NULL},
                                  {"response_cache", NULL},
                                  {"model_metrics", NULL},
                                  {"runtime", NULL},
                                  {NULL, NULL}};

static bool finish(struct parser *p)
{
    struct model_config *c = p->config;
    const struct pbtxt_field top = {.line = 1, .column = 1};
    const char *rows = model_config_parameter(c, "sonic_default_batch");
    if (!c->backend[0])
        return fail(p, &top, "platform or backend is missing, such as backend: \"onnxruntime\"");
    if (c->ninputs == 0 || c->noutputs == 0)
        return fail(p, &top, "%s is missing", c->ninputs ? "output" : "input");
    for (uint32_t i = 0; i < c->npreferred; i++)
        if (c->preferred[i] == 0 || c->preferred[i] > c->batch_max)
            return fail(p, &top, "preferred_batch_size %u is not within max_batch_size %u",
                        c->preferred[i], c->batch_max);
    if (c->default_priority > (c->priority_levels ? c->priority_levels : 1))
        return fail(p, &top, "default_priority_level %u is over priority_levels %u",
                    c->default_priority, c->priority_levels);
    c->default_rows = c->batch_max ? c->batch_max : 1;
    if (rows) {
        char *end;
        unsigned long v = strtoul(rows, &end, 10);
        if (*end || v == 0 || v > c->default_rows)
            return fail(p, &top, "parameter sonic_default_batch is \"%s\"; 1 to %u is possible",
                        rows, c->default_rows);
        c->default_rows = (uint32_t)v;
    }
    return true;
}

int model_config_parse(const char *text, size_t len, const char *path, struct model_config *c,
                       model_warn_fn warn, void *user, char *why, size_t size)
{
    struct pbtxt fields;
    int rc = pbtxt_parse(text, len, path, &fields, why, size);
    if (rc != 0)
        return rc;
    memset(c, 0, sizeof(*c));
    struct parser p = {&fields, path, c, warn, user, why, size};
    rc = walk(&p, UINT32_MAX, TOP, c) && finish(&p) ? 0 : -EINVAL;
    pbtxt_deinit(&fields);
    return rc;
}
