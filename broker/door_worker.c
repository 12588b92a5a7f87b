// SPDX-License-Identifier: Apache-2.0
// What comes in, part three: workers. Results are checked against the model's declared outputs: a
// wrong one fails its request in words, and is never passed on.
#include "broker/broker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/name.h"

// ---- joining ------------------------------------------------------------------------------------

// Makes a model known and puts it on the worker. False with words when it is not taken.
static bool take_model(struct broker *b, struct peer *p, const struct wire_join_item *item,
                       char *why, size_t size)
{
    struct model_config config;
    if (!model_config_from_wire(item, &config, why, size))
        return false;
    farm_model_id id = catalog_add(b->catalog, &config, why, size);
    if (id == FARM_NONE)
        return false;
    if (!farm_worker_model(b->farm, b->now_us, p->id.worker, id, item->instances)) {
        snprintf(why, size, "the broker is out of memory");
        return false;
    }
    return true;
}

static void accept_worker(struct broker *b, struct peer *p, uint32_t version,
                          const struct wire_message *m)
{
    static struct wire_accept_item refused;
    struct wire_accept fields = {.version = version,
                                 .epoch = b->epoch,
                                 .beat_ms = BROKER_BEAT_US / 1000,
                                 .lease_ms = (uint32_t)(b->lease_us / 1000)};
    char why[SONIC_TEXT_MAX] = "";
    uint32_t taken = 0;
    wire_begin_accept(b->header, &fields);
    for (uint32_t i = 0; i < m->nitems; i++) {
        const struct wire_join_item *item = &m->items.join[i];
        if (take_model(b, p, item, why, sizeof(why))) {
            taken++;
            continue;
        }
        log_warn("model_refused", "worker=%s model=\"%.*s\" why=\"%s\"", p->name,
                 (int)item->name.len, item->name.data, why);
        refused.model = item->name;
        refused.text = wire_str(why);
        wire_add_accept(b->header, &refused);
    }
    log_info("worker_joined", "worker=%s device=%s slots=%u models=%u", p->name, p->device,
             m->fields.join.slots, taken);
    outbox_send(b, p);
}

static void take_join(struct broker *b, struct peer *p, const struct wire_message *m)
{
    const struct wire_join *join = &m->fields.join;
    char why[SONIC_TEXT_MAX];
    uint32_t version;
    // A worker that joins again has dropped what it held: that is no death of the requests.
    if (p)
        door_forget(b, p, false);
    struct peer *other = peers_session(b->peers, PEER_WORKER, join->session);
    if (other)
        door_forget(b, other, false);
    if (b->stopping) {
        door_refuse(b, PEER_WORKER, NULL, SONIC_STATUS_BUSY, BROKER_STOP_RETRY_MS,
                    BROKER_STOP_TEXT);
        return;
    }
    if (!door_version(join->version_min, join->version_max, &version, why, sizeof(why))) {
        b->counts.version_refused++;
        door_refuse(b, PEER_WORKER, NULL, SONIC_STATUS_VERSION, 0, why);
        return;
    }
    if (!name_is_label(join->name.data, join->name.len) ||
        !name_is_label(join->device_kind.data, join->device_kind.len) || join->slots == 0 ||
        join->room_requests == 0) {
        door_refuse(b, PEER_WORKER, NULL, SONIC_STATUS_PROTOCOL, 0,
                    "a worker needs a name and a device kind without spaces, a slot and room");
        return;
    }
    p = peers_add(b->peers, PEER_WORKER, b->message, join->session);
    if (p) {
        snprintf(p->name, sizeof(p->name), "%.*s", (int)join->name.len, join->name.data);
        snprintf(p->device, sizeof(p->device), "%.*s", (int)join->device_kind.len,
                 join->device_kind.data);
        struct farm_worker_config config = {.name = p->name,
                                            .slots = join->slots,
                                            .room_requests = join->room_requests,
                                            .room_bytes = join->room_bytes,
                                            .user = p};
        p->id.worker = farm_worker_open(b->farm, b->now_us, &config);
    }
    if (!p || p->id.worker == FARM_NONE) {
        if (p)
            peers_remove(b->peers, p);
        door_refuse(b, PEER_WORKER, NULL, SONIC_STATUS_BUSY, 5000,
                    "this farm takes no more workers");
        return;
    }
    message_widen_link(b->message);
    p->heard_us = b->now_us;
    accept_worker(b, p, version, m);
}

// ---- results ------------------------------------------------------------------------------------

// What a worker may say of a lease; anything else is a failure of the execution.
static enum sonic_status result_status(uint8_t status)
{
    switch (status) {
    case SONIC_STATUS_OK:
    case SONIC_STATUS_DEADLINE:
    case SONIC_STATUS_CANCELLED:
    case SONIC_STATUS_BUSY:
    case SONIC_STATUS_NOT_LOADED:
    case SONIC_STATUS_DEVICE_FAULT:
        return (enum sonic_status)status;
    default:
        return SONIC_STATUS_EXEC_FAILED;
    }
}

// The result's body, or NULL with words when the outputs are not what the model declares.
static struct body *take_outputs(struct broker *b, const struct wire_result_item *item,
                                 farm_model_id id, uint32_t want_rows, struct farm_result *result,
                                 char *why, size_t size)
{
    const struct model_config *model = catalog_model(b->catalog, id);
    uint32_t rows;
    if (!model_check_tensors(model, model->outputs, model->noutputs, item->tensors.at,
                             item->tensors.n, &rows, &result->bytes, why, size))
        return NULL;
    if (rows != want_rows) {
        snprintf(why, size, "%u rows came back for %u", rows, want_rows);
        return NULL;
    }
    return body_take(b->message, &item->tensors, item->text, NULL, why, size);
}

static void take_result(struct broker *b, struct peer *p, const struct wire_result_item *item)
{
    char why[SONIC_TEXT_MAX], text[SONIC_TEXT_MAX + 256]; // cut at the bound when packed
    farm_model_id model;
    uint32_t rows;
    struct farm_result result = {.lease = item->lease,
                                 .status = result_status(item->status),
                                 .exec_us = item->exec_us,
                                 .exec_rows = item->exec_rows};
    struct body *body = NULL;
    if (farm_lease(b->farm, p->id.worker, item->lease, &model, &rows)) {
        if (item->status == SONIC_STATUS_OK) {
            body = take_outputs(b, item, model, rows, &result, why, sizeof(why));
            if (!body) {
                b->counts.bad_results++;
                snprintf(text, sizeof(text), "worker %s answered nonsense for model %s: %s",
                         p->name, catalog_model(b->catalog, model)->name, why);
                log_error("bad_result", "worker=%s text=\"%s\"", p->name, text);
                result.status = SONIC_STATUS_EXEC_FAILED;
                body = body_text(text);
            }
        } else {
            snprintf(text, sizeof(text), "%.*s (worker %s)", (int)item->text.len, item->text.data,
                     p->name);
            body = body_text(text);
        }
    }
    result.payload = body;
    // A stale lease goes there too: the farm counts it.
    if (!farm_result(b->farm, b->now_us, p->id.worker, &result))
        body_free(body);
}

// A worker that said BYE goes with its last lease. That may be revoked as well as answered, so each
// of its beats looks, too.
static void leave_when_empty(struct broker *b, struct peer *p)
{
    struct farm_worker_stats s;
    if (!p->leaving)
        return;
    for (uint32_t i = 0; farm_worker_stats(b->farm, i, &s); i++)
        if (s.user == p && s.leased == 0) {
            door_forget(b, p, false);
            return;
        }
}

static void note_usage(struct peer *p, const struct wire_heartbeat *m)
{
    if (!p->usage && (m->kernel_us || m->faults || m->sensors))
        p->usage = malloc(sizeof(*p->usage));
    if (p->usage)
        *p->usage = (struct peer_device){.write_us = m->write_us,
                                         .kernel_us = m->kernel_us,
                                         .read_us = m->read_us,
                                         .idle_us = m->idle_us,
                                         .faults = m->faults,
                                         .sensors = m->sensors,
                                         .busy_percent = m->busy_percent,
                                         .power_mw = m->power_mw,
                                         .temperature_c = m->temperature_c,
                                         .memory_used_bytes = m->memory_used_bytes};
}

// The worker stays, so that people see why; it leaves with its connection.
static void note_quarantine(struct broker *b, struct peer *p, struct wire_str why)
{
    if (why.len == 0 || p->quarantined)
        return;
    p->quarantined = strndup(why.data, why.len);
    for (char *c = p->quarantined; c && *c; c++)
        if (*c < ' ' || *c > '~') // it goes to people's terminals
            *c = '?';
    log_warn("worker_quarantined", "worker=%s why=\"%s\"", p->name,
             p->quarantined ? p->quarantined : "");
    farm_worker_drain(b->farm, b->now_us, p->id.worker);
}

void door_take_worker(struct broker *b, struct peer *p, struct wire_message *m)
{
    switch (m->type) {
    case WIRE_JOIN:
        take_join(b, p, m);
        break;
    case WIRE_RESULT:
        for (uint32_t i = 0; i < m->nitems; i++)
            take_result(b, p, &m->items.result[i]);
        leave_when_empty(b, p);
        break;
    case WIRE_HEARTBEAT:
        farm_worker_beat(b->farm, b->now_us, p->id.worker, m->fields.heartbeat.progress);
        note_usage(p, &m->fields.heartbeat);
        note_quarantine(b, p, m->fields.heartbeat.quarantined);
        leave_when_empty(b, p);
        break;
    case WIRE_MAPPED:
        slabs_mapped(b->slabs, p, m->fields.mapped.slab);
        break;
    case WIRE_BYE:
        p->leaving = true;
        farm_worker_drain(b->farm, b->now_us, p->id.worker);
        leave_when_empty(b, p);
        break;
    default: // ATTEND, which belongs to the side socket
        break;
    }
}
