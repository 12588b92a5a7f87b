// SPDX-License-Identifier: Apache-2.0
#include "common/redis.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct redis {
    redisContext *context; // NULL: not open
    char path[108];        // unix socket, or empty
    char host[256];
    char password[256];
    int port, database;
};

static const struct timeval TIMEOUT = {.tv_sec = REDIS_TIMEOUT_MS / 1000,
                                       .tv_usec = REDIS_TIMEOUT_MS % 1000 * 1000};

// "host[:port][/database]", the rest of a redis:// URL.
static bool parse_host(const char *url, struct redis *r)
{
    size_t host = strcspn(url, ":/");
    long port = 6379, database = 0;
    if (host == 0 || host >= sizeof(r->host))
        return false;
    memcpy(r->host, url, host);
    char *end = (char *)url + host;
    if (*end == ':')
        port = strtol(end + 1, &end, 10);
    if (*end == '/')
        database = strtol(end + 1, &end, 10);
    if (*end || port < 1 || port > 65535 || database < 0 || database > 65535)
        return false;
    r->port = (int)port;
    r->database = (int)database;
    return true;
}

static bool parse_url(const char *url, struct redis *r)
{
    if (strncmp(url, "unix:///", 8) == 0) {
        if (strlen(url + 7) >= sizeof(r->path))
            return false;
        strcpy(r->path, url + 7);
        return true;
    }
    if (strncmp(url, "redis://", 8) != 0)
        return false;
    url += 8;
    const char *at = strrchr(url, '@');
    if (!at)
        return parse_host(url, r);
    if (url[0] != ':' || (size_t)(at - url) > sizeof(r->password))
        return false;
    memcpy(r->password, url + 1, (size_t)(at - url - 1));
    return parse_host(at + 1, r);
}

struct redis *redis_new(const char *url, char *why, size_t size)
{
    struct redis *r = calloc(1, sizeof(*r));
    if (r && parse_url(url, r))
        return r;
    snprintf(why, size, "%s",
             r ? "that is no Redis URL: unix:///PATH or redis://[:PASSWORD@]HOST[:PORT][/DB]"
               : "out of memory");
    free(r);
    return NULL;
}

static void hang_up(struct redis *r)
{
    if (r->context)
        redisFree(r->context);
    r->context = NULL;
}

void redis_free(struct redis *r)
{
    if (!r)
        return;
    hang_up(r);
    free(r);
}

bool redis_is_open(const struct redis *r)
{
    return r->context != NULL;
}

// Closes the connection and says why. `reply` is an error reply, or NULL when there was none.
static void broken(struct redis *r, const char *what, const redisReply *reply, char *why,
                   size_t size)
{
    bool late = errno == EAGAIN || errno == EWOULDBLOCK || errno == ETIMEDOUT;
    const char *detail = "out of memory";
    if (reply)
        detail = reply->str ? reply->str : "an unexpected kind of reply";
    else if (r->context && r->context->err == REDIS_ERR_IO && late)
        detail = "no answer in time (it is stalled or overloaded)";
    else if (r->context)
        detail = r->context->errstr;
    if (r->path[0])
        snprintf(why, size, "Redis %s: %s: %s", r->path, what, detail);
    else
        snprintf(why, size, "Redis %s:%d: %s: %s", r->host, r->port, what, detail);
    hang_up(r);
}

// One command. NULL after broken(); an error reply passes only when `tolerate` begins it.
static redisReply *command(struct redis *r, int argc, const char **argv, const char *tolerate,
                           char *why, size_t size)
{
    errno = 0;
    redisReply *reply = redisCommandArgv(r->context, argc, argv, NULL);
    if (reply && (reply->type != REDIS_REPLY_ERROR ||
                  (tolerate && strncmp(reply->str, tolerate, strlen(tolerate)) == 0)))
        return reply;
    broken(r, argv[0], reply, why, size);
    if (reply)
        freeReplyObject(reply);
    return NULL;
}

// A command that only works or does not; arg may be NULL.
static bool simple(struct redis *r, const char *verb, const char *arg, char *why, size_t size)
{
    const char *argv[] = {verb, arg};
    redisReply *reply = command(r, arg ? 2 : 1, argv, NULL, why, size);
    if (reply)
        freeReplyObject(reply);
    return reply != NULL;
}

bool redis_open(struct redis *r, char *why, size_t size)
{
    char database[16];
    if (r->context)
        return true;
    errno = 0;
    r->context = r->path[0] ? redisConnectUnixWithTimeout(r->path, TIMEOUT)
                            : redisConnectWithTimeout(r->host, r->port, TIMEOUT);
    if (!r->context || r->context->err || redisSetTimeout(r->context, TIMEOUT) != REDIS_OK) {
        broken(r, "cannot connect", NULL, why, size);
        return false;
    }
    snprintf(database, sizeof(database), "%d", r->database);
    return (!r->password[0] || simple(r, "AUTH", r->password, why, size)) &&
           simple(r, "PING", NULL, why, size) && // a stalled one takes connections, too
           (r->database == 0 || simple(r, "SELECT", database, why, size));
}

// Asks Redis for the script's digest, which also loads it.
static bool load(struct redis *r, struct redis_script *script, char *why, size_t size)
{
    const char *argv[] = {"SCRIPT", "LOAD", script->text};
    redisReply *reply = command(r, 3, argv, NULL, why, size);
    if (!reply)
        return false;
    bool ok = reply->type == REDIS_REPLY_STRING && strlen(reply->str) < sizeof(script->digest);
    if (ok)
        strcpy(script->digest, reply->str);
    else
        broken(r, "SCRIPT LOAD", reply, why, size);
    freeReplyObject(reply);
    return ok;
}

redisReply *redis_run(struct redis *r, struct redis_script *script, int nkeys, int nargs,
                      const char *const *args, char *why, size_t size)
{
    const char *argv[3 + REDIS_ARGS_MAX];
    char keys[16];
    assert(nargs <= REDIS_ARGS_MAX);
    if (!redis_open(r, why, size) || (!script->digest[0] && !load(r, script, why, size)))
        return NULL;
    snprintf(keys, sizeof(keys), "%d", nkeys);
    argv[0] = "EVALSHA";
    argv[1] = script->digest;
    argv[2] = keys;
    memcpy(argv + 3, args, (size_t)nargs * sizeof(*args));
    redisReply *reply = command(r, 3 + nargs, argv, "NOSCRIPT", why, size);
    if (!reply || reply->type != REDIS_REPLY_ERROR)
        return reply;
    freeReplyObject(reply); // it was restarted or flushed: the whole script, which it keeps then
    argv[0] = "EVAL";
    argv[1] = script->text;
    return command(r, 3 + nargs, argv, NULL, why, size);
}
