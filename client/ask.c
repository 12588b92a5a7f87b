// SPDX-License-Identifier: Apache-2.0
// The functions that wait: one request and its result, and questions about the farm.
#include "client/handle.h"

#include <errno.h>
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

struct inference {
    bool done, failed;
    sonic_status_t status;
    sonic_tensor_t *outputs;
    unsigned noutputs;
    char text[SONIC_TEXT_MAX + 1];
};

void sonic_outputs_free(sonic_tensor_t *outputs, unsigned noutputs)
{
    (void)noutputs; // one block: see copy_outputs
    free(outputs);
}

// Descriptions and bytes in one block, each tensor's bytes on a 64-byte boundary.
static sonic_tensor_t *copy_outputs(const sonic_result_t *r)
{
    size_t head = (r->noutputs * sizeof(sonic_tensor_t) + 63) & ~(size_t)63, bytes = head;
    for (unsigned i = 0; i < r->noutputs; i++)
        bytes += (r->outputs[i].bytes + 63) & ~(size_t)63;
    sonic_tensor_t *copy = aligned_alloc(64, bytes ? bytes : 64);
    char *at = (char *)copy + head;
    for (unsigned i = 0; copy && i < r->noutputs; i++) {
        copy[i] = r->outputs[i];
        copy[i].data = at;
        memcpy(at, r->outputs[i].data, r->outputs[i].bytes);
        at += (r->outputs[i].bytes + 63) & ~(size_t)63;
    }
    return copy;
}

static void take_inference(const sonic_result_t *r, void *user)
{
    struct inference *i = user;
    i->done = true;
    i->status = r->status;
    strncpy(i->text, r->text, sizeof(i->text) - 1);
    i->noutputs = r->noutputs;
    if (r->noutputs) {
        i->outputs = copy_outputs(r);
        i->failed = i->outputs == NULL;
    }
}

int sonic_infer(sonic_t *s, const sonic_request_t *request, int timeout_ms, sonic_status_t *status,
                sonic_tensor_t **outputs, unsigned *noutputs)
{
    struct inference inference = {0};
    sonic_request_t own = *request;
    uint64_t id, until_us = until(timeout_ms);
    own.callback = take_inference;
    own.user = &inference;
    int rc = sonic_submit(s, &own, &id);
    if (rc != 0)
        return rc;
    while (!inference.done) {
        int left = left_ms(until_us);
        rc = sonic_process(s, left);
        if (!inference.done && (rc < 0 || left == 0)) {
            flight_abandon(s, id); // its result must not come to a stack that is gone
            return rc < 0 ? rc
                          : handle_fail(s, ETIMEDOUT, "no answer from %s in %d ms", s->endpoint,
                                        timeout_ms);
        }
    }
    if (inference.failed)
        return handle_fail(s, ENOMEM, "out of memory for the outputs");
    if (inference.status != SONIC_OK)
        handle_fail(s, 0, "%s", inference.text);
    *status = inference.status;
    *outputs = inference.outputs;
    *noutputs = inference.noutputs;
    return 0;
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
