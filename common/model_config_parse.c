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
#include "common/pbtxt_rules.h"

// A time in microseconds, of a day at most.
static bool u64(struct rules_reader *p, const struct pbtxt_field *f, uint64_t *out)
{
    long long v = 0;
    if (!rules_number(p, f, 0, 86400000000ll, &v)) // a day in microseconds
        return false;
    *out = (uint64_t)v;
    return true;
}

// ---- inputs and outputs -------------------------------------------------------------------------

struct io {
    struct tensor_spec spec;
    struct tensor_spec runtime;
    bool reshaped;
};

static bool take_io_name(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                         void *into)
{
    struct io *io = into;
    (void)i;
    if (!rules_string(p, f, io->spec.name, sizeof(io->spec.name)))
        return false;
    if (!name_is_label(io->spec.name, strlen(io->spec.name)))
        return rules_fail(p, f, "a tensor's name is printable, without spaces or quotes");
    return true;
}

static bool take_io_type(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                         void *into)
{
    struct io *io = into;
    (void)i;
    io->spec.dtype = (uint8_t)(f->kind == PBTXT_IDENT ? dtype_parse(f->value) : 0);
    if (strcmp(f->value, "TYPE_STRING") == 0)
        return rules_fail(p, f, "TYPE_STRING tensors are not served: send numbers");
    if (io->spec.dtype == SONIC_DTYPE_INVALID)
        return rules_fail(
            p, f, "data_type is %s; TYPE_FP32, TYPE_INT8, TYPE_UINT16, ... are possible", f->value);
    return true;
}

static bool add_dim(struct rules_reader *p, const struct pbtxt_field *f, struct tensor_spec *spec)
{
    long long v = 0;
    if (!rules_number(p, f, -1, 1ll << 40, &v))
        return false;
    if (v == 0)
        return rules_fail(p, f, "a dimension is -1 (any) or at least 1");
    if (spec->ndim == SONIC_DIMS_MAX - 1) // one is left for the batch
        return rules_fail(p, f, "more than %u dimensions", SONIC_DIMS_MAX - 1);
    spec->dims[spec->ndim++] = v;
    return true;
}

static bool take_io_dim(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return add_dim(p, f, &((struct io *)into)->spec);
}

static bool take_shape_dim(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                           void *into)
{
    (void)i;
    return add_dim(p, f, &((struct io *)into)->runtime);
}

static bool take_reshape(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                         void *into)
{
    static const struct rule rules[] = {{"shape", take_shape_dim}, {NULL, NULL}};
    struct io *io = into;
    (void)f;
    io->reshaped = true;
    io->runtime.ndim = 0;
    return rules_apply(p, i, rules, io);
}

static bool finish_io(struct rules_reader *p, const struct pbtxt_field *f, struct io *io)
{
    uint64_t bytes, runtime_bytes;
    if (!io->spec.name[0] || !io->spec.dtype || !io->spec.ndim)
        return rules_fail(p, f, "%s needs a name, a data_type and dims", f->name);
    if (!io->reshaped) {
        io->runtime = io->spec;
        return true;
    }
    memcpy(io->runtime.name, io->spec.name, sizeof(io->spec.name));
    io->runtime.dtype = io->spec.dtype;
    if (!tensor_spec_row_bytes(&io->spec, &bytes) ||
        !tensor_spec_row_bytes(&io->runtime, &runtime_bytes) || bytes != runtime_bytes)
        return rules_fail(p, f,
                          "reshape of \"%s\" needs fixed dims with the same number of elements",
                          io->spec.name);
    return true;
}

static bool take_io(struct rules_reader *p, const struct pbtxt_field *f, uint32_t index,
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
        return rules_fail(p, f, "more than %u %ss", SONIC_TENSORS_MAX, f->name);
    if (!rules_apply(p, index, rules, &io) || !finish_io(p, f, &io))
        return false;
    for (uint32_t i = 0; i < *n; i++)
        if (strcmp(specs[i].name, io.spec.name) == 0)
            return rules_fail(p, f, "there are two %ss named \"%s\"", f->name, io.spec.name);
    specs[*n] = io.spec;
    runtime[*n] = io.runtime;
    (*n)++;
    return true;
}

static bool take_input(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_config *c = into;
    return take_io(p, f, i, c->inputs, c->runtime_inputs, &c->ninputs);
}

static bool take_output(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_config *c = into;
    return take_io(p, f, i, c->outputs, c->runtime_outputs, &c->noutputs);
}

// ---- instance groups ----------------------------------------------------------------------------

static bool take_kind(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const char *const kinds[] = {"KIND_AUTO", "KIND_CPU", "KIND_GPU", "KIND_FPGA"};
    struct model_instances *g = into;
    (void)i;
    for (unsigned k = 0; k < 4; k++)
        if (strcmp(f->value, kinds[k]) == 0) {
            g->kind = (enum instance_kind)k;
            return true;
        }
    return rules_fail(p, f, "kind is %s; KIND_AUTO, KIND_CPU, KIND_GPU and KIND_FPGA are possible",
                      f->value);
}

static bool take_count(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return rules_u32(p, f, 4096, &((struct model_instances *)into)->count);
}

static bool take_group(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
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
        return rules_fail(p, f, "more than %u instance groups", MODEL_INSTANCE_GROUPS_MAX);
    struct model_instances *g = &c->groups[c->ngroups++];
    return rules_apply(p, i, rules, g);
}

// ---- batching -----------------------------------------------------------------------------------

static bool take_preferred(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                           void *into)
{
    struct model_config *c = into;
    (void)i;
    if (c->npreferred == SONIC_PREFERRED_MAX)
        return rules_fail(p, f, "more than %u preferred sizes", SONIC_PREFERRED_MAX);
    return rules_u32(p, f, 1u << 24, &c->preferred[c->npreferred++]);
}

static bool take_delay(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return u64(p, f, &((struct model_config *)into)->queue_delay_us);
}

static bool take_level(struct rules_reader *p, const struct pbtxt_field *f, uint8_t *out)
{
    uint32_t v;
    if (!rules_u32(p, f, SONIC_PRIORITY_LEVELS_MAX, &v))
        return false;
    *out = (uint8_t)v;
    return true;
}

static bool take_levels(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    (void)i;
    return take_level(p, f, &((struct model_config *)into)->priority_levels);
}

static bool take_default_level(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                               void *into)
{
    (void)i;
    return take_level(p, f, &((struct model_config *)into)->default_priority);
}

static bool take_timeout(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                         void *into)
{
    (void)i;
    return u64(p, f, &((struct model_config *)into)->default_deadline_us);
}

static bool take_queue_max(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                           void *into)
{
    (void)i;
    return rules_u32(p, f, UINT32_MAX, &((struct model_config *)into)->queue_max);
}

static bool take_timeout_action(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                                void *into)
{
    (void)i;
    (void)into;
    if (strcmp(f->value, "REJECT") != 0)
        rules_report(p, f, "is taken as REJECT: a request past its deadline is refused");
    return true;
}

static bool take_policy(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const struct rule rules[] = {{"timeout_action", take_timeout_action},
                                        {"default_timeout_microseconds", take_timeout},
                                        {"max_queue_size", take_queue_max},
                                        {"allow_timeout_override", NULL},
                                        {NULL, NULL}};
    (void)f;
    return rules_apply(p, i, rules, into);
}

static bool take_batching(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                          void *into)
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
    return rules_apply(p, i, rules, into);
}

// ---- versions and parameters --------------------------------------------------------------------

static bool take_num_versions(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                              void *into)
{
    (void)i;
    return rules_u32(p, f, UINT32_MAX, &((struct model_config *)into)->version_latest);
}

static bool take_latest(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    static const struct rule rules[] = {{"num_versions", take_num_versions}, {NULL, NULL}};
    struct model_config *c = into;
    if (!rules_apply(p, i, rules, into))
        return false;
    if (c->version_latest > 1)
        rules_report(p, f, "of more than one version: only the highest is served");
    return true;
}

static bool take_version(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                         void *into)
{
    struct model_config *c = into;
    (void)i;
    if (c->nversions == MODEL_VERSIONS_MAX)
        return rules_fail(p, f, "more than %u versions", MODEL_VERSIONS_MAX);
    return rules_u32(p, f, UINT32_MAX, &c->versions[c->nversions++]);
}

static bool take_specific(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                          void *into)
{
    static const struct rule rules[] = {{"versions", take_version}, {NULL, NULL}};
    (void)f;
    return rules_apply(p, i, rules, into);
}

static bool take_all_versions(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                              void *into)
{
    (void)i;
    (void)into;
    rules_report(p, f, "versions: only the highest is served");
    return true;
}

static bool take_version_policy(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                                void *into)
{
    static const struct rule rules[] = {{"latest", take_latest},
                                        {"all", take_all_versions},
                                        {"specific", take_specific},
                                        {NULL, NULL}};
    (void)f;
    return rules_apply(p, i, rules, into);
}

static bool take_parameter_key(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                               void *into)
{
    struct model_parameter *m = into;
    (void)i;
    return rules_string(p, f, m->key, sizeof(m->key));
}

static bool take_string_value(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                              void *into)
{
    struct model_parameter *m = into;
    (void)i;
    return rules_string(p, f, m->value, sizeof(m->value));
}

static bool take_parameter_value(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                                 void *into)
{
    static const struct rule rules[] = {{"string_value", take_string_value}, {NULL, NULL}};
    (void)f;
    return rules_apply(p, i, rules, into);
}

static bool take_parameter(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                           void *into)
{
    static const struct rule rules[] = {
        {"key", take_parameter_key}, {"value", take_parameter_value}, {NULL, NULL}};
    struct model_config *c = into;
    if (c->nparameters == MODEL_PARAMETERS_MAX)
        return rules_fail(p, f, "more than %u parameters", MODEL_PARAMETERS_MAX);
    return rules_apply(p, i, rules, &c->parameters[c->nparameters++]);
}

// ---- the top ------------------------------------------------------------------------------------

static bool take_name(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i, void *into)
{
    struct model_config *c = into;
    (void)i;
    if (!rules_string(p, f, c->name, sizeof(c->name)))
        return false;
    if (!name_is_model(c->name, strlen(c->name)))
        return rules_fail(p, f, "a model's name is 1 to 64 of a-z 0-9 . _ - without a leading dot");
    return true;
}

static bool take_backend(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                         void *into)
{
    struct model_config *c = into;
    (void)i;
    return rules_string(p, f, c->backend, sizeof(c->backend));
}

static bool take_platform(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                          void *into)
{
    struct model_config *c = into;
    char platform[64];
    (void)i;
    if (!rules_string(p, f, platform, sizeof(platform)))
        return false;
    if (strcmp(platform, "onnxruntime_onnx") != 0)
        return rules_fail(p, f,
                          "platform \"%s\" is not served; \"onnxruntime_onnx\" is, or name a "
                          "backend instead",
                          platform);
    if (!c->backend[0])
        snprintf(c->backend, sizeof(c->backend), "onnxruntime");
    return true;
}

static bool take_batch_max(struct rules_reader *p, const struct pbtxt_field *f, uint32_t i,
                           void *into)
{
    (void)i;
    return rules_u32(p, f, 1u << 24, &((struct model_config *)into)->batch_max);
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

static bool finish(struct rules_reader *p, struct model_config *c)
{
    const struct pbtxt_field top = {.line = 1, .column = 1};
    const char *rows = model_config_parameter(c, "sonic_default_batch");
    if (!c->backend[0])
        return rules_fail(p, &top,
                          "platform or backend is missing, such as backend: \"onnxruntime\"");
    if (c->ninputs == 0 || c->noutputs == 0)
        return rules_fail(p, &top, "%s is missing", c->ninputs ? "output" : "input");
    for (uint32_t i = 0; i < c->npreferred; i++)
        if (c->preferred[i] == 0 || c->preferred[i] > c->batch_max)
            return rules_fail(p, &top, "preferred_batch_size %u is not within max_batch_size %u",
                              c->preferred[i], c->batch_max);
    if (c->default_priority > (c->priority_levels ? c->priority_levels : 1))
        return rules_fail(p, &top, "default_priority_level %u is over priority_levels %u",
                          c->default_priority, c->priority_levels);
    c->default_rows = c->batch_max ? c->batch_max : 1;
    if (rows) {
        char *end;
        unsigned long v = strtoul(rows, &end, 10);
        if (*end || v == 0 || v > c->default_rows)
            return rules_fail(p, &top,
                              "parameter sonic_default_batch is \"%s\"; 1 to %u is possible", rows,
                              c->default_rows);
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
    struct rules_reader p = {&fields, path, warn, user, why, size};
    rc = rules_apply(&p, RULES_TOP, TOP, c) && finish(&p, c) ? 0 : -EINVAL;
    pbtxt_deinit(&fields);
    return rc;
}
