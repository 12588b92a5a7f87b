// SPDX-License-Identifier: Apache-2.0
// cuda[:DEVICE[:SLOTS]]: models on an NVIDIA GPU, which is in a process of its own
// (device/child.h). Here batches are gathered straight into the memory that the process has pinned,
// and results are sent from it.
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/device/child.h"
#include "worker/device/share.h"
#include "worker/executors/cuda/layout.h"
#include "worker/executors/executors.h"

// One batch computes, one is copied in, one out, one is gathered.
#define SLOTS 4u
#define AHEAD 3u

static const struct child_kind CHILD = {
    "sonic-device-cuda",
    "SONIC was built without CUDA (-Dcuda=disabled)",
};

struct executor_device {
    struct child *child;
    uint32_t slots, nmodels;
    int gpu;
};

// A place for results, on a list while nobody has it.
struct place {
    struct place *next;
    struct executor_model *model;
    uint32_t index;
};

struct executor_model {
    struct executor_device *device;
    struct model_config config;
    struct cuda_layout layout;
    uint32_t number;
    struct device_share share;
    pthread_mutex_t lock;
    struct place *free_places; // under the lock
    struct place *places;      // the first are the slots' own, the others on the list
};

// ---- the device ---------------------------------------------------------------------------------

struct wish {
    char device[128]; // a number, a UUID, or empty: the first
    uint32_t slots;
    int gpu; // the number; -1: it is named by its UUID
};

static int parse(const char *argument, struct wish *w, char *why, size_t size)
{
    char text[200], *rest = text, *end = text;
    snprintf(text, sizeof(text), "%s", argument);
    const char *device = strsep(&rest, ":"), *slots = strsep(&rest, ":");
    *w = (struct wish){.slots = SLOTS, .gpu = -1};
    snprintf(w->device, sizeof(w->device), "%s", device);
    bool uuid = strncmp(device, "GPU-", 4) == 0 || strncmp(device, "MIG-", 4) == 0;
    unsigned long number = strtoul(device, &end, 10);
    bool good = uuid || (!*end && (!*device || (*device >= '0' && *device <= '9')));
    if (!uuid)
        w->gpu = (int)(number <= INT16_MAX ? number : INT16_MAX);
    unsigned long n = slots ? strtoul(slots, &end, 10) : SLOTS;
    if (slots && (slots[0] < '0' || slots[0] > '9' || *end || n < 1 || n > PIPE_SLOTS_MAX))
        good = false;
    w->slots = (uint32_t)n;
    if (good && !rest)
        return 0;
    snprintf(why, size,
             "\"%s\": cuda[:DEVICE[:SLOTS]] is possible, with a GPU's number or UUID (GPU-..., "
             "MIG-...) and 1 to %u slots",
             argument, PIPE_SLOTS_MAX);
    return -EINVAL;
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
    device->gpu = w.gpu;
    device->child = child_start(&CHILD, (const char *[]){w.device, NULL}, w.slots, &rc, why, size);
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
    *info = (struct device_info){
        .slots = d->slots, .memory_bytes = child_memory_bytes(d->child), .gpu = d->gpu};
    snprintf(info->name, sizeof(info->name), "%s", child_name(d->child));
    close_device(d);
    return 0;
}

// ---- models -------------------------------------------------------------------------------------

static void unload(struct executor_model *m)
{
    device_share_end(&m->share);
    pthread_mutex_destroy(&m->lock);
    free(m->places);
    free(m);
}

static int make_places(struct executor_model *m, char *why, size_t size)
{
    m->places = calloc(m->layout.places, sizeof(*m->places));
    if (!m->places) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < m->layout.places; i++) {
        struct place *p = &m->places[i];
        *p = (struct place){.next = m->free_places, .model = m, .index = i};
        if (i >= m->device->slots)
            m->free_places = p;
    }
    return 0;
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
    pthread_mutex_init(&m->lock, NULL);
    int rc = cuda_layout_make(&m->layout, &m->config, d->slots, why, size);
    if (rc == 0)
        rc = device_share_begin(&m->share, &m->config, m->layout.bytes, 1, why, size);
    if (rc == 0)
        rc = make_places(m, why, size);
    if (rc == 0)
        rc = child_load(d->child, m->number, entry, m->share.fd, &ready, why, size);
    if (rc != 0) {
        unload(m);
        return rc;
    }
    d->nmodels++;
    *memory_bytes = ready.memory_bytes;
    *out = m;
    return 0;
}

// ---- executing ----------------------------------------------------------------------------------

// A process that is started again writes nothing here before it is asked to run: a batch may be
// laid here at any time, without holding the process.
static void *input_room(struct executor_model *m, uint32_t slot, uint32_t input, uint64_t bytes)
{
    const struct cuda_layout *l = &m->layout;
    if (bytes > l->input_row[input] * l->rows)
        return NULL;
    return m->share.memory + cuda_layout_input(l, slot, input);
}

// Inputs that somebody has laid elsewhere. False: they are larger than any batch.
static bool bring_in(struct executor_model *m, uint32_t slot, struct execution *x)
{
    for (uint32_t i = 0; i < x->ninputs; i++) {
        void *room = input_room(m, slot, i, x->inputs[i].bytes);
        if (!room || x->rows > m->layout.rows) {
            snprintf(x->error, sizeof(x->error), "%u rows, where max_batch_size is %u", x->rows,
                     m->layout.rows);
            return false;
        }
        if (x->inputs[i].data != room)
            memcpy(room, x->inputs[i].data, x->inputs[i].bytes);
    }
    return true;
}

// From the list; the slot's own where results are sent more slowly than they come.
static struct place *take_place(struct executor_model *m, uint32_t slot)
{
    pthread_mutex_lock(&m->lock);
    struct place *p = m->free_places;
    if (p)
        m->free_places = p->next;
    pthread_mutex_unlock(&m->lock);
    return p ? p : &m->places[slot];
}

// The worker's outputs_free, of a place from the list.
static void give_place(void *owner)
{
    struct place *p = owner;
    struct executor_model *m = p->model;
    pthread_mutex_lock(&m->lock);
    p->next = m->free_places;
    m->free_places = p;
    pthread_mutex_unlock(&m->lock);
}

static void describe_outputs(struct executor_model *m, const uint8_t *base, uint64_t offset,
                             struct execution *x)
{
    unsigned batch = m->config.batch_max > 0;
    x->noutputs = m->config.noutputs;
    for (uint32_t i = 0; i < x->noutputs; i++) {
        const struct tensor_spec *spec = &m->config.outputs[i];
        struct executor_tensor *t = &x->outputs[i];
        t->dtype = spec->dtype;
        t->ndim = (uint8_t)(spec->ndim + batch);
        t->dims[0] = x->rows;
        for (unsigned k = 0; k < spec->ndim; k++)
            t->dims[k + batch] = (uint64_t)spec->dims[k];
        t->data = base + (offset + m->layout.output_at[i]);
        t->bytes = m->layout.output_row[i] * x->rows;
    }
}

// Lets the results leave from their place; those in the slot's own from a copy.
static bool bring_out(struct executor_model *m, struct place *p, struct execution *x)
{
    const uint8_t *at = m->share.memory + cuda_layout_output(&m->layout, p->index, 0);
    if (p->index >= m->device->slots) {
        describe_outputs(m, at, 0, x);
        x->outputs_owner = p;
        x->outputs_free = give_place;
        return true;
    }
    uint8_t *copy = malloc(m->layout.outputs_bytes);
    if (!copy) {
        snprintf(x->error, sizeof(x->error), "no memory for the outputs of %u rows", x->rows);
        return false;
    }
    memcpy(copy, at, m->layout.outputs_bytes);
    describe_outputs(m, copy, 0, x);
    x->outputs_owner = copy;
    x->outputs_free = free;
    return true;
}

static enum executor_outcome fault(struct executor_model *m, uint64_t generation,
                                   struct pipe_done *done, struct execution *x)
{
    enum child_outcome outcome = child_fault(m->device->child, generation, done);
    snprintf(x->error, sizeof(x->error), "%s", done->text);
    return outcome == CHILD_LOST ? EXECUTOR_DEVICE_LOST : EXECUTOR_DEVICE_FAULT;
}

static enum executor_outcome execute(struct executor_model *m, uint32_t slot, struct execution *x)
{
    struct child *child = m->device->child;
    struct pipe_done done;
    if (!bring_in(m, slot, x))
        return EXECUTOR_REQUEST_FAILED;
    struct place *p = take_place(m, slot);
    struct pipe_run run = {m->number, x->rows, p->index};
    uint64_t generation = child_hold(child);
    bool ran = child_run(child, slot, &run, m->share.limit_ms, &done);
    child_release(child);
    if (ran && done.outcome == PIPE_OK && bring_out(m, p, x))
        return EXECUTOR_OK;
    enum executor_outcome outcome = EXECUTOR_REQUEST_FAILED;
    if (!ran)
        outcome = fault(m, generation, &done, x);
    else if (done.outcome == PIPE_REFUSED)
        snprintf(x->error, sizeof(x->error), "%s", done.text);
    if (p->index >= m->device->slots)
        give_place(p);
    return outcome;
}

static void usage(struct executor_device *d, struct device_usage *u)
{
    child_usage(d->child, u);
}

const struct executor executor_cuda = {
    .kind = "cuda",
    .backend = "onnxruntime",
    .instances = INSTANCE_GPU,
    .ahead = AHEAD,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .load = load,
    .unload = unload,
    .usage = usage,
    .input_room = input_room,
    .execute = execute,
};
