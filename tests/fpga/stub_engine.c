// SPDX-License-Identifier: Apache-2.0
// The stub's device: a thread that takes whatever is ready, and the faults.
#include "tests/fpga/stub_icd.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct stub_command *commands; // not begun, oldest first
static bool busy;

bool stub_profiles(void)
{
    return stub_fault("profiling") == CL_SUCCESS;
}

// ---- the device's thread ------------------------------------------------------------------------

static cl_ulong now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (cl_ulong)t.tv_sec * 1000000000u + (cl_ulong)t.tv_nsec;
}

static bool is_ready(const struct stub_command *c)
{
    for (cl_uint i = 0; i < c->nwaits; i++)
        if (c->waits[i]->status > CL_COMPLETE)
            return false;
    return true;
}

// Takes out the first that waits for nothing any more.
static struct stub_command *take(void)
{
    for (struct stub_command **at = &commands; *at; at = &(*at)->next)
        if (is_ready(*at)) {
            struct stub_command *c = *at;
            *at = c->next;
            return c;
        }
    return NULL;
}

static cl_int execute(const struct stub_command *c)
{
    cl_int e = stub_fault(c->kind == STUB_KERNEL ? "kernel" : "copy");
    for (cl_uint i = 0; i < c->nwaits && e == CL_SUCCESS; i++)
        if (c->waits[i]->status < 0)
            e = CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST;
    if (e != CL_SUCCESS)
        return e;
    if (c->kind == STUB_COPY) {
        memmove(c->to, c->from, c->bytes);
        return CL_COMPLETE;
    }
    for (size_t i = 0; i + sizeof(float) <= c->bytes; i += sizeof(float)) {
        float x;
        memcpy(&x, c->from + i, sizeof(x));
        x *= c->factor;
        memcpy(c->to + i, &x, sizeof(x));
    }
    return CL_COMPLETE;
}

static void *device_main(void *unused)
{
    pthread_mutex_lock(&lock);
    for (;;) {
        struct stub_command *c = take();
        busy = c != NULL;
        if (!c) {
            pthread_cond_broadcast(&changed);
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        c->event->status = CL_RUNNING;
        pthread_mutex_unlock(&lock);
        c->event->start_ns = now_ns();
        cl_int status = execute(c);
        c->event->end_ns = now_ns();
        pthread_mutex_lock(&lock);
        c->event->status = status;
        pthread_cond_broadcast(&changed);
        free(c);
    }
    return unused;
}

static void start(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, device_main, NULL) != 0)
        abort();
}

cl_int stub_submit(cl_command_queue queue, struct stub_command command, cl_uint nwaits,
                   const cl_event *waits, cl_event *event)
{
    struct stub_command *c = malloc(sizeof(*c)), **last;
    cl_event e = calloc(1, sizeof(*e));
    if (!c || !e || nwaits + 1 > STUB_WAITS_MAX) {
        free(c);
        free(e);
        return CL_OUT_OF_HOST_MEMORY;
    }
    pthread_once(&once, start);
    *c = command;
    c->next = NULL;
    c->event = e;
    c->nwaits = nwaits;
    for (cl_uint i = 0; i < nwaits; i++)
        c->waits[i] = waits[i];
    e->dispatch = &stub_dispatch;
    e->status = CL_QUEUED;
    e->queued_ns = now_ns();
    pthread_mutex_lock(&lock);
    if (queue->in_order && queue->last)
        c->waits[c->nwaits++] = queue->last;
    queue->last = e;
    for (last = &commands; *last; last = &(*last)->next)
        ;
    *last = c;
    busy = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    if (event)
        *event = e;
    return CL_SUCCESS;
}

void stub_wait(cl_event event)
{
    pthread_mutex_lock(&lock);
    while (event->status > CL_COMPLETE)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

cl_int stub_status(cl_event event)
{
    pthread_mutex_lock(&lock);
    cl_int status = event->status;
    pthread_mutex_unlock(&lock);
    return status;
}

void stub_drain(void)
{
    pthread_mutex_lock(&lock);
    while (busy || commands)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}
