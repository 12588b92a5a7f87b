// SPDX-License-Identifier: Apache-2.0
// What ends a request: an answer into its client's outbox, or its client's end.
#include "broker/core/farm_internal.h"

static void seqs_remove(struct request *r)
{
    if (!r->in_seqs)
        return;
    *r->seq_prev = r->seq_next;
    if (r->seq_next)
        r->seq_next->seq_prev = r->seq_prev;
    r->in_seqs = false;
    r->client->nseqs--;
}

static uint32_t clamp_u32(uint64_t v)
{
    return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

// r is out of its queue or its worker. With `text` the farm answers by itself, and the input goes;
// without, r's payload is the worker's result already.
void request_answer(struct farm *f, uint64_t now_us, struct request *r, enum sonic_status status,
                    const char *text)
{
    struct client *c = r->client;
    if (text) {
        payload_drop(f, r);
        r->queue_us = clamp_u32(now_us - r->submitted_us);
    }
    r->state = REQUEST_ANSWERED;
    r->status = (uint8_t)status;
    r->text = text;
    if (status == SONIC_STATUS_OK)
        f->stats.answered_ok++;
    else
        f->stats.answered_failed++;
    r->flow->model->answered++;
    c->tenant->answered++;
    seqs_remove(r);
    flow_unref(f, r->flow);
    r->flow = NULL;
    c->result_bytes += r->result_bytes;
    f->stats.waiting_answers++;
    list_insert(&c->answers, &r->at.link);
    client_ready(f, c);
}

// Takes r off its worker's lists and load. It may run on there: its lease is stale from now on.
void request_unlease(struct farm *f, struct request *r)
{
    struct service *s = r->service;
    struct worker *w = s->worker;
    struct model *m = s->model;
    list_remove(&r->at.link);
    w->requests--;
    w->rows -= r->rows;
    w->bytes -= r->bytes;
    w->share -= r->rows * m->share_row;
    s->requests--;
    s->rows -= r->rows;
    m->leased--;
    m->leased_rows -= r->rows;
    f->stats.leased--;
    if (r->deaths) {
        w->isolated = false;
        m->nisolated--;
    }
    r->service = NULL;
    service_settle(s);
    worker_settle(f, w);
    if (!s->on && s->requests == 0)
        service_free(s);
}

void request_drop(struct farm *f, struct request *r)
{
    struct client *c = r->client;
    if (r->state == REQUEST_QUEUED) {
        queue_remove(f, r);
        f->stats.dropped++;
    } else if (r->state == REQUEST_LEASED || r->state == REQUEST_HELD) {
        struct worker *w = r->service->worker;
        uint64_t lease = r->state == REQUEST_HELD ? request_lease(r) : 0;
        request_unlease(f, r);
        if (lease)
            worker_revoke(f, w, lease);
        f->stats.dropped++;
    }
    seqs_remove(r);
    if (r->flow)
        flow_unref(f, r->flow);
    payload_drop(f, r);
    c->requests--;
    c->bytes -= r->bytes;
    f->stats.used_bytes -= r->bytes;
    record_free(f, r);
}
