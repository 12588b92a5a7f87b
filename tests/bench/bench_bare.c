// SPDX-License-Identifier: Apache-2.0
// Bare ONNX Runtime: N threads run one session in a loop over memory of their own, nothing else. It
// shares no code with the worker's executor on purpose: this is the yardstick that the farm is held
// against. One JSON line for each batch size.
//
//   bench_bare --models DIR --model NAME --threads 2 --seconds 3 --batches 1,8,32
#include <getopt.h>
#include <onnxruntime_c_api.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/exitcode.h"
#include "common/model_repository.h"

#define THREADS_MAX 256
#define BATCHES_MAX 32

static const OrtApi *ort;
static struct model_entry entry;
static OrtSession *session;

struct runner {
    pthread_t thread;
    uint32_t batch;
    uint64_t executions;
    double busy_us;
    atomic_bool *stop;
};

static void must(OrtStatus *status, const char *what)
{
    if (!status)
        return;
    fprintf(stderr, "bench_bare: %s: %s\n", what, ort->GetErrorMessage(status));
    exit(EXIT_MODEL);
}

static void open_session(const char *path)
{
    OrtEnv *env;
    OrtSessionOptions *o;
    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    must(ort->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "bare", &env), "environment");
    must(ort->CreateSessionOptions(&o), "options");
    must(ort->SetIntraOpNumThreads(o, 1), "options");
    must(ort->SetInterOpNumThreads(o, 1), "options");
    must(ort->SetSessionGraphOptimizationLevel(o, ORT_ENABLE_ALL), "options");
    must(ort->CreateSession(env, path, o, &session), path);
    ort->ReleaseSessionOptions(o);
}

// A tensor of `rows` rows over new memory, filled with seeded numbers in [0, 1) if it is FP32.
static OrtValue *tensor(const struct tensor_spec *spec, uint32_t rows, unsigned seed)
{
    OrtMemoryInfo *memory;
    OrtValue *value;
    int64_t shape[SONIC_DIMS_MAX + 1] = {rows};
    uint64_t row_bytes;
    if (spec->dtype != SONIC_FP32 || !tensor_spec_row_bytes(spec, &row_bytes)) {
        fprintf(stderr, "bench_bare: tensor %s is not FP32 of fixed size\n", spec->name);
        exit(EXIT_USAGE);
    }
    for (unsigned k = 0; k < spec->ndim; k++)
        shape[k + 1] = spec->dims[k];
    uint64_t bytes = (row_bytes * rows + 63) / 64 * 64;
    float *data = aligned_alloc(64, bytes);
    if (!data)
        exit(EXIT_INTERNAL);
    for (uint64_t i = 0; i < bytes / sizeof(float); i++)
        data[i] = (float)rand_r(&seed) / ((float)RAND_MAX + 1.0f);
    must(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory), "memory");
    must(ort->CreateTensorWithDataAsOrtValue(memory, data, row_bytes * rows, shape, spec->ndim + 1u,
                                             ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value),
         spec->name);
    ort->ReleaseMemoryInfo(memory);
    return value;
}

static void release(OrtValue *value)
{
    void *data;
    must(ort->GetTensorMutableData(value, &data), "tensor");
    ort->ReleaseValue(value);
    free(data);
}

static void *run(void *user)
{
    struct runner *r = user;
    const struct model_config *c = &entry.config;
    const char *inputs[SONIC_TENSORS_MAX], *outputs[SONIC_TENSORS_MAX];
    OrtValue *in[SONIC_TENSORS_MAX], *out[SONIC_TENSORS_MAX];
    for (uint32_t i = 0; i < c->ninputs; i++) {
        inputs[i] = c->inputs[i].name;
        in[i] = tensor(&c->runtime_inputs[i], r->batch, 1 + i);
    }
    for (uint32_t i = 0; i < c->noutputs; i++) {
        outputs[i] = c->outputs[i].name;
        out[i] = tensor(&c->runtime_outputs[i], r->batch, 0);
    }
    uint64_t start_us = clock_now_us();
    while (!atomic_load_explicit(r->stop, memory_order_relaxed)) {
        must(ort->Run(session, NULL, inputs, (const OrtValue *const *)in, c->ninputs, outputs,
                      c->noutputs, out),
             "run");
        r->executions++;
    }
    r->busy_us = (double)(clock_now_us() - start_us);
    for (uint32_t i = 0; i < c->ninputs; i++)
        release(in[i]);
    for (uint32_t i = 0; i < c->noutputs; i++)
        release(out[i]);
    return NULL;
}

// Items per second over all threads, each over the time that it ran (to the end of its last
// execution, which may last long). The first fifth of a second warms up and is not counted.
static double measure(uint32_t threads, uint32_t batch, double seconds)
{
    static struct runner runners[THREADS_MAX];
    double rate = 0;
    for (int phase = 0; phase < 2; phase++) {
        atomic_bool stop = false;
        double us = (phase ? seconds : 0.2) * 1e6;
        for (uint32_t i = 0; i < threads; i++) {
            runners[i] = (struct runner){.batch = batch, .stop = &stop};
            if (pthread_create(&runners[i].thread, NULL, run, &runners[i]) != 0)
                exit(EXIT_INTERNAL);
        }
        struct timespec t = {(time_t)(us / 1e6), (long)((uint64_t)us % 1000000) * 1000};
        nanosleep(&t, NULL);
        atomic_store(&stop, true);
        rate = 0;
        for (uint32_t i = 0; i < threads; i++) {
            pthread_join(runners[i].thread, NULL);
            rate += (double)(runners[i].executions * batch) * 1e6 / runners[i].busy_us;
        }
    }
    return rate;
}

static uint32_t parse_batches(char *text, uint32_t *batches)
{
    uint32_t n = 0;
    for (char *at = strtok(text, ","); at && n < BATCHES_MAX; at = strtok(NULL, ","))
        if (atoi(at) > 0)
            batches[n++] = (uint32_t)atoi(at);
    return n;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"models", required_argument, NULL, 'd'},  {"model", required_argument, NULL, 'm'},
        {"threads", required_argument, NULL, 't'}, {"seconds", required_argument, NULL, 's'},
        {"batches", required_argument, NULL, 'b'}, {NULL, 0, NULL, 0}};
    const char *models = NULL, *model = NULL;
    uint32_t threads = 1, batches[BATCHES_MAX] = {1}, nbatches = 1;
    double seconds = 3;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'd':
            models = optarg;
            break;
        case 'm':
            model = optarg;
            break;
        case 't':
            threads = (uint32_t)atoi(optarg);
            break;
        case 's':
            seconds = atof(optarg);
            break;
        case 'b':
            nbatches = parse_batches(optarg, batches);
            break;
        default:
            return EXIT_USAGE;
        }
    if (!models || !model || threads < 1 || threads > THREADS_MAX || nbatches < 1 ||
        !(seconds > 0)) {
        fputs("usage: bench_bare --models DIR --model NAME [--threads N] [--seconds S] "
              "[--batches N,N,...]\n",
              stderr);
        return EXIT_USAGE;
    }
    char why[1024], path[sizeof(entry.dir) + 16];
    if (model_repository_read(models, model, &entry, NULL, NULL, why, sizeof(why)) != 0) {
        fprintf(stderr, "bench_bare: %s\n", why);
        return EXIT_MODEL;
    }
    snprintf(path, sizeof(path), "%s/model.onnx", entry.dir);
    open_session(path);
    for (uint32_t i = 0; i < nbatches; i++) {
        printf("{\"bench\": \"bare\", \"model\": \"%s\", \"threads\": %u, \"batch\": %u, "
               "\"items_per_s\": %.1f}\n",
               model, threads, batches[i], measure(threads, batches[i], seconds));
        fflush(stdout);
    }
    return EXIT_OK;
}
