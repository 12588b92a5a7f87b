// SPDX-License-Identifier: Apache-2.0
// opencl[:PLATFORM[:DEVICE[:SLOTS]]]: bundles on an OpenCL device, FPGA or other. The device is in
// a process of its own (child.h); here rows are converted, straight from where they were received
// into the slot's part of the memory that both processes share, and back.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/device/child.h"
#include "worker/device/share.h"
#include "worker/executors/executors.h"
#include "worker/executors/opencl/bundle.h"
#include "worker/executors/opencl/convert.h"

// Two would hide the copies behind the kernel; four also a client that lags (fpga.md's servers).
#define SLOTS 4u

static const struct child_kind CHILD = {
    "sonic-device-opencl",
    "SONIC was built without OpenCL (its headers and ICD loader were missing)",
};

struct executor_device {
    struct child *child;
    uint32_t slots, nmodels;
};

struct executor_model {
    struct executor_device *device;
    struct model_config config;
    struct bundle bundle;
    uint32_t number;
    struct device_share share;
    uint64_t slot_bytes;
    bool reconfigured, guarded;
};

// ---- the device ---------------------------------------------------------------------------------

struct wish {
    char platform[128], device[128];
    uint32_t slots;
};

static int parse(const char *argument, struct wish *w, char *why, size_t size)
{
    char text[300], *rest = text, *end;
    snprintf(text, sizeof(text), "%s", argument);
    const char *platform = strsep(&rest, ":"), *device = strsep(&rest, ":");
    const char *slots = strsep(&rest, ":");
    *w = (struct wish){.slots = SLOTS};
    snprintf(w->platform, sizeof(w->platform), "%s", platform ? platform : "");
    snprintf(w->device, sizeof(w->device), "%s", device ? device : "");
    if (!slots)
        return 0;
    unsigned long n = strtoul(slots, &end, 10);
    if (slots[0] < '0' || slots[0] > '9' || *end || n < 1 || n > PIPE_SLOTS_MAX || rest) {
        snprintf(why, size,
                 "\"%s\": opencl[:PLATFORM[:DEVICE[:SLOTS]]] is possible, with 1 to %u slots",
                 argument, PIPE_SLOTS_MAX);
        return -EINVAL;
    }
    w->slots = (uint32_t)n;
    return 0;
}

static int open_device(const char *argument, struct executor_device **d, char *why, size_t size)
{
    struct wish w;
    int rc = parse(argument, &w, why, size);
    if (rc != 0)
        return rc;
    struct executor_device *device = calloc(1, sizeof(*device));
    if (!device) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    device->slots = w.slots;
    device->child =
        child_start(&CHILD, (const char *[]){w.platform, w.device, NULL}, w.slots, &rc, why, size);
    if (device->child)
        *d = device;
    else
        free(device);
    return rc;
}

static void close_device(struct executor_device *d)
{
    child_end(d->child);
    free(d);
}

static int probe(const char *argument, struct device_info *info, char *why, size_t size)
{
    struct executor_device *d;
    int rc = open_device(argument, &d, why, size);
    if (rc != 0)
        return rc;
    *info = (struct device_info){.slots = d->slots, .memory_bytes = child_memory_bytes(d->child)};
    snprintf(info->name, sizeof(info->name), "%s", child_name(d->child));
    close_device(d);
    return 0;
}

// ---- models -------------------------------------------------------------------------------------

static bool serves(const struct model_entry *entry)
{
    return bundle_is_there(entry->dir);
}

static void unload(struct executor_model *m)
{
    device_share_end(&m->share);
    bundle_deinit(&m->bundle);
    free(m);
}

static int load(struct executor_device *d, const struct model_entry *entry,
                struct executor_model **out, uint64_t *memory_bytes, char *why, size_t size)
{
    struct executor_model *m = calloc(1, sizeof(*m));
    struct pipe_ready ready;
    if (!m) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    m->device = d;
    m->config = entry->config;
    m->share.fd = -1;
    m->number = d->nmodels;
    int rc = bundle_read(&m->bundle, entry->dir, &m->config, why, size);
    m->slot_bytes = rc == 0 ? bundle_slot_bytes(&m->bundle) : 0;
    if (rc == 0)
        rc = device_share_begin(&m->share, &m->config, m->slot_bytes, d->slots, why, size);
    if (rc == 0)
        rc = child_load(d->child, m->number, entry, m->share.fd, &ready, why, size);
    if (rc != 0) {
        unload(m);
        return rc;
    }
    d->nmodels++;
    m->reconfigured = ready.reconfigured;
    m->guarded = ready.guarded;
    *memory_bytes = ready.memory_bytes;
    *out = m;
    return 0;
}

static bool reconfigures(const struct executor_model *m)
{
    return m->reconfigured;
}

// ---- executing ----------------------------------------------------------------------------------

static float *rows_at(const struct executor_tensor *t, const struct bundle_io *io, uint32_t row)
{
    return (float *)(uintptr_t)t->data + (size_t)row * io->elements;
}

static bool bring_in(const struct executor_model *m, uint8_t *memory, uint32_t from, uint32_t n,
                     struct execution *x)
{
    const struct bundle *b = &m->bundle;
    for (uint32_t i = 0; i < b->ninputs; i++) {
        const struct bundle_io *io = &b->inputs[i];
        if (!convert_input(io, rows_at(&x->inputs[i], io, from), n,
                           memory + bundle_slot_offset(b, io->buffer), b->buffers[io->buffer].bytes,
                           x->error, sizeof(x->error)))
            return false;
    }
    return true;
}

static void bring_out(const struct executor_model *m, const uint8_t *memory, uint32_t from,
                      uint32_t n, struct execution *x)
{
    const struct bundle *b = &m->bundle;
    for (uint32_t i = 0; i < b->noutputs; i++) {
        const struct bundle_io *io = &b->outputs[i];
        convert_output(io, memory + bundle_slot_offset(b, io->buffer), n,
                       rows_at(&x->outputs[i], io, from));
    }
}

// Where a device's word that a kernel ended well is worth nothing, its output has to say so: what
// stood in the last row before the run must not stand there after it. A result may be that by
// chance; it is not the other guard, too.
static const unsigned char GUARDS[] = {0xa5, 0x5a};

static unsigned char *last_row(const struct executor_model *m, uint8_t *memory, uint32_t output,
                               uint32_t n, size_t *bytes)
{
    const struct bundle_io *io = &m->bundle.outputs[output];
    *bytes = io->elements * dtype_bytes(io->type);
    return memory + bundle_slot_offset(&m->bundle, io->buffer) + (n - 1) * io->stride;
}

static void guard(const struct executor_model *m, uint8_t *memory, uint32_t n, unsigned char guard)
{
    size_t bytes;
    for (uint32_t i = 0; i < m->bundle.noutputs; i++) {
        unsigned char *row = last_row(m, memory, i, n, &bytes);
        memset(row, guard, bytes);
    }
}

// The output that still is what it was, or NULL.
static const char *untouched(const struct executor_model *m, uint8_t *memory, uint32_t n,
                             unsigned char guard)
{
    size_t bytes, same;
    for (uint32_t i = 0; i < m->bundle.noutputs; i++) {
        const unsigned char *row = last_row(m, memory, i, n, &bytes);
        for (same = 0; same < bytes && row[same] == guard; same++)
            ;
        if (same == bytes)
            return m->bundle.outputs[i].tensor;
    }
    return NULL;
}

static bool run_guarded(struct executor_model *m, uint32_t slot, const struct pipe_run *run,
                        struct pipe_done *done)
{
    struct child *child = m->device->child;
    uint8_t *memory = m->share.memory + slot * m->slot_bytes;
    const char *output = NULL;
    if (!m->guarded)
        return child_run(child, slot, run, m->share.limit_ms, done);
    for (size_t i = 0; i < sizeof(GUARDS); i++) {
        guard(m, memory, run->rows, GUARDS[i]);
        if (!child_run(child, slot, run, m->share.limit_ms, done))
            return false;
        output = untouched(m, memory, run->rows, GUARDS[i]);
        if (!output)
            return true;
    }
    snprintf(done->text, sizeof(done->text),
             "%s: the plan of model %s ended without an error, and output \"%s\" was not written",
             child_name(child), m->config.name, output);
    return false;
}

// One run of the plan over rows `from` on, `n` of them.
static enum executor_outcome run_part(struct executor_model *m, uint32_t slot, uint32_t from,
                                      uint32_t n, struct execution *x)
{
    struct child *child = m->device->child;
    uint8_t *memory = m->share.memory + slot * m->slot_bytes;
    struct pipe_run run = {m->number, n, 0};
    struct pipe_done done;
    uint64_t generation = child_hold(child);
    bool good = bring_in(m, memory, from, n, x);
    bool ran = good && run_guarded(m, slot, &run, &done);
    if (ran)
        bring_out(m, memory, from, n, x);
    child_release(child);
    if (ran || !good)
        return ran ? EXECUTOR_OK : EXECUTOR_REQUEST_FAILED;
    enum child_outcome outcome = child_fault(child, generation, &done);
    snprintf(x->error, sizeof(x->error), "%s", done.text);
    return outcome == CHILD_LOST ? EXECUTOR_DEVICE_LOST : EXECUTOR_DEVICE_FAULT;
}

// One allocation for all outputs.
static bool make_outputs(struct executor_model *m, struct execution *x)
{
    uint64_t bytes = 0;
    bool batched = m->config.batch_max > 0;
    for (uint32_t i = 0; i < m->bundle.noutputs; i++)
        bytes += (uint64_t)x->rows * m->bundle.outputs[i].elements * sizeof(float) + 64;
    float *at = aligned_alloc(64, (bytes + 63) & ~UINT64_C(63));
    x->outputs_owner = at;
    x->outputs_free = free;
    x->noutputs = m->bundle.noutputs;
    for (uint32_t i = 0; i < x->noutputs && at; i++) {
        const struct tensor_spec *spec = &m->config.outputs[i];
        struct executor_tensor *t = &x->outputs[i];
        t->dtype = SONIC_FP32;
        t->ndim = (uint8_t)(spec->ndim + batched);
        t->dims[0] = x->rows;
        for (unsigned k = 0; k < spec->ndim; k++)
            t->dims[k + batched] = (uint64_t)spec->dims[k];
        t->data = at;
        t->bytes = (uint64_t)x->rows * m->bundle.outputs[i].elements * sizeof(float);
        at += (t->bytes + 63) / 64 * 16;
    }
    return x->outputs_owner != NULL;
}

static enum executor_outcome execute(struct executor_model *m, uint32_t slot, struct execution *x)
{
    enum executor_outcome outcome = EXECUTOR_OK;
    if (!make_outputs(m, x)) {
        snprintf(x->error, sizeof(x->error), "no memory for the outputs of %u rows", x->rows);
        outcome = EXECUTOR_REQUEST_FAILED;
    }
    for (uint32_t from = 0; from < x->rows && outcome == EXECUTOR_OK; from += m->bundle.rows) {
        uint32_t left = x->rows - from;
        outcome = run_part(m, slot, from, left < m->bundle.rows ? left : m->bundle.rows, x);
    }
    if (outcome != EXECUTOR_OK) {
        free(x->outputs_owner);
        x->outputs_owner = NULL;
        x->outputs_free = NULL;
        x->noutputs = 0;
    }
    return outcome;
}

static void usage(struct executor_device *d, struct device_usage *u)
{
    child_usage(d->child, u);
}

const struct executor executor_opencl = {
    .kind = "opencl",
    .backend = "opencl",
    .serves = serves,
    .instances = INSTANCE_FPGA,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .load = load,
    .unload = unload,
    .reconfigures = reconfigures,
    .usage = usage,
    .execute = execute,
};
