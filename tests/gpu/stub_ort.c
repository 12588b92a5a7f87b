// SPDX-License-Identifier: Apache-2.0
// ONNX Runtime with a CUDA provider of the tests' own: the real library with its CPU provider,
// behind the few functions in which the device process speaks of a GPU. A run is queued on the
// stream that the session was given, and happens when the stub's GPU comes to it; the shapes,
// bindings and values are checked by the real library.
//
// Steps of SONIC_STUB_FAULTS: provider (naming it), session (opening one), run (queueing one): 2 is
// a lack of memory, another number another failure. SONIC_STUB_CPU_NODES=TEXT: the log says that
// this node has no implementation on the GPU. SONIC_STUB_REPORT=FILE gets a line for each provider
// option.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/stub_cuda.h"
#include "tests/stub_faults.h"

#define THINGS_MAX 4096u
#define TENSORS_MAX 16u

static const OrtApi *real;
static OrtApi api;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// What is known of the real library's objects, by their addresses.
static struct thing {
    const void *key;
    cuda_stream stream; // of session options and sessions
    OrtSession *session;
    struct stub_access accesses[TENSORS_MAX]; // of bindings
    size_t naccesses;
    int64_t rows;
    bool graphs, captured; // of options and sessions
    pthread_t capturer;
} things[THINGS_MAX];

static struct thing *thing_of(const void *key)
{
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < THINGS_MAX && things[i].key && things[i].key != key)
        i++;
    if (i == THINGS_MAX)
        abort();
    things[i].key = key;
    pthread_mutex_unlock(&lock);
    return &things[i];
}

static void report(const char *key, const char *value)
{
    const char *path = getenv("SONIC_STUB_REPORT");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file)
        return;
    fprintf(file, "option %s=%s\n", key, value);
    fclose(file);
}

static OrtStatus *fault(const char *step)
{
    int e = stub_fault(step);
    stub_leave_error(e);
    if (e == 2)
        return real->CreateStatus(ORT_FAIL, "CUDA failure 2: out of memory; GPU=0\n");
    return e ? real->CreateStatus(ORT_FAIL, "the stub fails as it was asked to") : NULL;
}

// ---- the log ------------------------------------------------------------------------------------

static OrtLoggingFunction users_log;

static void ORT_API_CALL tell(void *param, OrtLoggingLevel severity, const char *category,
                              const char *id, const char *location, const char *message)
{
    const char *node = getenv("SONIC_STUB_CPU_NODES");
    if (!strstr(message, "placed on [")) {
        users_log(param, severity, category, id, location, message);
        return;
    }
    users_log(param, severity, category, id, location,
              " Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 7");
    users_log(param, severity, category, id, location, "  Relu (a_node_of_the_gpu)");
    if (!node)
        return;
    users_log(param, severity, category, id, location,
              " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1");
    users_log(param, severity, category, id, location, node);
}

static OrtStatus *ORT_API_CALL create_env(OrtLoggingFunction log, void *param,
                                          OrtLoggingLevel severity, const char *id, OrtEnv **out)
{
    users_log = log;
    return real->CreateEnvWithCustomLogger(tell, param, severity, id, out);
}

// ---- the provider -------------------------------------------------------------------------------

static OrtStatus *ORT_API_CALL create_cuda(OrtCUDAProviderOptionsV2 **out)
{
    *out = calloc(1, sizeof(struct thing));
    return NULL;
}

static void ORT_API_CALL release_cuda(OrtCUDAProviderOptionsV2 *options)
{
    free(options);
}

static OrtStatus *ORT_API_CALL update_cuda(OrtCUDAProviderOptionsV2 *options,
                                           const char *const *keys, const char *const *values,
                                           size_t n)
{
    static const char known[] = " device_id cudnn_conv_algo_search use_tf32 enable_cuda_graph "
                                "arena_extend_strategy gpu_mem_limit ";
    (void)options;
    for (size_t i = 0; i < n; i++) {
        char word[64];
        snprintf(word, sizeof(word), " %s ", keys[i]);
        if (!strstr(known, word))
            return real->CreateStatus(ORT_INVALID_ARGUMENT, keys[i]);
        report(keys[i], values[i]);
        if (strcmp(keys[i], "enable_cuda_graph") == 0)
            ((struct thing *)options)->graphs = values[i][0] == '1';
    }
    return NULL;
}

static OrtStatus *ORT_API_CALL update_cuda_value(OrtCUDAProviderOptionsV2 *options, const char *key,
                                                 void *value)
{
    if (strcmp(key, "user_compute_stream") != 0)
        return real->CreateStatus(ORT_INVALID_ARGUMENT, key);
    ((struct thing *)options)->stream = value;
    return NULL;
}

static OrtStatus *ORT_API_CALL append_cuda(OrtSessionOptions *options,
                                           const OrtCUDAProviderOptionsV2 *cuda_options)
{
    OrtStatus *s = fault("provider");
    if (s)
        return s;
    thing_of(options)->stream = ((const struct thing *)cuda_options)->stream;
    thing_of(options)->graphs = ((const struct thing *)cuda_options)->graphs;
    return NULL;
}

static OrtStatus *ORT_API_CALL no_tensorrt(OrtTensorRTProviderOptionsV2 **out)
{
    *out = NULL;
    return real->CreateStatus(ORT_FAIL, "the stub has no TensorRT");
}

static OrtStatus *ORT_API_CALL create_session(const OrtEnv *env, const char *path,
                                              const OrtSessionOptions *options, OrtSession **out)
{
    OrtStatus *s = fault("session");
    s = s ? s : real->CreateSession(env, path, options, out);
    if (!s) {
        thing_of(*out)->stream = thing_of(options)->stream;
        thing_of(*out)->graphs = thing_of(options)->graphs;
    }
    return s;
}

static OrtStatus *ORT_API_CALL create_memory(const char *name, enum OrtAllocatorType type, int id,
                                             enum OrtMemType memory, OrtMemoryInfo **out)
{
    if (strcmp(name, "Cuda") != 0)
        return real->CreateMemoryInfo(name, type, id, memory, out);
    return real->CreateCpuMemoryInfo(type, memory, out);
}

// ---- runs ---------------------------------------------------------------------------------------

static OrtStatus *ORT_API_CALL create_binding(OrtSession *session, OrtIoBinding **out)
{
    OrtStatus *s = real->CreateIoBinding(session, out);
    if (!s)
        thing_of(*out)->session = session;
    return s;
}

static OrtStatus *note(OrtIoBinding *binding, const OrtValue *value, bool write)
{
    struct thing *t = thing_of(binding);
    OrtTensorTypeAndShapeInfo *info = NULL;
    int64_t dims[16];
    size_t n = 0, elements = 0;
    void *data = NULL;
    OrtStatus *s = real->GetTensorTypeAndShape(value, &info);
    s = s ? s : real->GetDimensionsCount(info, &n);
    s = s ? s : real->GetDimensions(info, dims, n);
    s = s ? s : real->GetTensorShapeElementCount(info, &elements);
    s = s ? s : real->GetTensorMutableData((OrtValue *)(uintptr_t)value, &data);
    if (info)
        real->ReleaseTensorTypeAndShapeInfo(info);
    if (s || t->naccesses == TENSORS_MAX)
        return s;
    // The models of the tests have elements of four bytes.
    t->accesses[t->naccesses++] = (struct stub_access){data, elements * 4, write, false};
    t->rows = n ? dims[0] : 1;
    return NULL;
}

static OrtStatus *ORT_API_CALL bind_input(OrtIoBinding *binding, const char *name,
                                          const OrtValue *value)
{
    OrtStatus *s = note(binding, value, false);
    return s ? s : real->BindInput(binding, name, value);
}

static OrtStatus *ORT_API_CALL bind_output(OrtIoBinding *binding, const char *name,
                                           const OrtValue *value)
{
    OrtStatus *s = note(binding, value, true);
    return s ? s : real->BindOutput(binding, name, value);
}

static int run_now(void *user)
{
    OrtIoBinding *binding = user;
    OrtStatus *s = real->RunWithBinding(thing_of(binding)->session, NULL, binding);
    if (!s)
        return 0;
    fprintf(stderr, "stub: %s\n", real->GetErrorMessage(s));
    real->ReleaseStatus(s);
    return 719; // cudaErrorLaunchFailure
}

// The provider has a context for each thread that runs, which a session with graphs never gives to
// another: a graph is captured, and memory reserved for it, on every thread anew.
static void capture(struct thing *session)
{
    pthread_t self = pthread_self();
    pthread_mutex_lock(&lock);
    bool known = session->captured && pthread_equal(session->capturer, self);
    session->captured = true;
    session->capturer = self;
    pthread_mutex_unlock(&lock);
    if (!known)
        stub_slow("capture of graphs");
}

static OrtStatus *ORT_API_CALL run(OrtSession *session, const OrtRunOptions *options,
                                   const OrtIoBinding *binding)
{
    struct thing *t = thing_of(binding);
    if (stub_peek_error()) // kernels look for it after their launch
        return real->CreateStatus(ORT_FAIL, "CUDA failure of an earlier call");
    OrtStatus *s = fault("run");
    if (s)
        return s;
    if (thing_of(session)->graphs)
        capture(thing_of(session));
    (void)options; // the provider runs without waiting, as they ask
    int e = stub_compute(thing_of(session)->stream, run_now, (void *)(uintptr_t)binding,
                         t->accesses, t->naccesses, (uint64_t)t->rows * stub_row_ns());
    return e ? real->CreateStatus(ORT_FAIL, "CUDA failure in the stub") : NULL;
}

// ---- the library --------------------------------------------------------------------------------

static const OrtApi *ORT_API_CALL get_api(uint32_t version)
{
    pthread_mutex_lock(&lock);
    if (!real) {
        void *library = dlopen(SONIC_REAL_ORT, RTLD_NOW | RTLD_LOCAL);
        const OrtApiBase *(*get)(void) = NULL;
        void *found = library ? dlsym(library, "OrtGetApiBase") : NULL;
        if (!found)
            abort();
        memcpy(&get, &found, sizeof(found));
        real = get()->GetApi(version);
    }
    pthread_mutex_unlock(&lock);
    api = *real;
    api.CreateEnvWithCustomLogger = create_env;
    api.CreateCUDAProviderOptions = create_cuda;
    api.ReleaseCUDAProviderOptions = release_cuda;
    api.UpdateCUDAProviderOptions = update_cuda;
    api.UpdateCUDAProviderOptionsWithValue = update_cuda_value;
    api.SessionOptionsAppendExecutionProvider_CUDA_V2 = append_cuda;
    api.CreateTensorRTProviderOptions = no_tensorrt;
    api.CreateSession = create_session;
    api.CreateMemoryInfo = create_memory;
    api.CreateIoBinding = create_binding;
    api.BindInput = bind_input;
    api.BindOutput = bind_output;
    api.RunWithBinding = run;
    return &api;
}

static const char *ORT_API_CALL get_version(void)
{
    return "stub";
}

__attribute__((visibility("default"))) const OrtApiBase *ORT_API_CALL OrtGetApiBase(void)
{
    static const OrtApiBase base = {get_api, get_version};
    return &base;
}
