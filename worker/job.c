// SPDX-License-Identifier: Apache-2.0
#include "worker/job.h"

#include <pthread.h>
#include <stdlib.h>

struct job_pool {
    pthread_mutex_t lock;
    uint32_t ninputs, keep, njobs;
    struct job *jobs;
    struct batch_item *requests;
};

struct job_pool *job_pool_new(uint32_t ninputs, uint32_t keep)
{
    struct job_pool *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    pthread_mutex_init(&p->lock, NULL);
    p->ninputs = ninputs;
    p->keep = keep;
    return p;
}

static void free_job(struct job *j)
{
    for (uint32_t i = 0; i < SONIC_TENSORS_MAX; i++)
        free(j->gathers[i].data);
    free(j);
}

void job_pool_free(struct job_pool *p)
{
    if (!p)
        return;
    for (struct job *j = p->jobs, *next; j; j = next) {
        next = j->next;
        free_job(j);
    }
    for (struct batch_item *i = p->requests, *next; i; i = next) {
        next = i->next;
        free(request_of(i));
    }
    pthread_mutex_destroy(&p->lock);
    free(p);
}

struct request *request_new(struct job_pool *p)
{
    pthread_mutex_lock(&p->lock);
    struct batch_item *item = p->requests;
    if (item)
        p->requests = item->next;
    pthread_mutex_unlock(&p->lock);
    struct request *r =
        item ? request_of(item) : malloc(sizeof(*r) + p->ninputs * sizeof(r->inputs[0]));
    if (!r)
        abort(); // as with the message that brought it (parcel.c)
    r->item = (struct batch_item){0};
    r->parcel = NULL;
    r->ninputs = 0;
    return r;
}

static void drop_parcel(struct request *r)
{
    if (!r->parcel)
        return;
    for (uint32_t i = 0; i < r->ninputs; i++)
        if (r->inputs[i].slab)
            slab_unref(r->inputs[i].slab);
        else
            parcel_unref_frame(r->parcel, r->inputs[i].frame);
    parcel_unref(r->parcel);
    r->parcel = NULL;
}

void requests_free(struct job_pool *p, struct batch_item *chain)
{
    struct batch_item *last = NULL;
    for (struct batch_item *i = chain; i; i = i->next) {
        drop_parcel(request_of(i));
        last = i;
    }
    if (!last)
        return;
    pthread_mutex_lock(&p->lock);
    last->next = p->requests;
    p->requests = chain;
    pthread_mutex_unlock(&p->lock);
}

struct job *job_new(struct job_pool *p)
{
    pthread_mutex_lock(&p->lock);
    struct job *j = p->jobs;
    if (j) {
        p->jobs = j->next;
        p->njobs--;
    }
    pthread_mutex_unlock(&p->lock);
    if (!j && !(j = calloc(1, sizeof(*j))))
        abort(); // as with the message that brought the requests (parcel.c)
    j->next = NULL;
    j->pool = p;
    atomic_store_explicit(&j->refs, 1, memory_order_relaxed);
    j->batch = (struct batch){0};
    j->status = SONIC_STATUS_OK;
    j->device_lost = false;
    j->exec_us = 0;
    j->text[0] = '\0';
    j->x.noutputs = 0;
    j->x.outputs_owner = NULL;
    j->x.outputs_free = NULL;
    j->x.borrows_inputs = false;
    j->x.error[0] = '\0';
    return j;
}

void job_ref(struct job *j)
{
    atomic_fetch_add_explicit(&j->refs, 1, memory_order_relaxed);
}

void job_drop_inputs(struct job *j)
{
    for (struct batch_item *i = j->batch.items; i; i = i->next)
        drop_parcel(request_of(i));
}

void job_unref(struct job *j)
{
    struct job_pool *p = j->pool;
    if (atomic_fetch_sub_explicit(&j->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (j->x.outputs_free)
        j->x.outputs_free(j->x.outputs_owner);
    requests_free(p, j->batch.items);
    pthread_mutex_lock(&p->lock);
    bool kept = p->njobs < p->keep;
    if (kept) {
        j->next = p->jobs;
        p->jobs = j;
        p->njobs++;
    }
    pthread_mutex_unlock(&p->lock);
    if (!kept)
        free_job(j);
}
