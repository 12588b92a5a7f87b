// SPDX-License-Identifier: Apache-2.0
// A load on a farm through the public library: K client processes, each keeps W requests of R rows
// in flight for S seconds. Inputs are made from the model's declaration, or the first one is read.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/sonic.h"
#include "common/clock.h"
#include "common/tensor.h"
#include "tests/bench/clients.h"

// Answers that come together are of one execution.
#define SAME_EXECUTION_US 500u

struct load {
    const char *endpoint, *model, *input; // a file of FP32 rows, or NULL
    unsigned clients, window, rows;
    double seconds;
};

// One client's state.
struct run {
    sonic_t *sonic;
    sonic_request_t request;
    sonic_tensor_t inputs[SONIC_MAX_TENSORS];
    uint64_t from_us, until_us;
    uint64_t first_us, last_us; // of the answers that are counted
    struct client_figures *figures;
};

static int submit(struct run *r)
{
    int rc = sonic_submit(r->sonic, &r->request, NULL);
    if (rc != 0)
        fprintf(stderr, "bench_load: %s\n", sonic_error(r->sonic));
    return rc;
}

static void on_result(const sonic_result_t *result, void *user)
{
    struct run *r = user;
    uint64_t now_us = clock_now_us();
    if (result->status != SONIC_OK)
        r->figures->failed++;
    // The rate is that between the first answer and the last, the first execution's not counted:
    // with executions of seconds, what falls inside a fixed time is chance.
    if (now_us >= r->from_us && now_us < r->until_us) {
        if (r->first_us == 0)
            r->first_us = now_us;
        if (now_us > r->first_us + SAME_EXECUTION_US)
            r->figures->answers++;
        r->last_us = now_us;
        latency_add((uint32_t)result->latency_us);
    }
    if (now_us < r->until_us)
        submit(r);
}

// The first input's rows, for models that do not take any numbers.
static int read_input(const struct load *l, void *data, uint64_t bytes)
{
    FILE *f = fopen(l->input, "rb");
    bool whole = f && fread(data, 1, bytes, f) == bytes;
    if (f)
        fclose(f);
    if (!whole)
        fprintf(stderr, "bench_load: %s holds no %u rows\n", l->input, l->rows);
    return whole ? 0 : -EIO;
}

// Inputs of `rows` rows: small positive numbers, so that no model meets anything unusual.
static int make_inputs(struct run *r, const struct load *l)
{
    sonic_model_t *models;
    size_t n;
    int rc = sonic_models(r->sonic, &models, &n, 20000);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        const sonic_model_t *m = &models[i];
        if (strcmp(m->name, l->model) != 0)
            continue;
        for (unsigned k = 0; k < m->ninputs; k++) {
            sonic_tensor_t *t = &r->inputs[k];
            uint64_t bytes = dtype_bytes(m->inputs[k].type) * l->rows;
            t->type = m->inputs[k].type;
            t->ndim = m->inputs[k].ndim + 1;
            t->dims[0] = l->rows;
            for (unsigned d = 0; d < m->inputs[k].ndim; d++) {
                t->dims[d + 1] = m->inputs[k].dims[d] > 0 ? (uint64_t)m->inputs[k].dims[d] : 1;
                bytes *= t->dims[d + 1];
            }
            float *data = sonic_alloc(r->sonic, bytes);
            for (uint64_t e = 0; data && e < bytes / 4; e++)
                data[e] = (float)(e % 97) / 97;
            t->data = data;
            t->bytes = bytes;
            if (k == 0 && l->input && (rc = read_input(l, data, bytes)) != 0)
                break;
        }
        r->request.ninputs = m->ninputs;
        free(models);
        return rc;
    }
    fprintf(stderr, "bench_load: no model %s\n", l->model);
    return -ENOENT;
}

static int run_client(unsigned index, void *user, struct client_figures *f)
{
    const struct load *l = user;
    struct run r = {.figures = f};
    sonic_options_t o = {.endpoint = l->endpoint, .window_requests = l->window};
    (void)index;
    if (sonic_open(&r.sonic, &o) != 0 || make_inputs(&r, l) != 0) {
        fprintf(stderr, "bench_load: %s\n", sonic_error(r.sonic));
        return 1;
    }
    r.request.model = l->model;
    r.request.inputs = r.inputs;
    r.request.callback = on_result;
    r.request.user = &r;
    // A fifth of the time to warm up, not counted.
    uint64_t span_us = (uint64_t)(l->seconds * 1e6);
    r.from_us = clock_now_us() + span_us / 5;
    r.until_us = r.from_us + span_us;
    for (unsigned i = 0; i < l->window; i++)
        if (submit(&r) != 0)
            return 1;
    while (sonic_pending(r.sonic) > 0 && sonic_process(r.sonic, 20000) > 0)
        ;
    f->seconds = (double)(r.last_us - r.first_us) / 1e6;
    latency_percentiles(f);
    int left = sonic_pending(r.sonic) > 0;
    sonic_close(r.sonic);
    return left || f->failed > 0;
}

int main(int argc, char **argv)
{
    struct load l = {.model = "echo", .clients = 1, .window = 1024, .rows = 1, .seconds = 2};
    static const struct option options[] = {
        {"endpoint", required_argument, NULL, 'e'}, {"model", required_argument, NULL, 'm'},
        {"clients", required_argument, NULL, 'c'},  {"window", required_argument, NULL, 'w'},
        {"rows", required_argument, NULL, 'r'},     {"seconds", required_argument, NULL, 's'},
        {"input", required_argument, NULL, 'i'},    {NULL, 0, NULL, 0}};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (o) {
        case 'e':
            l.endpoint = optarg;
            break;
        case 'm':
            l.model = optarg;
            break;
        case 'c':
            l.clients = (unsigned)atoi(optarg);
            break;
        case 'w':
            l.window = (unsigned)atoi(optarg);
            break;
        case 'r':
            l.rows = (unsigned)atoi(optarg);
            break;
        case 's':
            l.seconds = atof(optarg);
            break;
        case 'i':
            l.input = optarg;
            break;
        default:
            return 2;
        }
    return clients_run(l.clients, run_client, &l);
}
