// SPDX-License-Identifier: Apache-2.0
#include "client/submit/job.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/submit/convert.h"
#include "client/submit/ledger.h"
#include "client/submit/npy.h"
#include "client/submit/plan.h"
#include "client/submit/progress.h"
#include "client/submit/report.h"
#include "client/submit/sink.h"
#include "common/clock.h"
#include "common/exitcode.h"

#define COMMIT_EVERY_US 1000000u
#define TICK_MS 100
// What converted copies of inputs may take while they are in flight.
#define CONVERTED_BYTES_MAX (256ull << 20)

struct job {
    sonic_t *s;
    const struct options *o;
    const sonic_model_t *model;
    const struct job_files *files;
    struct npy inputs[SONIC_MAX_TENSORS];
    unsigned ninputs;
    struct plan plan;
    struct sink sinks[SONIC_MAX_TENSORS];
    unsigned nsinks;
    bool prepared[SONIC_MAX_TENSORS];
    struct ledger ledger;
    bool has_ledger, resuming;
    struct progress progress;
    struct report report;
    uint64_t next_chunk, committed_us, in_flight_bytes, done_rows;
    bool stopped; // results that still come are not wanted any more
    int status;   // exit status so far
    char *why;
    size_t size;
};

// A request in flight.
struct chunk {
    struct job *job;
    uint64_t index;
    struct copy {
        void *data;
        size_t bytes;
    } copies[SONIC_MAX_TENSORS]; // of inputs that had to be converted
};

static int fail(struct job *j, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int fail(struct job *j, int status, const char *fmt, ...)
{
    va_list ap;
    if (j->status == EXIT_OK || j->status == EXIT_JOB_FAILED) {
        va_start(ap, fmt);
        vsnprintf(j->why, j->size, fmt, ap);
        va_end(ap);
        j->status = status;
    }
    j->stopped = true;
    return status;
}

// ---- inputs -------------------------------------------------------------------------------------

static unsigned batched(const struct job *j)
{
    return j->model->batch_max > 0;
}

static void spec_text(char *buf, size_t size, const sonic_io_t *io)
{
    struct tensor_spec spec = {.dtype = (uint8_t)io->type, .ndim = (uint8_t)io->ndim};
    memcpy(spec.dims, io->dims, io->ndim * sizeof(spec.dims[0]));
    tensor_spec_print(buf, size, &spec, true);
}

static int check_input(struct job *j, const struct npy *n, const sonic_io_t *io)
{
    char got[160], want[160];
    const struct npy_header *h = &n->header;
    bool ok = h->ndim == io->ndim + 1;
    for (unsigned i = 0; ok && i < io->ndim; i++)
        ok = io->dims[i] < 0 || h->shape[i + 1] == (uint64_t)io->dims[i];
    tensor_print(got, sizeof(got), h->dtype, h->ndim < 8 ? h->ndim : 8, h->shape);
    spec_text(want, sizeof(want), io);
    if (!ok)
        return fail(j, EXIT_BAD_INPUT, "%s: its shape is %s, model %s takes %s for input \"%s\"",
                    n->path, got, j->model->name, want, io->name);
    if (!convert_possible(h->dtype, io->type))
        return fail(j, EXIT_BAD_INPUT,
                    "%s: its values are %s, model %s takes %s for input \"%s\": convert it with "
                    ".astype first",
                    n->path, got, j->model->name, want, io->name);
    if (n->header.shape[0] != j->inputs[0].header.shape[0])
        return fail(j, EXIT_BAD_INPUT, "%s has %" PRIu64 " rows, %s has %" PRIu64, n->path,
                    n->header.shape[0], j->inputs[0].path, j->inputs[0].header.shape[0]);
    return 0;
}

static int open_inputs(struct job *j)
{
    for (unsigned i = 0; i < j->model->ninputs; i++) {
        if (npy_open(&j->inputs[i], j->files->inputs[i], j->why, j->size) != 0) {
            j->stopped = true;
            return j->status = EXIT_BAD_INPUT;
        }
        j->ninputs++;
        int rc = check_input(j, &j->inputs[i], &j->model->inputs[i]);
        if (rc != 0)
            return rc;
    }
    uint32_t batch = j->o->batch ? j->o->batch : j->model->default_rows;
    if (batched(j) && batch > j->model->batch_max)
        return fail(j, EXIT_USAGE, "--batch %u: model %s takes at most %u rows a request", batch,
                    j->model->name, j->model->batch_max);
    plan_make(&j->plan, j->inputs[0].header.shape[0], batched(j) && batch ? batch : 1, j->o->shard);
    return 0;
}

// ---- outputs ------------------------------------------------------------------------------------

static bool to_stdout(const struct job *j)
{
    return strcmp(j->files->outputs[0], "-") == 0;
}

static void fingerprint(const struct job *j, char *buf, size_t size)
{
    int n = snprintf(
        buf, size, "model %s version %u\nbatch %u\nfirst row %" PRIu64 "\nrows %" PRIu64 "\n",
        j->model->name, j->model->version, j->plan.batch, j->plan.first_row, j->plan.rows);
    for (unsigned i = 0; i < j->ninputs; i++) {
        char real[4096];
        const char *path = realpath(j->inputs[i].path, real) ? real : j->inputs[i].path;
        if (n > 0 && (size_t)n < size)
            n += snprintf(buf + n, size - (size_t)n,
                          "input %s\ninput size %" PRIu64 " changed %" PRIu64 "\n", path,
                          j->inputs[i].file_bytes, j->inputs[i].mtime_ns);
    }
}

// Sets an output file up for rows of this shape (`row`: without the rows themselves).
static int prepare(struct job *j, unsigned i, unsigned dtype, unsigned ndim, const uint64_t *row)
{
    uint64_t shape[SONIC_MAX_DIMS + 1] = {j->plan.rows};
    memcpy(shape + 1, row, ndim * sizeof(row[0]));
    if (sink_prepare(&j->sinks[i], dtype, ndim + 1, shape, j->why, j->size) != 0) {
        j->stopped = true;
        return j->status = EXIT_OUTPUT;
    }
    j->prepared[i] = true;
    return 0;
}

// Outputs whose declared shape is fixed are set up before anything is computed.
static int prepare_fixed(struct job *j)
{
    for (unsigned i = 0; i < j->nsinks; i++) {
        const sonic_io_t *io = &j->model->outputs[i];
        uint64_t row[SONIC_MAX_DIMS];
        bool fixed = true;
        for (unsigned k = 0; k < io->ndim; k++) {
            fixed = fixed && io->dims[k] >= 0;
            row[k] = (uint64_t)io->dims[k];
        }
        if (fixed && prepare(j, i, io->type, io->ndim, row) != 0)
            return j->status;
    }
    return 0;
}

static int open_sinks(struct job *j)
{
    for (unsigned i = 0; i < j->model->noutputs; i++) {
        const char *path = j->files->outputs[i];
        if (!to_stdout(j) && !j->o->force && access(path, F_OK) == 0)
            return fail(j, EXIT_OUTPUT, "%s: is there already; --force replaces it", path);
        if (sink_open(&j->sinks[i], path, j->o->resume, j->o->restart, j->why, j->size) != 0) {
            j->stopped = true;
            return j->status = EXIT_OUTPUT;
        }
        j->nsinks++;
    }
    return 0;
}

static int open_ledger(struct job *j)
{
    char path[4200], text[16384];
    if (to_stdout(j))
        return 0;
    sink_hidden(path, sizeof(path), j->files->outputs[0], ".sonic-ledger");
    fingerprint(j, text, sizeof(text));
    int rc = -ENOENT;
    // A ledger whose outputs are gone (renamed, or removed by hand) vouches for nothing.
    bool continued = true;
    for (unsigned i = 0; i < j->nsinks; i++)
        continued = continued && j->sinks[i].continued;
    if (j->o->resume && continued)
        rc = ledger_resume(&j->ledger, path, text, j->plan.chunks, j->why, j->size);
    j->resuming = rc == 0;
    if (rc == -ENOENT) // nothing to resume is a job that begins
        rc = ledger_create(&j->ledger, path, text, j->plan.chunks, j->why, j->size);
    if (rc != 0) {
        j->stopped = true;
        return j->status = rc == -EINVAL ? EXIT_USAGE : EXIT_OUTPUT;
    }
    j->has_ledger = true;
    return 0;
}

static int commit(struct job *j)
{
    int rc = 0;
    if (!j->has_ledger || j->ledger.npending == 0)
        return 0;
    for (unsigned i = 0; i < j->nsinks && rc == 0; i++)
        rc = sink_sync(&j->sinks[i]);
    if (rc == 0)
        rc = ledger_commit(&j->ledger);
    if (rc != 0)
        return fail(j, EXIT_OUTPUT, "%s: cannot be brought to disk: %s", j->files->outputs[0],
                    strerror(-rc));
    return 0;
}

// ---- results ------------------------------------------------------------------------------------

static void free_chunk(struct chunk *c)
{
    for (unsigned i = 0; i < c->job->ninputs; i++) {
        c->job->in_flight_bytes -= c->copies[i].bytes;
        sonic_free(c->job->s, c->copies[i].data, c->copies[i].bytes);
    }
    free(c);
}

static int write_output(struct job *j, unsigned i, const sonic_tensor_t *t, uint64_t begin,
                        uint32_t rows)
{
    unsigned skip = batched(j);
    if (!j->prepared[i] && prepare(j, i, t->type, t->ndim - skip, t->dims + skip) != 0)
        return j->status;
    if (t->bytes != j->sinks[i].row_bytes * rows)
        return fail(j, EXIT_MODEL,
                    "model %s: output %s changes its shape from request to request, "
                    "which one .npy file cannot hold",
                    j->model->name, j->model->outputs[i].name);
    int rc = sink_write(&j->sinks[i], begin, t->data, t->bytes);
    if (rc != 0)
        return fail(j, EXIT_OUTPUT,
                    "%s: cannot be written: %s; make room and run again with "
                    "--resume",
                    j->files->outputs[i], strerror(-rc));
    return 0;
}

static void on_result(const sonic_result_t *result, void *user)
{
    struct chunk *c = user;
    struct job *j = c->job;
    uint64_t begin, bytes = 0;
    uint32_t rows = plan_rows(&j->plan, c->index, &begin);
    if (!j->stopped && result->status == SONIC_LOST)
        fail(j, EXIT_NOT_REACHED, "%s; what is finished is kept: run again with --resume",
             sonic_error(j->s));
    if (!j->stopped) {
        for (unsigned i = 0; i < j->ninputs; i++)
            bytes += j->inputs[i].header.shape[0]
                         ? j->inputs[i].header.bytes / j->inputs[i].header.shape[0] * rows
                         : 0;
        report_result(&j->report, result, j->plan.first_row + begin, rows, bytes);
        if (result->status == SONIC_OK) {
            int rc = 0;
            for (unsigned i = 0; i < result->noutputs && rc == 0; i++)
                rc = write_output(j, i, &result->outputs[i], begin, rows);
            if (rc == 0 && j->has_ledger && !ledger_note(&j->ledger, c->index))
                fail(j, EXIT_INTERNAL, "out of memory");
            j->done_rows += rows;
        } else {
            j->status = EXIT_JOB_FAILED;
        }
    }
    free_chunk(c);
}

// ---- requests -----------------------------------------------------------------------------------

// Points t at a chunk's rows, or at a converted copy of them.
static int fill_tensor(struct job *j, struct chunk *c, unsigned i, uint64_t row, uint32_t rows,
                       sonic_tensor_t *t)
{
    const struct npy *n = &j->inputs[i];
    const sonic_io_t *io = &j->model->inputs[i];
    uint64_t elements = 1;
    t->type = io->type;
    t->ndim = io->ndim + batched(j);
    t->dims[0] = rows;
    for (unsigned k = 0; k < io->ndim; k++) {
        t->dims[k + batched(j)] = n->header.shape[k + 1];
        elements *= n->header.shape[k + 1];
    }
    const uint8_t *data = n->data + row * elements * dtype_bytes(n->header.dtype);
    t->bytes = (size_t)(rows * elements * dtype_bytes(io->type));
    t->data = data;
    if (t->bytes == 0 || !convert_needed(n->header.dtype, n->header.big_endian, io->type))
        return 0;
    size_t at;
    void *copy = sonic_alloc(j->s, t->bytes);
    if (!copy)
        return fail(j, EXIT_INTERNAL, "out of memory");
    c->copies[i] = (struct copy){copy, t->bytes};
    j->in_flight_bytes += t->bytes;
    t->data = copy;
    if (!convert(copy, io->type, data, n->header.dtype, n->header.big_endian,
                 (size_t)(rows * elements), &at))
        return fail(j, EXIT_BAD_INPUT,
                    "%s: the value at row %" PRIu64 " does not fit %s, which "
                    "model %s takes",
                    n->path, row + at / elements, dtype_name(io->type), j->model->name);
    return 0;
}

// 1: submitted; 0: no room now; negative: the job has failed.
static int submit_chunk(struct job *j, uint64_t index)
{
    sonic_tensor_t tensors[SONIC_MAX_TENSORS];
    struct chunk *c = calloc(1, sizeof(*c));
    uint64_t begin;
    if (!c)
        return -fail(j, EXIT_INTERNAL, "out of memory");
    uint32_t rows = plan_rows(&j->plan, index, &begin);
    c->job = j;
    c->index = index;
    for (unsigned i = 0; i < j->ninputs; i++)
        if (fill_tensor(j, c, i, j->plan.first_row + begin, rows, &tensors[i]) != 0) {
            free_chunk(c);
            return -j->status;
        }
    sonic_request_t request = {.model = j->model->name,
                               .version = j->o->version,
                               .ninputs = j->ninputs,
                               .inputs = tensors,
                               .priority = j->o->priority,
                               .deadline_us = j->o->deadline_us,
                               .callback = on_result,
                               .user = c};
    int rc = sonic_submit(j->s, &request, NULL);
    if (rc == 0)
        return 1;
    free_chunk(c);
    return rc == -EAGAIN ? 0 : -fail(j, EXIT_INTERNAL, "%s", sonic_error(j->s));
}

static void submit_some(struct job *j)
{
    uint32_t window = j->o->window ? j->o->window : 4096;
    while (!j->stopped && j->next_chunk < j->plan.chunks && sonic_pending(j->s) < window &&
           (j->in_flight_bytes < CONVERTED_BYTES_MAX || sonic_pending(j->s) == 0)) {
        if ((!j->has_ledger || !ledger_has(&j->ledger, j->next_chunk)) &&
            submit_chunk(j, j->next_chunk) <= 0)
            return;
        j->next_chunk++;
    }
}

// ---- the job ------------------------------------------------------------------------------------

static int open_job(struct job *j)
{
    int rc = open_inputs(j);
    if (rc == 0)
        rc = open_sinks(j);
    if (rc == 0)
        rc = open_ledger(j);
    if (rc == 0)
        rc = prepare_fixed(j);
    for (uint64_t i = 0; rc == 0 && j->resuming && i < j->plan.chunks; i++) {
        uint64_t begin;
        if (ledger_has(&j->ledger, i))
            j->report.resumed_items += plan_rows(&j->plan, i, &begin);
    }
    j->done_rows = j->report.resumed_items;
    return rc;
}

static void run(struct job *j, const volatile sig_atomic_t *stop)
{
    uint64_t now_us = clock_now_us();
    j->committed_us = now_us;
    progress_open(&j->progress, j->files->title, j->plan.rows, j->done_rows, now_us, j->o->quiet);
    while (!j->stopped && (j->next_chunk < j->plan.chunks || sonic_pending(j->s) > 0)) {
        submit_some(j);
        int rc = sonic_process(j->s, TICK_MS);
        now_us = clock_now_us();
        if (rc < 0 && !j->stopped)
            fail(j, rc == -EPROTO ? EXIT_REFUSED : EXIT_INTERNAL, "%s", sonic_error(j->s));
        if (now_us - j->committed_us >= COMMIT_EVERY_US) {
            commit(j);
            j->committed_us = now_us;
        }
        progress_show(&j->progress, j->done_rows, now_us);
        if (*stop && !j->stopped) {
            j->status = EXIT_INTERRUPTED;
            j->stopped = true;
        }
    }
    j->report.end_us = clock_now_us();
    progress_close(&j->progress, j->done_rows, j->report.end_us);
}

// A job that stopped early has requests in flight that point into the input files: the connection
// is closed, which runs their callbacks, before the files are.
static void drain(struct job *j, sonic_t **s)
{
    if (!j->stopped || sonic_pending(*s) == 0)
        return;
    sonic_close(*s);
    *s = NULL;
}

// Gives the outputs their names, or says how to go on.
static void close_job(struct job *j)
{
    bool opened = j->nsinks == j->model->noutputs && (j->has_ledger || to_stdout(j));
    bool whole = opened && !j->stopped && j->status == EXIT_OK;
    if (opened && !whole)
        commit(j);
    // Nothing worth keeping: then the part files go, too.
    bool useless = !whole && (!j->has_ledger || (j->ledger.finished == 0 && !j->resuming));
    for (unsigned i = 0; i < j->nsinks; i++) {
        if (whole && sink_finish(&j->sinks[i], j->why, j->size) != 0) {
            j->status = EXIT_OUTPUT;
            whole = false;
        }
        sink_close(&j->sinks[i], useless && j->has_ledger);
    }
    if (j->has_ledger)
        ledger_close(&j->ledger, whole || useless);
    for (unsigned i = 0; i < j->ninputs; i++)
        npy_close(&j->inputs[i]);
}

static void tell(struct job *j)
{
    const char *state = j->status == EXIT_OK            ? "done"
                        : j->status == EXIT_JOB_FAILED  ? "failed"
                        : j->status == EXIT_INTERRUPTED ? "interrupted"
                                                        : "error";
    if (j->o->json)
        report_json(&j->report, j->model->name, j->files->outputs, j->model->noutputs, state);
    bool ran = j->status == EXIT_OK || j->status == EXIT_JOB_FAILED;
    if (ran && (!j->o->quiet || j->status != EXIT_OK))
        report_print(&j->report, j->model->name, j->status == EXIT_OK ? j->files->outputs : NULL,
                     j->model->noutputs);
    if (j->status == EXIT_OK && j->plan.rows == 0)
        fprintf(stderr, "%s: zero items: the output has zero rows\n", j->files->inputs[0]);
    if (j->status == EXIT_JOB_FAILED)
        fprintf(stderr,
                "%s is not written: %" PRIu64 " of %" PRIu64 " items failed. What is "
                "finished is kept; run the same command with --resume to try the rest "
                "again.\n",
                j->files->outputs[0], j->report.failed_items, j->plan.rows);
    if (j->status == EXIT_INTERRUPTED)
        fprintf(stderr,
                "interrupted: %" PRIu64 " of %" PRIu64 " items are finished and kept; go on "
                "with the same command and --resume\n",
                j->done_rows, j->plan.rows);
}

int job_run(sonic_t **s, const struct options *o, const sonic_model_t *model,
            const struct job_files *files, const volatile sig_atomic_t *stop, char *why,
            size_t size)
{
    static struct job job; // large; one at a time
    struct job *j = &job;
    memset(j, 0, sizeof(*j));
    *j = (struct job){.s = *s, .o = o, .model = model, .files = files, .why = why, .size = size};
    report_open(&j->report, clock_now_us());
    if (open_job(j) == 0)
        run(j, stop);
    j->stopped = j->stopped || j->status != EXIT_OK;
    drain(j, s);
    close_job(j);
    tell(j);
    report_deinit(&j->report);
    return j->status;
}
