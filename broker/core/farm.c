// SPDX-License-Identifier: Apache-2.0
// The farm as a whole: its life, and the tick that does all that is due.
#include "broker/core/farm.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/core/farm_internal.h"

void farm_config_default(struct farm_config *c)
{
    *c = (struct farm_config){
        .memory_bytes_max = 1ull << 30,
        .clients_max = 16384,
        .workers_max = 4096,
        .grant_floor_bytes = 256 * 1024,
        .grant_floor_requests = 32,
        .grant_requests_max = 65536,
        .stock_us = 2000,
        .stock_batches = 2,
        .poison_deaths = 2,
        .lease_us = 30 * 1000000ull,
        .worker_silent_us = 5 * 1000000ull,
    };
}

struct farm *farm_new(const struct farm_config *c)
{
    struct farm *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->config = *c;
    // Bounds that keep the load sums far from overflow; nobody configures near them.
    if (f->config.stock_us > 1000000000)
        f->config.stock_us = 1000000000;
    if (f->config.stock_batches > 65536)
        f->config.stock_batches = 65536;
    if (f->config.poison_deaths == 0)
        f->config.poison_deaths = 1;
    snprintf(f->poison_text, sizeof f->poison_text,
             "%u workers died while they held this request; it is not tried again",
             f->config.poison_deaths);
    list_init(&f->free_requests);
    list_init(&f->active);
    list_init(&f->ready_clients);
    list_init(&f->later_clients);
    list_init(&f->ready_workers);
    list_init(&f->later_workers);
    return f;
}

static void payloads_free(struct farm *f)
{
    for (uint32_t i = 0; i < f->nchunks; i++)
        for (uint32_t k = 0; k < RECORDS_PER_CHUNK; k++)
            if (f->chunks[i][k].state != REQUEST_FREE)
                payload_drop(f, &f->chunks[i][k]);
}

static void services_free(struct worker *w)
{
    struct link *l;
    while ((l = list_take(&w->services)))
        free(container_of(l, struct service, on_worker));
}

void farm_free(struct farm *f)
{
    if (!f)
        return;
    payloads_free(f);
    while (f->nworkers) {
        services_free(f->workers[0]);
        worker_free(f, f->workers[0]);
    }
    for (uint32_t i = 0; i < f->clients.size; i++)
        if (f->clients.slots[i].object)
            client_free(f, f->clients.slots[i].object);
    for (uint32_t i = 0; i < f->flows_size + 1; i++) {
        struct flow *next, *w = i < f->flows_size ? f->flows[i] : f->spare_flows;
        for (; w; w = next) {
            next = w->next;
            free(w);
        }
    }
    for (uint32_t i = 0; i < f->nmodels; i++) {
        free(f->models[i]->services);
        free(f->models[i]);
    }
    for (uint32_t i = 0; i < f->nchunks; i++)
        free(f->chunks[i]);
    free(f->chunks);
    free(f->flows);
    free(f->clients.slots);
    free(f->worker_table.slots);
    free(f->tenants);
    free(f->workers);
    free(f->open);
    free(f->dead);
    free(f->candidates);
    free(f);
}

static void deadlines_expire(struct farm *f, uint64_t now_us)
{
    while (f->deadlines.root && f->deadlines.root->key <= now_us) {
        struct request *r = container_of(f->deadlines.root, struct request, deadline);
        queue_remove(f, r);
        f->stats.deadline_missed++;
        request_answer(f, now_us, r, SONIC_STATUS_DEADLINE,
                       "the deadline passed while it was queued");
    }
}

uint64_t farm_tick(struct farm *f, uint64_t now_us)
{
    outbox_again(f);
    worker_expire(f, now_us);
    deadlines_expire(f, now_us);
    uint64_t next_us = schedule(f, now_us);
    if (f->deadlines.root && f->deadlines.root->key < next_us)
        next_us = f->deadlines.root->key;
    if (f->timers.root && f->timers.root->key < next_us)
        next_us = f->timers.root->key;
    return next_us;
}
