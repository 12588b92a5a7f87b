// SPDX-License-Identifier: Apache-2.0
// One run of a plan: buffers to the device, launches one after another or several at the same time,
// results back. On a queue that runs out of order the chain is held together by events alone.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/executors/opencl/process/device.h"

// The events of a run, in order: buffers handed over, launches, buffers handed back.
struct chain {
    struct device *device;
    struct device_model *model;
    uint32_t slot, rows;
    cl_command_queue queue;
    uint32_t n, nwrite;       // all, and those before the first launch
    uint32_t from, wait_from; // where the step began that is being made, and the one before it
    cl_event *events;
    cl_int error;
    char what[200];
};

static bool check(struct chain *c, cl_int e, const char *step, const char *name)
{
    if (e == CL_SUCCESS)
        return true;
    if (c->error == CL_SUCCESS) {
        c->error = e;
        snprintf(c->what, sizeof(c->what), "%s \"%s\"", step, name);
    }
    return false;
}

static bool shared(const struct bundle_buffer *x)
{
    return x->use == BUNDLE_INPUT || x->use == BUNDLE_OUTPUT;
}

static bool hand_over(struct chain *c)
{
    const struct bundle *b = &c->model->bundle;
    struct device_slot *s = &c->model->slots[c->slot];
    for (uint32_t i = 0; i < b->nbuffers; i++)
        if (shared(&b->buffers[i])) {
            cl_int e = clEnqueueUnmapMemObject(c->queue, s->buffers[i], s->mapped[i], 0, NULL,
                                               &c->events[c->n]);
            if (!check(c, e, "handing over buffer", b->buffers[i].name))
                return false;
            c->n++;
        }
    c->nwrite = c->n;
    return true;
}

static bool set_rows(struct chain *c, const struct bundle_launch *launch, cl_kernel kernel)
{
    cl_int rows = (cl_int)c->rows;
    for (uint32_t k = 0; k < launch->nargs; k++)
        if (launch->args[k].kind == BUNDLE_ARG_ROWS &&
            !check(c, clSetKernelArg(kernel, k, sizeof(rows), &rows), "setting the rows of kernel",
                   launch->kernel))
            return false;
    return true;
}

// What comes now waits for all that there is since the last such call.
static void begin_step(struct chain *c)
{
    c->wait_from = c->from;
    c->from = c->n;
}

static bool launch_one(struct chain *c, uint32_t i)
{
    const struct bundle_launch *launch = &c->model->bundle.launches[i];
    cl_kernel kernel = c->model->slots[c->slot].kernels[i];
    size_t global[3] = {1, 1, 1}, local[3];
    cl_command_queue queue = launch->lane ? c->model->lanes[launch->lane - 1] : c->queue;
    if (!launch->concurrent)
        begin_step(c);
    cl_uint nwait = c->from - c->wait_from;
    const cl_event *wait = &c->events[c->wait_from];
    for (uint32_t k = 0; k < launch->nglobal; k++)
        global[k] = launch->global[k].size * (launch->global[k].rows ? c->rows : 1);
    for (uint32_t k = 0; k < launch->nlocal; k++)
        local[k] = launch->local[k];
    if (!set_rows(c, launch, kernel))
        return false;
    cl_int e = launch->nglobal == 0
                   ? clEnqueueTask(queue, kernel, nwait, nwait ? wait : NULL, &c->events[c->n])
                   : clEnqueueNDRangeKernel(queue, kernel, launch->nglobal, NULL, global,
                                            launch->nlocal ? local : NULL, nwait,
                                            nwait ? wait : NULL, &c->events[c->n]);
    if (!check(c, e, "launching kernel", launch->kernel))
        return false;
    c->n++;
    return true;
}

static bool launch_all(struct chain *c)
{
    struct device_model *m = c->model;
    bool queued = true;
    if (m->bundle.nlanes > 0)
        pthread_mutex_lock(&m->lanes_lock);
    for (uint32_t i = 0; i < m->bundle.nlaunches && queued; i++)
        queued = launch_one(c, i);
    if (m->bundle.nlanes > 0)
        pthread_mutex_unlock(&m->lanes_lock);
    return queued;
}

static bool hand_back(struct chain *c)
{
    const struct bundle *b = &c->model->bundle;
    struct device_slot *s = &c->model->slots[c->slot];
    begin_step(c);
    cl_uint nwait = c->from - c->wait_from;
    for (uint32_t i = 0; i < b->nbuffers; i++) {
        const struct bundle_buffer *x = &b->buffers[i];
        cl_int e = CL_SUCCESS;
        if (!shared(x))
            continue;
        void *host =
            clEnqueueMapBuffer(c->queue, s->buffers[i], CL_FALSE, device_map_flags(c->model, i), 0,
                               x->bytes, nwait, &c->events[c->wait_from], &c->events[c->n], &e);
        if (!check(c, e, "reading buffer", x->name))
            return false;
        c->n++;
        if (host != s->mapped[i])
            return check(c, CL_MAP_FAILURE, "reading buffer", x->name);
    }
    return true;
}

static const char *step_name(const struct chain *c, uint32_t i)
{
    const struct bundle *b = &c->model->bundle;
    return i < c->nwrite                  ? "handing over"
           : i - c->nwrite < b->nlaunches ? b->launches[i - c->nwrite].kernel
                                          : "reading";
}

// For the last step alone, which waits for all before it: some runtimes wake who waits once for
// each event that he names. A runtime may say that the wait went well although an event failed:
// each is looked at.
static void wait_for(struct chain *c)
{
    uint32_t from = c->from < c->n ? c->from : 0;
    cl_int e = c->n ? clWaitForEvents(c->n - from, &c->events[from]) : CL_SUCCESS;
    for (uint32_t i = 0; i < c->n; i++) {
        cl_int status = CL_COMPLETE;
        cl_int asked = clGetEventInfo(c->events[i], CL_EVENT_COMMAND_EXECUTION_STATUS,
                                      sizeof(status), &status, NULL);
        if (asked == CL_SUCCESS && status < 0)
            check(c, status, "in step", step_name(c, i));
    }
    check(c, e, "waiting for", "the run");
}

static uint64_t event_ns(cl_event event, cl_profiling_info what)
{
    cl_ulong ns = 0;
    return clGetEventProfilingInfo(event, what, sizeof(ns), &ns, NULL) == CL_SUCCESS ? ns : 0;
}

static uint64_t between(uint64_t from, uint64_t to)
{
    return to > from ? to - from : 0;
}

static void profile(struct chain *c, struct pipe_done *done)
{
    uint32_t first = c->nwrite, behind = c->nwrite + c->model->bundle.nlaunches;
    uint64_t start = UINT64_MAX, end = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        uint64_t from = event_ns(c->events[i], CL_PROFILING_COMMAND_START);
        uint64_t to = event_ns(c->events[i], CL_PROFILING_COMMAND_END);
        if (i < first) {
            done->write_ns += between(from, to);
        } else if (i >= behind) {
            done->read_ns += between(from, to);
        } else { // the kernels': from the first to begin to the last to end
            start = from < start ? from : start;
            end = to > end ? to : end;
        }
    }
    done->kernel_ns = between(start, end);
    if (end <= start)
        return;
    pthread_mutex_lock(&c->device->busy_lock);
    done->idle_ns = timeline_add(&c->device->busy, start, end);
    pthread_mutex_unlock(&c->device->busy_lock);
}

void device_run(struct device *d, uint32_t slot, const struct pipe_run *run, struct pipe_done *done)
{
    struct device_model *m =
        run->model < PIPE_MODELS_MAX ? atomic_load(&d->models[run->model]) : NULL;
    memset(done, 0, sizeof(*done));
    done->outcome = PIPE_FAILED;
    if (!m || run->rows == 0 || run->rows > m->bundle.rows) {
        snprintf(done->text, sizeof(done->text), "no such model or number of rows");
        return;
    }
    struct chain c = {
        .device = d, .model = m, .slot = slot, .rows = run->rows, .queue = d->queues[slot]};
    c.events = calloc(2 * m->bundle.nbuffers + m->bundle.nlaunches, sizeof(cl_event));
    bool queued = c.events && hand_over(&c) && launch_all(&c) && hand_back(&c);
    // What is half queued may wait for the rest for ever; the worker ends the process anyway.
    if (queued)
        wait_for(&c);
    if (queued && c.error == CL_SUCCESS) {
        done->outcome = PIPE_OK;
        profile(&c, done);
    } else {
        device_fail(d, c.error, c.what, done->text, sizeof(done->text));
    }
    for (uint32_t i = 0; i < c.n; i++)
        clReleaseEvent(c.events[i]);
    free(c.events);
}
