// SPDX-License-Identifier: Apache-2.0
// Looking in: copies of counters for status pages.
#include "broker/core/farm_internal.h"

void farm_stats(const struct farm *f, struct farm_stats *s)
{
    *s = f->stats;
}

bool farm_model_stats(const struct farm *f, uint64_t now_us, uint32_t i, struct farm_model_stats *s)
{
    if (i >= f->nmodels)
        return false;
    const struct model *m = f->models[i];
    uint64_t oldest_us = queue_oldest_us(m);
    *s = (struct farm_model_stats){.config = &m->config,
                                   .accepted = m->accepted,
                                   .answered = m->answered,
                                   .queued = m->ready + m->nsuspects,
                                   .queued_rows = m->ready_rows + m->suspect_rows,
                                   .leased = m->leased,
                                   .rows_per_execution = m->batch_rows,
                                   .service_us_per_row = m->row_us,
                                   .workers = m->nservices,
                                   .oldest_us = oldest_us < now_us ? now_us - oldest_us : 0};
    return true;
}

bool farm_worker_stats(const struct farm *f, uint32_t i, struct farm_worker_stats *s)
{
    if (i >= f->nworkers)
        return false;
    const struct worker *w = f->workers[i];
    *s = (struct farm_worker_stats){.name = w->name,
                                    .user = w->user,
                                    .slots = w->slots,
                                    .leased = w->requests,
                                    .leased_rows = w->rows,
                                    .answered = w->answered,
                                    .draining = w->draining};
    return true;
}

bool farm_tenant_stats(const struct farm *f, uint32_t i, struct farm_tenant_stats *s)
{
    if (i >= f->ntenants)
        return false;
    const struct tenant *t = f->tenants[i];
    *s = (struct farm_tenant_stats){.name = t->name,
                                    .clients = t->clients,
                                    .accepted = t->accepted,
                                    .answered = t->answered,
                                    .queued = t->queued};
    return true;
}
