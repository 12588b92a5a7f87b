// SPDX-License-Identifier: Apache-2.0
// sonic-submit's command line.
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

#include "client/submit/options.h"
#include "common/exitcode.h"

#define JOB "--model", "facile", "--input", "a.npy", "--output", "o.npy"

static struct options o;
static char why[512];
static int status;

static bool parse(char *first, ...)
{
    static char copies[32][128]; // getopt and the options point into them
    char *argv[33] = {"sonic-submit"};
    int argc = 1;
    va_list ap;
    va_start(ap, first);
    for (char *arg = first; arg && argc < 32; arg = va_arg(ap, char *)) {
        snprintf(copies[argc], sizeof(copies[0]), "%s", arg);
        argv[argc] = copies[argc];
        argc++;
    }
    va_end(ap);
    options_deinit(&o);
    optind = 0; // glibc: begin anew
    return options_parse(argc, argv, &o, &status, why, sizeof(why));
}

static int teardown(void **state)
{
    (void)state;
    options_deinit(&o);
    memset(&o, 0, sizeof(o));
    return 0;
}

static void refused(bool taken, const char *words)
{
    assert_false(taken);
    assert_int_equal(status, EXIT_USAGE);
    if (!strstr(why, words))
        fail_msg("\"%s\" does not say \"%s\"", why, words);
}

static void test_the_main_job(void **state)
{
    (void)state;
    assert_true(parse(JOB, NULL));
    assert_int_equal(o.command, COMMAND_JOB);
    assert_string_equal(o.model, "facile");
    assert_int_equal(o.version, 0);
    assert_int_equal(o.ninputs, 1);
    assert_string_equal(o.inputs[0].path, "a.npy");
    assert_string_equal(o.inputs[0].tensor, "");
    assert_string_equal(o.outputs[0].path, "o.npy");
    assert_int_equal(o.timeout_ms, 60000);
    assert_int_equal(o.shard.count, 0);
    assert_null(o.endpoint);
}

static void test_every_option(void **state)
{
    (void)state;
    assert_true(parse(JOB, "--model=m.2:3", "--batch", "16000", "--window", "7", "--priority", "8",
                      "--deadline", "1.5s", "--tenant", "t", "--shard", "2/16", "--resume",
                      "--force", "--json", "--quiet", "--timeout", "0", "--broker", "ipc:///b",
                      NULL));
    assert_string_equal(o.model, "m.2");
    assert_int_equal(o.version, 3);
    assert_int_equal(o.batch, 16000);
    assert_int_equal(o.window, 7);
    assert_int_equal(o.priority, 8);
    assert_int_equal(o.deadline_us, 1500000);
    assert_string_equal(o.tenant, "t");
    assert_int_equal(o.shard.index, 2);
    assert_int_equal(o.timeout_ms, 0);
    assert_string_equal(o.endpoint, "ipc:///b");
    assert_true(o.resume && o.force && o.json && o.quiet && !o.restart);
}

static void test_many_inputs(void **state)
{
    (void)state;
    assert_true(parse("--model", "m", "--input", "a.npy", "b.npy", "--output", "out", "--input",
                      "c.npy", NULL));
    assert_int_equal(o.ninputs, 3);
    assert_string_equal(o.inputs[1].path, "b.npy");
    assert_string_equal(o.inputs[2].path, "c.npy");
    assert_true(parse("--model", "m", "--input", "x=a.npy", "--input", "./y=1/b.npy", "--output",
                      "e=o.npy", "--output", "=o.npy", NULL));
    assert_string_equal(o.inputs[0].tensor, "x");
    assert_string_equal(o.inputs[0].path, "a.npy");
    assert_string_equal(o.inputs[1].tensor, "");
    assert_string_equal(o.inputs[1].path, "./y=1/b.npy");
    assert_string_equal(o.outputs[0].tensor, "e");
    assert_string_equal(o.outputs[1].path, "=o.npy");
}

static void test_a_list_of_files(void **state)
{
    (void)state;
    char path[] = "/tmp/sonic-list-XXXXXX", at[64];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a.npy\n\nx=b c.npy\r\nlast.npy", 26), 26);
    close(fd);
    snprintf(at, sizeof(at), "@%s", path);
    assert_true(parse("--model", "m", "--output", "o", "--input", at, NULL));
    unlink(path);
    assert_int_equal(o.ninputs, 3);
    assert_string_equal(o.inputs[0].path, "a.npy");
    assert_string_equal(o.inputs[1].tensor, "x");
    assert_string_equal(o.inputs[1].path, "b c.npy");
    assert_string_equal(o.inputs[2].path, "last.npy");
    free((char *)o.inputs[0].path); // the program keeps them until it ends
    free((char *)o.inputs[1].path - 2);
    free((char *)o.inputs[2].path);
    refused(parse("--model", "m", "--output", "o", "--input", "@/tmp/sonic-no-such-list", NULL),
            "this list of files cannot be read");
    refused(parse("--model", "m", "--output", "o", "--input", "@/dev/null", NULL),
            "this list names no file");
}

static void test_commands(void **state)
{
    (void)state;
    assert_true(parse("status", NULL));
    assert_int_equal(o.command, COMMAND_STATUS);
    assert_true(parse("--broker", "ipc:///b", "models", NULL));
    assert_int_equal(o.command, COMMAND_MODELS);
    assert_true(parse("placement", NULL));
    assert_int_equal(o.command, COMMAND_PLACEMENT);
    refused(parse("statsu", NULL), "\"statsu\" is neither a command");
    refused(parse("models", "status", NULL), "one command at a time");
    refused(parse("models", "--json", NULL), "--json belongs to a job");
    assert_true(parse(JOB, "--input", "b.npy", "status", NULL)); // a file of that name
    assert_int_equal(o.command, COMMAND_JOB);
    assert_int_equal(o.ninputs, 3);
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        char *text;
        uint64_t us;
    } good[] = {
        {"30", 30000000}, {"30s", 30000000}, {"500ms", 500000}, {"200us", 200}, {"0.5", 500000}};
    static char *const bad[] = {"", "0", "-1", "5m", "5 s", "nan", "inf", "1e9", "s", "0.1us"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(parse(JOB, "--deadline", good[i].text, NULL));
        assert_int_equal(o.deadline_us, good[i].us);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refused(parse(JOB, "--deadline", bad[i], NULL), "a time such as 30s, 500ms or 200us");
}

static void test_numbers(void **state)
{
    (void)state;
    static char *const bad[][3] = {
        {"--batch", "0", "from 1 to 1073741824"},     {"--batch", "x", "a whole number"},
        {"--window", "1048577", "from 1 to 1048576"}, {"--priority", "9", "from 1 to 8"},
        {"--priority", "-1", "from 1 to 8"},          {"--timeout", "1.5", "a whole number"},
        {"--batch", "99999999999999999999", "whole"}, {"--model", "facile:", "from 1 to"},
        {"--model", "facile:0", "from 1 to"},         {"--model", "facile:latest", "from 1 to"},
        {"--shard", "4/4", "say INDEX/COUNT"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refused(parse(JOB, bad[i][0], bad[i][1], NULL), bad[i][2]);
}

static void test_what_is_missing_or_at_odds(void **state)
{
    (void)state;
    refused(parse(NULL), "--model is missing");
    refused(parse("--model", "m", NULL), "--input is missing");
    refused(parse("--model", "m", "--input", "a", NULL), "--output is missing");
    refused(parse(JOB, "--resume", "--restart", NULL), "exclude each other");
    refused(parse("--model", "m", "--input", "a", "--output", "-", "--json", NULL),
            "both want standard output");
    refused(parse(JOB, "--colour", NULL), "--colour: no such option");
    refused(parse(JOB, "--tenant", NULL), "--tenant: no such option, or its value is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_main_job), cmocka_unit_test(test_every_option),
        cmocka_unit_test(test_many_inputs),  cmocka_unit_test(test_a_list_of_files),
        cmocka_unit_test(test_commands),     cmocka_unit_test(test_times),
        cmocka_unit_test(test_numbers),      cmocka_unit_test(test_what_is_missing_or_at_odds),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
