// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "worker/executors/cuda/process/device.h"

// ---- one batch ----------------------------------------------------------------------------------

static int copy_in(struct device_slot *s, uint32_t slot, uint32_t from, uint32_t n)
{
    const struct device_model *m = s->model;
    const struct cuda_layout *l = &m->layout;
    int e = cuda.cudaEventRecord(s->in_begins, s->stream);
    for (uint32_t i = 0; i < l->ninputs && e == CUDA_OK; i++)
        e = cuda.cudaMemcpyAsync(device_input(m, slot, i),
                                 m->pinned +
                                     (cuda_layout_input(l, slot, i) + from * l->input_row[i]),
                                 n * l->input_row[i], CUDA_TO_DEVICE, s->stream);
    return e == CUDA_OK ? cuda.cudaEventRecord(s->in_done, s->stream) : e;
}

static int copy_out(struct device_slot *s, uint32_t slot, uint32_t from, uint32_t n, uint32_t place)
{
    const struct device_model *m = s->model;
    const struct cuda_layout *l = &m->layout;
    int e = cuda.cudaStreamWaitEvent(s->stream, s->compute_done, 0);
    for (uint32_t i = 0; i < l->noutputs && e == CUDA_OK; i++)
        e = cuda.cudaMemcpyAsync(
            m->pinned + (cuda_layout_output(l, place, i) + from * l->output_row[i]),
            device_output(m, slot, i), n * l->output_row[i], CUDA_FROM_DEVICE, s->stream);
    return e == CUDA_OK ? cuda.cudaEventRecord(s->out_done, s->stream) : e;
}

// Whatever came of it, compute_done is recorded behind all that was queued.
static enum device_outcome compute(struct device_slot *s, uint32_t slot, uint32_t n, int *e,
                                   char *why, size_t size)
{
    struct device_model *m = s->model;
    struct lane *lane = &m->lane[s->lane];
    enum device_outcome outcome = DEVICE_FAILED;
    pthread_mutex_lock(&lane->queuing);
    *e = cuda.cudaStreamWaitEvent(lane->stream, s->in_done, 0);
    if (*e == CUDA_OK)
        *e = cuda.cudaEventRecord(s->compute_begins, lane->stream);
    if (*e == CUDA_OK)
        outcome = m->compute->queue(m, s->lane, slot, n, why, size);
    if (*e == CUDA_OK)
        *e = cuda.cudaEventRecord(s->compute_done, lane->stream);
    pthread_mutex_unlock(&lane->queuing);
    return *e == CUDA_OK ? outcome : DEVICE_FAILED;
}

static void give_lane(struct device_slot *s)
{
    pthread_mutex_lock(&s->model->lock);
    lanes_give(&s->model->lanes, s->lane);
    pthread_mutex_unlock(&s->model->lock);
}

// The batch that was not queued whole: what was must be over before its buffers are used again. A
// device that cannot say so is not fine.
static enum device_outcome abandon(struct device *d, struct device_slot *s,
                                   enum device_outcome outcome, char *why, size_t size)
{
    if (outcome == DEVICE_FAILED)
        return outcome;
    int e = cuda.cudaEventSynchronize(s->compute_done);
    give_lane(s);
    device_fail(d, e, "after a batch that it did not take", why, size);
    return e == CUDA_OK ? outcome : DEVICE_FAILED;
}

enum device_outcome device_begin(struct device *d, uint32_t slot, struct device_model *m,
                                 uint32_t from, uint32_t n, uint32_t place, char *why, size_t size)
{
    struct device_slot *s = &d->slots[slot];
    char what[300];
    s->model = m;
    snprintf(what, sizeof(what), "copying in for model %s", m->config.name);
    int e = copy_in(s, slot, from, n);
    if (device_fail(d, e, what, why, size) != 0)
        return DEVICE_FAILED;
    pthread_mutex_lock(&m->lock);
    s->lane = lanes_take(&m->lanes);
    pthread_mutex_unlock(&m->lock);
    char text[PIPE_TEXT] = "";
    enum device_outcome outcome = compute(s, slot, n, &e, text, sizeof(text));
    if (outcome != DEVICE_OK) {
        if (device_fail(d, e, "queuing a batch", why, size) == 0)
            snprintf(why, size, "%s: model %s: %.300s", d->name, m->config.name, text);
        return abandon(d, s, outcome, why, size);
    }
    snprintf(what, sizeof(what), "copying out for model %s", m->config.name);
    e = copy_out(s, slot, from, n, place);
    return device_fail(d, e, what, why, size) == 0 ? DEVICE_OK : DEVICE_FAILED;
}

static uint64_t between_ns(cuda_event from, cuda_event to)
{
    float ms = 0;
    return cuda.cudaEventElapsedTime(&ms, from, to) == CUDA_OK && ms > 0 ? (uint64_t)(ms * 1e6f)
                                                                         : 0;
}

static void account(struct device *d, const struct device_slot *s, struct pipe_done *done)
{
    uint64_t now_ns = clock_now_us() * 1000;
    uint64_t compute_ns = between_ns(s->compute_begins, s->compute_done);
    uint64_t read_ns = between_ns(s->compute_done, s->out_done);
    uint64_t end_ns = now_ns - read_ns;
    done->write_ns += between_ns(s->in_begins, s->in_done);
    done->kernel_ns += compute_ns;
    done->read_ns += read_ns;
    if (compute_ns == 0)
        return;
    pthread_mutex_lock(&d->busy_lock);
    done->idle_ns += timeline_add(&d->busy, end_ns - compute_ns, end_ns);
    pthread_mutex_unlock(&d->busy_lock);
}

enum device_outcome device_end(struct device *d, uint32_t slot, struct pipe_done *done)
{
    struct device_slot *s = &d->slots[slot];
    char what[300];
    snprintf(what, sizeof(what), "in a batch of model %s", s->model->config.name);
    int e = cuda.cudaEventSynchronize(s->out_done);
    give_lane(s);
    if (device_fail(d, e, what, done->text, sizeof(done->text)) != 0)
        return DEVICE_FAILED;
    account(d, s, done);
    return DEVICE_OK;
}

// ---- what the worker asks for -------------------------------------------------------------------

struct ask {
    struct device *device;
    struct device_model *model;
    uint32_t slot, place;
    struct pipe_done *done;
};

static enum device_outcome run_rows(const struct ask *a, uint32_t from, uint32_t n)
{
    enum device_outcome outcome = device_begin(a->device, a->slot, a->model, from, n, a->place,
                                               a->done->text, sizeof(a->done->text));
    return outcome == DEVICE_OK ? device_end(a->device, a->slot, a->done) : outcome;
}

void device_run(struct device *d, uint32_t slot, const struct pipe_run *run, struct pipe_done *done)
{
    struct device_model *m =
        run->model < PIPE_MODELS_MAX ? atomic_load(&d->models[run->model]) : NULL;
    memset(done, 0, sizeof(*done));
    done->outcome = PIPE_FAILED;
    if (!m || run->rows == 0 || run->rows > m->layout.rows || run->place >= m->layout.places) {
        snprintf(done->text, sizeof(done->text), "no such model, number of rows or place");
        return;
    }
    struct ask ask = {d, m, slot, run->place, done};
    uint32_t half = run->rows / 2;
    enum device_outcome outcome = run_rows(&ask, 0, run->rows);
    if (outcome == DEVICE_NO_MEMORY && half > 0) {
        outcome = run_rows(&ask, 0, half);
        if (outcome == DEVICE_OK)
            outcome = run_rows(&ask, half, run->rows - half);
    }
    if (outcome == DEVICE_NO_MEMORY) {
        size_t used = strlen(done->text);
        snprintf(done->text + used, sizeof(done->text) - used,
                 " (in two halves too: lower max_batch_size, or serve fewer models on this GPU)");
    }
    if (outcome == DEVICE_OK)
        done->text[0] = '\0';
    done->outcome = outcome == DEVICE_OK       ? PIPE_OK
                    : outcome == DEVICE_FAILED ? PIPE_FAILED
                                               : PIPE_REFUSED;
}
