// SPDX-License-Identifier: Apache-2.0
// The native kernel's arithmetic, by the host's compiler: against what ONNX Runtime gave for
// recorded channels and gives for the built model, against plain sums in double over the network
// and the rows of the FPGA's vectors, and against what hls4ml gave for these. And the reader of its
// weights.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fpga/fixed_reference.h"
#include "tests/kernels/float_vectors.h"
#include "worker/executor.h"
#include "worker/kernels/facile_launch.h"

static struct float_vectors vectors;
static char why[2048];

static void agrees(const float *weights, const float *expected, const char *whose)
{
    for (uint32_t i = 0; i < vectors.rows; i++) {
        float got = facile_row(vectors.channels + i * FACILE_INPUTS, weights);
        if (!float_vectors_agree(got, expected[i]))
            fail_msg("row %u: %.9g, %s gives %.9g", i, (double)got, whose, (double)expected[i]);
    }
}

static void equals_onnxruntime_on_recorded_rows(void **state)
{
    uint32_t nans = 0, low = 0, high = 0;
    (void)state;
    agrees(vectors.weights, vectors.energies, "ONNX Runtime");
    for (uint32_t i = 0; i < vectors.rows; i++) {
        nans += isnan(vectors.energies[i]);
        low += vectors.energies[i] < 3;
        high += vectors.energies[i] > 100;
    }
    assert_true(nans > 10 && low > 10 && high > 10); // else the rows are too tame
}

static void equals_onnxruntime_on_the_built_model(void **state)
{
    static struct model_entry entry;
    static char text[16384];
    static float weights[FACILE_WEIGHTS];
    const char *built = getenv("SONIC_MODELS_DIR");
    char path[sizeof(entry.dir) + 32];
    uint64_t memory;
    (void)state;
    snprintf(path, sizeof(path), "%s/facile/config.pbtxt", built ? built : TEST_BUILT_MODELS);
    FILE *file = fopen(path, "r");
    if (!file) {
        print_message("no built models: %s (make models)\n", path);
        skip();
    }
    size_t n = fread(text, 1, sizeof(text), file);
    fclose(file);
    assert_int_equal(model_config_parse(text, n, path, &entry.config, NULL, NULL, why, sizeof(why)),
                     0);
    snprintf(entry.dir, sizeof(entry.dir), "%s/facile/1", built ? built : TEST_BUILT_MODELS);
    snprintf(path, sizeof(path), "%s/" FACILE_FILE, entry.dir);
    if (facile_weights_read(path, weights, why, sizeof(why)) != 0)
        fail_msg("%s", why);
    const struct executor *cpu = executor_find("cpu");
    struct executor_device *device = NULL;
    struct executor_model *m = NULL;
    assert_int_equal(cpu->open("1", &device, why, sizeof(why)), 0);
    if (cpu->load(device, &entry, &m, &memory, why, sizeof(why)) != 0)
        fail_msg("%s", why);
    struct execution *x = calloc(1, sizeof(*x));
    x->rows = vectors.rows;
    x->ninputs = 1;
    x->inputs[0] = (struct executor_tensor){SONIC_FP32,
                                            2,
                                            {vectors.rows, FACILE_INPUTS},
                                            vectors.channels,
                                            vectors.rows * FACILE_INPUTS * sizeof(float)};
    assert_int_equal(cpu->execute(m, 0, x), EXECUTOR_OK);
    assert_int_equal(x->outputs[0].bytes, vectors.rows * sizeof(float));
    agrees(weights, x->outputs[0].data, "ONNX Runtime");
    x->outputs_free(x->outputs_owner);
    free(x);
    cpu->unload(m);
    cpu->close(device);
}

// ---- the FPGA's vectors -------------------------------------------------------------------------

#define ONE 1024.0
#define UNIT_GEV 32.0 // of the fixed point's output

// In double, plainly: value[j] = bias + sum; and what bounds a float's error and the fixed point's.
struct plain {
    double value[FIXED_WIDTH_MAX];
    double size[FIXED_WIDTH_MAX];  // the sum of all that is added, without signs
    double floor[FIXED_WIDTH_MAX]; // what flooring each product can have taken off
    bool wraps;                    // or may: some sum leaves the fixed point's range
};

static void plain_layer(const struct fixed_network *n, uint32_t l, struct plain *p)
{
    struct plain in = *p;
    uint32_t ins = n->width[l], outs = n->width[l + 1];
    for (uint32_t j = 0; j < outs; j++) {
        double b = n->bias[l][j] / ONE;
        p->value[j] = b;
        p->size[j] = fabs(b);
        p->floor[j] = 0;
        for (uint32_t k = 0; k < ins; k++) {
            double w = n->weight[l][k * outs + j] / ONE;
            p->value[j] += w * in.value[k];
            p->size[j] += fabs(w) * in.size[k];
            p->floor[j] += fabs(w) * in.floor[k] + 1 / ONE;
            p->wraps |=
                fabs(w * in.value[k]) + p->floor[j] >= 32 || fabs(p->value[j]) + p->floor[j] >= 32;
        }
        if (l + 1 < n->nlayers && p->value[j] < 0)
            p->value[j] = 0;
    }
}

// The network in the kernel's layout, energies in GeV.
static void pack(const struct fixed_network *n, float *weights)
{
    static const uint32_t AT[] = {FACILE_LAYER1, FACILE_LAYER2, FACILE_LAYER3};
    memset(weights, 0, FACILE_WEIGHTS * sizeof(*weights));
    for (uint32_t l = 0; l < 3; l++) {
        uint32_t outs = n->width[l + 1], pad = FACILE_PAD(outs);
        for (uint32_t j = 0; j < outs; j++)
            weights[AT[l] + j] = n->bias[l][j] / (float)ONE;
        for (uint32_t i = 0; i < n->width[l] * outs; i++)
            weights[AT[l] + (1 + i / outs) * pad + i % outs] = n->weight[l][i] / (float)ONE;
    }
    for (uint32_t k = 0; k < FACILE_N3; k++)
        weights[FACILE_LAYER4 + k] = n->weight[3][k] * (float)(UNIT_GEV / ONE);
    weights[FACILE_LAYER4 + FACILE_N3] = n->bias[3][0] * (float)(UNIT_GEV / ONE);
}

static double clamp(double gev)
{
    return gev < 0.01 ? 0.01 : gev > 1000 ? 1000 : gev;
}

static void agrees_with_the_fixed_point_vectors(void **state)
{
    static float weights[FACILE_WEIGHTS];
    struct fixed_network n;
    uint64_t random = 1;
    uint32_t unwrapped = 0, inside = 0;
    (void)state;
    assert_int_equal(fixed_read(&n, TEST_VECTORS), 0);
    assert_int_equal(n.nlayers, 4);
    assert_int_equal(n.width[1], FACILE_N1);
    assert_int_equal(n.width[3], FACILE_N3);
    pack(&n, weights);
    for (uint32_t i = 0; i < n.nrows; i++) {
        int16_t row[FIXED_ROW];
        float x[FACILE_INPUTS];
        struct plain p = {.wraps = false};
        fixed_row(&random, i, row);
        for (uint32_t k = 0; k < FACILE_INPUTS; k++) {
            x[k] = row[k] / (float)ONE;
            p.value[k] = row[k] / ONE;
            p.size[k] = fabs(p.value[k]);
        }
        for (uint32_t l = 0; l < n.nlayers; l++)
            plain_layer(&n, l, &p);
        double got = (double)facile_row(x, weights), want = clamp(p.value[0] * UNIT_GEV);
        // A rounding a step, 96 steps at most on the way of any term.
        if (!(fabs(got - want) <= 96 * 0x1p-24 * p.size[0] * UNIT_GEV))
            fail_msg("row %u: %.9g, in double %.9g", i, got, want);
        inside += want > 0.01 && want < 1000;
        if (p.wraps)
            continue;
        unwrapped++;
        want = clamp(n.recorded[i] / ONE * UNIT_GEV);
        if (!(fabs(got - want) <= (p.floor[0] + 1 / ONE) * UNIT_GEV))
            fail_msg("row %u: %.9g, hls4ml gives %.9g", i, got, want);
    }
    print_message("%u rows, %u inside the clamp, %u without wrapping\n", n.nrows, inside,
                  unwrapped);
    assert_true(inside > n.nrows / 10 && unwrapped > n.nrows / 20);
    fixed_deinit(&n);
}

// ---- what is around it --------------------------------------------------------------------------

static void a_nan_is_no_energy(void **state)
{
    float row[FACILE_INPUTS] = {0};
    (void)state;
    for (uint32_t k = 0; k < FACILE_INPUTS; k++) {
        row[k] = NAN;
        assert_true(isnan(facile_row(row, vectors.weights)));
        row[k] = 0;
    }
    assert_false(isnan(facile_row(row, vectors.weights)));
}

// The kernel computes rows in twos.
static void rows_side_by_side_are_rows_alone(void **state)
{
    float e[FACILE_LANES];
    (void)state;
    for (uint32_t i = 0; i + 3 < vectors.rows; i++) {
        const float *row = vectors.channels + i * FACILE_INPUTS;
        facile_rows(FACILE_LANES, row, 3 * FACILE_INPUTS, vectors.weights, e);
        for (uint32_t r = 0; r < FACILE_LANES; r++) {
            float alone = facile_row(row + r * 3 * FACILE_INPUTS, vectors.weights);
            assert_memory_equal(&alone, &e[r], sizeof(alone));
        }
    }
}

static void a_launch_covers_all_rows_once(void **state)
{
    static const unsigned ROWS[] = {0,     1,         FACILE_TILE - 1, FACILE_TILE, FACILE_TILE + 1,
                                    16000, UINT32_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++) {
        unsigned grid, block, shared;
        facile_launch(ROWS[i], &grid, &block, &shared);
        uint64_t covered = (uint64_t)grid * FACILE_TILE;
        assert_true(covered >= ROWS[i] && covered < (uint64_t)ROWS[i] + FACILE_TILE);
        assert_int_equal(block, FACILE_THREADS);
        assert_int_equal(shared, 0);
    }
}

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    fclose(file);
}

static void refused(const char *path, const void *data, size_t n, const char *word)
{
    static float weights[FACILE_WEIGHTS];
    write_file(path, data, n);
    why[0] = '\0';
    assert_true(facile_weights_read(path, weights, why, sizeof(why)) < 0);
    if (!strstr(why, word) || !strstr(why, path) || !strstr(why, "build.py"))
        fail_msg("\"%s\" and a cure are not in: %s", word, why);
}

static void other_weights_files_are_refused(void **state)
{
    static uint8_t file[sizeof(struct facile_header) + sizeof(vectors.weights) + 1];
    static float weights[FACILE_WEIGHTS];
    const size_t n = sizeof(file) - 1;
    char path[] = "/tmp/sonic-facile-XXXXXX";
    (void)state;
    FILE *from = fopen(TEST_FLOAT_VECTORS, "rb");
    assert_non_null(from);
    assert_int_equal(fseek(from, sizeof(uint32_t), SEEK_SET), 0);
    assert_int_equal(fread(file, 1, n, from), n);
    fclose(from);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_file(path, file, n);
    assert_int_equal(facile_weights_read(path, weights, why, sizeof(why)), 0);
    assert_memory_equal(weights, vectors.weights, sizeof(weights));
    refused(path, file, n - 1, "cut off");
    refused(path, file, n + 1, "cut off");
    refused(path, file, 15, "no weights file");
    refused(path, file, 0, "no weights file");
    file[4]++;
    refused(path, file, n, "another version");
    file[4]--;
    file[8]++;
    refused(path, file, n, "another network");
    file[8]--;
    file[n - 1] ^= 1;
    refused(path, file, n, "damaged");
    unlink(path);
    assert_true(facile_weights_read(path, weights, why, sizeof(why)) < 0);
    assert_non_null(strstr(why, "No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_onnxruntime_on_recorded_rows),
        cmocka_unit_test(equals_onnxruntime_on_the_built_model),
        cmocka_unit_test(agrees_with_the_fixed_point_vectors),
        cmocka_unit_test(a_nan_is_no_energy),
        cmocka_unit_test(rows_side_by_side_are_rows_alone),
        cmocka_unit_test(a_launch_covers_all_rows_once),
        cmocka_unit_test(other_weights_files_are_refused),
    };
    if (float_vectors_read(&vectors, TEST_FLOAT_VECTORS) != 0) {
        fprintf(stderr, "%s is not as tests/kernels/vectors.py writes it\n", TEST_FLOAT_VECTORS);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    float_vectors_deinit(&vectors);
    return failed;
}
