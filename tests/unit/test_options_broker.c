// SPDX-License-Identifier: Apache-2.0
// sonic-broker's command line and its ZPL file.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/options.h"
#include "common/exitcode.h"

#define ENDS "--client", "ipc:///c", "--worker", "ipc:///w"

static struct broker_options o;
static char why[512];
static int status;

// Parses; the arguments end with NULL.
static int parse(char *first, ...)
{
    char *argv[32] = {"sonic-broker"};
    int argc = 1;
    va_list ap;
    va_start(ap, first);
    for (char *arg = first; arg && argc < 31; arg = va_arg(ap, char *))
        argv[argc++] = arg;
    va_end(ap);
    optind = 0; // glibc: begin anew
    return options_parse(argc, argv, &o, &status, why, sizeof(why));
}

static void test_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse(ENDS, NULL), 0);
    assert_int_equal(status, 0);
    assert_int_equal(o.nclient_endpoints, 1);
    assert_string_equal(o.client_endpoints[0], "ipc:///c");
    assert_string_equal(o.worker_endpoints[0], "ipc:///w");
    assert_string_equal(o.farm_name, "default");
    assert_string_equal(o.name, "broker");
    assert_int_equal(o.memory_bytes, 2ull << 30);
    assert_int_equal(o.slab_bytes, 256ull << 20);
    assert_null(o.redis_url);
    assert_null(o.models);
    assert_false(o.insecure);
}

static void test_slabs_of_every_size(void **state)
{
    (void)state;
    assert_int_equal(parse(ENDS, "--slabs", "0", NULL), 0);
    assert_int_equal(o.slab_bytes, 0);
    assert_int_equal(parse(ENDS, "--slabs", "1G", NULL), 0);
    assert_int_equal(o.slab_bytes, 1ull << 30);
    char *const none[] = {"1", "1023K", "2G", "", "many", "-1", "00"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        assert_int_equal(parse(ENDS, "--slabs", none[i], NULL), -1);
        assert_int_equal(status, EXIT_USAGE);
        assert_non_null(strstr(why, "--slabs"));
    }
}

static void test_every_option(void **state)
{
    (void)state;
    assert_int_equal(parse(ENDS, "--client=tcp://127.0.0.1:1", "--models", "/m", "--memory", "3G",
                           "--redis", "unix:///r", "--farm", "cern", "--name", "b1", "--insecure",
                           "--log", "error", NULL),
                     0);
    assert_int_equal(o.nclient_endpoints, 2);
    assert_string_equal(o.client_endpoints[1], "tcp://127.0.0.1:1");
    assert_string_equal(o.models, "/m");
    assert_int_equal(o.memory_bytes, 3ull << 30);
    assert_string_equal(o.redis_url, "unix:///r");
    assert_string_equal(o.farm_name, "cern");
    assert_string_equal(o.name, "b1");
    assert_true(o.insecure);
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        char *text;
        uint64_t bytes;
    } good[] = {{"1048576", 1 << 20}, {"1024K", 1 << 20}, {"1M", 1 << 20}, {"2T", 2ull << 40}};
    static char *const bad[] = {"",
                                "0",
                                "1048575",
                                "-1",
                                " -5",
                                "1X",
                                "1MB",
                                "1.5G",
                                "M",
                                "16777216T",
                                "99999999999999999999"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(parse(ENDS, "--memory", good[i].text, NULL), 0);
        assert_int_equal(o.memory_bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parse(ENDS, "--memory", bad[i], NULL), -1);
        assert_int_equal(status, EXIT_USAGE);
        assert_non_null(strstr(why, "--memory: \""));
    }
}

static void check_usage(const char *words)
{
    assert_int_equal(status, EXIT_USAGE);
    if (!strstr(why, words))
        fail_msg("\"%s\" does not say \"%s\"", why, words);
}

static void test_what_is_wrong_is_said(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL), -1);
    check_usage("--client is missing");
    assert_int_equal(parse("--client", "ipc:///c", NULL), -1);
    check_usage("--worker is missing");
    assert_int_equal(parse(ENDS, "--colour", NULL), -1);
    check_usage("--colour: unknown option or missing value");
    assert_int_equal(parse(ENDS, "--models", NULL), -1);
    check_usage("--models: unknown option or missing value");
    assert_int_equal(parse(ENDS, "more", NULL), -1);
    check_usage("\"more\" is no option");
    assert_int_equal(parse(ENDS, "--name", "a b", NULL), -1);
    check_usage("--name: \"a b\" is no name");
    assert_int_equal(parse(ENDS, "--farm", "", NULL), -1);
    check_usage("--farm: \"\" is no name");
    assert_int_equal(parse(ENDS, "--log", "loud", NULL), -1);
    check_usage("--log: \"loud\" makes no sense");
    assert_int_equal(parse(ENDS, "--client", "a", "--client", "a", "--client", "a", "--client", "a",
                           "--client", "a", "--client", "a", "--client", "a", "--client", "a",
                           NULL),
                     -1);
    check_usage("--client: \"a\" makes no sense");
}

// ---- the file -----------------------------------------------------------------------------------

static char *config(const char *text)
{
    static char path[] = "/tmp/sonic-broker-XXXXXX";
    strcpy(path, "/tmp/sonic-broker-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    return path;
}

static int parse_file(const char *text, char *option, char *value)
{
    char *path = config(text);
    int rc = parse("--config", path, option, value, NULL);
    unlink(path);
    return rc;
}

static void test_a_file(void **state)
{
    (void)state;
    static const char text[] = "client = \"ipc:///fc\"\nworker = ipc:///fw\nname = b2\n"
                               "memory = 4M\ninsecure = 1\n";
    assert_int_equal(parse_file(text, NULL, NULL), 0);
    assert_string_equal(o.client_endpoints[0], "ipc:///fc");
    assert_string_equal(o.worker_endpoints[0], "ipc:///fw");
    assert_string_equal(o.name, "b2");
    assert_int_equal(o.memory_bytes, 4 << 20);
    assert_true(o.insecure);
}

static void test_the_command_line_wins(void **state)
{
    (void)state;
    static const char text[] = "client = \"ipc:///f1\"\nworker = \"ipc:///fw\"\nname = b2\n";
    assert_int_equal(parse_file(text, "--name", "b3"), 0);
    assert_string_equal(o.name, "b3");
    assert_int_equal(parse_file(text, "--client", "ipc:///c"), 0);
    assert_int_equal(o.nclient_endpoints, 1);
    assert_string_equal(o.client_endpoints[0], "ipc:///c");
    assert_string_equal(o.worker_endpoints[0], "ipc:///fw");
}

// Saying no in the file must not open the farm to everybody.
static void test_insecure_takes_yes_and_no(void **state)
{
    (void)state;
#define FILE_WITH(value) "client = a\nworker = b\ninsecure = " value "\n"
    assert_int_equal(parse_file(FILE_WITH("0"), NULL, NULL), 0);
    assert_false(o.insecure);
    assert_int_equal(parse_file(FILE_WITH("false"), NULL, NULL), 0);
    assert_false(o.insecure);
    assert_int_equal(parse_file(FILE_WITH("true"), NULL, NULL), 0);
    assert_true(o.insecure);
    assert_int_equal(parse_file(FILE_WITH("perhaps"), NULL, NULL), -1);
    assert_int_equal(status, EXIT_BAD_INPUT);
    assert_non_null(strstr(why, "--insecure: \"perhaps\" makes no sense"));
}

static void test_files_that_cannot_be_used(void **state)
{
    (void)state;
    assert_int_equal(parse("--config", "/tmp/sonic-no-such-file", NULL), -1);
    assert_int_equal(status, EXIT_BAD_INPUT);
    assert_non_null(strstr(why, "cannot read /tmp/sonic-no-such-file"));
    assert_int_equal(parse_file("colour = red\n", NULL, NULL), -1);
    assert_int_equal(status, EXIT_BAD_INPUT);
    assert_non_null(strstr(why, "there is no option \"colour\""));
    assert_int_equal(parse_file("config = other\n", NULL, NULL), -1);
    assert_non_null(strstr(why, "there is no option \"config\""));
    assert_int_equal(parse_file("memory = much\n", NULL, NULL), -1);
    assert_non_null(strstr(why, "--memory: \"much\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_option),
        cmocka_unit_test(test_slabs_of_every_size),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_what_is_wrong_is_said),
        cmocka_unit_test(test_a_file),
        cmocka_unit_test(test_the_command_line_wins),
        cmocka_unit_test(test_insecure_takes_yes_and_no),
        cmocka_unit_test(test_files_that_cannot_be_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
