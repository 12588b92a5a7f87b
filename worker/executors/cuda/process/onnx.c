// SPDX-License-Identifier: Apache-2.0
#include "worker/executors/cuda/process/onnx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/executors/cuda/process/runner.h"

struct onnx_model {
    struct onnx_settings settings;
    char path[4300];
    struct buckets buckets;
    OrtMemoryInfo *memory; // the GPU's
    OrtSession *sessions[LANES_MAX];
    OrtRunOptions *options; // of every run; with graphs, of one for each slot and bucket
    OrtRunOptions **graph_options;
    OrtIoBinding **bindings;          // by lane, slot and bucket
    struct runner runners[LANES_MAX]; // with graphs: the lane's thread
};

static OrtIoBinding **binding_at(const struct device_model *m, uint32_t lane, uint32_t slot,
                                 uint32_t bucket)
{
    const struct onnx_model *o = m->compute_data;
    return &o->bindings[(lane * m->layout.slots + slot) * o->buckets.n + bucket];
}

// ---- binding ------------------------------------------------------------------------------------

// A tensor over a device buffer, in the shape that the runtime sees.
static OrtStatus *wrap(const struct device_model *m, const struct tensor_spec *runtime,
                       uint32_t rows, void *buffer, uint64_t bytes, OrtValue **value)
{
    const struct onnx_model *o = m->compute_data;
    int64_t shape[SONIC_DIMS_MAX + 1];
    size_t n = 0;
    if (m->config.batch_max > 0)
        shape[n++] = rows;
    for (unsigned k = 0; k < runtime->ndim; k++)
        shape[n++] = runtime->dims[k];
    return onnx_api->CreateTensorWithDataAsOrtValue(o->memory, buffer, bytes, shape, n,
                                                    onnx_type(runtime->dtype), value);
}

static OrtStatus *bind_one(const struct device_model *m, OrtIoBinding *binding, bool output,
                           uint32_t i, uint32_t slot, uint32_t rows)
{
    const struct model_config *c = &m->config;
    const struct cuda_layout *l = &m->layout;
    OrtValue *value = NULL;
    OrtStatus *s = output ? wrap(m, &c->runtime_outputs[i], rows, device_output(m, slot, i),
                                 l->output_row[i] * rows, &value)
                          : wrap(m, &c->runtime_inputs[i], rows, device_input(m, slot, i),
                                 l->input_row[i] * rows, &value);
    if (!s)
        s = output ? onnx_api->BindOutput(binding, c->outputs[i].name, value)
                   : onnx_api->BindInput(binding, c->inputs[i].name, value);
    if (value)
        onnx_api->ReleaseValue(value); // the binding has its own reference
    return s;
}

static OrtStatus *bind_all(const struct device_model *m, uint32_t lane, uint32_t slot,
                           uint32_t bucket)
{
    const struct onnx_model *o = m->compute_data;
    OrtIoBinding **binding = binding_at(m, lane, slot, bucket);
    uint32_t rows = o->buckets.rows[bucket];
    OrtStatus *s = onnx_api->CreateIoBinding(o->sessions[lane], binding);
    for (uint32_t i = 0; i < m->config.ninputs && !s; i++)
        s = bind_one(m, *binding, false, i, slot, rows);
    for (uint32_t i = 0; i < m->config.noutputs && !s; i++)
        s = bind_one(m, *binding, true, i, slot, rows);
    return s;
}

static OrtStatus *make_options(OrtRunOptions **options, const char *graph)
{
    OrtStatus *s = onnx_api->CreateRunOptions(options);
    // A run returns when it is queued: the events say when it is done.
    if (!s)
        s = onnx_api->AddRunConfigEntry(*options, "disable_synchronize_execution_providers", "1");
    if (!s && graph)
        s = onnx_api->AddRunConfigEntry(*options, "gpu_graph_id", graph);
    return s ? s : onnx_api->RunOptionsSetRunLogSeverityLevel(*options, ORT_LOGGING_LEVEL_FATAL);
}

// A graph is bound to addresses: each slot has its own for each bucket.
static OrtStatus *make_all_options(const struct device_model *m, struct onnx_model *o)
{
    uint32_t n = o->settings.graphs ? m->layout.slots * o->buckets.n : 0;
    OrtStatus *s = make_options(&o->options, NULL);
    for (uint32_t i = 0; i < n && !s; i++) {
        char graph[16];
        snprintf(graph, sizeof(graph), "%u", i + 1);
        s = make_options(&o->graph_options[i], graph);
    }
    return s;
}

static int prepare(struct device_model *m, char *why, size_t size)
{
    struct onnx_model *o = m->compute_data;
    uint32_t n = m->layout.slots * o->buckets.n;
    o->graph_options = calloc(n, sizeof(*o->graph_options));
    o->bindings = calloc((size_t)n * m->lanes.n, sizeof(*o->bindings));
    if (!o->graph_options || !o->bindings) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    OrtStatus *s = onnx_api->CreateMemoryInfo("Cuda", OrtDeviceAllocator, m->device->ordinal,
                                              OrtMemTypeDefault, &o->memory);
    if (!s)
        s = make_all_options(m, o);
    for (uint32_t lane = 0; lane < m->lanes.n && !s; lane++)
        for (uint32_t slot = 0; slot < m->layout.slots && !s; slot++)
            for (uint32_t bucket = 0; bucket < o->buckets.n && !s; bucket++)
                s = bind_all(m, lane, slot, bucket);
    return onnx_ok(s, "ONNX Runtime does not bind device buffers", why, size);
}

// ---- running ------------------------------------------------------------------------------------

struct one_run {
    OrtSession *session;
    const OrtRunOptions *options;
    const OrtIoBinding *binding;
    OrtStatus *status;
};

static void run_one(void *user)
{
    struct one_run *r = user;
    r->status = onnx_api->RunWithBinding(r->session, r->options, r->binding);
}

static enum device_outcome queue(struct device_model *m, uint32_t lane, uint32_t slot,
                                 uint32_t rows, char *why, size_t size)
{
    struct onnx_model *o = m->compute_data;
    uint32_t bucket = buckets_find(&o->buckets, rows);
    struct one_run run = {o->sessions[lane], o->options, *binding_at(m, lane, slot, bucket), NULL};
    if (o->settings.graphs) {
        // The provider keeps graphs by thread: what the slots' threads ran, each would capture
        // anew.
        run.options = o->graph_options[slot * o->buckets.n + bucket];
        runner_call(&o->runners[lane], run_one, &run);
    } else {
        run_one(&run);
    }
    if (onnx_ok(run.status, "ONNX Runtime", why, size) == 0)
        return DEVICE_OK;
    cuda.cudaGetLastError(); // or the next run would take it for its own
    return onnx_is_no_memory(why) ? DEVICE_NO_MEMORY : DEVICE_REFUSED;
}

// The largest first: the others then find their memory there. The smallest next: TensorRT builds an
// engine anew for a shape beyond those that it has met, which takes minutes.
static uint32_t warm_up_order(const struct buckets *b, uint32_t i)
{
    return i == 0 ? b->n - 1 : i - 1;
}

// Every shape once on every lane, so that nobody waits for a first time: memory is reserved,
// algorithms are chosen, graphs captured.
static int warm_up(struct device_model *m, char *why, size_t size)
{
    const struct onnx_model *o = m->compute_data;
    uint32_t slots = o->settings.graphs ? m->layout.slots : 1;
    for (uint32_t i = 0; i < m->lanes.n * slots * o->buckets.n; i++) {
        uint32_t bucket = warm_up_order(&o->buckets, i % o->buckets.n);
        uint32_t slot = i / o->buckets.n % slots, lane = i / o->buckets.n / slots;
        char reason[400];
        enum device_outcome outcome =
            queue(m, lane, slot, o->buckets.rows[bucket], reason, sizeof(reason));
        int e = outcome == DEVICE_OK ? cuda.cudaStreamSynchronize(m->lane[lane].stream) : CUDA_OK;
        if (outcome == DEVICE_OK && e == CUDA_OK)
            continue;
        snprintf(why, size, "%s: %s: it loads but does not execute %u rows of zeros: %s%s",
                 m->device->name, o->path, o->buckets.rows[bucket],
                 e == CUDA_OK ? reason : cuda_error(e),
                 outcome == DEVICE_NO_MEMORY ? " (lower max_batch_size, or serve fewer models here)"
                                             : "");
        return outcome == DEVICE_NO_MEMORY ? -ENOMEM : -EINVAL;
    }
    return 0;
}

static int open_sessions(struct device_model *m, char *why, size_t size)
{
    struct onnx_model *o = m->compute_data;
    int rc = 0;
    for (uint32_t i = 0; i < m->lanes.n && rc == 0; i++)
        rc = onnx_open_session(m, &o->settings, o->path, m->lane[i].stream, &o->sessions[i], why,
                               size);
    for (uint32_t i = 0; i < m->lanes.n && rc == 0 && o->settings.graphs; i++) {
        rc = -runner_start(&o->runners[i]);
        if (rc != 0)
            snprintf(why, size, "model %s: cannot start a thread for each lane", m->config.name);
    }
    return rc == 0 ? onnx_compare(o->sessions[0], &m->config, o->path, why, size) : rc;
}

static int load(struct device_model *m, const char *version_dir, char *why, size_t size)
{
    struct onnx_model *o = m->compute_data = calloc(1, sizeof(*o));
    struct stat st;
    if (!o) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    int rc = onnx_settings_read(&o->settings, &m->config, why, size);
    if (rc == 0)
        rc = buckets_make(&o->buckets, &m->config, why, size);
    if (rc != 0)
        return rc;
    snprintf(o->path, sizeof(o->path), "%s/%s", version_dir, o->settings.file);
    if (stat(o->path, &st) != 0) {
        snprintf(why, size, "%s: %s", o->path, strerror(errno));
        return -errno;
    }
    rc = onnx_start(why, size);
    if (rc == 0)
        rc = open_sessions(m, why, size);
    if (rc == 0)
        rc = prepare(m, why, size);
    return rc == 0 ? warm_up(m, why, size) : rc;
}

const struct compute compute_onnx = {.load = load, .queue = queue};
