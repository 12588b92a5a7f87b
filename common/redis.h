// SPDX-License-Identifier: Apache-2.0
// One connection to a Redis, for one thread, with a limit on every wait. It opens again by itself
// after whatever went wrong; words never carry the password.
#ifndef SONIC_COMMON_REDIS_H
#define SONIC_COMMON_REDIS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

// A connect and a command each wait no longer than this.
#define REDIS_TIMEOUT_MS 500
// Keys and arguments of one script call.
#define REDIS_ARGS_MAX 80

struct redis;

// A Lua script; the digest is filled in on first use.
struct redis_script {
    const char *text;
    char digest[41];
};

// NULL with `why` when the URL makes no sense; nothing is opened yet.
struct redis *redis_new(const char *url, char *why, size_t size);
void redis_free(struct redis *r);
bool redis_is_open(const struct redis *r);
// Connects and has an answer, where it is not open yet. False: `why` as below.
bool redis_open(struct redis *r, char *why, size_t size);

// Runs a script with these keys and arguments, opening the connection first where there is none.
// The caller frees the reply with freeReplyObject; an error reply comes as NULL too. On NULL the
// connection is closed and `why` names the address and what is wrong.
redisReply *redis_run(struct redis *r, struct redis_script *script, int nkeys, int nargs,
                      const char *const *args, char *why, size_t size);

#endif
