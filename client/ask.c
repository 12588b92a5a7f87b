// SPDX-License-Identifier: Apache-2.0
// The functions that wait: one request and its result, and questions about the farm.
#include "client/handle.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

static int left_ms(uint64_t until_us)
{
    uint64_t now_us = clock_now_us();
    if (until_us == UINT64_MAX)
        return -1;
    return now_us >= until_us ? 0 : (int)((until_us - now_us + 999) / 1000);
}

static uint64_t until(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : clock_now_us() + (uint64_t)timeout_ms * 1000;
}

// ---- one request --------------------------------------------------------------------------------

// One call of sonic_infer, with a copy of its inputs: when nobody waits any more libzmq may still
// hold them, so they live until the callback has run, whether its result is taken or not.
struct inference {
    bool done, failed, abandoned;
    sonic_status_t status;
    sonic_tensor_t inputs[SONIC_TENSORS_MAX], *outputs;
    unsigned noutputs;
    char text[SONIC_TEXT_MAX + 1];
};

void sonic_outputs_free(sonic_tensor_t *outputs, unsigned noutputs)
{
    (void)noutputs; // one block: see copy_tensors
    free(outputs);
}

static size_t padded(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

// `head` bytes of the caller's and the tensors' bytes in one block, each tensor's on a 64-byte
// boundary; `copies` is inside the head, at byte `at`. NULL: out of memory.
static void *copy_tensors(size_t head, size_t at, const sonic_tensor_t *tensors, unsigned n)
{
    size_t bytes = padded(head);
    for (unsigned i = 0; i < n; i++)
        bytes += padded(tensors[i].bytes);
    char *block = aligned_alloc(64, bytes ? bytes : 64), *data = block + padded(head);
    for (unsigned i = 0; block && i < n; i++) {
        sonic_tensor_t *copy = (sonic_tensor_t *)(void *)(block + at) + i;
        *copy = tensors[i];
        copy->data = data;
        if (copy->bytes)
            memcpy(data, tensors[i].data, copy->bytes);
        data += padded(copy->bytes);
    }
    return block;
}

static void take_inference(const sonic_result_t *r, void *user)
{
    struct inference *i = user;
    if (i->abandoned) {
        free(i);
        return;
    }
    i->done = true;
    i->status = r->status;
    strncpy(i->text, r->text, sizeof(i->text) - 1);
    i->noutputs = r->noutputs;
    if (r->noutputs) {
        i->outputs = copy_tensors(r->noutputs * sizeof(*r->outputs), 0, r->outputs, r->noutputs);
        i->failed = i->outputs == NULL;
    }
}

static struct inference *inference_new(const sonic_request_t *r)
{
    struct inference *i =
        copy_tensors(sizeof(*i), offsetof(struct inference, inputs), r->inputs, r->ninputs);
    if (i) {
        i->done = i->failed = i->abandoned = false;
        i->outputs = NULL;
        memset(i->text, 0, sizeof(i->text));
    }
    return i;
}

static int wait_for(struct sonic *s, struct inference *i, uint64_t id, int timeout_ms)
{
    uint64_t until_us = until(timeout_ms);
    while (!i->done) {
        int left = left_ms(until_us);
        int rc = sonic_process(s, left);
        if (!i->done && (rc < 0 || left == 0)) {
            i->abandoned = true; // from here on it is the callback's
            sonic_cancel(s, id);
            return rc < 0 ? rc
                          : handle_fail(s, ETIMEDOUT, "no answer from %s in %d ms", s->endpoint,
                                        timeout_ms);
        }
    }
    return 0;
}

int sonic_infer(sonic_t *s, const sonic_request_t *request, int timeout_ms, sonic_status_t *status,
                sonic_tensor_t **outputs, unsigned *noutputs)
{
    sonic_request_t own = *request;
    uint64_t id;
    int rc = handle_check(s, request);
    if (rc != 0)
        return rc;
    struct inference *i = inference_new(request);
    if (!i)
        return handle_fail(s, ENOMEM, "out of memory for the inputs");
    own.inputs = i->inputs;
    own.callback = take_inference;
    own.user = i;
    rc = sonic_submit(s, &own, &id);
    if (rc != 0) {
        free(i);
        return rc;
    }
    rc = wait_for(s, i, id, timeout_ms);
    if (rc != 0)
        return rc;
    if (i->failed)
        rc = handle_fail(s, ENOMEM, "out of memory for the outputs");
    else if (i->status != SONIC_OK)
        handle_fail(s, 0, "%s", i->text);
    if (rc == 0) {
        *status = i->status;
        *outputs = i->outputs;
        *noutputs = i->noutputs;
    }
    free(i);
    return rc;
}

// ---- questions ----------------------------------------------------------------------------------

static int ask(struct sonic *s, struct question *q, int timeout_ms)
{
    uint64_t until_us = until(timeout_ms);
    int rc = 0;
    q->id = ++s->next_question;
    s->question = q;
    handle_wake(s);
    while (!q->done && rc >= 0) {
        int left = left_ms(until_us);
        rc = sonic_process(s, left);
        if (!q->done && left == 0)
            rc = handle_fail(s, ETIMEDOUT, "no broker answers at %s: is the farm running there?",
                             s->endpoint);
    }
    s->question = NULL;
    return q->done ? 0 : rc;
}

int sonic_models(sonic_t *s, sonic_model_t **models, size_t *n, int timeout_ms)
{
    struct question q = {.what = WIRE_QUERY_MODELS};
    int rc = ask(s, &q, timeout_ms);
    if (rc != 0) {
        free(q.models);
        return rc;
    }
    *models = q.models;
    *n = q.nmodels;
    return 0;
}

int sonic_query(sonic_t *s, const char *what, char **text, int timeout_ms)
{
    struct question q = {0};
#define QUERY(NAME, number, word)                                                                  \
    if (strcmp(what, word) == 0)                                                                   \
        q.what = (number);
    WIRE_QUERIES(QUERY)
#undef QUERY
    if (q.what == 0 || q.what == WIRE_QUERY_MODELS)
        return handle_fail(s, EINVAL, "\"%s\" cannot be asked; \"status\" and \"placement\" can",
                           what);
    int rc = ask(s, &q, timeout_ms);
    if (rc == 0 && !q.text)
        return handle_fail(s, ENOMEM, "out of memory for the reply");
    *text = q.text;
    return rc;
}
