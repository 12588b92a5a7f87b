// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/checked.h"
#include "worker/executors/onnx.h"

#define OUTPUT_ALIGN 64u

// ---- output memory ------------------------------------------------------------------------------

static void free_outputs(struct onnx_outputs *o)
{
    for (uint32_t i = 0; i < SONIC_TENSORS_MAX; i++)
        free(o->data[i]);
    free(o);
}

void onnx_outputs_deinit(struct executor_model *m)
{
    for (struct onnx_outputs *o = m->free_outputs, *next; o; o = next) {
        next = o->next;
        free_outputs(o);
    }
    m->free_outputs = NULL;
}

// The worker's outputs_free.
static void give_outputs(void *owner)
{
    struct onnx_outputs *o = owner;
    struct executor_model *m = o->model;
    for (uint32_t i = 0; i < m->config.noutputs; i++)
        if (o->values[i]) {
            onnx_api->ReleaseValue(o->values[i]);
            o->values[i] = NULL;
        }
    pthread_mutex_lock(&m->lock);
    // Twice the slots: one set executes, another is being sent.
    bool kept = m->nfree < 2 * m->device->slots;
    if (kept) {
        o->next = m->free_outputs;
        m->free_outputs = o;
        m->nfree++;
    }
    pthread_mutex_unlock(&m->lock);
    if (!kept)
        free_outputs(o);
}

static bool make_room(struct onnx_outputs *o, uint32_t rows)
{
    const struct executor_model *m = o->model;
    if (rows <= o->rows_max)
        return true;
    o->rows_max = 0;
    for (uint32_t i = 0; i < m->config.noutputs; i++) {
        uint64_t bytes;
        free(o->data[i]);
        o->data[i] = NULL;
        if (m->row_bytes[i] == 0)
            continue;
        if (!checked_mul(m->row_bytes[i], rows, &bytes) ||
            !checked_align(bytes, OUTPUT_ALIGN, &bytes) ||
            !(o->data[i] = aligned_alloc(OUTPUT_ALIGN, bytes)))
            return false;
    }
    o->rows_max = rows;
    return true;
}

static struct onnx_outputs *take_outputs(struct executor_model *m, uint32_t rows)
{
    pthread_mutex_lock(&m->lock);
    struct onnx_outputs *o = m->free_outputs;
    if (o) {
        m->free_outputs = o->next;
        m->nfree--;
    }
    pthread_mutex_unlock(&m->lock);
    if (!o && (o = calloc(1, sizeof(*o))))
        o->model = m;
    if (o && !make_room(o, rows)) {
        free_outputs(o);
        return NULL;
    }
    return o;
}

// ---- tensors ------------------------------------------------------------------------------------

// The runtime's shape: what config.pbtxt's reshape says, else as the tensor is.
static size_t runtime_shape(const struct model_config *c, const struct tensor_spec *runtime,
                            uint32_t rows, const struct executor_tensor *t, int64_t *shape)
{
    size_t n = 0, batch = c->batch_max > 0;
    if (batch)
        shape[n++] = rows;
    for (unsigned k = 0; k < runtime->ndim; k++, n++)
        shape[n] = runtime->dims[k] >= 0 ? runtime->dims[k] : (int64_t)t->dims[k + batch];
    return n;
}

static OrtStatus *wrap(const struct executor_model *m, const struct tensor_spec *runtime,
                       uint32_t rows, const struct executor_tensor *t, OrtValue **value)
{
    int64_t shape[SONIC_DIMS_MAX + 1];
    size_t n = runtime_shape(&m->config, runtime, rows, t, shape);
    // Inputs are only read; the interface has no const.
    return onnx_api->CreateTensorWithDataAsOrtValue(m->device->memory, (void *)(uintptr_t)t->data,
                                                    t->bytes, shape, n, onnx_type(t->dtype), value);
}

// An output in our memory.
static void describe_output(const struct executor_model *m, uint32_t i, uint32_t rows, void *data,
                            struct executor_tensor *t)
{
    const struct tensor_spec *spec = &m->config.outputs[i];
    unsigned batch = m->config.batch_max > 0;
    t->dtype = spec->dtype;
    t->ndim = (uint8_t)(spec->ndim + batch);
    t->dims[0] = rows;
    for (unsigned k = 0; k < spec->ndim; k++)
        t->dims[k + batch] = (uint64_t)spec->dims[k];
    t->data = data;
    t->bytes = m->row_bytes[i] * rows;
}

static OrtStatus *output_shape(OrtValue *value, int64_t *shape, size_t *n,
                               ONNXTensorElementDataType *type)
{
    OrtTensorTypeAndShapeInfo *info = NULL;
    OrtStatus *s = onnx_api->GetTensorTypeAndShape(value, &info);
    if (!s)
        s = onnx_api->GetTensorElementType(info, type);
    if (!s)
        s = onnx_api->GetDimensionsCount(info, n);
    if (!s && *n <= SONIC_DIMS_MAX)
        s = onnx_api->GetDimensions(info, shape, *n);
    if (info)
        onnx_api->ReleaseTensorTypeAndShapeInfo(info);
    return s;
}

// An output that the runtime allocated: it must be what was declared, or it would be read as
// something else. False with words in x->error.
static bool take_value(const struct executor_model *m, uint32_t i, OrtValue *value,
                       struct execution *x)
{
    const struct tensor_spec *spec = &m->config.outputs[i];
    struct executor_tensor *t = &x->outputs[i];
    unsigned batch = m->config.batch_max > 0;
    int64_t shape[SONIC_DIMS_MAX];
    size_t n = 0;
    ONNXTensorElementDataType type;
    void *data = NULL;
    OrtStatus *s = output_shape(value, shape, &n, &type);
    if (!s)
        s = onnx_api->GetTensorMutableData(value, &data);
    if (onnx_ok(s, "output cannot be read", x->error, sizeof(x->error)) != 0)
        return false;
    bool fits = n == spec->ndim + batch && onnx_dtype(type) == spec->dtype &&
                (!batch || shape[0] == (int64_t)x->rows);
    t->dtype = spec->dtype;
    t->ndim = (uint8_t)(n <= SONIC_DIMS_MAX ? n : SONIC_DIMS_MAX);
    for (size_t k = 0; k < t->ndim; k++) {
        t->dims[k] = (uint64_t)shape[k];
        fits =
            fits && (k < batch || spec->dims[k - batch] < 0 || spec->dims[k - batch] == shape[k]);
    }
    t->data = data;
    if (fits && tensor_bytes(t->dtype, t->ndim, t->dims, &t->bytes))
        return true;
    char got[160], want[160];
    tensor_print(got, sizeof(got), t->dtype, t->ndim, t->dims);
    tensor_spec_print(want, sizeof(want), spec, batch);
    snprintf(x->error, sizeof(x->error), "output \"%s\" came out as %s, config.pbtxt says %s",
             spec->name, got, want);
    return false;
}

// ---- one execution ------------------------------------------------------------------------------

struct run {
    const char *input_names[SONIC_TENSORS_MAX], *output_names[SONIC_TENSORS_MAX];
    OrtValue *inputs[SONIC_TENSORS_MAX], *outputs[SONIC_TENSORS_MAX];
};

static OrtStatus *bind(struct executor_model *m, struct execution *x, struct onnx_outputs *o,
                       struct run *r)
{
    const struct model_config *c = &m->config;
    OrtStatus *s = NULL;
    for (uint32_t i = 0; i < c->ninputs && !s; i++) {
        r->input_names[i] = c->inputs[i].name;
        s = wrap(m, &c->runtime_inputs[i], x->rows, &x->inputs[i], &r->inputs[i]);
    }
    for (uint32_t i = 0; i < c->noutputs && !s; i++) {
        r->output_names[i] = c->outputs[i].name;
        if (!o->data[i])
            continue; // the runtime allocates it
        describe_output(m, i, x->rows, o->data[i], &x->outputs[i]);
        s = wrap(m, &c->runtime_outputs[i], x->rows, &x->outputs[i], &r->outputs[i]);
    }
    return s;
}

// Keeps the values that the runtime allocated in `o`, releases those over our own memory.
static bool finish(struct executor_model *m, struct execution *x, struct onnx_outputs *o,
                   struct run *r, bool ok)
{
    for (uint32_t i = 0; i < m->config.ninputs; i++)
        if (r->inputs[i])
            onnx_api->ReleaseValue(r->inputs[i]);
    for (uint32_t i = 0; i < m->config.noutputs; i++) {
        if (o->data[i] && r->outputs[i])
            onnx_api->ReleaseValue(r->outputs[i]);
        else
            o->values[i] = r->outputs[i];
        if (ok && !o->data[i])
            ok = take_value(m, i, o->values[i], x);
    }
    return ok;
}

enum executor_outcome onnx_execute(struct executor_model *m, uint32_t slot, struct execution *x)
{
    const struct model_config *c = &m->config;
    struct run r = {0};
    (void)slot;
    struct onnx_outputs *o = take_outputs(m, x->rows);
    if (!o) {
        snprintf(x->error, sizeof(x->error), "no memory for the outputs of %u rows", x->rows);
        return EXECUTOR_REQUEST_FAILED;
    }
    OrtStatus *s = bind(m, x, o, &r);
    if (!s)
        s = onnx_api->Run(m->session, NULL, r.input_names, (const OrtValue *const *)r.inputs,
                          c->ninputs, r.output_names, c->noutputs, r.outputs);
    bool ok = onnx_ok(s, "ONNX Runtime", x->error, sizeof(x->error)) == 0;
    if (!finish(m, x, o, &r, ok)) {
        give_outputs(o);
        return EXECUTOR_REQUEST_FAILED;
    }
    x->noutputs = c->noutputs;
    x->outputs_owner = o;
    x->outputs_free = give_outputs;
    return EXECUTOR_OK;
}
