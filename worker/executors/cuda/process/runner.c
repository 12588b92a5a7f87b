// SPDX-License-Identifier: Apache-2.0
#include "worker/executors/cuda/process/runner.h"

#include <stddef.h>

static void *runner_main(void *user)
{
    struct runner *r = user;
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->work)
            pthread_cond_wait(&r->changed, &r->lock);
        pthread_mutex_unlock(&r->lock);
        r->work(r->user);
        pthread_mutex_lock(&r->lock);
        r->work = NULL;
        pthread_cond_broadcast(&r->changed);
    }
    return NULL;
}

int runner_start(struct runner *r)
{
    *r = (struct runner){.work = NULL};
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    return pthread_create(&r->thread, NULL, runner_main, r);
}

// Without a deadline: what hangs in a library hangs for good, and the worker ends the process.
void runner_call(struct runner *r, void (*work)(void *user), void *user)
{
    pthread_mutex_lock(&r->lock);
    r->work = work;
    r->user = user;
    pthread_cond_broadcast(&r->changed);
    while (r->work)
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
}
