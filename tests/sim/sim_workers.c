// SPDX-License-Identifier: Apache-2.0
// Workers of very unlike speed: they join, execute, hang, fall silent, die, leave, forget a model,
// and send results that are late, doubled, invented or absurd.
#include <stdlib.h>

#include "tests/sim/sim.h"

static void worker_join(struct sim *s, struct sim_worker *w)
{
    static const uint32_t speeds[] = {1, 2, 10, 100};
    uint32_t speed = speeds[sim_random(s, 4)];
    w->slots = 1 + (uint32_t)sim_random(s, SIM_SLOTS_MAX);
    w->room = s->calm ? 512 : 1 + (uint32_t)sim_random(s, 100);
    w->fixed_us = (uint32_t)sim_random(s, 300) * speed;
    w->row_us = (uint32_t)sim_random(s, 20) * speed;
    w->mood = MOOD_FINE;
    w->leaving = false;
    w->progress = 0;
    w->beat_us = s->now_us;
    w->nheld = 0;
    for (int i = 0; i < SIM_SLOTS_MAX; i++)
        w->busy_until_us[i] = 0;
    struct farm_worker_config c = {.name = "worker",
                                   .slots = w->slots,
                                   .room_requests = w->room,
                                   .room_bytes = 1000 + sim_random(s, 200000),
                                   .user = w};
    w->id = farm_worker_open(s->f, s->now_us, &c);
    if (w->id == FARM_NONE)
        sim_fail(s, "a worker was refused though there was place");
    for (uint32_t m = 0; m < s->o.models; m++)
        if (s->calm || !sim_chance(s, 3))
            farm_worker_model(s->f, s->now_us, w->id, s->models[m],
                              1 + (uint32_t)sim_random(s, SIM_SLOTS_MAX));
}

static void remember(struct sim *s, uint64_t lease)
{
    s->old_leases[sim_random(s, SIM_OLD_LEASES)] = lease;
}

// It is gone with all it held. `died`: what it held is blamed.
static void worker_gone(struct sim *s, struct sim_worker *w, bool died)
{
    for (uint32_t i = 0; i < w->nheld; i++) {
        s->requests[w->held[i].request].deaths += died;
        remember(s, w->held[i].lease);
    }
    w->nheld = 0;
    w->id = FARM_NONE;
}

static void worker_close(struct sim *s, struct sim_worker *w, bool died)
{
    farm_worker_close(s->f, s->now_us, w->id, died);
    farm_worker_beat(s->f, s->now_us, w->id, 1); // late words of the dead
    worker_gone(s, w, died);
}

void sim_workers_bury(struct sim *s)
{
    void *user;
    while (farm_next_dead_worker(s->f, &user)) {
        struct sim_worker *w = user;
        if (w->id == FARM_NONE || w->mood == MOOD_FINE)
            sim_fail(s, "a worker that is fine was declared dead");
        worker_gone(s, w, true);
    }
}

// ---- results -----------------------------------------------------------------------------------

static void send_result(struct sim *s, struct sim_worker *w, uint32_t at)
{
    struct sim_lease l = w->held[at];
    struct sim_request *r = &s->requests[l.request];
    struct farm_result result = {.lease = l.lease,
                                 .exec_us = l.exec_us,
                                 .exec_rows = l.exec_rows,
                                 .bytes = sim_random(s, 3000),
                                 .payload = sim_payload_new(s, l.request, true)};
    if (!s->calm && sim_chance(s, 200)) {
        result.status = sim_chance(s, 2)
                            ? sim_chance(s, 2) ? SONIC_STATUS_NOT_LOADED : SONIC_STATUS_DEVICE_FAULT
                            : (enum sonic_status)sim_random(s, 256);
        r->lied = true;
        if (result.status == SONIC_STATUS_OK || result.status == SONIC_STATUS_DEADLINE ||
            result.status == SONIC_STATUS_CANCELLED)
            result.status = SONIC_STATUS_EXEC_FAILED;
    }
    if (!s->calm && sim_chance(s, 50)) { // absurd measurements
        result.exec_us = (uint32_t)sim_random(s, UINT64_C(1) << 32);
        result.exec_rows = (uint32_t)sim_random(s, UINT64_C(1) << 32);
    }
    bool owed = sim_request_open(s, r);
    w->held[at] = w->held[--w->nheld];
    if (!farm_result(s->f, s->now_us, w->id, &result)) {
        sim_payload_free(result.payload, s);
        s->refused_results++;
        if (owed)
            sim_fail(s, "a result under a valid lease was refused");
    } else if (!owed && !r->cancelled) {
        sim_fail(s, "a result was taken that nobody waits for");
    } else if (result.status == SONIC_STATUS_DEVICE_FAULT) {
        r->deaths++;
    }
    remember(s, l.lease);
    if (sim_chance(s, 30)) { // the same again
        result.payload = sim_payload_new(s, l.request, true);
        if (farm_result(s->f, s->now_us, w->id, &result))
            sim_fail(s, "a result was taken twice");
        sim_payload_free(result.payload, s);
    }
}

static void send_invented(struct sim *s, struct sim_worker *w)
{
    uint64_t lease = s->old_leases[sim_random(s, SIM_OLD_LEASES)];
    if (sim_chance(s, 3))
        lease = sim_random(s, 5000) | sim_random(s, 20) << 32;
    const struct sim_worker *other = &s->workers[sim_random(s, s->o.workers)];
    if (other != w && other->nheld && sim_chance(s, 2))
        lease = other->held[sim_random(s, other->nheld)].lease;
    for (uint32_t i = 0; i < w->nheld; i++)
        if (w->held[i].lease == lease)
            return; // its own after all
    struct farm_result result = {.lease = lease, .payload = sim_payload_new(s, 0, true)};
    if (farm_result(s->f, s->now_us, w->id, &result))
        sim_fail(s, "a result was taken under a lease that this worker does not hold");
    sim_payload_free(result.payload, s);
}

// ---- executing ---------------------------------------------------------------------------------

static void start_batch(struct sim *s, struct sim_worker *w, int slot)
{
    uint32_t model = UINT32_MAX, rows = 0;
    for (int pass = 0; pass < 2; pass++) {
        uint32_t room = model == UINT32_MAX ? 0 : s->model_configs[model].batch_max, taken = 0;
        for (uint32_t i = 0; i < w->nheld; i++) {
            struct sim_lease *l = &w->held[i];
            const struct sim_request *r = &s->requests[l->request];
            if (pass == 0 && l->slot < 0 && model == UINT32_MAX) {
                model = r->model;
                room = s->model_configs[model].batch_max;
            }
            if (pass == 0 && l->slot < 0 && r->model == model && rows + r->rows <= room) {
                l->slot = slot;
                rows += r->rows;
            } else if (pass == 1 && l->slot == slot && taken < rows) {
                l->exec_rows = rows;
                l->exec_us = w->fixed_us + w->row_us * rows;
                w->busy_until_us[slot] = s->now_us + l->exec_us;
                taken += r->rows;
            }
        }
    }
}

static void worker_run(struct sim *s, struct sim_worker *w)
{
    for (int slot = 0; slot < (int)w->slots; slot++) {
        if (w->busy_until_us[slot] > s->now_us)
            continue;
        for (uint32_t i = w->nheld; i-- > 0;)
            if (i < w->nheld && w->held[i].slot == slot)
                send_result(s, w, i);
        start_batch(s, w, slot);
    }
}

static void worker_mischief(struct sim *s, struct sim_worker *w)
{
    if (sim_chance(s, 20))
        send_invented(s, w);
    if (sim_chance(s, 2000)) {
        worker_close(s, w, true);
        s->kills++;
    } else if (sim_chance(s, 2000)) {
        w->mood = sim_chance(s, 2) ? MOOD_HUNG : MOOD_SILENT;
        s->hangs++;
    } else if (sim_chance(s, 2000)) {
        farm_worker_drain(s->f, s->now_us, w->id);
        w->leaving = true;
    } else if (sim_chance(s, 500)) {
        farm_worker_model(s->f, s->now_us, w->id, s->models[sim_random(s, s->o.models)], 1);
    }
}

void sim_workers_act(struct sim *s)
{
    for (uint32_t i = 0; i < s->o.workers; i++) {
        struct sim_worker *w = &s->workers[i];
        if (w->id == FARM_NONE) {
            if (s->calm || sim_chance(s, 10))
                worker_join(s, w);
            continue;
        }
        if (w->mood == MOOD_FINE) {
            worker_run(s, w);
            w->progress++;
        }
        if (w->mood != MOOD_SILENT && s->now_us - w->beat_us > 100000) {
            farm_worker_beat(s->f, s->now_us, w->id, w->progress);
            w->beat_us = s->now_us;
        }
        if (w->leaving && w->nheld == 0 && w->mood == MOOD_FINE)
            worker_close(s, w, false);
        else if (!s->calm)
            worker_mischief(s, w);
    }
}

void sim_workers_calm(struct sim *s)
{
    for (uint32_t i = 0; i < s->o.workers; i++) {
        struct sim_worker *w = &s->workers[i];
        if (w->id == FARM_NONE || w->mood != MOOD_FINE)
            continue;
        for (uint32_t m = 0; m < s->o.models; m++)
            farm_worker_model(s->f, s->now_us, w->id, s->models[m], 1);
    }
}

// ---- dispatches --------------------------------------------------------------------------------

static void check_held(struct sim *s, const struct sim_worker *w)
{
    uint32_t open = 0, suspects = 0;
    for (uint32_t i = 0; i < w->nheld; i++) {
        const struct sim_request *r = &s->requests[w->held[i].request];
        if (!sim_request_open(s, r))
            continue;
        open++;
        suspects += r->deaths > 0;
    }
    if (open > w->room)
        sim_fail(s, "a worker got more than it offered room for");
    if (suspects && open > 1)
        sim_fail(s, "a suspect was not alone on its worker");
}

static void take_revokes(struct sim *s, struct sim_worker *w)
{
    uint64_t lease;
    while (farm_revoke_pop(s->f, w->id, &lease))
        for (uint32_t i = 0; i < w->nheld; i++)
            if (w->held[i].lease == lease && w->held[i].slot < 0) { // executing ones run on
                remember(s, lease);
                w->held[i] = w->held[--w->nheld];
            }
}

void sim_workers_take(struct sim *s)
{
    void *user;
    farm_worker_id id;
    while ((id = farm_next_worker(s->f, &user))) {
        struct sim_worker *w = user;
        struct farm_dispatch d;
        if (w->id != id)
            sim_fail(s, "an outbox of a worker that is gone");
        take_revokes(s, w);
        while (farm_dispatch_peek(s->f, id, &d)) {
            if (!s->calm && sim_chance(s, 40)) {
                farm_worker_later(s->f, id);
                break;
            }
            const struct sim_payload *p = d.payload;
            if (w->leaving)
                sim_fail(s, "a draining worker got something new");
            if (p->is_result || s->requests[p->request].rows != d.rows)
                sim_fail(s, "a dispatch is not what was submitted");
            farm_dispatch_pop(s->f, id);
            w->held = sim_grow(w->held, &w->held_size, w->nheld + 1, sizeof *w->held);
            w->held[w->nheld++] =
                (struct sim_lease){.lease = d.lease, .request = p->request, .slot = -1};
            sim_digest(s, d.lease);
        }
        check_held(s, w);
    }
}
