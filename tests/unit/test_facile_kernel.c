// SPDX-License-Identifier: Apache-2.0
// worker/kernels/facile.cu itself on the host, a real thread for each of a block's: which rows it
// reads, what it shares, and where it writes. Its numbers are facile_row()'s to the last bit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kernels/float_vectors.h"
#include "tests/kernels/cuda_on_host.h"
void sonic_facile(const float *rows, float *energy, const float *weights, unsigned n);
#include "worker/kernels/facile.cu"

static struct float_vectors vectors;

struct args {
    const float *rows, *weights;
    float *energy;
    unsigned n;
};

static void call(const void *p)
{
    const struct args *a = p;
    sonic_facile(a->rows, a->energy, a->weights, a->n);
}

// Rows in memory of exactly their size, so that the address sanitizer sees a read beside them;
// `shift` floats off the alignment of an allocation.
static void computes(unsigned n, unsigned shift)
{
    const size_t bytes = n * FACILE_INPUTS * sizeof(float);
    unsigned grid, block, shared;
    float *rows = malloc(bytes + shift * sizeof(float));
    float *energy = malloc((n + 1) * sizeof(float));
    energy[n] = -1;
    for (unsigned i = 0; i < n; i++)
        memcpy(rows + shift + i * FACILE_INPUTS,
               vectors.channels + i * 7 % vectors.rows * FACILE_INPUTS,
               FACILE_INPUTS * sizeof(float));
    struct args a = {rows + shift, vectors.weights, energy, n};
    facile_launch(n, &grid, &block, &shared);
    host_launch(call, &a, grid, block);
    for (unsigned i = 0; i < n; i++) {
        float alone = facile_row(rows + shift + i * FACILE_INPUTS, vectors.weights);
        if (memcmp(&alone, &energy[i], sizeof(alone)) != 0)
            fail_msg("row %u of %u: %.9g, alone %.9g", i, n, (double)energy[i], (double)alone);
    }
    assert_true(energy[n] == -1);
    free(rows);
    free(energy);
}

static void computes_full_and_partial_tiles(void **state)
{
    static const unsigned ROWS[] = {1,   2,   3,           FACILE_THREADS - 1, FACILE_THREADS,
                                    65,  127, FACILE_TILE, FACILE_TILE + 1,    3 * FACILE_TILE - 1,
                                    1000};
    (void)state;
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++)
        computes(ROWS[i], 0);
}

static void computes_rows_at_any_alignment(void **state)
{
    (void)state;
    for (unsigned shift = 1; shift < 4; shift++)
        computes(FACILE_TILE + 5, shift);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(computes_full_and_partial_tiles),
        cmocka_unit_test(computes_rows_at_any_alignment),
    };
    if (float_vectors_read(&vectors, TEST_FLOAT_VECTORS) != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    float_vectors_deinit(&vectors);
    return failed;
}
