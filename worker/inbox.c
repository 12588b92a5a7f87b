// SPDX-License-Identifier: Apache-2.0
#include "worker/inbox.h"

#include <stdio.h>
#include <string.h>

#include "common/checked.h"

// Answers a lease that is not executed.
static void refuse(struct inbox *in, struct request *r, uint8_t status, const char *text)
{
    struct job *j = job_new(in->pool);
    j->session = in->session;
    j->status = status;
    snprintf(j->text, sizeof(j->text), "%s", text);
    j->batch.items = &r->item;
    j->batch.n = 1;
    results_add(in->results, j);
}

// Where the bytes of a tensor are, with a reference to what holds them. False: nowhere.
static bool hold_tensor(const struct inbox *in, struct parcel *p, const struct tensor *t,
                        struct request_input *input)
{
    input->slab = NULL;
    input->frame = 0;
    if (t->place == TENSOR_IN_SLAB) {
        input->slab = mappings_get(in->mappings, t->where);
        input->data = input->slab ? slab_tensor(input->slab, t) : NULL;
        if (input->slab && !input->data)
            slab_unref(input->slab);
        return input->data != NULL;
    }
    input->data = message_tensor(parcel_message(p), t);
    if (!input->data)
        return false;
    input->frame = t->where;
    parcel_ref_frame(p, t->where);
    return true;
}

// Points the request to its bytes. False with words and what to answer when a tensor's are not
// there: a slab may have been let go of while the DISPATCH was under way, which is nobody's fault.
static bool locate(const struct inbox *in, struct request *r, struct parcel *p,
                   const struct wire_tensors *tensors, const struct loaded_model *model,
                   uint8_t *status, char *why, size_t size)
{
    parcel_ref(p);
    r->parcel = p;
    for (uint32_t i = 0; i < tensors->n; i++) {
        const struct tensor *t = &tensors->at[i];
        struct request_input *input = &r->inputs[i];
        if (!hold_tensor(in, p, t, input)) {
            *status = t->place == TENSOR_IN_SLAB ? SONIC_STATUS_BUSY : SONIC_STATUS_BAD_REQUEST;
            snprintf(why, size, "the bytes of tensor \"%s\" are not where the message says",
                     model->config.inputs[i].name);
            return false;
        }
        input->bytes = t->bytes;
        input->ndim = t->ndim;
        memcpy(input->dims, t->dims, sizeof(input->dims));
        r->ninputs = i + 1; // what is given back with the request
    }
    return true;
}

static bool take_item(struct inbox *in, uint64_t now_us, struct parcel *p,
                      const struct wire_dispatch_item *item, const struct loaded_model *model,
                      struct request *r)
{
    char why[SONIC_TEXT_MAX];
    uint8_t status = SONIC_STATUS_BAD_REQUEST;
    r->item.lease = item->lease;
    if (!model) {
        refuse(in, r, SONIC_STATUS_NOT_LOADED, "this worker does not have that model");
        return false;
    }
    const struct model_config *c = &model->config;
    if (!model_check_tensors(c, c->inputs, c->ninputs, item->tensors.at, item->tensors.n,
                             &r->item.rows, &r->item.bytes, why, sizeof(why)) ||
        !locate(in, r, p, &item->tensors, model, &status, why, sizeof(why))) {
        refuse(in, r, status, why);
        return false;
    }
    r->item.model = (uint32_t)(model - in->fleet->models);
    if (item->deadline_us && !checked_add(now_us, item->deadline_us, &r->item.deadline_us))
        r->item.deadline_us = 0; // for ever
    return true;
}

bool inbox_dispatch(struct inbox *in, uint64_t now_us, struct parcel *p,
                    const struct wire_message *m)
{
    const struct wire_dispatch *d = &m->fields.dispatch;
    const struct loaded_model *model =
        fleet_find(in->fleet, d->model.data, d->model.len, d->version);
    struct batch_item *chain = NULL, **last = &chain;
    for (uint32_t i = 0; i < m->nitems; i++) {
        struct request *r = request_new(in->pool);
        if (!take_item(in, now_us, p, &m->items.dispatch[i], model, r))
            continue;
        *last = &r->item;
        last = &r->item.next;
    }
    struct batch_item *over = slots_put(in->slots, chain);
    requests_free(in->pool, over);
    return over == NULL;
}
