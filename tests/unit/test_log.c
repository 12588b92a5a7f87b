// SPDX-License-Identifier: Apache-2.0
// A record is one line that can be taken apart again, whatever is in its values.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log.h"

static char got[8192];
static int ends[2], terminal;

static int catch_stderr(void **state)
{
    (void)state;
    terminal = dup(STDERR_FILENO);
    return pipe(ends) || fcntl(ends[0], F_SETFL, O_NONBLOCK) || dup2(ends[1], STDERR_FILENO) < 0;
}

static int give_stderr_back(void **state)
{
    (void)state;
    dup2(terminal, STDERR_FILENO);
    return close(ends[0]) | close(ends[1]) | close(terminal);
}

// What was logged since the last call, from "event=" on.
static const char *logged(void)
{
    ssize_t n = read(ends[0], got, sizeof(got) - 1);
    got[n > 0 ? n : 0] = '\0';
    const char *event = strstr(got, "event=");
    return event ? event : got;
}

static void test_a_record_is_one_line(void **state)
{
    (void)state;
    log_open("test", LOG_LEVEL_INFO);
    log_info("started", "name=%s n=%d", "a\nb\r\x1b[2Jc", 3);
    assert_string_equal(logged(), "event=started name=a b  [2Jc n=3\n");
    assert_non_null(strstr(got, "Z info test event="));
    char large[6000];
    memset(large, 'x', sizeof(large));
    large[sizeof(large) - 1] = '\0';
    log_info("large", "text=\"%s\"", large);
    assert_int_equal(strlen(strchr(logged(), '\n')), 1);
}

static void test_levels(void **state)
{
    (void)state;
    log_open("test", LOG_LEVEL_WARN);
    log_info("quiet", "n=%d", 1);
    assert_string_equal(logged(), "");
    log_error("loud", "n=%d", 1);
    assert_string_equal(logged(), "event=loud n=1\n");
    assert_int_equal(log_level_parse("warn"), LOG_LEVEL_WARN);
    assert_int_equal(log_level_parse("warning"), -1);
}

static void test_quotes_in_a_value_do_not_end_it(void **state)
{
    (void)state;
    log_open("test", LOG_LEVEL_INFO);
    log_info("e", "why=\"%s\" n=%d", "its backend is \"null\", \"x\"", 1);
    assert_string_equal(logged(), "event=e why=\"its backend is 'null', 'x'\" n=1\n");
    log_info("e", "a=1 why=\"%s\"", "\"all\"");
    assert_string_equal(logged(), "event=e a=1 why=\"'all'\"\n");
    log_info("e", "a=\"\" why=\"%s\"", "plain");
    assert_string_equal(logged(), "event=e a=\"\" why=\"plain\"\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_record_is_one_line),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_quotes_in_a_value_do_not_end_it),
    };
    return cmocka_run_group_tests(tests, catch_stderr, give_stderr_back);
}
