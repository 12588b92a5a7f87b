// SPDX-License-Identifier: Apache-2.0
// ONNX Runtime on the GPU: its library is loaded at run time (it is another one than the CPU
// executor's), each lane has a session that computes on the lane's stream, and inputs and outputs
// are bound to the slots' device buffers once, for each number of rows that is ever computed.
#ifndef SONIC_WORKER_EXECUTORS_CUDA_PROCESS_ONNX_H
#define SONIC_WORKER_EXECUTORS_CUDA_PROCESS_ONNX_H

#include "worker/executors/cuda/process/device.h"
#include "worker/executors/onnx.h"

// What config.pbtxt asks for (docs/gpu.md).
struct onnx_settings {
    char file[128];         // sonic_cuda_model, else default_model_filename, else model.onnx
    bool tensorrt;          // sonic_cuda_provider: cuda, tensorrt
    bool tf32;              // sonic_cuda_tf32
    bool graphs;            // sonic_cuda_graphs
    bool refuses_cpu_nodes; // sonic_cuda_cpu_nodes: warn, refuse
    bool fp16;              // sonic_cuda_tensorrt_fp16
    const char *search;     // sonic_cuda_cudnn_search: HEURISTIC, EXHAUSTIVE, DEFAULT
    uint64_t arena_mib;     // sonic_cuda_memory_mib, of a lane; 0: no limit
    char engines[4096];     // sonic_cuda_tensorrt_cache, else a folder in the user's cache
};

// 0, or -EINVAL with words: a value makes no sense, or a sonic_cuda_ parameter is none of these.
int onnx_settings_read(struct onnx_settings *o, const struct model_config *c, char *why,
                       size_t size);

// Loads the library and starts it, once a process. 0, or a negative errno with words.
int onnx_start(char *why, size_t size);
// A session that computes on `stream`. 0, or a negative errno with words that name the file; nodes
// that the GPU does not compute are named in the log, or refused.
int onnx_open_session(const struct device_model *m, const struct onnx_settings *o, const char *path,
                      cuda_stream stream, OrtSession **session, char *why, size_t size);
// Whether this is how the runtime, cuBLAS or cuDNN say that the GPU's memory is full.
bool onnx_is_no_memory(const char *words);

#endif
