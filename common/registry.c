// SPDX-License-Identifier: Apache-2.0
// One thread, one connection, a beat at a time: write each record, read everybody's. Whatever goes
// wrong ends in "not healthy, connect again at the next beat"; every record is written anew each
// beat, so a Redis that was flushed or replaced heals by itself.
#include "common/registry.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/name.h"
#include "common/redis.h"
#include "common/registry_table.h"

#define RECORDS_MAX 512
#define WHY_MAX 512
#define KEY_MAX 512
#define BEAT_MS_DEFAULT 1000
// A Redis that is away is asked again after 1, 2, 4, 8 beats, then every 8, less or more a quarter,
// so that a farm's thousand processes do not come back in one moment.
#define BACKOFF_DOUBLINGS 3

// Replaces a hash, renews its TTL, enters it into its index and drops the dead from there. Scores
// are Redis's own clock, so that nobody else's matters.
// KEYS: record, index. ARGV: ttl_ms, name, field, value, ...
static const char WRITE_SCRIPT[] =
    "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "
    "redis.call('DEL', KEYS[1]) "
    "redis.call('HSET', KEYS[1], unpack(ARGV, 3)) "
    "redis.call('PEXPIRE', KEYS[1], ARGV[1]) "
    "redis.call('ZADD', KEYS[2], now, ARGV[2]) "
    "redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[1]) "
    "redis.call('PEXPIRE', KEYS[2], ARGV[1]) "
    "return 1";

// KEYS: the indexes. ARGV: the records' prefixes in the same order, then ttl_ms. Returns, for each
// index, the list of {name, {field, value, ...}} of those that live.
static const char READ_SCRIPT[] =
    "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "
    "local all = {} "
    "for i, index in ipairs(KEYS) do "
    "  local living = {} "
    "  for _, name in ipairs(redis.call('ZRANGEBYSCORE', index, now - ARGV[#ARGV], '+inf')) do "
    "    local fields = redis.call('HGETALL', ARGV[i] .. name) "
    "    if #fields > 0 then living[#living + 1] = {name, fields} end "
    "  end "
    "  table.sort(living, function(a, b) return a[1] < b[1] end) "
    "  all[i] = living "
    "end "
    "return all";

// KEYS: record, index. ARGV: name.
static const char DROP_SCRIPT[] =
    "redis.call('DEL', KEYS[1]) redis.call('ZREM', KEYS[2], ARGV[1]) return 1";

static const char *const BROKER_COLUMNS[] = {"endpoint_client", "endpoint_worker", "epoch", NULL};
static const char *const WORKER_COLUMNS[] = {
    "host",       "device_kind",  "device_name",       "slots", "busy_slots", "staged",
    "rows_per_s", "memory_bytes", "memory_free_bytes", "state", "models",     NULL};
static const char *const MODEL_COLUMNS[] = {"version", "workers", "queued", "leased", NULL};

static const struct {
    const char *record, *index, *title;
    const char *const *columns;
} KINDS[] = {
    {REGISTRY_KEY_BROKER, REGISTRY_KEY_BROKERS, "BROKER", BROKER_COLUMNS},
    {REGISTRY_KEY_WORKER, REGISTRY_KEY_WORKERS, "WORKER", WORKER_COLUMNS},
    {REGISTRY_KEY_MODEL, REGISTRY_KEY_MODELS, "MODEL", MODEL_COLUMNS},
};
#define NKINDS (sizeof(KINDS) / sizeof(KINDS[0]))

struct record {
    const char *kind;
    char *name;
    bool gone; // withdrawn: removed from Redis at the next beat
    size_t n;
    char *fields[REGISTRY_FIELDS_MAX], *values[REGISTRY_FIELDS_MAX];
};

struct registry {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    // Under the lock:
    struct record records[RECORDS_MAX];
    size_t nrecords;
    char *placement;
    bool healthy, stopping;
    char why[WHY_MAX];
    // The thread's own:
    struct redis *redis;
    struct redis_script write, read, drop;
    unsigned failures; // beats in a row
    unsigned random;
    // Constant:
    char prefix[SONIC_NAME_MAX + 16];
    uint32_t beat_ms;
    bool watch;
};

// ---- records ------------------------------------------------------------------------------------

// NULL: no such kind.
static const char *index_of(const char *kind)
{
    for (size_t i = 0; i < NKINDS; i++)
        if (strcmp(KINDS[i].record, kind) == 0)
            return KINDS[i].index;
    return NULL;
}

static void record_deinit(struct record *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->fields[i]);
        free(r->values[i]);
    }
    free(r->name);
    memset(r, 0, sizeof(*r));
}

// A copy; on a lack of memory, a shorter record (the next beat is whole again).
static void record_init(struct record *r, const char *kind, const char *name, size_t n,
                        const char *const *fields, const char *const *values)
{
    memset(r, 0, sizeof(*r));
    r->kind = kind;
    r->name = strdup(name);
    for (size_t i = 0; i < n; i++) {
        r->fields[i] = strdup(fields[i]);
        r->values[i] = strdup(values[i]);
        r->n++;
        if (!r->fields[i] || !r->values[i]) {
            free(r->fields[i]);
            free(r->values[i]);
            r->n--;
            break;
        }
    }
}

static struct record *find(struct registry *r, const char *kind, const char *name)
{
    for (size_t i = 0; i < r->nrecords; i++)
        if (strcmp(r->records[i].kind, kind) == 0 && strcmp(r->records[i].name, name) == 0)
            return &r->records[i];
    return NULL;
}

void registry_publish(struct registry *r, const char *kind, const char *name, size_t n,
                      const char *const *fields, const char *const *values)
{
    struct record fresh;
    assert(n <= REGISTRY_FIELDS_MAX && index_of(kind));
    record_init(&fresh, kind, name, n, fields, values);
    if (!fresh.name) {
        record_deinit(&fresh);
        return;
    }
    pthread_mutex_lock(&r->lock);
    struct record *old = find(r, kind, name);
    if (!old && r->nrecords < RECORDS_MAX) {
        old = &r->records[r->nrecords++];
        memset(old, 0, sizeof(*old));
    }
    if (old) {
        record_deinit(old);
        *old = fresh;
    } else {
        record_deinit(&fresh);
    }
    pthread_mutex_unlock(&r->lock);
}

void registry_withdraw(struct registry *r, const char *kind, const char *name)
{
    pthread_mutex_lock(&r->lock);
    struct record *old = find(r, kind, name);
    if (old)
        old->gone = true;
    pthread_mutex_unlock(&r->lock);
}

// ---- a beat -------------------------------------------------------------------------------------

static void set_health(struct registry *r, bool healthy, const char *why)
{
    pthread_mutex_lock(&r->lock);
    r->healthy = healthy;
    snprintf(r->why, sizeof(r->why), "%s", why);
    pthread_mutex_unlock(&r->lock);
}

// Runs a script whose reply only says whether it worked.
static bool run_script(struct registry *r, struct redis_script *script, const struct record *rec,
                       int nargs, const char **args)
{
    char key[KEY_MAX], index[KEY_MAX], why[WHY_MAX];
    snprintf(key, sizeof(key), "%s%s%s", r->prefix, rec->kind, rec->name);
    snprintf(index, sizeof(index), "%s%s", r->prefix, index_of(rec->kind));
    args[0] = key;
    args[1] = index;
    redisReply *reply = redis_run(r->redis, script, 2, nargs, args, why, sizeof(why));
    if (reply)
        freeReplyObject(reply);
    else
        set_health(r, false, why);
    return reply != NULL;
}

static bool drop_record(struct registry *r, const struct record *rec)
{
    const char *args[3] = {[2] = rec->name};
    return run_script(r, &r->drop, rec, 3, args);
}

static bool write_record(struct registry *r, const struct record *rec)
{
    const char *args[4 + 2 * REGISTRY_FIELDS_MAX];
    char ttl[16];
    int n = 2; // key and index
    if (rec->n == 0)
        return true;
    snprintf(ttl, sizeof(ttl), "%u", 4 * r->beat_ms);
    args[n++] = ttl;
    args[n++] = rec->name;
    for (size_t i = 0; i < rec->n; i++) {
        args[n++] = rec->fields[i];
        args[n++] = rec->values[i];
    }
    return run_script(r, &r->write, rec, n, args);
}

// A copy of record i, so that no publisher waits for Redis. False: there is none.
static bool copy_record(struct registry *r, size_t i, struct record *copy)
{
    pthread_mutex_lock(&r->lock);
    bool there = i < r->nrecords;
    if (there) {
        const struct record *rec = &r->records[i];
        record_init(copy, rec->kind, rec->name, rec->n, (const char *const *)rec->fields,
                    (const char *const *)rec->values);
        copy->gone = rec->gone;
    }
    pthread_mutex_unlock(&r->lock);
    return there;
}

// Forgets record i when it is still withdrawn: it may have been published again meanwhile.
static bool forget(struct registry *r, size_t i)
{
    pthread_mutex_lock(&r->lock);
    bool gone = r->records[i].gone;
    if (gone) {
        record_deinit(&r->records[i]);
        r->records[i] = r->records[--r->nrecords];
    }
    pthread_mutex_unlock(&r->lock);
    return gone;
}

static bool write_records(struct registry *r)
{
    struct record copy;
    bool ok = true;
    for (size_t i = 0; ok && copy_record(r, i, &copy);) {
        if (copy.name)
            ok = copy.gone ? drop_record(r, &copy) : write_record(r, &copy);
        if (!(ok && copy.gone && forget(r, i)))
            i++; // only this thread removes records: the index holds
        record_deinit(&copy);
    }
    return ok;
}

static void take_placement(struct registry *r, const redisReply *all)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return;
    for (size_t i = 0; i < NKINDS && i < all->elements; i++) {
        if (i)
            fputc('\n', out);
        if (all->element[i]->type == REDIS_REPLY_ARRAY)
            registry_table(out, KINDS[i].title, KINDS[i].columns, all->element[i]);
    }
    if (fclose(out) != 0) {
        free(text);
        return;
    }
    pthread_mutex_lock(&r->lock);
    free(r->placement);
    r->placement = text;
    pthread_mutex_unlock(&r->lock);
}

static bool read_placement(struct registry *r)
{
    const char *args[2 * NKINDS + 1];
    char keys[NKINDS][KEY_MAX], prefixes[NKINDS][KEY_MAX], ttl[16], why[WHY_MAX];
    for (size_t i = 0; i < NKINDS; i++) {
        snprintf(keys[i], sizeof(keys[i]), "%s%s", r->prefix, KINDS[i].index);
        snprintf(prefixes[i], sizeof(prefixes[i]), "%s%s", r->prefix, KINDS[i].record);
        args[i] = keys[i];
        args[NKINDS + i] = prefixes[i];
    }
    snprintf(ttl, sizeof(ttl), "%u", 4 * r->beat_ms);
    args[2 * NKINDS] = ttl;
    redisReply *all = redis_run(r->redis, &r->read, NKINDS, 2 * NKINDS + 1, args, why, sizeof(why));
    if (!all) {
        set_health(r, false, why);
        return false;
    }
    if (all->type == REDIS_REPLY_ARRAY)
        take_placement(r, all);
    freeReplyObject(all);
    return true;
}

static bool is_stopping(struct registry *r)
{
    pthread_mutex_lock(&r->lock);
    bool stopping = r->stopping;
    pthread_mutex_unlock(&r->lock);
    return stopping;
}

static bool try_beat(struct registry *r)
{
    char why[WHY_MAX];
    if (!redis_open(r->redis, why, sizeof(why))) {
        set_health(r, false, why);
        return false;
    }
    return write_records(r) && (!r->watch || read_placement(r));
}

static void beat(struct registry *r)
{
    // A connection from an earlier beat may be to a Redis that was restarted since: once more,
    // anew.
    bool was_open = redis_is_open(r->redis);
    bool ok = try_beat(r) || (was_open && !is_stopping(r) && try_beat(r));
    r->failures = ok ? 0 : r->failures + 1;
    if (ok)
        set_health(r, true, "");
}

static uint32_t wait_ms(struct registry *r)
{
    if (r->failures == 0)
        return r->beat_ms;
    unsigned doublings = r->failures - 1;
    uint32_t ms = r->beat_ms << (doublings < BACKOFF_DOUBLINGS ? doublings : BACKOFF_DOUBLINGS);
    return ms - ms / 4 + (uint32_t)rand_r(&r->random) % (ms / 2 + 1);
}

// Removes what this process said of itself, where Redis still answers; the rest goes by its TTL.
static void drop_records(struct registry *r)
{
    for (size_t i = 0; i < r->nrecords && redis_is_open(r->redis); i++)
        if (!drop_record(r, &r->records[i]))
            return;
}

// Waits for the next beat; false when it is time to end.
static bool next_beat(struct registry *r)
{
    struct timespec until;
    uint32_t ms = wait_ms(r);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&r->lock);
    while (!r->stopping && pthread_cond_timedwait(&r->wake, &r->lock, &until) == 0)
        ;
    bool going = !r->stopping;
    pthread_mutex_unlock(&r->lock);
    return going;
}

static void *run(void *user)
{
    struct registry *r = user;
    do
        beat(r);
    while (next_beat(r));
    drop_records(r); // nobody publishes any more
    return NULL;
}

// ---- life ---------------------------------------------------------------------------------------

static int start_thread(struct registry *r)
{
    // hiredis writes without MSG_NOSIGNAL: a Redis that died must be an error here, not the end of
    // the process. The signal goes to the thread that wrote, so it is blocked in this one; all
    // others too, which are for the threads that await them.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static void init_sync(struct registry *r)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &attr);
    pthread_condattr_destroy(&attr);
}

static void release(struct registry *r)
{
    for (size_t i = 0; i < r->nrecords; i++)
        record_deinit(&r->records[i]);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    redis_free(r->redis);
    free(r->placement);
    free(r);
}

struct registry *registry_open(const struct registry_options *o, char *why, size_t size)
{
    struct timespec now;
    if (!name_is_label(o->farm, strlen(o->farm)) || strpbrk(o->farm, "{}")) {
        snprintf(why, size,
                 "\"%s\" is no name for a farm: 1 to 64 characters without spaces, "
                 "quotes and braces",
                 o->farm);
        return NULL;
    }
    struct redis *redis = redis_new(o->url, why, size);
    struct registry *r = redis ? calloc(1, sizeof(*r)) : NULL;
    if (!r) {
        if (redis)
            snprintf(why, size, "out of memory");
        redis_free(redis);
        return NULL;
    }
    r->redis = redis;
    r->write.text = WRITE_SCRIPT;
    r->read.text = READ_SCRIPT;
    r->drop.text = DROP_SCRIPT;
    r->beat_ms = o->beat_ms ? o->beat_ms : BEAT_MS_DEFAULT;
    r->watch = o->watch;
    snprintf(r->prefix, sizeof(r->prefix), "sonic:{%s}:", o->farm);
    snprintf(r->why, sizeof(r->why), "Redis has not answered yet");
    clock_gettime(CLOCK_MONOTONIC, &now);
    r->random = (unsigned)now.tv_nsec ^ (unsigned)getpid();
    init_sync(r);
    int rc = start_thread(r);
    if (rc == 0)
        return r;
    snprintf(why, size, "cannot start a thread: %s", strerror(rc));
    release(r);
    return NULL;
}

void registry_close(struct registry *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    release(r);
}

bool registry_healthy(struct registry *r, char *why, size_t size)
{
    pthread_mutex_lock(&r->lock);
    bool healthy = r->healthy;
    snprintf(why, size, "%s", r->why);
    pthread_mutex_unlock(&r->lock);
    return healthy;
}

char *registry_placement(struct registry *r)
{
    pthread_mutex_lock(&r->lock);
    char *text = r->placement ? strdup(r->placement) : NULL;
    pthread_mutex_unlock(&r->lock);
    return text;
}
