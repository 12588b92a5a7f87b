// SPDX-License-Identifier: Apache-2.0
// What the ONNX Runtime executor's files share: the API, and a loaded model.
#ifndef SONIC_WORKER_EXECUTORS_ONNX_H
#define SONIC_WORKER_EXECUTORS_ONNX_H

#include <onnxruntime_c_api.h>
#include <pthread.h>

#include "worker/executor.h"

// Output memory of one execution, reused. Rows of it are as many as were needed so far.
struct onnx_outputs {
    struct onnx_outputs *next;
    struct executor_model *model;
    uint32_t rows_max;
    void *data[SONIC_TENSORS_MAX];       // ours, for outputs of known size
    OrtValue *values[SONIC_TENSORS_MAX]; // the runtime's, for the others; NULL where ours
};

struct executor_device {
    OrtEnv *env;
    OrtMemoryInfo *memory; // "CPU memory", for tensors over our buffers
    uint32_t slots;
};

struct executor_model {
    const struct executor_device *device;
    OrtSession *session;
    struct model_config config;
    uint64_t row_bytes[SONIC_TENSORS_MAX]; // of each output; 0: known only after the execution
    pthread_mutex_t lock;
    struct onnx_outputs *free_outputs; // under the lock
    uint32_t nfree;
};

extern const OrtApi *onnx_api;

// 0, or -EIO with the status' message in `why` behind `what`; releases the status.
int onnx_ok(OrtStatus *status, const char *what, char *why, size_t size);
// ONNX Runtime's number for our dtype; UNDEFINED for none.
ONNXTensorElementDataType onnx_type(unsigned dtype);
// Our dtype for ONNX Runtime's, SONIC_DTYPE_INVALID for none.
enum sonic_dtype onnx_dtype(ONNXTensorElementDataType type);
// Compares the session's inputs and outputs with the config. 0, or -EINVAL with words that name the
// file, the tensor, what is there and what to change.
int onnx_compare(const OrtSession *session, const struct model_config *config, const char *path,
                 char *why, size_t size);
// One execution; words in x->error.
enum executor_outcome onnx_execute(struct executor_model *m, uint32_t slot, struct execution *x);
void onnx_outputs_deinit(struct executor_model *m);

#endif
