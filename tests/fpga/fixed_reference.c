// SPDX-License-Identifier: Apache-2.0
#include "tests/fpga/fixed_reference.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRACTION 10
#define FILE_BYTES_MAX (1l << 24)
#define NUMBERS 17u
#define CODES 30u

// ---- the arithmetic -----------------------------------------------------------------------------

// The low 16 bits, as a signed number.
static int16_t wrap(int32_t x)
{
    int32_t low = x & 0xffff;
    return (int16_t)(low < 0x8000 ? low : low - 0x10000);
}

// Division that rounds down; what a shift does to a negative number is the compiler's affair.
static int32_t floored(int32_t product)
{
    int32_t q = product / (1 << FRACTION);
    return product % (1 << FRACTION) < 0 ? q - 1 : q;
}

void fixed_forward(const struct fixed_network *n, const int16_t *in, int16_t *out)
{
    int16_t from[FIXED_WIDTH_MAX], to[FIXED_WIDTH_MAX];
    memcpy(from, in, n->width[0] * sizeof(*in));
    for (uint32_t l = 0; l < n->nlayers; l++) {
        uint32_t ins = n->width[l], outs = n->width[l + 1];
        for (uint32_t j = 0; j < outs; j++) {
            int16_t sum = n->bias[l][j];
            for (uint32_t k = 0; k < ins; k++)
                sum = wrap(sum + wrap(floored(from[k] * n->weight[l][k * outs + j])));
            to[j] = l + 1 < n->nlayers && sum < 0 ? 0 : sum;
        }
        memcpy(from, to, outs * sizeof(*to));
    }
    memcpy(out, from, n->width[n->nlayers] * sizeof(*out));
}

// ---- the vectors --------------------------------------------------------------------------------

static uint32_t next(uint64_t *state)
{
    *state ^= *state >> 12; // xorshift64*
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)((*state * 0x2545f4914f6cdd1du) >> 48);
}

void fixed_row(uint64_t *state, uint32_t i, int16_t *row)
{
    static const int16_t EDGES[] = {-32768, -32767, -1025, -1024, -1, 0, 1, 1023, 1024, 32767};
    memset(row, 0, FIXED_ROW * sizeof(*row));
    for (uint32_t k = 0; k < NUMBERS; k++) {
        uint32_t x = next(state);
        row[k] = i % 3 == 0   ? wrap((int32_t)x)
                 : i % 3 == 1 ? EDGES[x % (sizeof(EDGES) / sizeof(EDGES[0]))]
                              : (int16_t)((int32_t)(x >> 4) - 2048);
    }
    uint32_t code = next(state) % (CODES + 1);
    if (code < CODES)
        row[NUMBERS + code] = 1 << FRACTION;
}

// The file: int16 numbers: how many layers, the widths, each layer's weights and biases, and to the
// end what the rows give.
static bool cut(struct fixed_network *n, const int16_t *at, const int16_t *end)
{
    if (at == end || *at < 1 || *at > (int16_t)FIXED_LAYERS_MAX || end - at < *at + 2)
        return false;
    n->nlayers = (uint32_t)*at++;
    for (uint32_t l = 0; l <= n->nlayers; l++) {
        if (*at < 1 || *at > (int16_t)FIXED_WIDTH_MAX)
            return false;
        n->width[l] = (uint32_t)*at++;
    }
    for (uint32_t l = 0; l < n->nlayers; l++) {
        uint32_t weights = n->width[l] * n->width[l + 1];
        if (end - at < (long)(weights + n->width[l + 1]))
            return false;
        n->weight[l] = at;
        n->bias[l] = at + weights;
        at += weights + n->width[l + 1];
    }
    n->recorded = at;
    n->nrows = (uint32_t)(end - at);
    return true;
}

int fixed_read(struct fixed_network *n, const char *path)
{
    FILE *file = fopen(path, "rb");
    long bytes = -1;
    *n = (struct fixed_network){0};
    if (file && fseek(file, 0, SEEK_END) == 0)
        bytes = ftell(file);
    bool fine = bytes >= 2 && bytes <= FILE_BYTES_MAX && (n->memory = malloc((size_t)bytes)) &&
                fseek(file, 0, SEEK_SET) == 0 &&
                fread(n->memory, 1, (size_t)bytes, file) == (size_t)bytes;
    if (file)
        fclose(file);
    const int16_t *at = n->memory;
    if (fine && cut(n, at, at + bytes / 2))
        return 0;
    fixed_deinit(n);
    return -1;
}

void fixed_deinit(struct fixed_network *n)
{
    free(n->memory);
    *n = (struct fixed_network){0};
}
