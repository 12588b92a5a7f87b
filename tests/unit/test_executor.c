// SPDX-License-Identifier: Apache-2.0
// The executor contract on the simulated devices: probe, open, load, execute, refuse in words.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/executor.h"

static struct model_entry entry;

static void echo_model(void)
{
    memset(&entry, 0, sizeof(entry));
    strcpy(entry.dir, "models/echo/1");
    strcpy(entry.config.backend, "null");
    entry.config.batch_max = 8;
    entry.config.ninputs = entry.config.noutputs = 2;
    entry.config.inputs[0] = (struct tensor_spec){"a", SONIC_FP32, 1, {3}};
    entry.config.inputs[1] = (struct tensor_spec){"b", SONIC_INT8, 2, {2, 2}};
    entry.config.outputs[0] = (struct tensor_spec){"c", SONIC_FP32, 1, {3}};
    entry.config.outputs[1] = (struct tensor_spec){"d", SONIC_INT8, 2, {2, 2}};
}

static void echoes(const char *kind, const char *argument)
{
    const struct executor *e = executor_find(kind);
    struct executor_device *d;
    struct executor_model *m;
    uint64_t memory = 99;
    char why[512] = "";
    static const float a[6] = {1, 2, 3, 4, 5, 6};
    static const int8_t b[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    echo_model();
    assert_non_null(e);
    assert_int_equal(e->open(argument, &d, why, sizeof(why)), 0);
    assert_int_equal(e->load(d, &entry, &m, &memory, why, sizeof(why)), 0);
    assert_int_equal(memory, 0);
    struct execution *x = calloc(1, sizeof(*x));
    x->rows = x->ninputs = 2;
    x->inputs[0] = (struct executor_tensor){SONIC_FP32, 2, {2, 3}, a, sizeof(a)};
    x->inputs[1] = (struct executor_tensor){SONIC_INT8, 3, {2, 2, 2}, b, sizeof(b)};
    assert_int_equal(e->execute(m, 0, x), EXECUTOR_OK);
    assert_int_equal(x->noutputs, 2);
    assert_true(x->borrows_inputs);
    assert_null(x->outputs_free);
    assert_ptr_equal(x->outputs[0].data, a);
    assert_int_equal(x->outputs[0].bytes, sizeof(a));
    assert_int_equal(x->outputs[1].dtype, SONIC_INT8);
    assert_int_equal(x->outputs[1].dims[2], 2);
    free(x);
    e->unload(m);
    e->close(d);
}

static void test_null_echoes(void **state)
{
    (void)state;
    echoes("null", "");
    echoes("null", "3");
}

static void test_delay_echoes(void **state)
{
    (void)state;
    echoes("delay", "10");
    echoes("delay", "10,1");
    echoes("delay", "10,1,4");
}

static void refused(const char *kind, const char *argument)
{
    struct device_info info;
    char why[512] = "";
    const struct executor *e = executor_find(kind);
    assert_true(e->probe(argument, &info, why, sizeof(why)) < 0);
    assert_true(strlen(why) > 10);
}

static void test_arguments_that_make_no_sense_are_refused(void **state)
{
    static const char *const kinds[] = {"cpu", "null", "delay"};
    static const char *const bad[] = {"x", "-1", "1x", "99999999999999999999", " 1"};
    (void)state;
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
            refused(kinds[k], bad[i]);
    refused("null", "0");
    refused("null", "1,2");
    refused("cpu", "0");
    refused("cpu", "2,2");
    refused("delay", "1,,2");
    refused("delay", "1,2,0");
    refused("delay", "1,2,3,4");
    refused("delay", "1,");
}

static void test_slots_are_as_asked(void **state)
{
    struct device_info info;
    char why[512];
    (void)state;
    assert_int_equal(executor_find("cpu")->probe("3", &info, why, sizeof(why)), 0);
    assert_int_equal(info.slots, 3);
    assert_true(info.memory_bytes > 0);
    assert_int_equal(executor_find("cpu")->probe("", &info, why, sizeof(why)), 0);
    assert_true(info.slots >= 1);
    assert_int_equal(executor_find("delay")->probe("5,6,7", &info, why, sizeof(why)), 0);
    assert_int_equal(info.slots, 7);
    assert_int_equal(executor_find("null")->probe("", &info, why, sizeof(why)), 0);
    assert_int_equal(info.slots, 1);
}

static void test_a_model_that_cannot_be_echoed_is_refused(void **state)
{
    const struct executor *e = executor_find("null");
    struct executor_device *d;
    struct executor_model *m;
    uint64_t memory;
    char why[512] = "";
    (void)state;
    assert_int_equal(e->open("", &d, why, sizeof(why)), 0);
    echo_model();
    entry.config.outputs[1].dims[1] = 3;
    assert_true(e->load(d, &entry, &m, &memory, why, sizeof(why)) < 0);
    assert_non_null(strstr(why, "models/echo/1"));
    echo_model();
    entry.config.noutputs = 1;
    assert_true(e->load(d, &entry, &m, &memory, why, sizeof(why)) < 0);
    echo_model();
    entry.config.outputs[0].dtype = SONIC_INT32;
    assert_true(e->load(d, &entry, &m, &memory, why, sizeof(why)) < 0);
    e->close(d);
}

static void test_kinds_are_found_by_name(void **state)
{
    (void)state;
    assert_null(executor_find("cpu2"));
    assert_null(executor_find(""));
    size_t n = 0;
    while (executor_at(n)) {
        assert_ptr_equal(executor_find(executor_at(n)->kind), executor_at(n));
        n++;
    }
    assert_true(n >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null_echoes),
        cmocka_unit_test(test_delay_echoes),
        cmocka_unit_test(test_arguments_that_make_no_sense_are_refused),
        cmocka_unit_test(test_slots_are_as_asked),
        cmocka_unit_test(test_a_model_that_cannot_be_echoed_is_refused),
        cmocka_unit_test(test_kinds_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
