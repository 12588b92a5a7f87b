// SPDX-License-Identifier: Apache-2.0
#include "tests/gpu/stub_engine.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STREAMS_MAX 128u
#define ACCESSES_MAX 8192u

// For each stream, how many of its commands come before.
struct past {
    uint64_t of[STREAMS_MAX];
};

struct CUstream_st {
    uint32_t index;
    pthread_t thread;
    struct command *commands, **last;
    bool busy;
    uint64_t virtual_ns;
    struct past past; // of its next command; its own entry counts its commands
};

struct CUevent_st {
    uint64_t recorded, reached; // numbers of records: asked for, and passed
    uint64_t real_ns, virtual_ns;
    struct past past;
};

struct access {
    const char *from, *to;
    bool write;
    uint32_t stream;
    uint64_t command;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int sticky;
static uint32_t nstreams, naccesses;
static struct access accesses[ACCESSES_MAX];
static uint64_t engine_free_ns[STUB_NO_ENGINE], engine_busy_ns[STUB_NO_ENGINE], end_ns;
static struct past drained; // whole streams that were waited for, which all threads know
static struct past synced;  // what any thread has waited for
static _Thread_local struct past known; // what the calling thread has waited for
static _Thread_local uint64_t known_ns;

static void later(struct past *a, const struct past *b)
{
    for (uint32_t i = 0; i < STREAMS_MAX; i++)
        if (b->of[i] > a->of[i])
            a->of[i] = b->of[i];
}

static uint64_t real_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t max_ns(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

int engine_sticky(void)
{
    pthread_mutex_lock(&lock);
    int e = sticky;
    pthread_mutex_unlock(&lock);
    return e;
}

void engine_fail(int e)
{
    pthread_mutex_lock(&lock);
    sticky = sticky ? sticky : e;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

// ---- what a stream's thread does ----------------------------------------------------------------

static void run(const struct command *c)
{
    static const char *delay;
    if (!delay && !(delay = getenv("SONIC_STUB_DELAY_US")))
        delay = "20";
    usleep((useconds_t)atoi(delay));
    int e = c->work(c->user);
    if (e)
        engine_fail(e);
}

static void *stream_main(void *user)
{
    cuda_stream s = user;
    pthread_mutex_lock(&lock);
    for (;;) {
        struct command *c = s->commands;
        s->busy = c != NULL;
        if (!c) {
            pthread_cond_broadcast(&changed);
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        while (c->wait && c->wait->reached < c->number && !sticky)
            pthread_cond_wait(&changed, &lock);
        s->commands = c->next;
        if (!c->next)
            s->last = &s->commands;
        if (c->work && !sticky) {
            pthread_mutex_unlock(&lock);
            run(c);
            pthread_mutex_lock(&lock);
        }
        if (c->record) {
            c->record->reached = c->number;
            c->record->real_ns = real_now_ns();
        }
        pthread_cond_broadcast(&changed);
        free(c);
    }
    return NULL;
}

// With the lock held.
static void append(cuda_stream s, struct command command)
{
    struct command *c = malloc(sizeof(*c));
    if (!c)
        abort();
    *c = command;
    c->next = NULL;
    *s->last = c;
    s->last = &c->next;
    s->busy = true;
    pthread_cond_broadcast(&changed);
}

// ---- use before completion ----------------------------------------------------------------------

// With the lock held. Keeps of the earlier accesses those that this one does not stand for.
static void check_access(cuda_stream s, const struct stub_access *a)
{
    const char *from = a->at, *to = from + a->bytes;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < naccesses; i++) {
        const struct access *x = &accesses[i];
        bool meets = x->from < to && from < x->to;
        bool before =
            x->command <= s->past.of[x->stream] || (a->host && x->command <= synced.of[x->stream]);
        if (meets && (x->write || a->write) && !before) {
            fprintf(stderr,
                    "stub: use before completion: %zu bytes at %p, %s on stream %u and %s on "
                    "stream %u, which no event orders\n",
                    a->bytes, a->at, x->write ? "written" : "read", x->stream,
                    a->write ? "written" : "read", s->index);
            abort();
        }
        bool inside = from <= x->from && x->to <= to;
        if (!(inside && before && (a->write || (!x->write && x->stream == s->index))))
            accesses[kept++] = *x;
    }
    naccesses = kept;
    if (naccesses == ACCESSES_MAX)
        abort();
    accesses[naccesses++] = (struct access){from, to, a->write, s->index, s->past.of[s->index]};
}

// ---- commands -----------------------------------------------------------------------------------

// With the lock held: the next command of a stream, issued now by this thread.
static void issue(cuda_stream s)
{
    later(&s->past, &known);
    later(&s->past, &drained);
    s->past.of[s->index]++;
    s->virtual_ns = max_ns(s->virtual_ns, known_ns);
}

int engine_submit(cuda_stream s, stub_work work, void *user, const struct stub_access *all,
                  size_t n, enum stub_engine engine, uint64_t virtual_ns)
{
    pthread_mutex_lock(&lock);
    int e = sticky;
    if (!e) {
        issue(s);
        for (size_t i = 0; i < n; i++)
            check_access(s, &all[i]);
        if (engine != STUB_NO_ENGINE) {
            uint64_t start = max_ns(s->virtual_ns, engine_free_ns[engine]);
            s->virtual_ns = engine_free_ns[engine] = start + virtual_ns;
            engine_busy_ns[engine] += virtual_ns;
            end_ns = max_ns(end_ns, s->virtual_ns);
        }
        append(s, (struct command){.work = work, .user = user});
    }
    pthread_mutex_unlock(&lock);
    return e;
}

int engine_stream_new(cuda_stream *out)
{
    cuda_stream s = calloc(1, sizeof(*s));
    pthread_mutex_lock(&lock);
    if (!s || nstreams == STREAMS_MAX)
        abort();
    s->index = nstreams++;
    s->last = &s->commands;
    if (pthread_create(&s->thread, NULL, stream_main, s) != 0)
        abort();
    *out = s;
    pthread_mutex_unlock(&lock);
    return 0;
}

int engine_event_new(cuda_event *out)
{
    *out = calloc(1, sizeof(**out));
    return *out ? 0 : 2;
}

int engine_record(cuda_event event, cuda_stream s)
{
    pthread_mutex_lock(&lock);
    int e = sticky;
    if (!e) {
        issue(s);
        event->past = s->past;
        event->virtual_ns = s->virtual_ns;
        append(s, (struct command){.record = event, .number = ++event->recorded});
    }
    pthread_mutex_unlock(&lock);
    return e;
}

int engine_wait(cuda_stream s, cuda_event event)
{
    pthread_mutex_lock(&lock);
    int e = sticky;
    if (!e) {
        issue(s);
        later(&s->past, &event->past);
        s->virtual_ns = max_ns(s->virtual_ns, event->virtual_ns);
        append(s, (struct command){.wait = event, .number = event->recorded});
    }
    pthread_mutex_unlock(&lock);
    return e;
}

int engine_synchronize(cuda_event event)
{
    pthread_mutex_lock(&lock);
    uint64_t number = event->recorded;
    while (event->reached < number && !sticky)
        pthread_cond_wait(&changed, &lock);
    later(&known, &event->past);
    later(&synced, &event->past);
    known_ns = max_ns(known_ns, event->virtual_ns);
    int e = sticky;
    pthread_mutex_unlock(&lock);
    return e;
}

int engine_drain(cuda_stream s)
{
    pthread_mutex_lock(&lock);
    while ((s->busy || s->commands) && !sticky)
        pthread_cond_wait(&changed, &lock);
    later(&drained, &s->past);
    known_ns = max_ns(known_ns, s->virtual_ns);
    int e = sticky;
    pthread_mutex_unlock(&lock);
    return e;
}

int engine_elapsed_ms(float *ms, cuda_event from, cuda_event to)
{
    pthread_mutex_lock(&lock);
    bool there = from->reached == from->recorded && to->reached == to->recorded;
    *ms = (float)((double)(to->real_ns - from->real_ns) / 1e6);
    int e = sticky;
    pthread_mutex_unlock(&lock);
    return e ? e : there ? 0 : 600; // cudaErrorNotReady
}

// ---- the timeline -------------------------------------------------------------------------------

uint64_t stub_timeline_end_ns(void)
{
    return end_ns;
}

uint64_t stub_timeline_busy_ns(enum stub_engine engine)
{
    return engine_busy_ns[engine];
}
