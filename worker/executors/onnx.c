// SPDX-License-Identifier: Apache-2.0
// cpu[:SLOTS]: ONNX Runtime on the processor. One session a model, with one thread, run by all
// slots at once: the weights are there once, and a slot a core gives more than threads inside an
// operator (DeepCalo at batch 1: 1,727/s against 1,224-1,295 for two threads in one session).
#include "worker/executors/onnx.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/executors/executors.h"

// Inputs of a warm-up execution are no larger than this: beyond, one row has to do.
#define WARM_UP_BYTES_MAX (64u << 20)

// ---- the device ---------------------------------------------------------------------------------

static void describe(struct device_info *info)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(info->name, sizeof(info->name), "processor");
    while (file && fgets(line, sizeof(line), file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        snprintf(info->name, sizeof(info->name), "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file)
        fclose(file);
    info->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int probe(const char *argument, struct device_info *info, char *why, size_t size)
{
    cpu_set_t cpus;
    char *end;
    *info = (struct device_info){.slots = 1};
    // The cores that this process may use, not those that there are: batch systems give few.
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
        info->slots = (uint32_t)CPU_COUNT(&cpus);
    describe(info);
    if (!*argument)
        return 0;
    unsigned long n = strtoul(argument, &end, 10);
    if (*argument < '0' || *argument > '9' || *end || n < 1 || n > EXECUTOR_SLOTS_MAX) {
        snprintf(why, size, "\"%s\" is no number of slots, 1 to %u", argument, EXECUTOR_SLOTS_MAX);
        return -EINVAL;
    }
    info->slots = (uint32_t)n;
    return 0;
}

static void ORT_API_CALL log_message(void *param, OrtLoggingLevel severity, const char *category,
                                     const char *logid, const char *location, const char *message)
{
    (void)param;
    (void)category;
    (void)logid;
    log_line(severity >= ORT_LOGGING_LEVEL_ERROR ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN, "onnxruntime",
             "at=%s text=\"%s\"", location, message);
}

static void close_device(struct executor_device *d)
{
    if (!d)
        return;
    if (d->memory)
        onnx_api->ReleaseMemoryInfo(d->memory);
    if (d->env)
        onnx_api->ReleaseEnv(d->env);
    free(d);
}

static int open_device(const char *argument, struct executor_device **out, char *why, size_t size)
{
    struct device_info info;
    int rc = probe(argument, &info, why, size);
    if (rc != 0)
        return rc;
    onnx_api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!onnx_api) {
        snprintf(why, size,
                 "the ONNX Runtime library here is %s, this program was built for API %d: use the "
                 "library that it was built with, or build it again",
                 OrtGetApiBase()->GetVersionString(), ORT_API_VERSION);
        return -ENOSYS;
    }
    struct executor_device *d = calloc(1, sizeof(*d));
    if (!d) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    d->slots = info.slots;
    // Fatal only: what goes wrong comes back as a status, and is told once, in our words.
    if (onnx_ok(onnx_api->CreateEnvWithCustomLogger(log_message, NULL, ORT_LOGGING_LEVEL_FATAL,
                                                    "sonic", &d->env),
                "ONNX Runtime does not start", why, size) != 0 ||
        onnx_ok(onnx_api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &d->memory),
                "ONNX Runtime does not start", why, size) != 0) {
        close_device(d);
        return -EIO;
    }
    *out = d;
    return 0;
}

// ---- a model ------------------------------------------------------------------------------------

static OrtStatus *set_options(OrtSessionOptions *o)
{
    OrtStatus *s = onnx_api->SetIntraOpNumThreads(o, 1);
    if (!s)
        s = onnx_api->SetInterOpNumThreads(o, 1);
    if (!s)
        s = onnx_api->SetSessionExecutionMode(o, ORT_SEQUENTIAL);
    if (!s)
        s = onnx_api->SetSessionGraphOptimizationLevel(o, ORT_ENABLE_ALL);
    // A slot that has nothing to do must not burn its core.
    if (!s)
        s = onnx_api->AddSessionConfigEntry(o, "session.intra_op.allow_spinning", "0");
    return s;
}

static int open_session(struct executor_model *m, const char *path, char *why, size_t size)
{
    OrtSessionOptions *options = NULL;
    OrtStatus *status = onnx_api->CreateSessionOptions(&options);
    if (!status)
        status = set_options(options);
    int rc = onnx_ok(status, "ONNX Runtime refuses its options", why, size);
    if (rc == 0) {
        rc = onnx_ok(onnx_api->CreateSession(m->device->env, path, options, &m->session), path, why,
                     size);
        size_t used = strlen(why);
        if (rc != 0)
            snprintf(why + used, size - used,
                     " (the file is corrupt, or not a model that this ONNX Runtime %s reads: make "
                     "it again)",
                     OrtGetApiBase()->GetVersionString());
    }
    if (options)
        onnx_api->ReleaseSessionOptions(options);
    return rc;
}

// Zeros for every input, `rows` of them. False: out of memory, or a dimension is free.
static bool warm_up_inputs(const struct model_config *c, uint32_t rows, struct execution *x)
{
    unsigned batch = c->batch_max > 0;
    x->rows = rows;
    x->ninputs = c->ninputs;
    for (uint32_t i = 0; i < c->ninputs; i++) {
        const struct tensor_spec *spec = &c->inputs[i];
        struct executor_tensor *t = &x->inputs[i];
        uint64_t row_bytes;
        t->data = NULL;
        if (!tensor_spec_row_bytes(spec, &row_bytes) || row_bytes * rows > WARM_UP_BYTES_MAX)
            return false;
        t->dtype = spec->dtype;
        t->ndim = (uint8_t)(spec->ndim + batch);
        t->dims[0] = rows;
        for (unsigned k = 0; k < spec->ndim; k++)
            t->dims[k + batch] = (uint64_t)spec->dims[k];
        t->bytes = row_bytes * rows;
        t->data = calloc(1, t->bytes);
        if (!t->data)
            return false;
    }
    return true;
}

// Executes once, so that the first request finds all memory there and a model that cannot run is
// known before it is offered. Left out for free dimensions: any choice could be wrong.
static int warm_up(struct executor_model *m, const char *path, uint32_t rows, char *why,
                   size_t size)
{
    struct execution *x = calloc(1, sizeof(*x));
    int rc = 0;
    if (x && warm_up_inputs(&m->config, rows, x)) {
        if (onnx_execute(m, 0, x) == EXECUTOR_OK) {
            x->outputs_free(x->outputs_owner);
        } else {
            snprintf(why, size, "%s: it loads but does not execute %u rows of zeros: %s", path,
                     rows, x->error);
            rc = -EINVAL;
        }
    }
    for (uint32_t i = 0; x && i < x->ninputs; i++)
        free((void *)(uintptr_t)x->inputs[i].data);
    free(x);
    return rc;
}

static uint64_t resident_bytes(void)
{
    unsigned long long total, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &total, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void unload(struct executor_model *m)
{
    if (!m)
        return;
    onnx_outputs_deinit(m);
    if (m->session)
        onnx_api->ReleaseSession(m->session);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static int prepare(struct executor_model *m, const char *path, char *why, size_t size)
{
    const struct model_config *c = &m->config;
    int rc = open_session(m, path, why, size);
    if (rc == 0)
        rc = onnx_compare(m->session, c, path, why, size);
    for (uint32_t i = 0; rc == 0 && i < c->noutputs; i++)
        if (!tensor_spec_row_bytes(&c->outputs[i], &m->row_bytes[i]))
            m->row_bytes[i] = 0;
    if (rc == 0)
        rc = warm_up(m, path, 1, why, size);
    if (rc == 0 && c->default_rows > 1 && c->default_rows <= c->batch_max)
        rc = warm_up(m, path, c->default_rows, why, size);
    return rc;
}

static int load(struct executor_device *d, const struct model_entry *entry,
                struct executor_model **out, uint64_t *memory_bytes, char *why, size_t size)
{
    char path[sizeof(entry->dir) + sizeof(entry->config.file)];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s", entry->dir,
             entry->config.file[0] ? entry->config.file : "model.onnx");
    if (stat(path, &st) != 0) {
        int e = errno;
        snprintf(why, size, "%s: %s", path, strerror(e));
        return -e;
    }
    struct executor_model *m = calloc(1, sizeof(*m));
    if (!m) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    m->device = d;
    m->config = entry->config;
    pthread_mutex_init(&m->lock, NULL);
    uint64_t before = resident_bytes();
    int rc = prepare(m, path, why, size);
    if (rc != 0) {
        unload(m);
        return rc;
    }
    // What the process grew by; where it grew into memory that it had, at least the weights.
    uint64_t after = resident_bytes();
    *memory_bytes = (uint64_t)st.st_size;
    if (after > before && after - before > *memory_bytes)
        *memory_bytes = after - before;
    *out = m;
    return 0;
}

const struct executor executor_cpu = {
    .kind = "cpu",
    .backend = "onnxruntime",
    .instances = INSTANCE_CPU,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .load = load,
    .unload = unload,
    .execute = onnx_execute,
};
