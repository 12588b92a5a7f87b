// SPDX-License-Identifier: Apache-2.0
// One thread, one connection, a beat at a time: write each record, read everybody's. Whatever goes
// wrong ends in "not healthy, connect again at the next beat"; every record is written anew each
// beat, so a Redis that was flushed or replaced heals by itself.
#include "common/registry.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RECORDS_MAX 512
#define FIELDS_MAX 32
#define TIMEOUT_MS 500
#define WHY_MAX 512

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
    "  all[i] = living "
    "end "
    "return all";

// KEYS: record, index. ARGV: name.
static const char DROP_SCRIPT[] =
    "redis.call('DEL', KEYS[1]) redis.call('ZREM', KEYS[2], ARGV[1]) return 1";

static const struct {
    const char *record, *index, *title;
} KINDS[] = {
    {REGISTRY_KEY_BROKER, REGISTRY_KEY_BROKERS, "BROKERS"},
    {REGISTRY_KEY_WORKER, REGISTRY_KEY_WORKERS, "WORKERS"},
    {REGISTRY_KEY_MODEL, REGISTRY_KEY_MODELS, "MODELS"},
};
#define NKINDS (sizeof(KINDS) / sizeof(KINDS[0]))

struct record {
    const char *kind;
    char *name;
    size_t n;
    char *fields[FIELDS_MAX], *values[FIELDS_MAX];
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
    redisContext *redis;
    char *url, *prefix;
    char shown[300]; // the address without its password, for messages
    uint32_t beat_ms;
};

// ---- records ------------------------------------------------------------------------------------

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
    for (size_t i = 0; i < n && i < FIELDS_MAX; i++) {
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
        if (strcmp(r->records[i].kind, kind) == 0 && r->records[i].name &&
            strcmp(r->records[i].name, name) == 0)
            return &r->records[i];
    return NULL;
}

void registry_publish(struct registry *r, const char *kind, const char *name, size_t n,
                      const char *const *fields, const char *const *values)
{
    struct record fresh;
    record_init(&fresh, kind, name, n, fields, values);
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
    if (old) {
        record_deinit(old);
        *old = r->records[--r->nrecords];
    }
    pthread_mutex_unlock(&r->lock);
    // Its key goes with its TTL: nobody renews it.
}

// ---- connecting ---------------------------------------------------------------------------------

static const struct timeval TIMEOUT = {.tv_sec = TIMEOUT_MS / 1000,
                                       .tv_usec = (TIMEOUT_MS % 1000) * 1000};

struct address {
    char path[108]; // unix socket, or empty
    char host[256];
    char password[256];
    int port, database;
};

// "unix://PATH" or "redis://[:PASSWORD@]HOST[:PORT][/DB]".
static bool parse_url(const char *url, struct address *a)
{
    memset(a, 0, sizeof(*a));
    a->port = 6379;
    if (strncmp(url, "unix://", 7) == 0) {
        snprintf(a->path, sizeof(a->path), "%s", url + 7);
        return url[7] == '/' && strlen(url + 7) < sizeof(a->path);
    }
    if (strncmp(url, "redis://", 8) != 0)
        return false;
    url += 8;
    const char *at = strrchr(url, '@');
    if (at) {
        if (url[0] != ':' || (size_t)(at - url) > sizeof(a->password))
            return false;
        memcpy(a->password, url + 1, (size_t)(at - url - 1));
        url = at + 1;
    }
    size_t host = strcspn(url, ":/");
    if (host == 0 || host >= sizeof(a->host))
        return false;
    memcpy(a->host, url, host);
    url += host;
    char *end = (char *)url;
    if (*end == ':')
        a->port = (int)strtol(end + 1, &end, 10);
    if (*end == '/')
        a->database = (int)strtol(end + 1, &end, 10);
    return *end == '\0' && a->port > 0 && a->port < 65536 && a->database >= 0;
}

static void unhealthy(struct registry *r, const char *what, const char *detail)
{
    pthread_mutex_lock(&r->lock);
    r->healthy = false;
    snprintf(r->why, sizeof(r->why), "Redis %s: %s%s%s", r->shown, what, detail[0] ? ": " : "",
             detail);
    pthread_mutex_unlock(&r->lock);
    if (r->redis)
        redisFree(r->redis);
    r->redis = NULL;
}

// One command whose reply only says whether it worked.
static bool simple(struct registry *r, int argc, const char **argv)
{
    redisReply *reply = redisCommandArgv(r->redis, argc, argv, NULL);
    bool ok = reply && reply->type != REDIS_REPLY_ERROR;
    if (!ok)
        unhealthy(r, argv[0], reply ? reply->str : r->redis->errstr);
    if (reply)
        freeReplyObject(reply);
    return ok;
}

static bool connected(struct registry *r)
{
    struct address a;
    char database[16];
    if (r->redis)
        return true;
    parse_url(r->url, &a);
    r->redis = a.path[0] ? redisConnectUnixWithTimeout(a.path, TIMEOUT)
                         : redisConnectWithTimeout(a.host, a.port, TIMEOUT);
    if (!r->redis || r->redis->err) {
        unhealthy(r, "cannot connect", r->redis ? r->redis->errstr : "out of memory");
        return false;
    }
    redisSetTimeout(r->redis, TIMEOUT);
    const char *auth[] = {"AUTH", a.password};
    if (a.password[0] && !simple(r, 2, auth))
        return false;
    snprintf(database, sizeof(database), "%d", a.database);
    const char *select[] = {"SELECT", database};
    return a.database == 0 || simple(r, 2, select);
}

// ---- a beat -------------------------------------------------------------------------------------

static const char *index_of(const char *kind)
{
    for (size_t i = 0; i < NKINDS; i++)
        if (strcmp(KINDS[i].record, kind) == 0)
            return KINDS[i].index;
    return "";
}

static void keys_of(const struct registry *r, const struct record *rec, char *key, char *index,
                    size_t size)
{
    snprintf(key, size, "%s%s%s", r->prefix, rec->kind, rec->name);
    snprintf(index, size, "%s%s", r->prefix, index_of(rec->kind));
}

static bool write_record(struct registry *r, const struct record *rec)
{
    const char *argv[7 + 2 * FIELDS_MAX];
    char key[512], index[512], ttl[16];
    int n = 0;
    if (!rec->name || rec->n == 0)
        return true;
    keys_of(r, rec, key, index, sizeof(key));
    snprintf(ttl, sizeof(ttl), "%u", 4 * r->beat_ms);
    argv[n++] = "EVAL";
    argv[n++] = WRITE_SCRIPT;
    argv[n++] = "2";
    argv[n++] = key;
    argv[n++] = index;
    argv[n++] = ttl;
    argv[n++] = rec->name;
    for (size_t i = 0; i < rec->n; i++) {
        argv[n++] = rec->fields[i];
        argv[n++] = rec->values[i];
    }
    return simple(r, n, argv);
}

// Writes copies of all records, so that no publisher waits for Redis.
static bool write_records(struct registry *r)
{
    bool ok = true;
    for (size_t i = 0; ok; i++) {
        struct record copy;
        pthread_mutex_lock(&r->lock);
        bool more = i < r->nrecords;
        if (more) {
            const struct record *rec = &r->records[i];
            record_init(&copy, rec->kind, rec->name ? rec->name : "", rec->n,
                        (const char *const *)rec->fields, (const char *const *)rec->values);
        }
        pthread_mutex_unlock(&r->lock);
        if (!more)
            break;
        ok = write_record(r, &copy);
        record_deinit(&copy);
    }
    return ok;
}

static void print_living(FILE *out, const char *title, const redisReply *living)
{
    fprintf(out, "%s\n", title);
    for (size_t i = 0; i < living->elements; i++) {
        const redisReply *one = living->element[i];
        if (one->type != REDIS_REPLY_ARRAY || one->elements != 2 ||
            one->element[1]->type != REDIS_REPLY_ARRAY)
            continue;
        const redisReply *fields = one->element[1];
        fprintf(out, "  %-20s", one->element[0]->str ? one->element[0]->str : "?");
        for (size_t k = 0; k + 1 < fields->elements; k += 2)
            if (fields->element[k]->str && fields->element[k + 1]->str)
                fprintf(out, " %s=%s", fields->element[k]->str, fields->element[k + 1]->str);
        fputc('\n', out);
    }
}

static void take_placement(struct registry *r, const redisReply *all)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return;
    for (size_t i = 0; i < NKINDS && i < all->elements; i++)
        if (all->element[i]->type == REDIS_REPLY_ARRAY)
            print_living(out, KINDS[i].title, all->element[i]);
    if (fclose(out) != 0) {
        free(text);
        return;
    }
    pthread_mutex_lock(&r->lock);
    free(r->placement);
    r->placement = text;
    r->healthy = true;
    pthread_mutex_unlock(&r->lock);
}

static void read_placement(struct registry *r)
{
    const char *argv[4 + 2 * NKINDS];
    char keys[NKINDS][512], prefixes[NKINDS][512], ttl[16];
    int n = 0;
    argv[n++] = "EVAL";
    argv[n++] = READ_SCRIPT;
    argv[n++] = "3";
    for (size_t i = 0; i < NKINDS; i++) {
        snprintf(keys[i], sizeof(keys[i]), "%s%s", r->prefix, KINDS[i].index);
        snprintf(prefixes[i], sizeof(prefixes[i]), "%s%s", r->prefix, KINDS[i].record);
        argv[n++] = keys[i];
    }
    for (size_t i = 0; i < NKINDS; i++)
        argv[n++] = prefixes[i];
    snprintf(ttl, sizeof(ttl), "%u", 4 * r->beat_ms);
    argv[n++] = ttl;
    redisReply *reply = redisCommandArgv(r->redis, n, argv, NULL);
    if (reply && reply->type == REDIS_REPLY_ARRAY)
        take_placement(r, reply);
    else
        unhealthy(r, "reading the placement",
                  reply ? (reply->str ? reply->str : "a reply of another kind") : r->redis->errstr);
    if (reply)
        freeReplyObject(reply);
}

static void drop_records(struct registry *r)
{
    for (size_t i = 0; i < r->nrecords && r->redis; i++) {
        char key[512], index[512];
        const char *argv[] = {"EVAL", DROP_SCRIPT, "2", key, index, r->records[i].name};
        if (!r->records[i].name)
            continue;
        keys_of(r, &r->records[i], key, index, sizeof(key));
        if (!simple(r, 6, argv))
            return;
    }
}

// Waits for the next beat; false when it is time to end.
static bool next_beat(struct registry *r)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += r->beat_ms / 1000;
    until.tv_nsec += (long)(r->beat_ms % 1000) * 1000000;
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
    sigset_t all;
    // The process's signals belong to its main thread: one that waits for SIGTERM in a signalfd
    // would be ended by it if it were delivered here. And hiredis writes without MSG_NOSIGNAL: a
    // Redis that died must be an error, not the SIGPIPE that the writing thread gets.
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    do {
        if (connected(r) && write_records(r))
            read_placement(r);
    } while (next_beat(r));
    if (connected(r))
        drop_records(r); // nobody publishes any more
    if (r->redis)
        redisFree(r->redis);
    return NULL;
}

// ---- life ---------------------------------------------------------------------------------------

struct registry *registry_open(const struct registry_options *o, char *why, size_t size)
{
    struct address a;
    pthread_condattr_t attr;
    if (!parse_url(o->url, &a)) {
        snprintf(why, size, "that is no Redis URL: unix:///PATH or redis://[:PASSWORD@]HOST:PORT");
        return NULL;
    }
    struct registry *r = calloc(1, sizeof(*r));
    if (!r || !(r->url = strdup(o->url)) || asprintf(&r->prefix, "sonic:{%s}:", o->farm) < 0) {
        snprintf(why, size, "out of memory");
        if (r)
            free(r->url);
        free(r);
        return NULL;
    }
    r->beat_ms = o->beat_ms;
    if (a.path[0])
        snprintf(r->shown, sizeof(r->shown), "%s", a.path);
    else
        snprintf(r->shown, sizeof(r->shown), "%s:%d", a.host, a.port);
    snprintf(r->why, sizeof(r->why), "Redis %s has not answered yet", r->shown);
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&r->thread, NULL, run, r);
    if (rc != 0) {
        snprintf(why, size, "cannot start a thread: %s", strerror(rc));
        free(r->url);
        free(r->prefix);
        free(r);
        return NULL;
    }
    return r;
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
    for (size_t i = 0; i < r->nrecords; i++)
        record_deinit(&r->records[i]);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r->placement);
    free(r->url);
    free(r->prefix);
    free(r);
}

bool registry_healthy(struct registry *r, char *why, size_t size)
{
    pthread_mutex_lock(&r->lock);
    bool healthy = r->healthy;
    snprintf(why, size, "%s", healthy ? "" : r->why);
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
