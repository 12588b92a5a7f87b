// SPDX-License-Identifier: Apache-2.0
// Does model.onnx have the inputs and outputs that config.pbtxt declares? Found out when it is
// loaded, in words for the person who wrote the config.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "worker/executors/onnx.h"

static const struct {
    enum sonic_dtype dtype;
    ONNXTensorElementDataType type;
} TYPES[] = {
    {SONIC_BOOL, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL},
    {SONIC_UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
    {SONIC_UINT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16},
    {SONIC_UINT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32},
    {SONIC_UINT64, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64},
    {SONIC_INT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},
    {SONIC_INT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16},
    {SONIC_INT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
    {SONIC_INT64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {SONIC_FP16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
    {SONIC_BF16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16},
    {SONIC_FP32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
    {SONIC_FP64, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE},
};
#define NTYPES (sizeof(TYPES) / sizeof(TYPES[0]))

ONNXTensorElementDataType onnx_type(unsigned dtype)
{
    for (size_t i = 0; i < NTYPES; i++)
        if (TYPES[i].dtype == dtype)
            return TYPES[i].type;
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

enum sonic_dtype onnx_dtype(ONNXTensorElementDataType type)
{
    for (size_t i = 0; i < NTYPES; i++)
        if (TYPES[i].type == type)
            return TYPES[i].dtype;
    return SONIC_DTYPE_INVALID;
}

// One input or output as the file has it. rank 0: a scalar, or (of an output) not known.
struct found {
    char name[256];
    enum sonic_dtype dtype; // INVALID: no tensor, or of a type that we have no name for
    size_t rank;
    int64_t dims[16];
};
#define FOUND_MAX 64u

struct side {
    const char *what;
    OrtStatus *(ORT_API_CALL *count)(const OrtSession *, size_t *);
    OrtStatus *(ORT_API_CALL *name)(const OrtSession *, size_t, OrtAllocator *, char **);
    OrtStatus *(ORT_API_CALL *type)(const OrtSession *, size_t, OrtTypeInfo **);
};

static OrtStatus *read_shape(const OrtTypeInfo *type, struct found *f)
{
    const OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType element;
    OrtStatus *s = onnx_api->CastTypeInfoToTensorInfo(type, &info);
    f->dtype = SONIC_DTYPE_INVALID;
    if (s || !info)
        return s;
    s = onnx_api->GetTensorElementType(info, &element);
    if (s)
        return s;
    f->dtype = onnx_dtype(element);
    s = onnx_api->GetDimensionsCount(info, &f->rank);
    if (s || f->rank > 16)
        return s;
    return onnx_api->GetDimensions(info, f->dims, f->rank);
}

static OrtStatus *read_one(const OrtSession *session, const struct side *side, size_t i,
                           struct found *f)
{
    OrtAllocator *allocator;
    OrtTypeInfo *type = NULL;
    char *name = NULL;
    memset(f, 0, sizeof(*f));
    OrtStatus *s = onnx_api->GetAllocatorWithDefaultOptions(&allocator);
    if (!s)
        s = side->name(session, i, allocator, &name);
    if (s)
        return s;
    snprintf(f->name, sizeof(f->name), "%s", name);
    s = onnx_api->AllocatorFree(allocator, name);
    if (!s)
        s = side->type(session, i, &type);
    if (!s)
        s = read_shape(type, f);
    if (type)
        onnx_api->ReleaseTypeInfo(type);
    return s;
}

// "FP32[any,47]" as the file has it.
static void print_found(const struct found *f, char *buf, size_t size)
{
    size_t used = (size_t)snprintf(buf, size, "%s[", dtype_name(f->dtype));
    for (size_t i = 0; i < f->rank && i < 16 && used < size; i++) {
        char number[24];
        snprintf(number, sizeof(number), "%" PRId64, f->dims[i]);
        used += (size_t)snprintf(buf + used, size - used, "%s%s", i ? "," : "",
                                 f->dims[i] < 0 ? "any" : number);
    }
    if (used < size)
        snprintf(buf + used, size - used, "]");
}

// Rows: -1 in the file, unless the model takes just one row at a time anyway.
static bool rows_fit(const struct model_config *c, const struct found *f)
{
    return f->dims[0] < 0 || (f->dims[0] == 1 && c->batch_max == 1);
}

static bool fits(const struct model_config *c, const struct tensor_spec *spec,
                 const struct found *f, bool input)
{
    size_t batch = c->batch_max > 0;
    if (f->dtype != spec->dtype)
        return false;
    if (!input && f->rank == 0)
        return true; // not known before it runs: the warm-up looks at what comes out
    if (f->rank != spec->ndim + batch || (batch && !rows_fit(c, f)))
        return false;
    for (size_t k = 0; k < spec->ndim; k++) {
        int64_t there = f->dims[k + batch];
        if (there >= 0 && there != spec->dims[k] && (input || spec->dims[k] >= 0))
            return false;
    }
    return true;
}

static int mismatch(const struct model_config *c, const struct tensor_spec *spec,
                    const struct found *f, const char *what, const char *path, char *why,
                    size_t size)
{
    char there[256], declared[256];
    print_found(f, there, sizeof(there));
    tensor_spec_print(declared, sizeof(declared), spec, c->batch_max > 0);
    const char *cure = "correct data_type or dims in config.pbtxt";
    if (c->batch_max > 0 && f->rank > 0 && !rows_fit(c, f))
        cure = "its first dimension is fixed: export it with a free batch dimension, or set "
               "max_batch_size: 0 and declare all dims";
    snprintf(why, size, "%s: %s \"%s\" is %s there, config.pbtxt declares %s: %s", path, what,
             spec->name, there, declared, cure);
    return -EINVAL;
}

static int missing(const struct found *found, size_t n, const char *name, const char *what,
                   const char *path, char *why, size_t size)
{
    int used = snprintf(
        why, size, "%s: it has no %s \"%s\" that config.pbtxt declares; it has:", path, what, name);
    for (size_t i = 0; i < n && used > 0 && (size_t)used < size; i++)
        used += snprintf(why + used, size - (size_t)used, " \"%s\"", found[i].name);
    return -EINVAL;
}

static const struct found *find(const struct found *found, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(found[i].name, name) == 0)
            return &found[i];
    return NULL;
}

static int read_side(const OrtSession *session, const struct side *side, const char *path,
                     struct found *found, size_t *n, char *why, size_t size)
{
    int rc = onnx_ok(side->count(session, n), path, why, size);
    if (rc == 0 && *n > FOUND_MAX) {
        snprintf(why, size, "%s: it has %zu %ss, served are up to %u", path, *n, side->what,
                 SONIC_TENSORS_MAX);
        rc = -EINVAL;
    }
    for (size_t i = 0; rc == 0 && i < *n; i++)
        rc = onnx_ok(read_one(session, side, i, &found[i]), path, why, size);
    return rc;
}

static int compare_side(const OrtSession *session, const struct model_config *c,
                        const struct side *side, bool input, const char *path, char *why,
                        size_t size)
{
    static struct found found[FOUND_MAX]; // main thread only; 26 KiB
    const struct tensor_spec *specs = input ? c->runtime_inputs : c->runtime_outputs;
    uint32_t nspecs = input ? c->ninputs : c->noutputs;
    size_t n;
    int rc = read_side(session, side, path, found, &n, why, size);
    for (uint32_t i = 0; rc == 0 && i < nspecs; i++) {
        const struct found *f = find(found, n, specs[i].name);
        if (!f)
            rc = missing(found, n, specs[i].name, side->what, path, why, size);
        else if (!fits(c, &specs[i], f, input))
            rc = mismatch(c, &specs[i], f, side->what, path, why, size);
    }
    for (size_t i = 0; rc == 0 && input && i < n; i++) {
        bool declared = false;
        for (uint32_t k = 0; k < nspecs; k++)
            declared = declared || strcmp(specs[k].name, found[i].name) == 0;
        if (!declared) {
            snprintf(why, size, "%s: its input \"%s\" is not declared: add it to config.pbtxt",
                     path, found[i].name);
            rc = -EINVAL;
        }
    }
    return rc;
}

int onnx_compare(const OrtSession *session, const struct model_config *config, const char *path,
                 char *why, size_t size)
{
    struct side inputs = {"input", onnx_api->SessionGetInputCount, onnx_api->SessionGetInputName,
                          onnx_api->SessionGetInputTypeInfo};
    struct side outputs = {"output", onnx_api->SessionGetOutputCount,
                           onnx_api->SessionGetOutputName, onnx_api->SessionGetOutputTypeInfo};
    int rc = compare_side(session, config, &inputs, true, path, why, size);
    return rc == 0 ? compare_side(session, config, &outputs, false, path, why, size) : rc;
}
