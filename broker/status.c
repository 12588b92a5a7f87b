// SPDX-License-Identifier: Apache-2.0
// The farm in words: `sonic-submit status`. First "key value" lines, which do not change their
// names, then tables for people.
#include "broker/broker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void put_counts(const struct broker *b, FILE *out)
{
    const struct broker_counts *c = &b->counts;
    fprintf(out, "messages_in %" PRIu64 "\nmessages_out %" PRIu64 "\n", c->messages_in,
            c->messages_out);
    for (unsigned e = 1; e < WIRE_ERR_COUNT; e++)
        fprintf(out, "wire_%s %" PRIu64 "\n", wire_error_name((enum wire_error)e),
                c->wire_errors[e]);
    fprintf(out, "wire_frames %" PRIu64 "\n", c->too_many_frames);
    fprintf(out, "bad_requests %" PRIu64 "\nbad_results %" PRIu64 "\nunknown_models %" PRIu64 "\n",
            c->bad_requests, c->bad_results, c->unknown_models);
    fprintf(out,
            "unknown_peers %" PRIu64 "\nwrong_epoch %" PRIu64 "\nversion_refused %" PRIu64 "\n",
            c->unknown_peers, c->wrong_epoch, c->version_refused);
    fprintf(out, "held_back %" PRIu64 "\npeers_lost %" PRIu64 "\npeers_cut %" PRIu64 "\n",
            c->held_back, c->peers_lost, c->peers_cut);
    fprintf(out, "turned_away %" PRIu64 "\nquestions_dropped %" PRIu64 "\n", limits_turned_away(),
            c->questions_dropped);
    fprintf(out, "slabs %u\nslabs_taken %" PRIu64 "\nslabs_refused %" PRIu64 "\n",
            slabs_count(b->slabs), c->slabs_taken, c->slabs_refused);
    fprintf(out, "in_place %" PRIu64 "\n", c->in_place);
}

static uint32_t quarantined(const struct broker *b)
{
    struct farm_worker_stats w;
    uint32_t n = 0;
    for (uint32_t i = 0; farm_worker_stats(b->farm, i, &w); i++)
        n += ((const struct peer *)w.user)->quarantined != NULL;
    return n;
}

static void put_farm(const struct broker *b, FILE *out)
{
    struct farm_stats s;
    farm_stats(b->farm, &s);
    fprintf(out, "clients %u\nworkers %u\nquarantined %u\n", s.clients, s.workers, quarantined(b));
    fprintf(out, "memory_granted_bytes %" PRIu64 "\nmemory_used_bytes %" PRIu64 "\n",
            s.granted_bytes, s.used_bytes);
    fprintf(out, "queued %" PRIu64 "\nleased %" PRIu64 "\nwaiting_answers %" PRIu64 "\n", s.queued,
            s.leased, s.waiting_answers);
    fprintf(out, "unacknowledged %" PRIu64 "\naccepted %" PRIu64 "\n", s.unacknowledged,
            s.accepted);
    fprintf(out, "answered_ok %" PRIu64 "\nanswered_failed %" PRIu64 "\nrefused %" PRIu64 "\n",
            s.answered_ok, s.answered_failed, s.refused);
    fprintf(out, "cancelled %" PRIu64 "\ndeadline_missed %" PRIu64 "\n", s.cancelled,
            s.deadline_missed);
    fprintf(out, "dispatched %" PRIu64 "\nredispatched %" PRIu64 "\nstale_results %" PRIu64 "\n",
            s.dispatched, s.redispatched, s.stale_results);
    fprintf(out, "poisoned %" PRIu64 "\ndropped %" PRIu64 "\n", s.poisoned, s.dropped);
}

// How devices spend their time, by their own clocks.
static void put_devices(const struct broker *b, FILE *out)
{
    struct farm_worker_stats w;
    bool any = false;
    for (uint32_t i = 0; farm_worker_stats(b->farm, i, &w); i++) {
        const struct peer_device *u = ((const struct peer *)w.user)->usage;
        if (!u || (!u->kernel_us && !u->faults))
            continue;
        if (!any)
            fprintf(out, "\n%-24s %10s %10s %10s %10s %7s %7s\n", "DEVICE", "write_s", "kernel_s",
                    "read_s", "idle_s", "busy_%", "faults");
        any = true;
        double span = (double)(u->kernel_us + u->idle_us);
        fprintf(out, "%-24s %10.2f %10.2f %10.2f %10.2f %7.1f %7u\n", w.name,
                (double)u->write_us / 1e6, (double)u->kernel_us / 1e6, (double)u->read_us / 1e6,
                (double)u->idle_us / 1e6, span > 0 ? 100 * (double)u->kernel_us / span : 0,
                u->faults);
    }
}

// A value of a device's sensors, or "-": its driver does not tell it.
static void put_sensor(FILE *out, bool known, double value, int digits)
{
    if (known)
        fprintf(out, " %10.*f", digits, value);
    else
        fprintf(out, " %10s", "-");
}

// What devices' drivers say of them.
static void put_sensors(const struct broker *b, FILE *out)
{
    struct farm_worker_stats w;
    bool any = false;
    for (uint32_t i = 0; farm_worker_stats(b->farm, i, &w); i++) {
        const struct peer_device *u = ((const struct peer *)w.user)->usage;
        if (!u || !u->sensors)
            continue;
        if (!any)
            fprintf(out, "\n%-24s %10s %10s %10s %10s\n", "SENSORS", "busy_%", "used_MiB",
                    "power_W", "temp_C");
        any = true;
        fprintf(out, "%-24s", w.name);
        put_sensor(out, u->sensors & 1, u->busy_percent, 0);
        put_sensor(out, u->sensors & 2, (double)u->memory_used_bytes / (1 << 20), 0);
        put_sensor(out, u->sensors & 4, u->power_mw / 1e3, 1);
        put_sensor(out, u->sensors & 8, u->temperature_c, 0);
        fputc('\n', out);
    }
}

static void put_tables(const struct broker *b, FILE *out)
{
    struct farm_worker_stats w;
    struct farm_model_stats m;
    struct farm_tenant_stats t;
    fprintf(out, "\n%-24s %-10s %6s %8s %10s %12s\n", "WORKER", "device", "slots", "leased", "rows",
            "answered");
    for (uint32_t i = 0; farm_worker_stats(b->farm, i, &w); i++) {
        const struct peer *p = w.user;
        fprintf(out, "%-24s %-10s %6u %8" PRIu64 " %10" PRIu64 " %12" PRIu64 "%s%s\n", w.name,
                p->device, w.slots, w.leased, w.leased_rows, w.answered,
                p->quarantined ? "  quarantined: "
                : w.draining   ? "  leaving"
                               : "",
                p->quarantined ? p->quarantined : "");
    }
    fprintf(out, "\n%-24s %8s %8s %8s %12s %10s %10s %10s\n", "MODEL", "workers", "queued",
            "leased", "answered", "rows/exec", "us/row", "oldest_ms");
    for (uint32_t i = 0; farm_model_stats(b->farm, b->now_us, i, &m); i++)
        fprintf(out,
                "%-24s %8u %8" PRIu64 " %8" PRIu64 " %12" PRIu64 " %10.1f %10.1f %10" PRIu64 "\n",
                m.config->name, m.workers, m.queued, m.leased, m.answered, m.rows_per_execution,
                m.service_us_per_row, m.oldest_us / 1000);
    fprintf(out, "\n%-24s %8s %8s %12s %12s\n", "TENANT", "clients", "queued", "accepted",
            "answered");
    for (uint32_t i = 0; farm_tenant_stats(b->farm, i, &t); i++)
        fprintf(out, "%-24s %8u %8" PRIu64 " %12" PRIu64 " %12" PRIu64 "\n", t.name, t.clients,
                t.queued, t.accepted, t.answered);
}

char *status_text(struct broker *b)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    fprintf(out, "broker %s\nversion %s\nprotocol %u\nepoch %016" PRIx64 "\nuptime_s %" PRIu64 "\n",
            b->options->name, SONIC_VERSION, SONIC_PROTOCOL_VERSION, b->epoch,
            (b->now_us - b->started_us) / 1000000);
    put_farm(b, out);
    put_counts(b, out);
    put_tables(b, out);
    put_devices(b, out);
    put_sensors(b, out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

// ---- the registry -------------------------------------------------------------------------------

#define FIELDS_MAX 8

struct record {
    size_t n;
    const char *fields[FIELDS_MAX];
    const char *values[FIELDS_MAX];
    char numbers[FIELDS_MAX][24];
};

static void put_text(struct record *r, const char *field, const char *value)
{
    r->fields[r->n] = field;
    r->values[r->n++] = value;
}

static void put_number(struct record *r, const char *field, uint64_t value)
{
    snprintf(r->numbers[r->n], sizeof(r->numbers[r->n]), "%" PRIu64, value);
    put_text(r, field, r->numbers[r->n]);
}

static void publish_models(struct broker *b)
{
    struct farm_model_stats m;
    for (uint32_t i = 0; farm_model_stats(b->farm, b->now_us, i, &m); i++) {
        struct record r = {0};
        put_number(&r, "version", m.config->version);
        put_number(&r, "workers", m.workers);
        put_number(&r, "queued", m.queued);
        put_number(&r, "leased", m.leased);
        put_number(&r, "accepted", m.accepted);
        put_number(&r, "answered", m.answered);
        put_number(&r, "service_us_per_row", (uint64_t)m.service_us_per_row);
        registry_publish(b->registry, REGISTRY_KEY_MODEL, m.config->name, r.n, r.fields, r.values);
    }
}

void status_publish(struct broker *b)
{
    struct farm_stats s;
    struct record r = {0};
    char epoch[24];
    farm_stats(b->farm, &s);
    snprintf(epoch, sizeof(epoch), "%016" PRIx64, b->epoch);
    put_text(&r, "endpoint_client", b->options->client_endpoints[0]);
    put_text(&r, "endpoint_worker", b->options->worker_endpoints[0]);
    put_text(&r, "epoch", epoch);
    put_number(&r, "clients", s.clients);
    put_number(&r, "workers", s.workers);
    put_number(&r, "queued", s.queued);
    put_number(&r, "leased", s.leased);
    put_number(&r, "memory_granted_bytes", s.granted_bytes);
    registry_publish(b->registry, REGISTRY_KEY_BROKER, b->options->name, r.n, r.fields, r.values);
    publish_models(b);
}
