// SPDX-License-Identifier: Apache-2.0
#include "worker/announce.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "common/registry.h"

#define PUBLISH_MS 1000u
#define FIELDS 20

struct announce {
    const struct worker_options *options;
    const struct fleet *fleet;
    struct registry *registry; // NULL: none configured
    char host[65];
    char *models; // with memory and what loading them costs
    uint64_t published_us, rows;
    bool told_unhealthy;
    struct wire_join_item item;
};

// "facile/1:12.3MiB:240ms,resnet50/1:97.8MiB:3100ms:reconfigures": version, memory, and the time
// that loading it took, with which a placement decides what to load where.
static char *describe_models(const struct fleet *f)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    for (uint32_t i = 0; i < f->nmodels; i++)
        fprintf(out, "%s%s/%u:%.1fMiB:%ums%s", i ? "," : "", f->models[i].config.name,
                f->models[i].config.version, (double)f->models[i].memory_bytes / (1 << 20),
                f->models[i].load_ms, f->models[i].reconfigures ? ":reconfigures" : "");
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

struct announce *announce_open(const struct worker_options *options, const struct fleet *fleet,
                               char *why, size_t size)
{
    struct announce *n = calloc(1, sizeof(*n));
    if (!n) {
        snprintf(why, size, "out of memory");
        return NULL;
    }
    n->options = options;
    n->fleet = fleet;
    gethostname(n->host, sizeof(n->host) - 1);
    n->models = describe_models(fleet);
    if (!n->models || !options->redis_url)
        return n;
    struct registry_options r = {
        .url = options->redis_url, .farm = options->farm, .beat_ms = PUBLISH_MS};
    n->registry = registry_open(&r, why, size);
    if (n->registry)
        return n;
    announce_close(n);
    return NULL;
}

void announce_close(struct announce *n)
{
    if (!n)
        return;
    if (n->registry)
        registry_close(n->registry);
    free(n->models);
    free(n);
}

uint64_t announce_memory_free(const struct device_sensors *sensors)
{
    if (sensors->known & SENSOR_MEMORY)
        return sensors->memory_used_bytes < sensors->memory_bytes
                   ? sensors->memory_bytes - sensors->memory_used_bytes
                   : 0;
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    fclose(file);
    return (uint64_t)kib * 1024;
}

void announce_join(struct announce *n, uint64_t id, bool works, struct wire_header *h)
{
    const struct fleet *f = n->fleet;
    const struct device_sensors sensors = {.known = 0}; // have said nothing yet
    struct wire_join join = {.version_min = SONIC_PROTOCOL_VERSION_MIN,
                             .version_max = SONIC_PROTOCOL_VERSION,
                             .session = id,
                             .name = wire_str(n->options->name),
                             .device_kind = wire_str(f->executor->kind),
                             .device_name = wire_str(f->info.name),
                             .slots = f->info.slots,
                             .room_requests = n->options->room_requests,
                             .room_bytes = n->options->room_bytes,
                             .memory_bytes = f->info.memory_bytes,
                             .memory_free_bytes = announce_memory_free(&sensors)};
    wire_begin_join(h, &join);
    for (uint32_t i = 0; i < f->nmodels && works; i++) {
        model_config_to_wire(&f->models[i].config, &n->item);
        n->item.memory_bytes = f->models[i].memory_bytes;
        n->item.instances = f->models[i].instances;
        if (!wire_add_join(h, &n->item))
            log_error("model_not_offered",
                      "model=%s why=\"the declarations of so many models do not fit into one "
                      "message: name fewer with --model\"",
                      f->models[i].config.name);
    }
}

struct record {
    const char *fields[FIELDS], *values[FIELDS];
    char text[FIELDS][32];
    size_t n;
};

static void put_text(struct record *r, const char *field, const char *value)
{
    r->fields[r->n] = field;
    r->values[r->n++] = value;
}

static void put_number(struct record *r, const char *field, uint64_t value)
{
    snprintf(r->text[r->n], sizeof(r->text[0]), "%" PRIu64, value);
    put_text(r, field, r->text[r->n]);
}

static void put_sensors(struct record *r, const struct device_sensors *s)
{
    if (s->known & SENSOR_BUSY)
        put_number(r, "busy_percent", s->busy_percent);
    if (s->known & SENSOR_MEMORY)
        put_number(r, "memory_used_bytes", s->memory_used_bytes);
    if (s->known & SENSOR_POWER)
        put_number(r, "power_mw", s->power_mw);
    if (s->known & SENSOR_TEMPERATURE)
        put_number(r, "temperature_c", s->temperature_c);
}

static void check_health(struct announce *n)
{
    char why[512] = "";
    if (registry_healthy(n->registry, why, sizeof(why))) {
        n->told_unhealthy = false;
    } else if (!n->told_unhealthy && why[0]) {
        n->told_unhealthy = true;
        log_warn("registry_away", "why=\"%s\" text=\"requests go on without it\"", why);
    }
}

void announce_load(struct announce *n, uint64_t now_us, const struct slots_load *load,
                   const struct device_sensors *sensors, const char *quarantined)
{
    struct record r = {.n = 0};
    uint64_t since_us = now_us - n->published_us;
    if (!n->registry || since_us < PUBLISH_MS * 1000)
        return;
    put_text(&r, "host", n->host);
    put_text(&r, "device_kind", n->fleet->executor->kind);
    put_text(&r, "device_name", n->fleet->info.name);
    put_number(&r, "slots", n->fleet->info.slots);
    put_number(&r, "memory_bytes", n->fleet->info.memory_bytes);
    put_number(&r, "memory_free_bytes", announce_memory_free(sensors));
    put_text(&r, "models", n->models);
    put_text(&r, "state", quarantined[0] ? "quarantined" : "serving");
    put_text(&r, "why", quarantined);
    put_number(&r, "busy_slots", load->now.busy);
    put_number(&r, "staged", load->now.requests);
    put_number(&r, "rows_per_s", (load->rows - n->rows) * 1000000 / since_us);
    put_sensors(&r, sensors);
    registry_publish(n->registry, REGISTRY_KEY_WORKER, n->options->name, r.n, r.fields, r.values);
    n->published_us = now_us;
    n->rows = load->rows;
    check_health(n);
}
