// SPDX-License-Identifier: Apache-2.0
#include "tests/kernels/float_vectors.h"

#include <stdio.h>
#include <stdlib.h>

#define ROWS_MAX 100000u

static int read_rows(struct float_vectors *v, FILE *file)
{
    size_t ninputs = (size_t)v->rows * FACILE_INPUTS, n = ninputs + v->rows;
    v->channels = malloc(n * sizeof(float));
    if (!v->channels)
        return -1;
    v->energies = v->channels + ninputs;
    return fread(v->channels, sizeof(float), n, file) == n ? 0 : -1;
}

int float_vectors_read(struct float_vectors *v, const char *path)
{
    struct facile_header header;
    FILE *file = fopen(path, "rb");
    *v = (struct float_vectors){0};
    if (!file)
        return -1;
    int rc = -1;
    if (fread(&v->rows, sizeof(v->rows), 1, file) == 1 && v->rows <= ROWS_MAX &&
        fread(&header, sizeof(header), 1, file) == 1 && header.count == FACILE_WEIGHTS &&
        fread(v->weights, sizeof(v->weights), 1, file) == 1)
        rc = read_rows(v, file);
    fclose(file);
    if (rc != 0)
        float_vectors_deinit(v);
    return rc;
}

void float_vectors_deinit(struct float_vectors *v)
{
    free(v->channels);
    v->channels = NULL;
}

bool float_vectors_agree(float got, float expected)
{
    if (isnan(expected))
        return isnan(got);
    return fabsf(got - expected) <= FLOAT_VECTORS_TOLERANCE * fabsf(expected);
}
