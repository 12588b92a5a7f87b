// SPDX-License-Identifier: Apache-2.0
#include "worker/slots.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "worker/staging.h"

struct slot {
    struct slots *owner;
    pthread_t thread;
    uint32_t index;
    // Under the owner's lock.
    bool executing, moved;
};

struct slots {
    const struct fleet *fleet;
    struct job_pool *pool;
    int event;
    uint32_t nslots;
    pthread_mutex_t lock;
    pthread_cond_t work;
    // All below under the lock.
    struct batcher *batcher;
    struct job *finished, **last;
    uint64_t session, rows, executions;
    struct slots_progress progress;
    uint32_t idle;
    bool stop;
    struct slot slots[];
};

// ---- what is finished ---------------------------------------------------------------------------

// Appends a job; true when the main loop must be woken (after the lock is released).
static bool push(struct slots *s, struct job *j)
{
    bool first = s->finished == NULL;
    j->next = NULL;
    *s->last = j;
    s->last = &j->next;
    return first;
}

static void wake_main(const struct slots *s)
{
    uint64_t one = 1;
    if (s->fleet->executor->immediate)
        return;                                           // it is the main loop that pushed
    ssize_t ignored = write(s->event, &one, sizeof(one)); // fails only when it is readable anyway
    (void)ignored;
}

// A job that answers requests that were never executed.
static struct job *unexecuted(struct slots *s, struct batch_item *chain, uint8_t status)
{
    struct job *j = job_new(s->pool);
    j->session = s->session;
    j->status = status;
    snprintf(j->text, sizeof(j->text), "%s", sonic_status_text(status));
    j->batch.items = chain;
    for (struct batch_item *i = chain; i; i = i->next)
        j->batch.n++;
    return j;
}

// ---- the executing threads ----------------------------------------------------------------------

static void execute(struct slots *s, uint32_t slot, struct job *j)
{
    const struct loaded_model *model = &s->fleet->models[j->batch.model];
    uint64_t start_us = clock_now_us();
    if (!staging_fill(j, s->fleet->executor, model, slot)) {
        j->status = SONIC_STATUS_EXEC_FAILED;
        return;
    }
    enum executor_outcome outcome = s->fleet->executor->execute(model->handle, slot, &j->x);
    uint64_t took_us = clock_now_us() - start_us;
    j->exec_us = took_us < UINT32_MAX ? (uint32_t)took_us : UINT32_MAX;
    if (outcome != EXECUTOR_OK) {
        j->status =
            outcome == EXECUTOR_DEVICE_FAULT ? SONIC_STATUS_DEVICE_FAULT : SONIC_STATUS_EXEC_FAILED;
        j->device_lost = outcome == EXECUTOR_DEVICE_LOST;
        snprintf(j->text, sizeof(j->text), "%s", j->x.error);
    }
    if (!j->x.borrows_inputs)
        job_drop_inputs(j);
}

// With the lock held. NULL: nothing is staged that could start.
static struct job *take_job(struct slots *s)
{
    struct batch batch;
    struct batch_item *late;
    bool taken = batcher_take(s->batcher, clock_now_us(), &batch, &late);
    if (late && push(s, unexecuted(s, late, SONIC_STATUS_DEADLINE)))
        wake_main(s);
    if (!taken)
        return NULL;
    struct job *j = job_new(s->pool);
    j->session = s->session;
    j->batch = batch;
    return j;
}

// With the lock held. True when the main loop must be woken.
static bool finish_job(struct slots *s, struct job *j)
{
    batcher_done(s->batcher, &j->batch);
    s->rows += j->batch.rows;
    s->executions++;
    s->stop = s->stop || j->device_lost;
    return push(s, j);
}

// The next job for a slot; NULL: stop. Called and returns with the lock held.
static struct job *next_job(struct slots *s)
{
    while (!s->stop) {
        struct job *j = take_job(s);
        if (j) {
            // Each that takes work wakes the next while there is some: nobody wakes for nothing.
            if (s->idle && batcher_ready(s->batcher))
                pthread_cond_signal(&s->work);
            return j;
        }
        s->idle++;
        pthread_cond_wait(&s->work, &s->lock);
        s->idle--;
    }
    return NULL;
}

static void *slot_main(void *user)
{
    struct slot *slot = user;
    struct slots *s = slot->owner;
    struct job *j;
    pthread_mutex_lock(&s->lock);
    while ((j = next_job(s))) {
        slot->executing = true;
        pthread_mutex_unlock(&s->lock);
        execute(s, slot->index, j);
        pthread_mutex_lock(&s->lock);
        slot->executing = false;
        slot->moved = true;
        if (finish_job(s, j))
            wake_main(s);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

// Executes all that is staged, by an immediate executor; with the lock held, which nobody else
// wants.
static void execute_here(struct slots *s)
{
    struct job *j;
    while (!s->stop && (j = take_job(s))) {
        execute(s, 0, j);
        finish_job(s, j);
    }
}

// ---- life ---------------------------------------------------------------------------------------

static bool specs_vary(const struct model_config *c)
{
    uint64_t bytes;
    for (uint32_t i = 0; i < c->ninputs; i++)
        if (!tensor_spec_row_bytes(&c->inputs[i], &bytes))
            return true;
    return false;
}

// Of a model with free dimensions: whether all but the rows agree.
static bool same_dims(const struct batch_item *a, const struct batch_item *b)
{
    const struct request *x = (const struct request *)a, *y = (const struct request *)b;
    for (uint32_t i = 0; i < x->ninputs; i++)
        for (uint32_t k = 1; k < x->inputs[i].ndim; k++)
            if (x->inputs[i].dims[k] != y->inputs[i].dims[k])
                return false;
    return true;
}

static struct batcher *make_batcher(const struct fleet *fleet, uint32_t room_requests,
                                    uint64_t room_bytes)
{
    static struct batcher_model models[SONIC_MODELS_MAX];
    for (uint32_t i = 0; i < fleet->nmodels; i++) {
        const struct loaded_model *m = &fleet->models[i];
        models[i] = (struct batcher_model){.batch_max = m->config.batch_max,
                                           .instances = m->instances,
                                           .alike = specs_vary(&m->config) ? same_dims : NULL};
    }
    return batcher_new(models, fleet->nmodels, fleet->info.slots, room_requests, room_bytes);
}

static bool start_threads(struct slots *s, uint32_t n)
{
    for (; s->nslots < n; s->nslots++) {
        struct slot *slot = &s->slots[s->nslots];
        *slot = (struct slot){.owner = s, .index = s->nslots};
        int rc = pthread_create(&slot->thread, NULL, slot_main, slot);
        if (rc != 0) {
            errno = rc;
            return false;
        }
    }
    return true;
}

struct slots *slots_new(const struct fleet *fleet, struct job_pool *pool, uint32_t room_requests,
                        uint64_t room_bytes)
{
    uint32_t n = fleet->info.slots;
    struct slots *s = calloc(1, sizeof(*s) + n * sizeof(s->slots[0]));
    if (!s)
        return NULL;
    s->fleet = fleet;
    s->pool = pool;
    s->last = &s->finished;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    s->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->batcher = make_batcher(fleet, room_requests, room_bytes);
    if (s->event >= 0 && s->batcher && (fleet->executor->immediate || start_threads(s, n)))
        return s;
    int e = errno;
    slots_free(s);
    errno = e;
    return NULL;
}

void slots_free(struct slots *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    for (uint32_t i = 0; i < s->nslots; i++)
        pthread_join(s->slots[i].thread, NULL);
    if (s->batcher)
        requests_free(s->pool, batcher_clear(s->batcher));
    for (struct job *j = s->finished, *next; j; j = next) {
        next = j->next;
        job_unref(j);
    }
    batcher_free(s->batcher);
    if (s->event >= 0)
        close(s->event);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int slots_fd(const struct slots *s)
{
    return s->event;
}

// ---- the main loop's side -----------------------------------------------------------------------

struct job *slots_finished(struct slots *s)
{
    if (!s->fleet->executor->immediate) {
        uint64_t count;
        ssize_t ignored = read(s->event, &count, sizeof(count));
        (void)ignored;
    }
    pthread_mutex_lock(&s->lock);
    if (s->fleet->executor->immediate)
        execute_here(s);
    struct job *chain = s->finished;
    s->finished = NULL;
    s->last = &s->finished;
    pthread_mutex_unlock(&s->lock);
    return chain;
}

struct batch_item *slots_put(struct slots *s, struct batch_item *chain)
{
    struct batch_item *over = NULL, *next;
    pthread_mutex_lock(&s->lock);
    for (struct batch_item *i = chain; i; i = next) {
        next = i->next;
        if (!batcher_put(s->batcher, i)) {
            i->next = over;
            over = i;
        }
    }
    if (s->idle && batcher_ready(s->batcher))
        pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    return over;
}

void slots_revoke(struct slots *s, uint64_t lease)
{
    pthread_mutex_lock(&s->lock);
    struct batch_item *item = batcher_revoke(s->batcher, lease);
    pthread_mutex_unlock(&s->lock);
    requests_free(s->pool, item);
}

struct job *slots_expire(struct slots *s)
{
    pthread_mutex_lock(&s->lock);
    struct batch_item *late = batcher_expire(s->batcher, clock_now_us());
    pthread_mutex_unlock(&s->lock);
    return late ? unexecuted(s, late, SONIC_STATUS_DEADLINE) : NULL;
}

struct job *slots_give_up(struct slots *s, bool stop)
{
    pthread_mutex_lock(&s->lock);
    s->stop = s->stop || stop;
    struct batch_item *all = batcher_clear(s->batcher);
    pthread_mutex_unlock(&s->lock);
    return all ? unexecuted(s, all, SONIC_STATUS_NOT_LOADED) : NULL;
}

void slots_new_session(struct slots *s, uint64_t session)
{
    pthread_mutex_lock(&s->lock);
    struct batch_item *all = batcher_clear(s->batcher);
    s->session = session;
    pthread_mutex_unlock(&s->lock);
    requests_free(s->pool, all);
}

static bool all_moved(const struct slots *s)
{
    for (uint32_t i = 0; i < s->nslots; i++)
        if (!s->slots[i].moved && s->slots[i].executing)
            return false;
    return true;
}

struct slots_progress slots_beat(struct slots *s)
{
    pthread_mutex_lock(&s->lock);
    // Idle now counts as moved, also when it executes again at the next beat.
    for (uint32_t i = 0; i < s->nslots; i++)
        s->slots[i].moved = s->slots[i].moved || !s->slots[i].executing;
    s->progress.still_beats++;
    if (all_moved(s)) {
        s->progress.count++;
        s->progress.still_beats = 0;
        for (uint32_t i = 0; i < s->nslots; i++)
            s->slots[i].moved = false;
    }
    struct slots_progress now = s->progress;
    pthread_mutex_unlock(&s->lock);
    return now;
}

void slots_load(struct slots *s, struct slots_load *load)
{
    pthread_mutex_lock(&s->lock);
    batcher_load(s->batcher, &load->now);
    load->rows = s->rows;
    load->executions = s->executions;
    pthread_mutex_unlock(&s->lock);
}
