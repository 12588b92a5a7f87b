// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/facile_weights.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(struct facile_header) == 16, "the header has no holes");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file is read as it lies");

static uint32_t fnv(const void *data, size_t n)
{
    const uint8_t *at = data;
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ at[i]) * 16777619u;
    return hash;
}

// What is wrong with what was read, or NULL.
static const char *fault_of(const struct facile_header *h, const float *weights, size_t nread,
                            int longer)
{
    if (nread < sizeof(*h) || memcmp(h->magic, "SNCF", sizeof(h->magic)) != 0)
        return "is no weights file of the native kernel";
    if (h->version != FACILE_FILE_VERSION)
        return "is of another version of SONIC";
    if (h->count != FACILE_WEIGHTS)
        return "is of another network than this kernel's";
    if (nread != sizeof(*h) + sizeof(float) * FACILE_WEIGHTS || longer)
        return "is cut off, or longer than it says";
    if (h->check != fnv(weights, sizeof(float) * FACILE_WEIGHTS))
        return "is damaged";
    return NULL;
}

int facile_weights_read(const char *path, float weights[FACILE_WEIGHTS], char *why, size_t size)
{
    struct facile_header header = {.magic = ""};
    FILE *file = fopen(path, "rb");
    if (!file) {
        int rc = -errno;
        snprintf(why, size, "%s: %s (models/build.py writes it)", path, strerror(-rc));
        return rc;
    }
    size_t nread = fread(&header, 1, sizeof(header), file);
    if (nread == sizeof(header))
        nread += fread(weights, 1, sizeof(float) * FACILE_WEIGHTS, file);
    int longer = nread == sizeof(header) + sizeof(float) * FACILE_WEIGHTS && fgetc(file) != EOF;
    const char *fault = fault_of(&header, weights, nread, longer);
    fclose(file);
    if (!fault)
        return 0;
    snprintf(why, size, "%s %s: build the model again (models/build.py)", path, fault);
    return -EINVAL;
}
