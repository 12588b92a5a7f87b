// SPDX-License-Identifier: Apache-2.0
#include "worker/results.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/message.h"

// Bounds on what an item takes in the header, without and with its tensors, over all msgpack forms.
#define ITEM_BYTES 40u
#define TENSOR_BYTES (24u + 9u * SONIC_DIMS_MAX)

struct results {
    const struct fleet *fleet;
    void *socket;
    uint64_t session, epoch;
    struct wire_header *header;
    struct payload *payload;
    bool built; // a message is in header and payload, not taken by the socket yet
    struct job *first, **last;
    struct batch_item *next; // of the first job: the request to answer next; NULL: its first
    uint64_t row;            // where that request's rows begin
    struct wire_result_item item;
};

struct results *results_new(const struct fleet *fleet, void *socket)
{
    struct results *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->fleet = fleet;
    r->socket = socket;
    r->last = &r->first;
    r->header = wire_header_new();
    r->payload = payload_new();
    if (r->header && r->payload)
        return r;
    results_free(r);
    return NULL;
}

static void drop_first(struct results *r)
{
    struct job *j = r->first;
    r->first = j->next;
    if (!r->first)
        r->last = &r->first;
    r->next = NULL;
    r->row = 0;
    job_unref(j);
}

void results_free(struct results *r)
{
    if (!r)
        return;
    while (r->first)
        drop_first(r);
    wire_header_free(r->header);
    payload_free(r->payload);
    free(r);
}

void results_add(struct results *r, struct job *j)
{
    if (j->session != r->session || !j->batch.items) {
        job_unref(j);
        return;
    }
    j->next = NULL;
    *r->last = j;
    r->last = &j->next;
}

bool results_pending(const struct results *r)
{
    return r->first || r->built;
}

void results_new_session(struct results *r, uint64_t session, uint64_t epoch)
{
    while (r->first)
        drop_first(r);
    payload_reset(r->payload);
    r->built = false;
    r->session = session;
    r->epoch = epoch;
}

// ---- one result ---------------------------------------------------------------------------------

// libzmq's I/O thread has sent (or dropped) a tensor that lies in the job's outputs.
static void output_sent(void *data, void *job)
{
    (void)data;
    job_unref(job);
}

static void put_tensor(struct results *r, struct job *j, struct tensor *t, const uint8_t *data)
{
    zmq_msg_t frame;
    if (t->bytes <= SONIC_PACK_BYTES_MAX) {
        payload_pack(r->payload, t, data);
        return;
    }
    job_ref(j);
    // libzmq only reads it; its interface has no const.
    if (zmq_msg_init_data(&frame, (void *)(uintptr_t)data, t->bytes, output_sent, j) != 0)
        abort(); // out of memory for the message: as in common/message.c
    payload_attach(r->payload, t, &frame);
}

// This request's part of output k, as the model declares it (the runtime may see another shape).
static void output_part(const struct loaded_model *m, const struct job *j,
                        const struct batch_item *item, uint32_t k, struct tensor *t)
{
    const struct executor_tensor *out = &j->x.outputs[k];
    t->dtype = out->dtype;
    t->ndim = out->ndim;
    memcpy(t->dims, out->dims, sizeof(t->dims));
    t->bytes = out->bytes;
    if (m->config.batch_max > 0) {
        t->dims[0] = item->rows;
        t->bytes = out->bytes / j->batch.rows * item->rows;
    }
}

// Whether the open message has room for this item; an empty one always has.
static bool fits(struct results *r, uint32_t n, size_t text)
{
    uint64_t bytes[SONIC_TENSORS_MAX];
    size_t header;
    for (uint32_t k = 0; k < n; k++)
        bytes[k] = r->item.tensors.at[k].bytes;
    wire_finish(r->header, &header);
    return wire_header_items(r->header) < SONIC_ITEMS_MAX &&
           header + ITEM_BYTES + text + n * TENSOR_BYTES <= SONIC_HEADER_BYTES_MAX &&
           payload_fits(r->payload, n, bytes);
}

// r->item for this request: its outcome, and where its outputs are not packed yet.
static void describe(struct results *r, const struct job *j, const struct batch_item *item)
{
    const struct loaded_model *m = &r->fleet->models[j->batch.model];
    r->item.lease = item->lease;
    r->item.status = j->status;
    r->item.exec_us = j->exec_us;
    r->item.exec_rows = j->batch.rows;
    r->item.text = wire_str(j->text);
    r->item.tensors.n = j->status == SONIC_STATUS_OK ? j->x.noutputs : 0;
    for (uint32_t k = 0; k < r->item.tensors.n; k++) {
        output_part(m, j, item, k, &r->item.tensors.at[k]);
        if (r->item.tensors.at[k].bytes <= SONIC_FRAME_BYTES_MAX)
            continue;
        // The broker would cut the link over such a frame.
        r->item.status = SONIC_STATUS_EXEC_FAILED;
        r->item.text = wire_str("an output is over 256 MiB: send fewer rows a request");
        r->item.tensors.n = 0;
    }
}

// Adds the next request's result to the open message. False: it does not fit.
static bool add_result(struct results *r, struct job *j, struct batch_item *item)
{
    describe(r, j, item);
    if (!fits(r, r->item.tensors.n, r->item.text.len))
        return false;
    for (uint32_t k = 0; k < r->item.tensors.n; k++) {
        const struct executor_tensor *out = &j->x.outputs[k];
        const uint8_t *data = out->data;
        put_tensor(r, j, &r->item.tensors.at[k], data + out->bytes / j->batch.rows * r->row);
    }
    wire_add_result(r->header, &r->item); // fits: counted above
    return true;
}

// ---- messages -----------------------------------------------------------------------------------

// Fills a message with the results that are next.
static void build(struct results *r)
{
    struct wire_result fields = {.epoch = r->epoch};
    wire_begin_result(r->header, &fields);
    r->built = true;
    while (r->first) {
        struct job *j = r->first;
        struct batch_item *item = r->next ? r->next : j->batch.items;
        if (!add_result(r, j, item))
            return;
        r->row += item->rows;
        r->next = item->next;
        if (!r->next)
            drop_first(r);
    }
}

int results_send(struct results *r)
{
    while (results_pending(r)) {
        if (!r->built)
            build(r);
        int rc = message_send(r->socket, NULL, 0, r->header, r->payload);
        if (rc != 0)
            return rc;
        r->built = false;
    }
    return 0;
}
