// SPDX-License-Identifier: Apache-2.0
#include "worker/staging.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/checked.h"

// What vector units like best; also what a packed tensor has.
#define GATHER_ALIGN 64u

static bool reserve(struct gather *g, uint64_t bytes)
{
    uint64_t capacity;
    if (bytes <= g->capacity)
        return true;
    if (!checked_align(bytes, 4096, &capacity))
        return false;
    free(g->data);
    g->data = aligned_alloc(GATHER_ALIGN, capacity);
    g->capacity = g->data ? capacity : 0;
    return g->data != NULL;
}

// Whether the batch's bytes of this input are one aligned range already.
static bool contiguous(const struct batch *batch, uint32_t input, size_t align)
{
    struct request *first = request_of(batch->items);
    const uint8_t *at = first->inputs[input].data;
    if ((uintptr_t)at % align != 0)
        return false;
    for (struct batch_item *i = batch->items; i; i = i->next) {
        const struct request *r = request_of(i);
        // The same frame, or two allocations that touch would pass for one.
        if (r->parcel != first->parcel || r->inputs[input].frame != first->inputs[input].frame ||
            r->inputs[input].data != at)
            return false;
        at += r->inputs[input].bytes;
    }
    return true;
}

static void copy_rows(const struct batch *batch, uint32_t input, uint8_t *at)
{
    for (struct batch_item *i = batch->items; i; i = i->next) {
        const struct request_input *in = &request_of(i)->inputs[input];
        memcpy(at, in->data, in->bytes);
        at += in->bytes;
    }
}

static bool fill_input(struct job *j, uint32_t input, void *room, struct executor_tensor *t)
{
    struct gather *g = &j->gathers[input];
    if (!room && contiguous(&j->batch, input, dtype_bytes(t->dtype))) {
        t->data = request_of(j->batch.items)->inputs[input].data;
        return true;
    }
    if (!room && !reserve(g, t->bytes))
        return false;
    t->data = room ? room : g->data;
    copy_rows(&j->batch, input, room ? room : g->data);
    return true;
}

bool staging_fill(struct job *j, const struct executor *executor, const struct loaded_model *model,
                  uint32_t slot)
{
    const struct request *first = request_of(j->batch.items);
    const struct model_config *c = &model->config;
    j->x.rows = j->batch.rows;
    j->x.ninputs = first->ninputs;
    for (uint32_t k = 0; k < first->ninputs; k++) {
        struct executor_tensor *t = &j->x.inputs[k];
        t->dtype = c->inputs[k].dtype;
        t->ndim = first->inputs[k].ndim;
        memcpy(t->dims, first->inputs[k].dims, sizeof(t->dims));
        if (c->batch_max > 0)
            t->dims[0] = j->batch.rows;
        t->bytes = 0;
        for (struct batch_item *i = j->batch.items; i; i = i->next)
            t->bytes += request_of(i)->inputs[k].bytes;
        void *room =
            executor->input_room ? executor->input_room(model->handle, slot, k, t->bytes) : NULL;
        if (!fill_input(j, k, room, t)) {
            strcpy(j->text, "the worker is out of memory for the inputs of this batch");
            return false;
        }
    }
    return true;
}
