// SPDX-License-Identifier: Apache-2.0
// ONNX Runtime behind the executor contract, on the tiny models of tests/unit/models: right numbers
// for any rows, every element type, free dimensions, and words for each way in which a model and
// its config.pbtxt can disagree.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "worker/executor.h"

static const struct executor *cpu;
static struct executor_device *device;
static struct model_entry entry;
static char why[2048];

#define AFFINE                                                                                     \
    "backend: \"onnxruntime\" max_batch_size: 64 "                                                 \
    "input [ { name: \"x\" data_type: TYPE_FP32 dims: [ 3 ] } ] "                                  \
    "output [ { name: \"y\" data_type: TYPE_FP32 dims: [ 3 ] } ]"

static int load(const char *model, const char *config, struct executor_model **m)
{
    uint64_t memory = 0;
    memset(&entry, 0, sizeof(entry));
    why[0] = '\0';
    assert_int_equal(model_config_parse(config, strlen(config), "config.pbtxt", &entry.config, NULL,
                                        NULL, why, sizeof(why)),
                     0);
    snprintf(entry.dir, sizeof(entry.dir), "%s%s/1", model[0] == '/' ? "" : TEST_MODELS "/", model);
    int rc = cpu->load(device, &entry, m, &memory, why, sizeof(why));
    assert_true(rc != 0 || memory > 0);
    return rc;
}

static struct executor_model *loaded(const char *model, const char *config)
{
    struct executor_model *m = NULL;
    int rc = load(model, config, &m);
    if (rc != 0)
        fail_msg("%s", why);
    return m;
}

// Must not load, and say all of these words.
static void refused(const char *model, const char *config, const char *a, const char *b)
{
    struct executor_model *m = NULL;
    assert_true(load(model, config, &m) != 0);
    if (!strstr(why, a) || !strstr(why, b))
        fail_msg("\"%s\" and \"%s\" are not both in: %s", a, b, why);
}

static void affine_rows(struct executor_model *m, uint32_t slot, uint32_t rows, float start)
{
    struct execution *x = calloc(1, sizeof(*x));
    float *in = malloc(rows * 3 * sizeof(float));
    for (uint32_t i = 0; i < rows * 3; i++)
        in[i] = start + (float)i;
    x->rows = rows;
    x->ninputs = 1;
    x->inputs[0] = (struct executor_tensor){SONIC_FP32, 2, {rows, 3}, in, rows * 3 * sizeof(float)};
    if (cpu->execute(m, slot, x) != EXECUTOR_OK)
        fail_msg("%s", x->error);
    assert_int_equal(x->noutputs, 1);
    assert_int_equal(x->outputs[0].ndim, 2);
    assert_int_equal(x->outputs[0].dims[0], rows);
    assert_int_equal(x->outputs[0].dims[1], 3);
    assert_int_equal(x->outputs[0].bytes, rows * 3 * sizeof(float));
    const float *out = x->outputs[0].data;
    for (uint32_t i = 0; i < rows * 3; i++)
        assert_true(out[i] == 2 * in[i] + 1);
    x->outputs_free(x->outputs_owner);
    free(in);
    free(x);
}

static void test_numbers_are_right_for_any_rows(void **state)
{
    (void)state;
    struct executor_model *m = loaded("affine", AFFINE);
    affine_rows(m, 0, 1, 0);
    affine_rows(m, 1, 64, 5);
    affine_rows(m, 0, 7, -3);
    cpu->unload(m);
}

struct worker {
    struct executor_model *m;
    uint32_t slot;
    pthread_t thread;
};

static void *run_many(void *user)
{
    struct worker *w = user;
    for (uint32_t i = 0; i < 500; i++)
        affine_rows(w->m, w->slot, 1 + (i * 7 + w->slot) % 64, (float)w->slot);
    return NULL;
}

static void test_slots_share_one_session(void **state)
{
    struct worker w[4];
    (void)state;
    struct executor_model *m = loaded("affine", AFFINE);
    for (uint32_t i = 0; i < 4; i++) {
        w[i] = (struct worker){.m = m, .slot = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, run_many, &w[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(w[i].thread, NULL);
    cpu->unload(m);
}

static const struct {
    const char *name, *config;
    uint8_t dtype;
} KINDS[] = {
    {"bool", "BOOL", SONIC_BOOL},       {"uint8", "UINT8", SONIC_UINT8},
    {"uint16", "UINT16", SONIC_UINT16}, {"uint32", "UINT32", SONIC_UINT32},
    {"uint64", "UINT64", SONIC_UINT64}, {"int8", "INT8", SONIC_INT8},
    {"int16", "INT16", SONIC_INT16},    {"int32", "INT32", SONIC_INT32},
    {"int64", "INT64", SONIC_INT64},    {"float16", "FP16", SONIC_FP16},
    {"bfloat16", "BF16", SONIC_BF16},   {"float", "FP32", SONIC_FP32},
    {"double", "FP64", SONIC_FP64},
};
#define NKINDS (sizeof(KINDS) / sizeof(KINDS[0]))

static void test_every_element_type_passes_through(void **state)
{
    static uint8_t data[NKINDS][16];
    char config[4096];
    size_t used = (size_t)sprintf(config, "backend: \"onnxruntime\" max_batch_size: 4 ");
    (void)state;
    for (size_t i = 0; i < NKINDS; i++)
        for (int out = 0; out < 2; out++)
            used += (size_t)sprintf(
                config + used, "%s { name: \"%c_%s\" data_type: TYPE_%s dims: [ 2 ] } ",
                out ? "output" : "input", out ? 'o' : 'i', KINDS[i].name, KINDS[i].config);
    struct executor_model *m = loaded("types", config);
    struct execution *x = calloc(1, sizeof(*x));
    x->rows = 1;
    x->ninputs = NKINDS;
    for (size_t i = 0; i < NKINDS; i++) {
        uint64_t bytes = 2 * dtype_bytes(KINDS[i].dtype);
        for (uint64_t k = 0; k < bytes; k++)
            data[i][k] = KINDS[i].dtype == SONIC_BOOL ? 1 : (uint8_t)(17 * i + k);
        x->inputs[i] = (struct executor_tensor){KINDS[i].dtype, 2, {1, 2}, data[i], bytes};
    }
    if (cpu->execute(m, 0, x) != EXECUTOR_OK)
        fail_msg("%s", x->error);
    assert_int_equal(x->noutputs, NKINDS);
    for (size_t i = 0; i < NKINDS; i++) {
        assert_int_equal(x->outputs[i].dtype, KINDS[i].dtype);
        assert_int_equal(x->outputs[i].bytes, x->inputs[i].bytes);
        assert_memory_equal(x->outputs[i].data, data[i], x->inputs[i].bytes);
    }
    x->outputs_free(x->outputs_owner);
    free(x);
    cpu->unload(m);
}

static void test_free_dimensions_are_the_requests(void **state)
{
    static const float in[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    (void)state;
    struct executor_model *m =
        loaded("free", "backend: \"onnxruntime\" max_batch_size: 8 "
                       "input [ { name: \"x\" data_type: TYPE_FP32 dims: [ -1 ] } ] "
                       "output [ { name: \"y\" data_type: TYPE_FP32 dims: [ -1 ] } ]");
    struct execution *x = calloc(1, sizeof(*x));
    for (uint32_t rows = 1; rows <= 4; rows++) {
        uint64_t n = 12 / rows;
        x->rows = rows;
        x->ninputs = 1;
        x->inputs[0] =
            (struct executor_tensor){SONIC_FP32, 2, {rows, n}, in, rows * n * sizeof(float)};
        if (cpu->execute(m, 0, x) != EXECUTOR_OK)
            fail_msg("%s", x->error);
        assert_int_equal(x->outputs[0].dims[1], n);
        assert_int_equal(x->outputs[0].bytes, sizeof(in));
        assert_memory_equal(x->outputs[0].data, in, sizeof(in));
        x->outputs_free(x->outputs_owner);
    }
    free(x);
    cpu->unload(m);
}

static void test_reshape_is_what_the_runtime_sees(void **state)
{
    (void)state;
    struct executor_model *m =
        loaded("affine", "backend: \"onnxruntime\" max_batch_size: 8 "
                         "input [ { name: \"x\" data_type: TYPE_FP32 dims: [ 1, 3 ] "
                         "reshape: { shape: [ 3 ] } } ] "
                         "output [ { name: \"y\" data_type: TYPE_FP32 dims: [ 3, 1 ] "
                         "reshape: { shape: [ 3 ] } } ]");
    static const float in[6] = {1, 2, 3, 4, 5, 6};
    struct execution *x = calloc(1, sizeof(*x));
    x->rows = 2;
    x->ninputs = 1;
    x->inputs[0] = (struct executor_tensor){SONIC_FP32, 3, {2, 1, 3}, in, sizeof(in)};
    if (cpu->execute(m, 0, x) != EXECUTOR_OK)
        fail_msg("%s", x->error);
    assert_int_equal(x->outputs[0].ndim, 3);
    assert_int_equal(x->outputs[0].dims[0], 2);
    assert_int_equal(x->outputs[0].dims[1], 3);
    assert_int_equal(x->outputs[0].dims[2], 1);
    assert_true(((const float *)x->outputs[0].data)[5] == 13);
    x->outputs_free(x->outputs_owner);
    free(x);
    cpu->unload(m);
}

static void test_disagreement_is_told_in_words(void **state)
{
    (void)state;
#define IO(in, out)                                                                                \
    "backend: \"onnxruntime\" max_batch_size: 8 input [ { " in " } ] output [ { " out " } ]"
#define GOOD_IN "name: \"x\" data_type: TYPE_FP32 dims: [ 3 ]"
#define GOOD_OUT "name: \"y\" data_type: TYPE_FP32 dims: [ 3 ]"
    refused("affine", IO("name: \"z\" data_type: TYPE_FP32 dims: [ 3 ]", GOOD_OUT), "\"z\"",
            "\"x\"");
    refused("affine", IO("name: \"x\" data_type: TYPE_FP32 dims: [ 4 ]", GOOD_OUT), "FP32[any,3]",
            "FP32[rows,4]");
    refused("affine", IO("name: \"x\" data_type: TYPE_FP32 dims: [ 3, 1 ]", GOOD_OUT), "\"x\"",
            "config.pbtxt");
    refused("affine", IO("name: \"x\" data_type: TYPE_FP32 dims: [ -1 ]", GOOD_OUT), "\"x\"",
            "FP32[rows,any]");
    refused("affine", IO("name: \"x\" data_type: TYPE_INT8 dims: [ 3 ]", GOOD_OUT), "INT8", "FP32");
    refused("affine", IO(GOOD_IN, "name: \"w\" data_type: TYPE_FP32 dims: [ 3 ]"), "output \"w\"",
            "\"y\"");
    refused("affine", IO(GOOD_IN, "name: \"y\" data_type: TYPE_FP32 dims: [ 2 ]"), "output \"y\"",
            "model.onnx");
    refused("types",
            IO("name: \"i_bool\" data_type: TYPE_BOOL dims: [ 2 ]",
               "name: \"o_bool\" data_type: TYPE_BOOL dims: [ 2 ]"),
            "\"i_uint8\"", "not declared");
}

static void test_files_that_are_no_models_are_told_in_words(void **state)
{
    char dir[] = "/tmp/sonic-test-XXXXXX", path[128];
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/1", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    refused(dir, AFFINE, "model.onnx", "No such file");
    snprintf(path, sizeof(path), "%s/1/model.onnx", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("this is no model", file);
    fclose(file);
    refused(dir, AFFINE, "model.onnx", "corrupt");
    unlink(path);
    snprintf(path, sizeof(path), "%s/1", dir);
    rmdir(path);
    rmdir(dir);
}

static int open_cpu(void **state)
{
    (void)state;
    cpu = executor_find("cpu");
    return cpu->open("4", &device, why, sizeof(why));
}

static int close_cpu(void **state)
{
    (void)state;
    cpu->close(device);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_are_right_for_any_rows),
        cmocka_unit_test(test_slots_share_one_session),
        cmocka_unit_test(test_every_element_type_passes_through),
        cmocka_unit_test(test_free_dimensions_are_the_requests),
        cmocka_unit_test(test_reshape_is_what_the_runtime_sees),
        cmocka_unit_test(test_disagreement_is_told_in_words),
        cmocka_unit_test(test_files_that_are_no_models_are_told_in_words),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
