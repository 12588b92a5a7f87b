// SPDX-License-Identifier: Apache-2.0
// A model's declaration against requests, on the wire and against another worker's. What comes from
// a peer goes through the real codec first, as a broker would see it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model_config.h"
#include "common/model_repository.h"

static struct model_config config, other; // large
static struct wire_join_item item;
static char why[512];

static void parse(const char *text, struct model_config *c)
{
    if (model_config_parse(text, strlen(text), "m", c, NULL, NULL, why, sizeof(why)) != 0)
        fail_msg("%s", why);
}

static int set_up(void **state)
{
    (void)state;
    why[0] = '\0';
    parse("name: 'facile' backend: 'null' max_batch_size: 65536 "
          "input { name: 'channels' data_type: TYPE_FP32 dims: 47 } "
          "input { name: 'hits' data_type: TYPE_UINT16 dims: [ -1, 2 ] } "
          "output { name: 'energy' data_type: TYPE_FP32 dims: 1 } "
          "dynamic_batching { preferred_batch_size: [ 16, 32 ] max_queue_delay_microseconds: 100 "
          "  priority_levels: 3 default_priority_level: 2 default_queue_policy { "
          "  default_timeout_microseconds: 7 max_queue_size: 9 } } "
          "parameters { key: 'sonic_default_batch' value { string_value: '100' } }",
          &config);
    model_config_to_wire(&config, &item);
    return 0;
}

// ---- requests -----------------------------------------------------------------------------------

static struct tensor tensor(unsigned dtype, unsigned ndim, const uint64_t *dims)
{
    struct tensor t = {.dtype = (uint8_t)dtype, .ndim = (uint8_t)ndim};
    memcpy(t.dims, dims, ndim * sizeof(*dims));
    assert_true(tensor_bytes(dtype, ndim, dims, &t.bytes));
    return t;
}
#define TENSOR(dtype, ...)                                                                         \
    tensor(dtype, sizeof((uint64_t[]){__VA_ARGS__}) / 8, (uint64_t[]){__VA_ARGS__})

static bool check(struct tensor a, struct tensor b, uint32_t *rows, uint64_t *bytes)
{
    const struct tensor tensors[] = {a, b};
    return model_check_tensors(&config, config.inputs, config.ninputs, tensors, 2, rows, bytes, why,
                               sizeof(why));
}

static void test_takes_what_is_declared(void **state)
{
    uint32_t rows;
    uint64_t bytes;
    (void)state;
    assert_true(check(TENSOR(SONIC_FP32, 5, 47), TENSOR(SONIC_UINT16, 5, 9, 2), &rows, &bytes));
    assert_int_equal(rows, 5);
    assert_int_equal(bytes, 5 * 47 * 4 + 5 * 9 * 2 * 2);
    assert_true(
        check(TENSOR(SONIC_FP32, 65536, 47), TENSOR(SONIC_UINT16, 65536, 1, 2), &rows, &bytes));
}

static void test_words_say_which_tensor_what_came_and_what_is_taken(void **state)
{
    static const uint64_t dims[] = {5, 2};
    uint32_t rows;
    uint64_t bytes;
    struct tensor hits = TENSOR(SONIC_UINT16, 5, 9, 2);
    (void)state;
    assert_false(check(TENSOR(SONIC_FP32, 5, 46), hits, &rows, &bytes));
    assert_string_equal(why,
                        "input \"channels\": got FP32[5,46], the model takes FP32[1..65536,47]");
    assert_false(check(TENSOR(SONIC_FP64, 5, 47), hits, &rows, &bytes));
    assert_string_equal(why,
                        "input \"channels\": got FP64[5,47], the model takes FP32[1..65536,47]");
    assert_false(check(TENSOR(SONIC_FP32, 47), hits, &rows, &bytes));
    assert_string_equal(why, "input \"channels\": got FP32[47], the model takes FP32[1..65536,47]");
    assert_false(check(TENSOR(SONIC_FP32, 5, 47), TENSOR(SONIC_UINT16, 5, 9, 3), &rows, &bytes));
    assert_string_equal(
        why, "input \"hits\": got UINT16[5,9,3], the model takes UINT16[1..65536,any,2]");
    assert_false(check(TENSOR(SONIC_FP32, 6, 47), hits, &rows, &bytes));
    assert_string_equal(why, "input \"hits\" has 5 rows, \"channels\" has 6");
    assert_false(check(TENSOR(SONIC_FP32, 0, 47), TENSOR(SONIC_UINT16, 0, 9, 2), &rows, &bytes));
    assert_string_equal(why, "0 rows in one request, allowed are 1 to 65536 (max_batch_size)");
    assert_false(
        check(TENSOR(SONIC_FP32, 65537, 47), TENSOR(SONIC_UINT16, 65537, 1, 2), &rows, &bytes));
    assert_string_equal(why, "65537 rows in one request, allowed are 1 to 65536 (max_batch_size)");
    assert_false(
        check(TENSOR(SONIC_FP32, 5, 47), TENSOR(SONIC_UINT16, 5, 1ull << 40, 2), &rows, &bytes));
    assert_string_equal(why, "input \"hits\" is over 268435456 bytes: send fewer rows at once");
    assert_false(
        model_check_tensors(&config, config.inputs, 2, &hits, 1, &rows, &bytes, why, sizeof(why)));
    assert_string_equal(why, "1 input came, the model has 2");
    struct tensor energy = tensor(SONIC_FP32, 2, dims);
    assert_false(model_check_tensors(&config, config.outputs, 1, &energy, 1, &rows, &bytes, why,
                                     sizeof(why)));
    assert_string_equal(why, "output \"energy\": got FP32[5,2], the model gives FP32[1..65536,1]");
}

static void test_without_a_batch_dimension(void **state)
{
    uint32_t rows = 0;
    uint64_t bytes = 0;
    struct tensor t = TENSOR(SONIC_INT8, 3, 2);
    (void)state;
    parse("backend: 'null' input { name: 'x' data_type: TYPE_INT8 dims: [ 3, -1 ] } "
          "output { name: 'y' data_type: TYPE_INT8 dims: 1 }",
          &config);
    assert_true(
        model_check_tensors(&config, config.inputs, 1, &t, 1, &rows, &bytes, why, sizeof(why)));
    assert_int_equal(rows, 1);
    assert_int_equal(bytes, 6);
    t = TENSOR(SONIC_INT8, 1, 3, 2);
    assert_false(
        model_check_tensors(&config, config.inputs, 1, &t, 1, &rows, &bytes, why, sizeof(why)));
    assert_string_equal(why, "input \"x\": got INT8[1,3,2], the model takes INT8[3,any]");
}

// ---- the wire -----------------------------------------------------------------------------------

static void same_declaration(const struct model_config *a, const struct model_config *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->version, b->version);
    assert_int_equal(a->batch_max, b->batch_max);
    assert_int_equal(a->default_rows, b->default_rows);
    assert_int_equal(a->queue_delay_us, b->queue_delay_us);
    assert_int_equal(a->npreferred, b->npreferred);
    assert_memory_equal(a->preferred, b->preferred, a->npreferred * sizeof(uint32_t));
    assert_int_equal(a->priority_levels, b->priority_levels);
    assert_int_equal(a->default_priority, b->default_priority);
    assert_int_equal(a->default_deadline_us, b->default_deadline_us);
    assert_int_equal(a->queue_max, b->queue_max);
    assert_true(model_config_agrees(a, b, why, sizeof(why)));
}

static void test_travels_in_join_and_catalog(void **state)
{
    static struct wire_catalog_item catalog;
    struct wire_header *h = wire_header_new();
    struct wire_decoder *d = wire_decoder_new();
    struct wire_message *m;
    const struct wire_catalog fields = {.id = 1};
    size_t len;
    (void)state;
    config.version = 3;
    model_config_to_wire(&config, &item);
    assert_true(model_config_from_wire(&item, &other, why, sizeof(why)));
    same_declaration(&config, &other);
    model_config_to_catalog(&config, &catalog);
    wire_begin_catalog(h, &fields);
    assert_true(wire_add_catalog(h, &catalog));
    const void *bytes = wire_finish(h, &len);
    assert_int_equal(wire_decode(d, bytes, len, WIRE_FROM_BROKER, &m), WIRE_OK);
    assert_int_equal(m->nitems, 1);
    assert_true(model_config_from_catalog(&m->items.catalog[0], &other, why, sizeof(why)));
    same_declaration(&config, &other);
    wire_header_free(h);
    wire_decoder_free(d);
}

static void refused(const char *words)
{
    assert_false(model_config_from_wire(&item, &other, why, sizeof(why)));
    assert_string_equal(why, words);
    model_config_to_wire(&config, &item); // sound again
}

static void test_names_from_a_peer_are_verified(void **state)
{
    static const char *const names[] = {"", ".x", "../x", "a/b", "Facile", "a b", "a\nb"};
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        item.name = wire_str(names[i]);
        refused("a model's name is 1 to 64 of a-z 0-9 . _ - without a leading dot");
    }
    strcpy(item.inputs.at[1].name, "a b");
    refused("an input has no usable name");
    item.outputs.at[0].name[0] = '\0';
    refused("an output has no usable name");
    memset(item.inputs.at[0].name, 'x', sizeof(item.inputs.at[0].name)); // not terminated
    refused("an input has no usable name");
    strcpy(item.inputs.at[1].name, "channels");
    refused("two inputs are named \"channels\"");
}

static void test_specs_from_a_peer_are_verified(void **state)
{
    (void)state;
    item.inputs.n = 0;
    refused("0 inputs are declared; 1 to 16 are possible");
    item.outputs.n = SONIC_TENSORS_MAX + 1;
    refused("17 outputs are declared; 1 to 16 are possible");
    item.inputs.at[0].dtype = 99;
    refused("input \"channels\" is of no known type or has over 7 dimensions");
    item.inputs.at[0].ndim = SONIC_DIMS_MAX;
    refused("input \"channels\" is of no known type or has over 7 dimensions");
    item.inputs.at[0].dims[0] = 0;
    refused("input \"channels\" has a dimension of 0");
    item.inputs.at[0].dims[0] = MODEL_DIM_MAX + 1;
    refused("input \"channels\" has a dimension of 1099511627777");
    item.outputs.at[0].dims[0] = MODEL_DIM_MAX;
    refused("one row of output \"energy\" is over 268435456 bytes");
    item.inputs.at[0].dims[0] = INT64_MIN;
    assert_true(model_config_from_wire(&item, &other, why, sizeof(why)));
    assert_int_equal(other.inputs[0].dims[0], -1);
}

static void test_numbers_from_a_peer_are_verified(void **state)
{
    (void)state;
    item.batch_max = UINT32_MAX;
    refused("max_batch_size is 4294967295, rows by default are 100");
    item.default_rows = 65537;
    refused("max_batch_size is 65536, rows by default are 65537");
    item.preferred.at[1] = 0;
    refused("preferred_batch_size 0 is not within max_batch_size 65536");
    item.preferred.at[0] = 65537;
    refused("preferred_batch_size 65537 is not within max_batch_size 65536");
    item.default_priority = 4;
    refused("default_priority_level 4 is not within priority_levels 3");
    item.priority_levels = 9;
    refused("default_priority_level 2 is not within priority_levels 9");
    item.queue_delay_us = UINT64_MAX;
    refused("a delay or timeout is over a day");
    item.default_deadline_us = UINT64_MAX;
    refused("a delay or timeout is over a day");
    item.preferred.n = 1000; // no decoder lets this through; it is cut, not read
    assert_false(model_config_from_wire(&item, &other, why, sizeof(why)));
}

// ---- agreement ----------------------------------------------------------------------------------

static void differ(const char *words)
{
    assert_false(model_config_agrees(&config, &other, why, sizeof(why)));
    assert_string_equal(why, words);
    other = config;
}

static void test_agreement_names_the_difference(void **state)
{
    (void)state;
    other = config;
    assert_true(model_config_agrees(&config, &other, why, sizeof(why)));
    other.batch_max = 8;
    differ("the farm knows max_batch_size 65536, this worker declares 8");
    other.inputs[0].dims[0] = 48;
    differ("the farm knows tensor \"channels\" FP32[rows,47], this worker declares \"channels\" "
           "FP32[rows,48]");
    strcpy(other.outputs[0].name, "e");
    differ("the farm knows tensor \"energy\" FP32[rows,1], this worker declares \"e\" "
           "FP32[rows,1]");
    other.ninputs = 1;
    differ("2 tensors here, 1 there");
    // What is an operator's choice may differ between workers.
    other.queue_delay_us = 5;
    other.default_rows = 5;
    assert_true(model_config_agrees(&config, &other, why, sizeof(why)));
}

static void test_instances_are_counted_by_kind_and_gpu(void **state)
{
    (void)state;
    static struct model_config c;
    memset(&c, 0, sizeof(c));
    assert_int_equal(model_config_instances(&c, INSTANCE_GPU, 0, 7), 7); // it has no groups
    c.ngroups = 3;
    c.groups[0] = (struct model_instances){.kind = INSTANCE_CPU, .count = 2};
    c.groups[1] =
        (struct model_instances){.kind = INSTANCE_GPU, .count = 3, .ngpus = 2, .gpus = {1, 4}};
    c.groups[2] = (struct model_instances){.kind = INSTANCE_GPU, .ngpus = 1, .gpus = {4}};
    assert_int_equal(model_config_instances(&c, INSTANCE_CPU, -1, 7), 2);
    assert_int_equal(model_config_instances(&c, INSTANCE_FPGA, -1, 7), 0);
    assert_int_equal(model_config_instances(&c, INSTANCE_GPU, 0, 7), 0);
    assert_int_equal(model_config_instances(&c, INSTANCE_GPU, 1, 7), 3);
    assert_int_equal(model_config_instances(&c, INSTANCE_GPU, 4, 7), 10);
    assert_int_equal(model_config_instances(&c, INSTANCE_GPU, -1, 7), 10); // named by its UUID
    assert_int_equal(model_config_instances(&c, INSTANCE_AUTO, -1, 7), 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_takes_what_is_declared, set_up),
        cmocka_unit_test_setup(test_words_say_which_tensor_what_came_and_what_is_taken, set_up),
        cmocka_unit_test_setup(test_without_a_batch_dimension, set_up),
        cmocka_unit_test_setup(test_travels_in_join_and_catalog, set_up),
        cmocka_unit_test_setup(test_names_from_a_peer_are_verified, set_up),
        cmocka_unit_test_setup(test_specs_from_a_peer_are_verified, set_up),
        cmocka_unit_test_setup(test_numbers_from_a_peer_are_verified, set_up),
        cmocka_unit_test_setup(test_agreement_names_the_difference, set_up),
        cmocka_unit_test(test_instances_are_counted_by_kind_and_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
