// SPDX-License-Identifier: Apache-2.0
// Requests out and answers to callbacks.
#include "client/handle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- calls --------------------------------------------------------------------------------------

struct call *flight_call(struct sonic *s)
{
    struct call *c = s->spare;
    if (c) {
        s->spare = c->next_spare;
    } else {
        c = malloc(sizeof(*c) + SONIC_TENSORS_MAX * sizeof(c->inputs[0]));
        if (!c)
            return NULL;
        c->owner = s;
    }
    atomic_init(&c->frames, 0);
    c->kept = NULL;
    c->shared = 0;
    return c;
}

void flight_recycle(struct sonic *s, struct call *c)
{
    if (c->request)
        window_release(s->window, c->request);
    share_return(s, c);
    c->next_spare = s->spare;
    s->spare = c;
}

// ---- out ----------------------------------------------------------------------------------------

// libzmq is done with a frame of the caller's data. Runs on its I/O thread.
static void frame_released(void *data, void *hint)
{
    struct call *c = hint;
    struct sonic *s = c->owner;
    uint64_t one = 1;
    (void)data;
    // After this the call may be recycled by the caller's thread: only the handle is touched.
    if (atomic_fetch_sub(&c->frames, 1) == 1 && atomic_load(&s->nkept) > 0) {
        ssize_t ignored = write(s->wake, &one, sizeof(one));
        (void)ignored;
        atomic_store(&s->released, true); // last: whoever sees it finds the write in place
    }
}

static bool put_input(struct sonic *s, struct call *c, unsigned i, struct tensor *t)
{
    const sonic_tensor_t *in = &c->inputs[i];
    t->dtype = (uint8_t)in->type;
    t->ndim = (uint8_t)in->ndim;
    t->bytes = in->bytes;
    memcpy(t->dims, in->dims, in->ndim * sizeof(t->dims[0]));
    if (in->bytes <= SONIC_PACK_BYTES_MAX) {
        payload_pack(s->payload, t, in->data);
        return true;
    }
    if (share_input(s, c, i, t))
        return true;
    zmq_msg_t frame;
    atomic_fetch_add(&c->frames, 1);
    if (zmq_msg_init_data(&frame, (void *)in->data, in->bytes, frame_released, c) != 0) {
        atomic_fetch_sub(&c->frames, 1);
        return false;
    }
    payload_attach(s->payload, t, &frame);
    return true;
}

static bool call_fits(const struct sonic *s, const struct call *c)
{
    uint64_t bytes[SONIC_TENSORS_MAX];
    for (unsigned i = 0; i < c->ninputs; i++)
        bytes[i] = c->inputs[i].bytes;
    return payload_fits(s->payload, c->ninputs, bytes);
}

static bool send_built(struct sonic *s)
{
    int rc = message_send(s->socket, NULL, 0, s->header, s->payload);
    s->unsent = rc == -EAGAIN;
    if (rc != 0 && rc != -EAGAIN)
        payload_reset(s->payload);
    return rc == 0;
}

// Adds a request to the SUBMIT under construction; false when it does not fit any more. What was
// put of it then travels unused, and the request goes with the next message.
static bool put_request(struct sonic *s, const struct window_request *r)
{
    static _Thread_local struct wire_submit_item item; // large, and only its used part is written
    struct call *c = r->user;
    if (!call_fits(s, c))
        return false;
    item.seq = r->seq;
    item.priority = r->priority;
    item.deadline_us = 0;
    if (r->deadline_us)
        item.deadline_us = r->deadline_us > s->now_us ? r->deadline_us - s->now_us : 1;
    item.tensors.n = c->ninputs;
    for (unsigned i = 0; i < c->ninputs; i++)
        if (!put_input(s, c, i, &item.tensors.at[i]))
            return false;
    return wire_add_submit(s->header, &item);
}

// Requests of one SUBMIT, and the bytes after which none is added. A window that travels as one
// message makes client, broker and worker wait for each other in turn; in several messages they
// overlap.
#define SUBMIT_ITEMS 128u
#define SUBMIT_BYTES (4u << 20)

// One SUBMIT to the model at the queue's head, as far as the window goes. False: nothing was sent.
static bool send_submit(struct sonic *s)
{
    struct window_request *r = window_next(s->window);
    struct window_counts counts;
    uint64_t bytes = 0;
    if (!r)
        return false;
    window_counts(s->window, &counts);
    struct wire_submit fields = {.epoch = s->epoch,
                                 .received = counts.received,
                                 .model = wire_str(r->model),
                                 .version = r->version};
    wire_begin_submit(s->header, &fields);
    while (r && wire_header_items(s->header) < SUBMIT_ITEMS && bytes < SUBMIT_BYTES &&
           put_request(s, r)) {
        struct window_request *also = window_also(s->window, r);
        bytes += r->bytes;
        window_sent(s->window, r);
        r = also;
    }
    if (wire_header_items(s->header) == 0) { // no memory for a frame: tried again next turn
        payload_reset(s->payload);
        return false;
    }
    s->acknowledged = counts.received;
    s->acknowledged_us = s->now_us;
    return send_built(s);
}

void flight_send(struct sonic *s)
{
    if (s->link != LINK_OPEN)
        return;
    if (s->unsent && !send_built(s))
        return;
    while (send_submit(s))
        ;
}

void flight_cancel(struct sonic *s, uint64_t seq)
{
    struct wire_cancel fields = {.epoch = s->epoch};
    struct wire_cancel_item item = {.seq = seq};
    if (s->link != LINK_OPEN || s->unsent)
        return; // it is answered all the same, or sent again and cancelled then
    wire_begin_cancel(s->header, &fields);
    wire_add_cancel(s->header, &item);
    send_built(s);
}

// ---- in -----------------------------------------------------------------------------------------

static void run_callback(struct sonic *s, struct call *c, sonic_result_t *result)
{
    result->id = c->request->seq;
    result->latency_us = s->now_us - c->request->submitted_us;
    result->attempts = c->request->attempts;
    s->ncalls++;
    s->in_callback = true;
    if (c->callback)
        c->callback(result, c->user);
    s->in_callback = false;
    flight_recycle(s, c);
}

// Keeps an answer until libzmq lets go of the caller's data, which the callback may free.
static bool keep(struct sonic *s, struct call *c, const sonic_result_t *result)
{
    struct kept_answer *k = calloc(1, sizeof(*k));
    size_t bytes = 0;
    for (unsigned i = 0; i < result->noutputs; i++)
        bytes += result->outputs[i].bytes;
    if (!k || !(k->bytes = malloc(bytes + 1))) {
        free(k);
        return false;
    }
    char *at = k->bytes;
    k->noutputs = result->noutputs;
    for (unsigned i = 0; i < result->noutputs; i++) {
        k->outputs[i] = result->outputs[i];
        k->outputs[i].data = at;
        memcpy(at, result->outputs[i].data, result->outputs[i].bytes);
        at += result->outputs[i].bytes;
    }
    size_t len = strnlen(result->text, SONIC_TEXT_MAX);
    memcpy(k->text, result->text, len);
    k->queue_us = result->queue_us;
    k->exec_us = result->exec_us;
    k->exec_rows = result->exec_rows;
    k->status = result->status;
    k->next = s->kept;
    s->kept = c;
    c->kept = k;
    atomic_fetch_add(&s->nkept, 1);
    return true;
}

static void complete(struct sonic *s, struct call *c, sonic_result_t *result)
{
    if (atomic_load(&c->frames) > 0 && keep(s, c, result))
        return;
    while (atomic_load(&c->frames) > 0) // no memory to keep it: then wait here
        usleep(50);
    run_callback(s, c, result);
}

static void release_kept(struct sonic *s)
{
    struct call **at = &s->kept;
    while (*at) {
        struct call *c = *at;
        struct kept_answer *k = c->kept;
        if (atomic_load(&c->frames) > 0) {
            at = &k->next;
            continue;
        }
        *at = k->next;
        atomic_fetch_sub(&s->nkept, 1);
        sonic_result_t result = {.status = k->status,
                                 .text = k->text,
                                 .noutputs = k->noutputs,
                                 .outputs = k->outputs,
                                 .queue_us = k->queue_us,
                                 .exec_us = k->exec_us,
                                 .exec_rows = k->exec_rows};
        run_callback(s, c, &result);
        free(k->bytes);
        free(k);
        at = &s->kept; // the callback may have changed the list
    }
}

static bool take_outputs(struct sonic *s, const struct wire_tensors *in, sonic_tensor_t *outputs)
{
    for (uint32_t i = 0; i < in->n; i++) {
        const struct tensor *t = &in->at[i];
        const void *data = message_tensor(s->message, t);
        if (!data)
            return false;
        outputs[i].type = (sonic_type_t)t->dtype;
        outputs[i].ndim = t->ndim;
        memcpy(outputs[i].dims, t->dims, t->ndim * sizeof(t->dims[0]));
        outputs[i].data = data;
        outputs[i].bytes = t->bytes;
    }
    return true;
}

void flight_answer(struct sonic *s, const struct wire_answer_item *item, bool current_epoch)
{
    sonic_tensor_t outputs[SONIC_TENSORS_MAX];
    char text[SONIC_TEXT_MAX + 1];
    struct window_request *r =
        window_answer(s->window, s->now_us, item->seq, (enum sonic_status)item->status,
                      (uint64_t)item->retry_after_ms * 1000, item->acknowledge && current_epoch);
    if (!r)
        return;
    if (item->text.len)
        memcpy(text, item->text.data, item->text.len);
    text[item->text.len] = '\0';
    // The window's status: a BUSY ends a request that was cancelled meanwhile.
    sonic_result_t result = {.status = (sonic_status_t)r->status,
                             .text = text,
                             .queue_us = item->queue_us,
                             .exec_us = item->exec_us,
                             .exec_rows = item->exec_rows};
    if (r->status == SONIC_STATUS_OK) {
        result.noutputs = item->tensors.n;
        result.outputs = outputs;
        if (!take_outputs(s, &item->tensors, outputs))
            result = (sonic_result_t){.status = SONIC_PROTOCOL,
                                      .text = "the broker sent a result that is not whole"};
    }
    complete(s, r->user, &result);
}

static void complete_locally(struct sonic *s, struct window_request *r)
{
    char text[SONIC_TEXT_MAX + 1];
    sonic_result_t result = {.status = (sonic_status_t)r->status,
                             .text = sonic_status_text(r->status)};
    if (r->status == SONIC_STATUS_BAD_REQUEST) { // the window's limit
        snprintf(
            text, sizeof(text),
            "a request of %llu bytes is more than the %llu that this broker takes (half of its "
            "--memory): send fewer rows a request",
            (unsigned long long)r->bytes, (unsigned long long)s->request_bytes_max);
        result.text = text;
    }
    complete(s, r->user, &result);
}

void flight_due(struct sonic *s)
{
    struct window_request *r;
    while ((r = window_due(s->window, s->now_us)) != NULL)
        complete_locally(s, r);
    if (s->kept)
        release_kept(s);
}

void flight_end(struct sonic *s, enum sonic_status status)
{
    // Those of now only: a callback may submit again, which lands behind them.
    struct window_counts counts;
    window_counts(s->window, &counts);
    for (size_t i = 0; i < counts.pending; i++) {
        struct window_request *r = window_give_up(s->window, status);
        if (!r)
            break;
        complete_locally(s, r);
    }
    release_kept(s);
}
