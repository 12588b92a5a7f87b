// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/executors/cuda/process/onnx.h"

static OrtEnv *env;
static const char *version = "?";

// ---- which nodes the processor gets -------------------------------------------------------------

// The runtime tells it in its log alone, at the most talkative level: "Node(s) placed on
// [CPUExecutionProvider]. Number of nodes: 2", then a line a node, all from one place in its
// source.
static struct {
    bool listing;
    uint32_t n;
    char names[300];
} on_cpu;

static void ORT_API_CALL hear(void *unused, OrtLoggingLevel severity, const char *category,
                              const char *id, const char *location, const char *message)
{
    static const char placed[] = "placed on [";
    const char *at = strstr(message, placed), *count = strstr(message, "nodes: ");
    (void)unused;
    (void)category;
    (void)id;
    if (severity >= ORT_LOGGING_LEVEL_ERROR) {
        log_line(LOG_LEVEL_WARN, "onnxruntime", "at=%s text=\"%s\"", location, message);
    } else if (!strstr(location, "VerifyEachNodeIsAssignedToAnEp")) {
        on_cpu.listing = false;
    } else if (at && count) {
        on_cpu.listing = strncmp(at + sizeof(placed) - 1, "CPUExecutionProvider", 20) == 0;
        on_cpu.n += on_cpu.listing ? (uint32_t)strtoul(count + 7, NULL, 10) : 0;
    } else if (on_cpu.listing) {
        size_t used = strlen(on_cpu.names);
        snprintf(on_cpu.names + used, sizeof(on_cpu.names) - used, "%s%s", used ? ", " : "",
                 message + strspn(message, " "));
    }
}

static int judge_nodes(const struct device_model *m, const struct onnx_settings *o,
                       const char *path, char *why, size_t size)
{
    char words[700];
    if (on_cpu.n == 0)
        return 0;
    snprintf(words, sizeof(words),
             "%s: %u nodes have no implementation on the GPU and run on the processor: %s", path,
             on_cpu.n, on_cpu.names[0] ? on_cpu.names : "all of the model");
    if (!o->refuses_cpu_nodes) {
        log_warn("cpu_nodes", "model=%s why=\"%s\"", m->config.name, words);
        return 0;
    }
    snprintf(why, size, "%s, which sonic_cuda_cpu_nodes in config.pbtxt refuses", words);
    return -ENOTSUP;
}

// ---- the library --------------------------------------------------------------------------------

// What the provider's library is linked with, where only set-up's folder has it.
static void load_companions(void)
{
    static const char *const companions[][3] = {
        {"libcudart.so.13", "libcudart.so.12", NULL},
        {"libcublasLt.so.13", "libcublasLt.so.12", NULL},
        {"libcublas.so.13", "libcublas.so.12", NULL},
        {"libcurand.so.10", NULL, NULL},
        {"libnvrtc.so.13", "libnvrtc.so.12", NULL},
        {"libcudnn.so.9", NULL, NULL},
    };
    char ignored[512];
    for (size_t i = 0; i < sizeof(companions) / sizeof(companions[0]); i++)
        cuda_open_library(NULL, companions[i], true, ignored, sizeof(ignored));
}

int onnx_start(char *why, size_t size)
{
    static const char *const sonames[] = {"libonnxruntime.so.1", NULL};
    const OrtApiBase *(*get)(void);
    char reason[600];
    if (env)
        return 0;
    load_companions();
    void *library = cuda_open_library("SONIC_ORT_CUDA", sonames, false, reason, sizeof(reason));
    void *found = library ? dlsym(library, "OrtGetApiBase") : NULL;
    if (!found) {
        snprintf(why, size,
                 "ONNX Runtime for CUDA cannot be loaded: %s (deploy/setup.sh --cuda installs it)",
                 library ? "its library has no OrtGetApiBase" : reason);
        return -ENOENT;
    }
    memcpy(&get, &found, sizeof(found));
    version = get()->GetVersionString();
    onnx_api = get()->GetApi(ORT_API_VERSION);
    if (!onnx_api) {
        snprintf(why, size,
                 "the ONNX Runtime for CUDA here is %s, this program was built for API %d: install "
                 "a newer one (deploy/setup.sh --cuda)",
                 version, ORT_API_VERSION);
        return -ENOSYS;
    }
    return onnx_ok(
        onnx_api->CreateEnvWithCustomLogger(hear, NULL, ORT_LOGGING_LEVEL_FATAL, "sonic", &env),
        "ONNX Runtime does not start", why, size);
}

bool onnx_is_no_memory(const char *words)
{
    // The third is an arena's that sonic_cuda_memory_mib bounds.
    static const char *const signs[] = {
        "out of memory",       "Failed to allocate memory", "is smaller than requested bytes",
        "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED",         "cudaErrorMemoryAllocation",
    };
    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++)
        if (strstr(words, signs[i]))
            return true;
    return false;
}

// ---- a session ----------------------------------------------------------------------------------

static OrtStatus *add_cuda(OrtSessionOptions *options, const struct device_model *m,
                           const struct onnx_settings *o, cuda_stream stream)
{
    char device[16], limit[32];
    const char *keys[8] = {"device_id", "cudnn_conv_algo_search", "use_tf32", "enable_cuda_graph",
                           "arena_extend_strategy"};
    const char *values[8] = {device, o->search, o->tf32 ? "1" : "0", o->graphs ? "1" : "0",
                             "kSameAsRequested"};
    size_t n = 5;
    OrtCUDAProviderOptionsV2 *cuda_options = NULL;
    snprintf(device, sizeof(device), "%d", m->device->ordinal);
    snprintf(limit, sizeof(limit), "%llu", (unsigned long long)o->arena_mib << 20);
    if (o->arena_mib) {
        keys[n] = "gpu_mem_limit";
        values[n++] = limit;
    }
    OrtStatus *s = onnx_api->CreateCUDAProviderOptions(&cuda_options);
    if (!s)
        s = onnx_api->UpdateCUDAProviderOptions(cuda_options, keys, values, n);
    if (!s)
        s = onnx_api->UpdateCUDAProviderOptionsWithValue(cuda_options, "user_compute_stream",
                                                         stream);
    if (!s)
        s = onnx_api->SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda_options);
    if (cuda_options)
        onnx_api->ReleaseCUDAProviderOptions(cuda_options);
    return s;
}

// Engines take minutes to build: they are kept in a folder, by model, GPU and version.
static OrtStatus *add_tensorrt(OrtSessionOptions *options, const struct device_model *m,
                               const struct onnx_settings *o, cuda_stream stream)
{
    char device[16];
    const char *keys[] = {"device_id", "trt_engine_cache_enable", "trt_engine_cache_path",
                          "trt_fp16_enable"};
    const char *values[] = {device, o->engines[0] ? "1" : "0", o->engines, o->fp16 ? "1" : "0"};
    OrtTensorRTProviderOptionsV2 *trt = NULL;
    snprintf(device, sizeof(device), "%d", m->device->ordinal);
    OrtStatus *s = onnx_api->CreateTensorRTProviderOptions(&trt);
    if (!s)
        s = onnx_api->UpdateTensorRTProviderOptions(trt, keys, values,
                                                    sizeof(keys) / sizeof(keys[0]));
    if (!s)
        s = onnx_api->UpdateTensorRTProviderOptionsWithValue(trt, "user_compute_stream", stream);
    if (!s)
        s = onnx_api->SessionOptionsAppendExecutionProvider_TensorRT_V2(options, trt);
    if (trt)
        onnx_api->ReleaseTensorRTProviderOptions(trt);
    return s;
}

static OrtStatus *set_options(OrtSessionOptions *options, const struct device_model *m,
                              const struct onnx_settings *o, cuda_stream stream)
{
    OrtStatus *s = onnx_api->SetIntraOpNumThreads(options, 1);
    if (!s)
        s = onnx_api->SetSessionExecutionMode(options, ORT_SEQUENTIAL);
    if (!s)
        s = onnx_api->SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL);
    if (!s)
        s = onnx_api->SetSessionLogSeverityLevel(options, ORT_LOGGING_LEVEL_VERBOSE);
    if (!s && o->tensorrt)
        s = add_tensorrt(options, m, o, stream);
    return s ? s : add_cuda(options, m, o, stream);
}

int onnx_open_session(const struct device_model *m, const struct onnx_settings *o, const char *path,
                      cuda_stream stream, OrtSession **session, char *why, size_t size)
{
    OrtSessionOptions *options = NULL;
    char refused[400];
    snprintf(refused, sizeof(refused),
             "%s: model %s: ONNX Runtime refuses the GPU or its options (deploy/setup.sh --cuda "
             "installs the libraries that it wants)",
             m->device->name, m->config.name);
    memset(&on_cpu, 0, sizeof(on_cpu));
    OrtStatus *s = onnx_api->CreateSessionOptions(&options);
    if (!s)
        s = set_options(options, m, o, stream);
    int rc = onnx_ok(s, refused, why, size);
    if (rc == 0)
        rc = onnx_ok(onnx_api->CreateSession(env, path, options, session), path, why, size);
    if (options)
        onnx_api->ReleaseSessionOptions(options);
    return rc == 0 ? judge_nodes(m, o, path, why, size) : rc;
}
