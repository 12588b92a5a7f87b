// SPDX-License-Identifier: Apache-2.0
// The registry against a real redis-server on a unix socket of its own: what is written, what goes
// away, and that a Redis which dies, stalls, is emptied or lies costs nobody a wait or a crash.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/registry.h"

#define BEAT_MS 100
#define PATIENCE_S 40

extern char **environ;
static char folder[64], url[128], socket_path[96];
static const char *self;
static pid_t server;

// ---- the server ---------------------------------------------------------------------------------

static void sleep_ms(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static redisReply *ask(const char *format, ...)
{
    static redisContext *context; // anew each time: the server comes and goes
    va_list ap;
    if (context)
        redisFree(context);
    context = redisConnectUnixWithTimeout(socket_path, (struct timeval){5, 0});
    if (!context || context->err)
        return NULL;
    va_start(ap, format);
    redisReply *reply = redisvCommand(context, format, ap);
    va_end(ap);
    redisFree(context);
    context = NULL;
    return reply;
}

static long long number(const char *command)
{
    redisReply *reply = ask(command);
    long long n = reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1000;
    if (reply)
        freeReplyObject(reply);
    return n;
}

// Keys that went by their TTL, not because somebody removed them.
static int expired_keys(void)
{
    int n = -1;
    redisReply *reply = ask("INFO stats");
    const char *at = reply && reply->str ? strstr(reply->str, "expired_keys:") : NULL;
    if (at)
        sscanf(at, "expired_keys:%d", &n);
    if (reply)
        freeReplyObject(reply);
    return n;
}

static bool does(const char *command)
{
    redisReply *reply = ask(command);
    bool ok = reply && reply->type != REDIS_REPLY_ERROR;
    if (reply)
        freeReplyObject(reply);
    return ok;
}

// A field's value, "" where there is none.
static const char *field(const char *key, const char *name)
{
    static char text[512];
    redisReply *reply = ask("HGET %s %s", key, name);
    snprintf(text, sizeof(text), "%s", reply && reply->str ? reply->str : "");
    if (reply)
        freeReplyObject(reply);
    return text;
}

static bool answers(void)
{
    return does("PING");
}

#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        time_t until = time(NULL) + PATIENCE_S;                                                    \
        while (!(condition)) {                                                                     \
            if (time(NULL) > until)                                                                \
                fail_msg("still not so: %s", #condition);                                          \
            sleep_ms(20);                                                                          \
        }                                                                                          \
    } while (0)

static void start_server(void)
{
    char log[128];
    char *argv[] = {"redis-server", "--port", "0", "--unixsocket", socket_path, "--save", "",
                    "--logfile",    log,      NULL};
    snprintf(log, sizeof(log), "%s/redis.log", folder);
    int rc = posix_spawnp(&server, argv[0], NULL, NULL, argv, environ);
    if (rc != 0)
        fail_msg("redis-server cannot be started: %s", strerror(rc));
    WAIT_UNTIL(answers());
}

static void kill_server(void)
{
    if (server <= 0)
        return;
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    server = 0;
    unlink(socket_path);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/sonic_test_registry_XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(socket_path, sizeof(socket_path), "%s/redis.sock", folder);
    snprintf(url, sizeof(url), "unix://%s", socket_path);
    start_server();
    return 0;
}

static int tear_down(void **state)
{
    char log[128];
    (void)state;
    kill_server();
    snprintf(log, sizeof(log), "%s/redis.log", folder);
    unlink(log);
    return rmdir(folder);
}

// ---- registries ---------------------------------------------------------------------------------

static struct registry *opened_with(const char *farm, uint32_t beat_ms)
{
    char why[512] = "";
    const struct registry_options o = {.url = url, .farm = farm, .beat_ms = beat_ms, .watch = true};
    struct registry *r = registry_open(&o, why, sizeof(why));
    if (!r)
        fail_msg("%s", why);
    return r;
}

static struct registry *opened(const char *farm)
{
    return opened_with(farm, BEAT_MS);
}

static void publish(struct registry *r, const char *kind, const char *name, const char *host)
{
    const char *const fields[] = {"host", "memory_bytes"}, *const values[] = {host, "1073741824"};
    registry_publish(r, kind, name, 2, fields, values);
}

static bool healthy(struct registry *r)
{
    char why[512];
    return registry_healthy(r, why, sizeof(why));
}

static bool placement_has(struct registry *r, const char *words)
{
    char *text = registry_placement(r);
    bool has = text && strstr(text, words);
    free(text);
    return has;
}

#define EVIL "ZADD sonic:{default}:workers 99999999999999 evil" // alive for a long time
#define W0 "sonic:{default}:worker:w0"

// ---- tests --------------------------------------------------------------------------------------

static void test_published_records_live_by_their_beats(void **state)
{
    (void)state;
    struct registry *r = opened("default");
    publish(r, REGISTRY_KEY_WORKER, "w0", "node1");
    WAIT_UNTIL(strcmp(field(W0, "host"), "node1") == 0);
    WAIT_UNTIL(number("PTTL " W0) > 0);
    assert_true(number("PTTL " W0) <= 4 * BEAT_MS);
    WAIT_UNTIL(number("ZCARD sonic:{default}:workers") == 1);
    WAIT_UNTIL(healthy(r));
    // A record is replaced whole.
    const char *const fields[] = {"staged"}, *const values[] = {"7"};
    registry_publish(r, REGISTRY_KEY_WORKER, "w0", 1, fields, values);
    WAIT_UNTIL(strcmp(field(W0, "staged"), "7") == 0);
    assert_string_equal(field(W0, "host"), "");
    registry_close(r);
}

// With a TTL so long that what is gone was removed.
static void test_a_closed_registry_leaves_nothing_behind(void **state)
{
    (void)state;
    struct registry *r = opened_with("default", 1000);
    publish(r, REGISTRY_KEY_WORKER, "w0", "node1");
    publish(r, REGISTRY_KEY_BROKER, "b0", "node1");
    WAIT_UNTIL(number("DBSIZE") == 4); // two records, two indexes
    registry_close(r);
    WAIT_UNTIL(number("DBSIZE") == 0);
    assert_int_equal(expired_keys(), 0);
}

static void test_withdrawn_records_go_at_the_next_beat(void **state)
{
    (void)state;
    struct registry *r = opened_with("default", 1000);
    publish(r, REGISTRY_KEY_WORKER, "w0", "node1");
    publish(r, REGISTRY_KEY_WORKER, "w1", "node1");
    publish(r, REGISTRY_KEY_MODEL, "m", "node1");
    WAIT_UNTIL(number("ZCARD sonic:{default}:workers") == 2);
    registry_withdraw(r, REGISTRY_KEY_WORKER, "w0");
    registry_withdraw(r, REGISTRY_KEY_WORKER, "never published");
    WAIT_UNTIL(number("ZCARD sonic:{default}:workers") == 1);
    WAIT_UNTIL(number("EXISTS " W0) == 0);
    assert_int_equal(expired_keys(), 0);
    WAIT_UNTIL(number("EXISTS sonic:{default}:worker:w1") == 1);
    // Published again, it is back.
    publish(r, REGISTRY_KEY_WORKER, "w0", "node2");
    WAIT_UNTIL(strcmp(field(W0, "host"), "node2") == 0);
    registry_close(r);
}

static void test_two_see_each_other_but_no_other_farm(void **state)
{
    (void)state;
    struct registry *a = opened("default"), *b = opened("default"), *c = opened("other");
    publish(a, REGISTRY_KEY_WORKER, "w0", "node-a");
    publish(b, REGISTRY_KEY_BROKER, "b0", "node-b");
    publish(c, REGISTRY_KEY_WORKER, "w9", "node-c");
    WAIT_UNTIL(placement_has(a, "node-b") && placement_has(b, "node-a"));
    WAIT_UNTIL(placement_has(c, "node-c"));
    assert_false(placement_has(c, "node-a"));
    assert_false(placement_has(a, "node-c"));
    // For people: a line of names, units, a dash where nothing was said.
    WAIT_UNTIL(placement_has(a, "WORKER  host    device_kind"));
    WAIT_UNTIL(placement_has(a, "w0      node-a  -"));
    WAIT_UNTIL(placement_has(a, "1.0GiB"));
    registry_close(a);
    WAIT_UNTIL(!placement_has(b, "node-a"));
    registry_close(b);
    registry_close(c);
}

// Another process, so that it can be killed. See main().
static void test_the_dead_vanish_from_records_and_indexes(void **state)
{
    char *argv[] = {(char *)self, "publish", url, NULL};
    pid_t child;
    (void)state;
    struct registry *r = opened("default");
    publish(r, REGISTRY_KEY_WORKER, "w0", "node1");
    assert_int_equal(posix_spawn(&child, self, NULL, NULL, argv, environ), 0);
    WAIT_UNTIL(placement_has(r, "doomed"));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    WAIT_UNTIL(!placement_has(r, "doomed"));
    WAIT_UNTIL(number("EXISTS sonic:{default}:worker:doomed") == 0);
    WAIT_UNTIL(number("ZCARD sonic:{default}:workers") == 1);
    registry_close(r);
}

static void test_an_emptied_redis_heals_with_the_next_beat(void **state)
{
    (void)state;
    struct registry *r = opened("default");
    publish(r, REGISTRY_KEY_WORKER, "w0", "node1");
    WAIT_UNTIL(number("EXISTS " W0) == 1);
    assert_true(does("FLUSHALL"));
    WAIT_UNTIL(strcmp(field(W0, "host"), "node1") == 0);
    assert_true(does("SCRIPT FLUSH")); // and its scripts, as a replacement would
    assert_true(does("FLUSHALL"));
    WAIT_UNTIL(strcmp(field(W0, "host"), "node1") == 0);
    WAIT_UNTIL(healthy(r));
    registry_close(r);
}

static void test_a_killed_and_restarted_redis_heals(void **state)
{
    char why[512];
    (void)state;
    struct registry *r = opened("default");
    publish(r, REGISTRY_KEY_WORKER, "w0", "node1");
    WAIT_UNTIL(number("EXISTS " W0) == 1);
    kill_server();
    WAIT_UNTIL(!healthy(r));
    assert_false(registry_healthy(r, why, sizeof(why)));
    assert_non_null(strstr(why, socket_path));
    publish(r, REGISTRY_KEY_WORKER, "w0", "node2");
    start_server();
    WAIT_UNTIL(strcmp(field(W0, "host"), "node2") == 0);
    WAIT_UNTIL(healthy(r) && placement_has(r, "node2"));
    registry_close(r);
}

static void test_a_redis_that_comes_later_is_found(void **state)
{
    (void)state;
    kill_server();
    struct registry *r = opened("default");
    publish(r, REGISTRY_KEY_WORKER, "w0", "node1");
    WAIT_UNTIL(!healthy(r));
    assert_null(registry_placement(r));
    start_server();
    WAIT_UNTIL(strcmp(field(W0, "host"), "node1") == 0);
    registry_close(r);
}

// Were one of these calls to wait for Redis, the test would end at its limit: there are a thousand.
static void test_a_stalled_redis_blocks_nobody(void **state)
{
    char name[16], why[512];
    (void)state;
    struct registry *r = opened("default"), *closing = opened("default");
    publish(r, REGISTRY_KEY_WORKER, "w0", "node1");
    publish(closing, REGISTRY_KEY_WORKER, "w1", "node1");
    WAIT_UNTIL(number("ZCARD sonic:{default}:workers") == 2);
    assert_int_equal(kill(server, SIGSTOP), 0);
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "m%d", i % 50);
        publish(r, REGISTRY_KEY_MODEL, name, "node1");
        free(registry_placement(r));
        healthy(r);
        registry_withdraw(r, REGISTRY_KEY_MODEL, name);
    }
    WAIT_UNTIL(!healthy(r));
    WAIT_UNTIL(!registry_healthy(r, why, sizeof(why)) && strstr(why, "no answer in time"));
    registry_close(closing);
    publish(r, REGISTRY_KEY_WORKER, "w0", "node2");
    assert_int_equal(kill(server, SIGCONT), 0);
    WAIT_UNTIL(strcmp(field(W0, "host"), "node2") == 0);
    WAIT_UNTIL(healthy(r));
    registry_close(r);
}

static void test_a_lying_redis_is_printed_harmlessly(void **state)
{
    (void)state;
    struct registry *r = opened("default");
    publish(r, REGISTRY_KEY_WORKER, "w0", "node1");
    WAIT_UNTIL(placement_has(r, "node1"));
    assert_true(does("HSET sonic:{default}:worker:evil host \x1b[31mred memory_bytes lots "
                     "surprise \x80\xff"));
    WAIT_UNTIL(does(EVIL) && placement_has(r, "evil"));
    WAIT_UNTIL(does(EVIL) && placement_has(r, "?[31mred"));
    WAIT_UNTIL(does(EVIL) && placement_has(r, "lots"));
    WAIT_UNTIL(does(EVIL) && placement_has(r, "??"));
    assert_false(placement_has(r, "\x1b"));
    // A record of the wrong type: an error, in words, and healed when it is gone.
    assert_true(does("DEL sonic:{default}:worker:evil"));
    assert_true(does("SET sonic:{default}:worker:evil text"));
    WAIT_UNTIL(does(EVIL) && !healthy(r));
    assert_true(does("DEL sonic:{default}:worker:evil"));
    WAIT_UNTIL(healthy(r));
    registry_close(r);
}

static void test_more_records_than_there_is_room_for(void **state)
{
    char name[16];
    (void)state;
    struct registry *r = opened("default");
    for (int i = 0; i < 600; i++) {
        snprintf(name, sizeof(name), "m%d", i);
        publish(r, REGISTRY_KEY_MODEL, name, "node1");
    }
    WAIT_UNTIL(number("EXISTS sonic:{default}:model:m511") == 1);
    assert_int_equal(number("EXISTS sonic:{default}:model:m512"), 0);
    registry_close(r);
}

static void test_urls_and_names_are_checked(void **state)
{
    static const char *const urls[] = {"",
                                       "redis:",
                                       "redis://",
                                       "unix://relative",
                                       "http://x",
                                       "redis://x:0",
                                       "redis://x:70000",
                                       "redis://x:6379/-1",
                                       "redis://x:6379/0x",
                                       "redis://user@x"};
    static const char *const farms[] = {"", "a b", "{a}", "a}"};
    char why[512];
    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        const struct registry_options o = {.url = urls[i], .farm = "default"};
        assert_null(registry_open(&o, why, sizeof(why)));
        assert_non_null(strstr(why, "unix:///PATH or redis://[:PASSWORD@]HOST[:PORT][/DB]"));
    }
    for (size_t i = 0; i < sizeof(farms) / sizeof(farms[0]); i++) {
        const struct registry_options o = {.url = url, .farm = farms[i]};
        assert_null(registry_open(&o, why, sizeof(why)));
        assert_non_null(strstr(why, "is no name for a farm"));
    }
}

static void test_words_never_carry_the_password(void **state)
{
    const struct registry_options o = {
        .url = "redis://:secret@127.0.0.1:1/3", .farm = "default", .beat_ms = BEAT_MS};
    char why[512] = "";
    (void)state;
    struct registry *r = registry_open(&o, why, sizeof(why));
    assert_non_null(r);
    WAIT_UNTIL(!registry_healthy(r, why, sizeof(why)) &&
               strstr(why, "127.0.0.1:1: cannot connect"));
    assert_null(strstr(why, "secret"));
    registry_close(r);
}

// "publish URL": a worker that says it is there until it is killed.
static int be_doomed(const char *redis)
{
    char why[512];
    const struct registry_options o = {.url = redis, .farm = "default", .beat_ms = BEAT_MS};
    struct registry *r = registry_open(&o, why, sizeof(why));
    if (!r)
        return 1;
    publish(r, REGISTRY_KEY_WORKER, "doomed", "node2");
    alarm(2 * PATIENCE_S); // whatever becomes of the test
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_published_records_live_by_their_beats, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_closed_registry_leaves_nothing_behind, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_withdrawn_records_go_at_the_next_beat, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_two_see_each_other_but_no_other_farm, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_dead_vanish_from_records_and_indexes, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_an_emptied_redis_heals_with_the_next_beat, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_killed_and_restarted_redis_heals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_redis_that_comes_later_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stalled_redis_blocks_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_lying_redis_is_printed_harmlessly, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_more_records_than_there_is_room_for, set_up,
                                        tear_down),
        cmocka_unit_test(test_urls_and_names_are_checked),
        cmocka_unit_test(test_words_never_carry_the_password),
    };
    self = argv[0];
    return argc == 3 ? be_doomed(argv[2]) : cmocka_run_group_tests(tests, NULL, NULL);
}
