// SPDX-License-Identifier: Apache-2.0
// What a manifest means once it is read: files, layout, and its agreement with config.pbtxt.
#include "worker/executors/opencl/bundle.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/checked.h"
#include "common/pbtxt.h"
#include "worker/executors/opencl/bundle_parse.h"

#define PAGE 4096u

bool bundle_is_there(const char *version_dir)
{
    char path[4400];
    struct stat st;
    snprintf(path, sizeof(path), "%s/" BUNDLE_FOLDER "/" BUNDLE_FILE, version_dir);
    return stat(path, &st) == 0;
}

static void free_io(struct bundle_io *io)
{
    free(io->columns);
    free(io->scales);
    free(io->offsets);
    free(io->spans);
}

void bundle_deinit(struct bundle *b)
{
    for (uint32_t i = 0; i < SONIC_TENSORS_MAX; i++) {
        free_io(&b->inputs[i]);
        free_io(&b->outputs[i]);
    }
    free(b->buffers);
    free(b->launches);
    memset(b, 0, sizeof(*b));
}

// ---- layout -------------------------------------------------------------------------------------

static bool shared(const struct bundle_buffer *buffer)
{
    return buffer->use == BUNDLE_INPUT || buffer->use == BUNDLE_OUTPUT;
}

// Sizes were checked to sum without wrapping.
uint64_t bundle_slot_offset(const struct bundle *b, uint32_t i)
{
    uint64_t offset = 0, bytes;
    for (uint32_t k = 0; k < i; k++)
        if (shared(&b->buffers[k]) && checked_align(b->buffers[k].bytes, PAGE, &bytes))
            offset += bytes;
    return offset;
}

uint64_t bundle_slot_bytes(const struct bundle *b)
{
    return bundle_slot_offset(b, b->nbuffers);
}

// ---- against config.pbtxt -----------------------------------------------------------------------

struct check {
    const struct bundle *bundle;
    const struct model_config *config;
    char *why;
    size_t size;
};

static bool fail(const struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool fail(const struct check *c, const char *fmt, ...)
{
    int n = snprintf(c->why, c->size, "%s/" BUNDLE_FILE ": ", c->bundle->dir);
    va_list ap;
    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < c->size)
        vsnprintf(c->why + n, c->size - (size_t)n, fmt, ap);
    va_end(ap);
    return false;
}

// Elements that a row takes in its buffer.
static uint64_t stored_elements(const struct bundle_io *io)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < io->ncolumns; i++)
        n = io->columns[i].to + UINT64_C(1) > n ? io->columns[i].to + UINT64_C(1) : n;
    for (uint32_t i = 0; i < io->nindices; i++)
        n = io->indices[i].to + UINT64_C(1) > n ? io->indices[i].to + UINT64_C(1) : n;
    return n ? n : io->elements;
}

static bool check_columns(const struct check *c, const struct bundle_io *io)
{
    for (uint32_t i = 0; i < io->ncolumns; i++)
        if (io->columns[i].from >= io->elements)
            return fail(c, "%s: column { from: %u }, a row has %u elements", io->tensor,
                        io->columns[i].from, io->elements);
    for (uint32_t i = 0; i < io->nindices; i++)
        if (io->indices[i].count == 0 || io->indices[i].from >= io->elements ||
            io->indices[i].count > io->elements - io->indices[i].from)
            return fail(c, "%s: index { from: %u count: %u }, a row has %u elements", io->tensor,
                        io->indices[i].from, io->indices[i].count, io->elements);
    if (io->nscales && io->nscales != io->elements)
        return fail(c, "%s: %u scales for %u elements", io->tensor, io->nscales, io->elements);
    return true;
}

// Columns as the conversion wants them: in spans, the factors beside each other.
static bool lay_spans(const struct check *c, struct bundle_io *io)
{
    if (io->ncolumns == 0)
        return true;
    io->scales = calloc(io->ncolumns, sizeof(float));
    io->offsets = calloc(io->ncolumns, sizeof(float));
    io->spans = calloc(io->ncolumns, sizeof(*io->spans));
    if (!io->scales || !io->offsets || !io->spans)
        return fail(c, "%s: out of memory", io->tensor);
    for (uint32_t i = 0; i < io->ncolumns; i++) {
        const struct bundle_column *x = &io->columns[i];
        io->scales[i] = x->scale;
        io->offsets[i] = x->offset;
        if (i == 0 || x->from != x[-1].from + 1 || x->to != x[-1].to + 1)
            io->spans[io->nspans++] = (struct bundle_span){x->from, x->to, 0, i};
        io->spans[io->nspans - 1].count++;
    }
    return true;
}

// Resolves what depends on the declared tensor.
static bool check_io(const struct check *c, struct bundle_io *io, const struct tensor_spec *spec,
                     enum bundle_use use)
{
    const struct bundle *b = c->bundle;
    uint64_t row_bytes, dense, all;
    if (spec->dtype != SONIC_FP32)
        return fail(c, "%s: config.pbtxt declares %s; a bundle converts from and to FP32",
                    io->tensor, dtype_name(spec->dtype));
    if (!tensor_spec_row_bytes(spec, &row_bytes) || row_bytes / 4 > UINT32_MAX || row_bytes == 0)
        return fail(c, "%s: its dims must be fixed in config.pbtxt", io->tensor);
    io->elements = (uint32_t)(row_bytes / 4);
    if (!check_columns(c, io) || (use == BUNDLE_INPUT && !lay_spans(c, io)))
        return false;
    dense = stored_elements(io) * dtype_bytes(io->type);
    if (io->stride == 0)
        io->stride = dense;
    if (b->buffers[io->buffer].use != use)
        return fail(c, "%s: buffer \"%s\" is not for %s", io->tensor, b->buffers[io->buffer].name,
                    use == BUNDLE_INPUT ? "INPUT" : "OUTPUT");
    if (io->stride < dense || io->stride % dtype_bytes(io->type) != 0)
        return fail(c, "%s: stride %llu, a row takes %llu bytes of %s", io->tensor,
                    (unsigned long long)io->stride, (unsigned long long)dense,
                    dtype_name(io->type));
    if (!checked_mul(io->stride, b->rows, &all) || all > b->buffers[io->buffer].bytes)
        return fail(c, "%s: %u rows of %llu bytes do not fit into buffer \"%s\" of %llu",
                    io->tensor, b->rows, (unsigned long long)io->stride,
                    b->buffers[io->buffer].name, (unsigned long long)b->buffers[io->buffer].bytes);
    return true;
}

// Puts the tensors into the declaration's order.
static bool match(const struct check *c, struct bundle_io *ios, uint32_t n,
                  const struct tensor_spec *specs, uint32_t nspecs, enum bundle_use use)
{
    const char *kind = use == BUNDLE_INPUT ? "input" : "output";
    for (uint32_t i = 0; i < nspecs; i++) {
        uint32_t k = i;
        while (k < n && strcmp(ios[k].tensor, specs[i].name) != 0)
            k++;
        if (k >= n)
            return fail(c, "%s \"%s\" of config.pbtxt is missing", kind, specs[i].name);
        struct bundle_io found = ios[k];
        ios[k] = ios[i];
        ios[i] = found;
        ios[i].spec = i;
        if (!check_io(c, &ios[i], &specs[i], use))
            return false;
    }
    if (n > nspecs)
        return fail(c, "%s \"%s\" is not declared in config.pbtxt, or given twice", kind,
                    ios[nspecs].tensor);
    return true;
}

static bool agrees(const struct check *c, struct bundle *b)
{
    const struct model_config *m = c->config;
    if (m->batch_max == 0 && b->rows != 1)
        return fail(c, "rows is %u, and the model has no batch dimension (max_batch_size 0)",
                    b->rows);
    return match(c, b->inputs, b->ninputs, m->inputs, m->ninputs, BUNDLE_INPUT) &&
           match(c, b->outputs, b->noutputs, m->outputs, m->noutputs, BUNDLE_OUTPUT);
}

// ---- reading ------------------------------------------------------------------------------------

static int read_text(const char *path, char **text, size_t *len, char *why, size_t size)
{
    FILE *f = fopen(path, "rb");
    *text = f ? malloc(PBTXT_BYTES_MAX + 1) : NULL;
    if (!*text) {
        int e = errno;
        snprintf(why, size, "%s: %s", path, strerror(e));
        if (f)
            fclose(f);
        return -e;
    }
    *len = fread(*text, 1, PBTXT_BYTES_MAX + 1, f);
    fclose(f);
    return 0;
}

int bundle_read(struct bundle *b, const char *version_dir, const struct model_config *config,
                char *why, size_t size)
{
    char path[4400], *text;
    size_t len = 0;
    memset(b, 0, sizeof(*b));
    snprintf(b->dir, sizeof(b->dir), "%.*s/" BUNDLE_FOLDER, 4000, version_dir);
    snprintf(path, sizeof(path), "%s/" BUNDLE_FILE, b->dir);
    int rc = read_text(path, &text, &len, why, size);
    if (rc != 0)
        return rc;
    rc = bundle_parse(text, len, path, b, why, size);
    free(text);
    struct check c = {b, config, why, size};
    if (rc == 0 && config && !agrees(&c, b))
        rc = -EINVAL;
    return rc;
}
