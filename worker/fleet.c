// SPDX-License-Identifier: Apache-2.0
#include "worker/fleet.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/exitcode.h"
#include "common/log.h"

static void warn_field(const char *line, void *user)
{
    (void)user;
    log_warn("config_field", "text=\"%s\"", line);
}

static int open_device(struct fleet *f, const char *device, char *why, size_t size)
{
    char kind[32];
    size_t len = strcspn(device, ":");
    const char *argument = device[len] ? device + len + 1 : "";
    snprintf(kind, sizeof(kind), "%.*s", (int)len, device);
    f->executor = executor_find(kind);
    if (!f->executor) {
        int used = snprintf(
            why, size, "--device %s: there is no device kind \"%s\"; there are:", device, kind);
        for (size_t i = 0; executor_at(i) && used > 0 && (size_t)used < size; i++)
            used += snprintf(why + used, size - (size_t)used, " %s", executor_at(i)->kind);
        return EXIT_USAGE;
    }
    char reason[512];
    int rc = f->executor->probe(argument, &f->info, reason, sizeof(reason));
    if (rc == 0)
        rc = f->executor->open(argument, &f->device, reason, sizeof(reason));
    if (rc == 0)
        return EXIT_OK;
    snprintf(why, size, "--device %s: %s", device, reason);
    return rc == -EINVAL ? EXIT_USAGE : EXIT_MODEL;
}

// How many executions of the model may run side by side here, by its instance_group. 0: it is not
// for this kind of device, words in `why`.
static uint32_t instances(const struct fleet *f, const struct model_config *c, char *why,
                          size_t size)
{
    uint32_t slots = f->info.slots;
    int gpu = f->executor->instances == INSTANCE_GPU ? f->info.gpu : -1;
    uint32_t n = model_config_instances(c, f->executor->instances, gpu, slots);
    if (n == 0)
        snprintf(why, size,
                 "no instance_group of its config.pbtxt is for this %s device: add one with "
                 "KIND_AUTO or its kind (and its number, where it has gpus), or remove "
                 "instance_group",
                 f->executor->kind);
    else if (n < slots)
        n += f->executor->ahead;
    return n < slots ? n : slots;
}

enum load { LOADED, NOT_OURS, FAILED };

static enum load load_model(struct fleet *f, const char *root, const char *name, char *why,
                            size_t size)
{
    static struct model_entry entry; // large
    struct loaded_model *m = &f->models[f->nmodels];
    if (model_repository_read(root, name, &entry, warn_field, NULL, why, size) != 0)
        return FAILED;
    if (f->executor->serves && !f->executor->serves(&entry)) {
        snprintf(why, size, "%.900s holds no bundle (opencl/bundle.pbtxt) for a %s device",
                 entry.dir, f->executor->kind);
        return NOT_OURS;
    }
    if (!f->executor->serves && strcmp(entry.config.backend, f->executor->backend) != 0) {
        snprintf(why, size,
                 "%s/%s/config.pbtxt: its backend is \"%s\", a %s device executes \"%s\"", root,
                 name, entry.config.backend, f->executor->kind, f->executor->backend);
        return NOT_OURS;
    }
    m->config = entry.config;
    m->instances = instances(f, &entry.config, why, size);
    if (m->instances == 0)
        return NOT_OURS;
    uint64_t start_us = clock_now_us();
    if (f->executor->load(f->device, &entry, &m->handle, &m->memory_bytes, why, size) != 0)
        return FAILED;
    m->load_ms = (uint32_t)((clock_now_us() - start_us + 999) / 1000);
    m->reconfigures = f->executor->reconfigures && f->executor->reconfigures(m->handle);
    f->nmodels++;
    log_info("model_loaded",
             "model=%s version=%u batch_max=%u instances=%u memory_mib=%.2f load_ms=%u%s",
             m->config.name, m->config.version, m->config.batch_max, m->instances,
             (double)m->memory_bytes / (1 << 20), m->load_ms,
             m->reconfigures ? " reconfigures=1" : "");
    return LOADED;
}

static int load_named(struct fleet *f, const char *root, const char *const *names, size_t nnames,
                      char *why, size_t size)
{
    for (size_t i = 0; i < nnames; i++)
        if (!fleet_find(f, names[i], strlen(names[i]), 0) &&
            load_model(f, root, names[i], why, size) != LOADED)
            return EXIT_MODEL;
    return EXIT_OK;
}

static int load_all(struct fleet *f, const char *root, char *why, size_t size)
{
    char **names, reason[1024];
    size_t n, failed = 0;
    if (model_repository_list(root, &names, &n, why, size) != 0)
        return EXIT_MODEL;
    for (size_t i = 0; i < n && f->nmodels < SONIC_MODELS_MAX; i++) {
        enum load outcome = load_model(f, root, names[i], reason, sizeof(reason));
        if (outcome == FAILED)
            log_error("model_failed", "model=%s why=\"%s\"", names[i], reason);
        else if (outcome == NOT_OURS)
            log_info("model_skipped", "model=%s why=\"%s\"", names[i], reason);
        failed += outcome == FAILED;
    }
    free(names);
    if (f->nmodels)
        return EXIT_OK;
    snprintf(why, size,
             "%s: of %zu models there none can be executed on a %s device (backend \"%s\"), %zu "
             "failed to load; the lines above say why",
             root, n, f->executor->kind, f->executor->backend, failed);
    return EXIT_MODEL;
}

int fleet_open(struct fleet *f, const char *device, const char *root, const char *const *names,
               size_t nnames, char *why, size_t size)
{
    memset(f, 0, sizeof(*f));
    f->models = calloc(SONIC_MODELS_MAX, sizeof(*f->models));
    if (!f->models) {
        snprintf(why, size, "out of memory");
        return EXIT_INTERNAL;
    }
    int rc = open_device(f, device, why, size);
    if (rc != EXIT_OK)
        return rc;
    return nnames ? load_named(f, root, names, nnames, why, size) : load_all(f, root, why, size);
}

void fleet_close(struct fleet *f)
{
    for (uint32_t i = 0; i < f->nmodels; i++)
        f->executor->unload(f->models[i].handle);
    if (f->device)
        f->executor->close(f->device);
    free(f->models);
    memset(f, 0, sizeof(*f));
}

const struct loaded_model *fleet_find(const struct fleet *f, const char *name, size_t len,
                                      uint32_t version)
{
    for (uint32_t i = 0; i < f->nmodels; i++) {
        const struct model_config *c = &f->models[i].config;
        if (strlen(c->name) == len && memcmp(c->name, name, len) == 0 &&
            (version == 0 || version == c->version))
            return &f->models[i];
    }
    return NULL;
}
