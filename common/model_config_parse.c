// SPDX-License-Identifier: Apache-2.0
// config.pbtxt into struct model_config: a table for each message of Triton's ModelConfig, with the
// fields that we honour and those that we only report.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model_config.h"
#include "common/model_repository.h"
#include "common/name.h"
#include "common/pbtxt_rules.h"

#define IGNORED(name)                                                                              \
    {                                                                                              \
        name, NULL, RULE_IGNORED                                                                   \
    }
#define END                                                                                        \
    {                                                                                              \
        NULL, NULL, RULE_ONCE                                                                      \
    }

typedef const struct pbtxt_field *place;

// The config under construction, and where the fields are that only make sense together.
struct draft {
    struct model_config *config;
    place preferred, default_level, platform, default_rows;
    char platform_backend[32]; // the backend that `platform` stands for
};

// ---- inputs and outputs -------------------------------------------------------------------------

struct io {
    struct tensor_spec spec;
    struct tensor_spec runtime;
    bool reshaped;
};

static bool take_io_name(struct rules *r, place f, uint32_t i, void *into)
{
    struct io *io = into;
    (void)i;
    if (!rules_string(r, f, io->spec.name, sizeof(io->spec.name)))
        return false;
    if (!name_is_label(io->spec.name, strlen(io->spec.name)))
        return rules_fail(r, f, "a tensor's name is printable, without spaces or quotes");
    return true;
}

static bool take_io_type(struct rules *r, place f, uint32_t i, void *into)
{
    struct io *io = into;
    (void)i;
    if (strcmp(f->value, "TYPE_STRING") == 0)
        return rules_fail(r, f, "TYPE_STRING tensors are not served: send numbers");
    if (f->kind == PBTXT_IDENT && strncmp(f->value, "TYPE_", 5) == 0)
        io->spec.dtype = (uint8_t)dtype_parse(f->value);
    if (io->spec.dtype == SONIC_DTYPE_INVALID)
        return rules_fail(
            r, f,
            "data_type is %s; TYPE_BOOL, TYPE_INT8 to 64, TYPE_UINT8 to 64, TYPE_FP16 to 64 "
            "and TYPE_BF16 are possible",
            f->value);
    return true;
}

static bool add_dim(struct rules *r, place f, struct tensor_spec *spec)
{
    long long v = 0;
    if (!rules_number(r, f, -1, MODEL_DIM_MAX, &v))
        return false;
    if (v == 0)
        return rules_fail(r, f, "a dimension is -1 (any) or at least 1");
    if (spec->ndim == SONIC_DIMS_MAX - 1) // one is left for the batch
        return rules_fail(r, f, "more than %u dimensions", SONIC_DIMS_MAX - 1);
    spec->dims[spec->ndim++] = v;
    return true;
}

static bool take_io_dim(struct rules *r, place f, uint32_t i, void *into)
{
    (void)i;
    return add_dim(r, f, &((struct io *)into)->spec);
}

static bool take_shape_dim(struct rules *r, place f, uint32_t i, void *into)
{
    (void)i;
    return add_dim(r, f, &((struct io *)into)->runtime);
}

static bool take_reshape(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {{"shape", take_shape_dim, RULE_MANY}, END};
    struct io *io = into;
    (void)f;
    io->reshaped = true;
    return rules_walk(r, i, table, io);
}

static bool finish_io(struct rules *r, place f, struct io *io)
{
    uint64_t bytes, runtime_bytes;
    if (!io->spec.name[0] || !io->spec.dtype || !io->spec.ndim)
        return rules_fail(r, f, "%s needs a name, a data_type and dims", f->name);
    if (!model_row_fits(&io->spec))
        return rules_fail(r, f, "one row of \"%s\" is more than a message can carry (%llu bytes)",
                          io->spec.name, SONIC_FRAME_BYTES_MAX);
    if (!io->reshaped) {
        io->runtime = io->spec;
        return true;
    }
    memcpy(io->runtime.name, io->spec.name, sizeof(io->spec.name));
    io->runtime.dtype = io->spec.dtype;
    if (!tensor_spec_row_bytes(&io->spec, &bytes) ||
        !tensor_spec_row_bytes(&io->runtime, &runtime_bytes) || bytes != runtime_bytes)
        return rules_fail(r, f,
                          "reshape of \"%s\" needs fixed dims with the same number of elements",
                          io->spec.name);
    return true;
}

static bool take_io(struct rules *r, place f, uint32_t index, const struct rule *table,
                    struct tensor_spec *specs, struct tensor_spec *runtime, uint32_t *n)
{
    struct io io = {0};
    if (*n == SONIC_TENSORS_MAX)
        return rules_fail(r, f, "more than %u %ss", SONIC_TENSORS_MAX, f->name);
    if (!rules_walk(r, index, table, &io) || !finish_io(r, f, &io))
        return false;
    for (uint32_t i = 0; i < *n; i++)
        if (strcmp(specs[i].name, io.spec.name) == 0)
            return rules_fail(r, f, "there are two %ss named \"%s\"", f->name, io.spec.name);
    specs[*n] = io.spec;
    runtime[*n] = io.runtime;
    (*n)++;
    return true;
}

static bool take_input(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {{"name", take_io_name, RULE_ONCE},
                                        {"data_type", take_io_type, RULE_ONCE},
                                        {"dims", take_io_dim, RULE_MANY},
                                        {"reshape", take_reshape, RULE_ONCE},
                                        IGNORED("format"),
                                        IGNORED("is_shape_tensor"),
                                        IGNORED("allow_ragged_batch"),
                                        IGNORED("optional"),
                                        IGNORED("is_non_linear_format_io"),
                                        END};
    struct model_config *c = ((struct draft *)into)->config;
    return take_io(r, f, i, table, c->inputs, c->runtime_inputs, &c->ninputs);
}

static bool take_output(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {
        {"name", take_io_name, RULE_ONCE},  {"data_type", take_io_type, RULE_ONCE},
        {"dims", take_io_dim, RULE_MANY},   {"reshape", take_reshape, RULE_ONCE},
        IGNORED("label_filename"),          IGNORED("is_shape_tensor"),
        IGNORED("is_non_linear_format_io"), END};
    struct model_config *c = ((struct draft *)into)->config;
    return take_io(r, f, i, table, c->outputs, c->runtime_outputs, &c->noutputs);
}

// ---- instance groups ----------------------------------------------------------------------------

static bool take_kind(struct rules *r, place f, uint32_t i, void *into)
{
    static const char *const words[] = {
        [INSTANCE_AUTO] = "KIND_AUTO", [INSTANCE_CPU] = "KIND_CPU", [INSTANCE_GPU] = "KIND_GPU",
        [INSTANCE_FPGA] = "KIND_FPGA", [INSTANCE_FPGA + 1] = NULL,
    };
    unsigned kind;
    (void)i;
    if (!rules_word(r, f, words, &kind))
        return false;
    ((struct model_instances *)into)->kind = (enum instance_kind)kind;
    return true;
}

static bool take_count(struct rules *r, place f, uint32_t i, void *into)
{
    (void)i;
    return rules_u32(r, f, 4096, &((struct model_instances *)into)->count);
}

static bool take_gpu(struct rules *r, place f, uint32_t i, void *into)
{
    struct model_instances *g = into;
    long long v = 0;
    (void)i;
    if (g->ngpus == MODEL_GPUS_MAX)
        return rules_fail(r, f, "more than %u gpus in a group", MODEL_GPUS_MAX);
    if (!rules_number(r, f, 0, INT32_MAX, &v))
        return false;
    g->gpus[g->ngpus++] = (uint32_t)v;
    return true;
}

static bool take_group(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {{"count", take_count, RULE_ONCE},
                                        {"kind", take_kind, RULE_ONCE},
                                        IGNORED("name"),
                                        {"gpus", take_gpu, RULE_MANY},
                                        IGNORED("profile"),
                                        IGNORED("passive"),
                                        IGNORED("rate_limiter"),
                                        IGNORED("host_policy"),
                                        IGNORED("secondary_devices"),
                                        END};
    struct model_config *c = ((struct draft *)into)->config;
    if (c->ngroups == MODEL_INSTANCE_GROUPS_MAX)
        return rules_fail(r, f, "more than %u instance groups", MODEL_INSTANCE_GROUPS_MAX);
    return rules_walk(r, i, table, &c->groups[c->ngroups++]);
}

// ---- batching -----------------------------------------------------------------------------------

static bool take_us(struct rules *r, place f, uint64_t *out)
{
    long long v = 0;
    if (!rules_number(r, f, 0, MODEL_TIME_US_MAX, &v))
        return false;
    *out = (uint64_t)v;
    return true;
}

static bool take_level(struct rules *r, place f, uint8_t *out)
{
    uint32_t v;
    if (!rules_u32(r, f, SONIC_PRIORITY_LEVELS_MAX, &v))
        return false;
    *out = (uint8_t)v;
    return true;
}

static bool take_preferred(struct rules *r, place f, uint32_t i, void *into)
{
    struct draft *d = into;
    struct model_config *c = d->config;
    (void)i;
    if (c->npreferred == SONIC_PREFERRED_MAX)
        return rules_fail(r, f, "more than %u preferred sizes", SONIC_PREFERRED_MAX);
    if (!rules_u32(r, f, MODEL_BATCH_MAX, &c->preferred[c->npreferred]))
        return false;
    // The file may give max_batch_size later: finish() looks at the largest.
    if (!d->preferred || c->preferred[c->npreferred] > strtoul(d->preferred->value, NULL, 0))
        d->preferred = f;
    if (c->preferred[c->npreferred++] == 0)
        return rules_fail(r, f, "preferred_batch_size is 0; 1 to max_batch_size is possible");
    return true;
}

static bool take_delay(struct rules *r, place f, uint32_t i, void *into)
{
    (void)i;
    return take_us(r, f, &((struct draft *)into)->config->queue_delay_us);
}

static bool take_levels(struct rules *r, place f, uint32_t i, void *into)
{
    (void)i;
    return take_level(r, f, &((struct draft *)into)->config->priority_levels);
}

static bool take_default_level(struct rules *r, place f, uint32_t i, void *into)
{
    struct draft *d = into;
    (void)i;
    d->default_level = f;
    return take_level(r, f, &d->config->default_priority);
}

static bool take_timeout(struct rules *r, place f, uint32_t i, void *into)
{
    (void)i;
    return take_us(r, f, &((struct draft *)into)->config->default_deadline_us);
}

static bool take_queue_max(struct rules *r, place f, uint32_t i, void *into)
{
    (void)i;
    return rules_u32(r, f, UINT32_MAX, &((struct draft *)into)->config->queue_max);
}

static bool take_timeout_action(struct rules *r, place f, uint32_t i, void *into)
{
    static const char *const words[] = {"REJECT", "DELAY", NULL};
    unsigned action;
    (void)i;
    (void)into;
    if (!rules_word(r, f, words, &action))
        return false;
    if (action != 0)
        rules_report(r, f, "is taken as REJECT: a request past its deadline is refused");
    return true;
}

static bool take_policy(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {{"timeout_action", take_timeout_action, RULE_ONCE},
                                        {"default_timeout_microseconds", take_timeout, RULE_ONCE},
                                        {"max_queue_size", take_queue_max, RULE_ONCE},
                                        IGNORED("allow_timeout_override"),
                                        END};
    (void)f;
    return rules_walk(r, i, table, into);
}

static bool take_batching(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {{"preferred_batch_size", take_preferred, RULE_MANY},
                                        {"max_queue_delay_microseconds", take_delay, RULE_ONCE},
                                        {"priority_levels", take_levels, RULE_ONCE},
                                        {"default_priority_level", take_default_level, RULE_ONCE},
                                        {"default_queue_policy", take_policy, RULE_ONCE},
                                        IGNORED("priority_queue_policy"),
                                        IGNORED("preserve_ordering"),
                                        END};
    (void)f;
    return rules_walk(r, i, table, into);
}

// ---- versions and parameters --------------------------------------------------------------------

static bool take_num_versions(struct rules *r, place f, uint32_t i, void *into)
{
    struct model_config *c = ((struct draft *)into)->config;
    (void)i;
    if (!rules_u32(r, f, UINT32_MAX, &c->version_latest))
        return false;
    if (c->version_latest > 1)
        rules_report(r, f, "over 1: only the highest version is served");
    return true;
}

static bool take_latest(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {{"num_versions", take_num_versions, RULE_ONCE}, END};
    (void)f;
    return rules_walk(r, i, table, into);
}

static bool take_version(struct rules *r, place f, uint32_t i, void *into)
{
    struct model_config *c = ((struct draft *)into)->config;
    long long v = 0;
    (void)i;
    if (c->nversions == MODEL_VERSIONS_MAX)
        return rules_fail(r, f, "more than %u versions", MODEL_VERSIONS_MAX);
    if (!rules_number(r, f, 1, UINT32_MAX, &v))
        return false;
    c->versions[c->nversions++] = (uint32_t)v;
    return true;
}

static bool take_specific(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {{"versions", take_version, RULE_MANY}, END};
    struct model_config *c = ((struct draft *)into)->config;
    if (!rules_walk(r, i, table, into))
        return false;
    if (c->nversions == 0)
        return rules_fail(r, f, "specific needs versions, such as specific { versions: [1] }");
    if (c->nversions > 1)
        rules_report(r, f, "versions: only the highest of them is served");
    return true;
}

static bool take_all(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {END};
    if (!rules_walk(r, i, table, into))
        return false;
    rules_report(r, f, "versions: only the highest is served");
    return true;
}

static bool take_version_policy(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {{"latest", take_latest, RULE_ONCE},
                                        {"all", take_all, RULE_ONCE},
                                        {"specific", take_specific, RULE_ONCE},
                                        END};
    const struct pbtxt *t = r->text;
    unsigned policies = 0;
    for (uint32_t k = i + 1; k < t->n && t->fields[k].depth > f->depth; k++)
        policies += t->fields[k].depth == f->depth + 1;
    if (!rules_walk(r, i, table, into))
        return false;
    return policies <= 1 || rules_fail(r, f, "version_policy takes one of latest, all, specific");
}

static bool take_parameter_key(struct rules *r, place f, uint32_t i, void *into)
{
    struct model_parameter *m = into;
    (void)i;
    return rules_string(r, f, m->key, sizeof(m->key));
}

static bool take_string_value(struct rules *r, place f, uint32_t i, void *into)
{
    struct model_parameter *m = into;
    (void)i;
    return rules_string(r, f, m->value, sizeof(m->value));
}

static bool take_parameter_value(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {{"string_value", take_string_value, RULE_ONCE}, END};
    (void)f;
    return rules_walk(r, i, table, into);
}

static bool take_parameter(struct rules *r, place f, uint32_t i, void *into)
{
    static const struct rule table[] = {
        {"key", take_parameter_key, RULE_ONCE}, {"value", take_parameter_value, RULE_ONCE}, END};
    struct draft *d = into;
    struct model_config *c = d->config;
    if (c->nparameters == MODEL_PARAMETERS_MAX)
        return rules_fail(r, f, "more than %u parameters", MODEL_PARAMETERS_MAX);
    struct model_parameter *m = &c->parameters[c->nparameters];
    if (!rules_walk(r, i, table, m))
        return false;
    if (!m->key[0])
        return rules_fail(r, f, "parameters needs a key and a value { string_value }");
    if (model_config_parameter(c, m->key))
        return rules_fail(r, f, "there are two parameters \"%s\"", m->key);
    if (strcmp(m->key, "sonic_default_batch") == 0)
        d->default_rows = f;
    c->nparameters++;
    return true;
}

// ---- the top ------------------------------------------------------------------------------------

static bool take_name(struct rules *r, place f, uint32_t i, void *into)
{
    struct model_config *c = ((struct draft *)into)->config;
    (void)i;
    if (!rules_string(r, f, c->name, sizeof(c->name)))
        return false;
    if (!name_is_model(c->name, strlen(c->name)))
        return rules_fail(r, f, "a model's name is 1 to 64 of a-z 0-9 . _ - without a leading dot");
    return true;
}

static bool take_backend(struct rules *r, place f, uint32_t i, void *into)
{
    struct model_config *c = ((struct draft *)into)->config;
    (void)i;
    if (!rules_string(r, f, c->backend, sizeof(c->backend)))
        return false;
    if (!name_is_label(c->backend, strlen(c->backend)))
        return rules_fail(r, f, "backend is a name such as \"onnxruntime\" or \"opencl\"");
    return true;
}

static bool take_platform(struct rules *r, place f, uint32_t i, void *into)
{
    struct draft *d = into;
    char platform[64];
    (void)i;
    if (!rules_string(r, f, platform, sizeof(platform)))
        return false;
    if (strcmp(platform, "onnxruntime_onnx") != 0)
        return rules_fail(r, f,
                          "platform \"%s\" is not served; \"onnxruntime_onnx\" is, or name a "
                          "backend instead",
                          platform);
    d->platform = f;
    snprintf(d->platform_backend, sizeof(d->platform_backend), "onnxruntime");
    return true;
}

static bool take_batch_max(struct rules *r, place f, uint32_t i, void *into)
{
    (void)i;
    return rules_u32(r, f, MODEL_BATCH_MAX, &((struct draft *)into)->config->batch_max);
}

static bool take_file(struct rules *r, place f, uint32_t i, void *into)
{
    struct model_config *c = ((struct draft *)into)->config;
    (void)i;
    if (!rules_string(r, f, c->file, sizeof(c->file)))
        return false;
    return !strchr(c->file, '/') ||
           rules_fail(r, f,
                      "default_model_filename is \"%s\"; a file in the version's folder is "
                      "wanted, without a path",
                      c->file);
}

static const struct rule TOP[] = {{"name", take_name, RULE_ONCE},
                                  {"platform", take_platform, RULE_ONCE},
                                  {"backend", take_backend, RULE_ONCE},
                                  {"max_batch_size", take_batch_max, RULE_ONCE},
                                  {"input", take_input, RULE_MANY},
                                  {"output", take_output, RULE_MANY},
                                  {"instance_group", take_group, RULE_MANY},
                                  {"dynamic_batching", take_batching, RULE_ONCE},
                                  {"version_policy", take_version_policy, RULE_ONCE},
                                  {"parameters", take_parameter, RULE_MANY},
                                  {"default_model_filename", take_file, RULE_ONCE},
                                  IGNORED("cc_model_filenames"),
                                  IGNORED("metric_tags"),
                                  IGNORED("model_warmup"),
                                  IGNORED("model_operations"),
                                  IGNORED("model_transaction_policy"),
                                  IGNORED("model_repository_agents"),
                                  IGNORED("optimization"),
                                  IGNORED("sequence_batching"),
                                  IGNORED("ensemble_scheduling"),
                                  IGNORED("batch_input"),
                                  IGNORED("batch_output"),
                                  IGNORED("response_cache"),
                                  IGNORED("model_metrics"),
                                  IGNORED("runtime"),
                                  END};

static bool finish_backend(struct rules *r, const struct draft *d)
{
    static const struct pbtxt_field top = {.line = 1, .column = 1};
    struct model_config *c = d->config;
    if (d->platform && !c->backend[0])
        memcpy(c->backend, d->platform_backend, sizeof(c->backend));
    if (!c->backend[0])
        return rules_fail(r, &top,
                          "platform or backend is missing, such as backend: \"onnxruntime\"");
    if (d->platform && strcmp(c->backend, d->platform_backend) != 0)
        return rules_fail(r, d->platform, "platform stands for backend \"%s\", backend is \"%s\"",
                          d->platform_backend, c->backend);
    if (c->ninputs == 0 || c->noutputs == 0)
        return rules_fail(r, &top, "%s is missing", c->ninputs ? "output" : "input");
    return true;
}

static bool finish_rows(struct rules *r, const struct draft *d)
{
    struct model_config *c = d->config;
    uint32_t most = c->batch_max ? c->batch_max : 1;
    if (d->preferred && strtoul(d->preferred->value, NULL, 0) > c->batch_max)
        return rules_fail(r, d->preferred, "preferred_batch_size %s is over max_batch_size %u",
                          d->preferred->value, c->batch_max);
    c->default_rows = model_rows_that_fit(c);
    if (!d->default_rows)
        return true;
    const char *rows = model_config_parameter(c, "sonic_default_batch");
    char *end;
    unsigned long v = strtoul(rows, &end, 10);
    if (*end || rows[0] < '0' || rows[0] > '9' || v == 0 || v > most)
        return rules_fail(r, d->default_rows,
                          "parameter sonic_default_batch is \"%s\"; 1 to %u is possible", rows,
                          most);
    c->default_rows = (uint32_t)v;
    return true;
}

static bool finish(struct rules *r, const struct draft *d)
{
    const struct model_config *c = d->config;
    uint32_t levels = c->priority_levels ? c->priority_levels : 1;
    if (c->default_priority > levels)
        return rules_fail(r, d->default_level,
                          "default_priority_level %u is over priority_levels %u",
                          c->default_priority, c->priority_levels);
    return finish_backend(r, d) && finish_rows(r, d);
}

int model_config_parse(const char *text, size_t len, const char *path, struct model_config *c,
                       model_warn_fn warn, void *user, char *why, size_t size)
{
    struct pbtxt fields;
    int rc = pbtxt_parse(text, len, path, &fields, why, size);
    if (rc != 0)
        return rc;
    memset(c, 0, sizeof(*c));
    struct rules r = {&fields, path, warn, user, why, size};
    struct draft d = {.config = c};
    rc = rules_walk(&r, RULES_TOP, TOP, &d) && finish(&r, &d) ? 0 : -EINVAL;
    pbtxt_deinit(&fields);
    return rc;
}
