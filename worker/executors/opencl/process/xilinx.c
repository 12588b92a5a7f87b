// SPDX-License-Identifier: Apache-2.0
#include "worker/executors/opencl/process/xilinx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/executors/opencl/process/xclbin.h"

// ---- one program a card -------------------------------------------------------------------------

struct xilinx {
    char path[4400];
    void *bytes;
    size_t len;
    struct xclbin xclbin; // views into the bytes
    cl_program program;
};

bool xilinx_card(const struct device *d)
{
    return strcmp(d->platform_name, "Xilinx") == 0;
}

int xilinx_program(const struct device *d, const void *bytes, size_t len, const char *path,
                   cl_program *program, char *why, size_t size)
{
    const struct xilinx *card = d->card;
    struct xclbin parsed;
    *program = NULL;
    int rc = xclbin_read(&parsed, bytes, len, path, why, size);
    if (rc != 0 || !card)
        return rc;
    // By content, not by UUID, by which XRT goes: a copy or a second model's link is the same.
    if (card->len == len && memcmp(card->bytes, bytes, len) == 0) {
        clRetainProgram(card->program);
        *program = card->program;
        return 0;
    }
    snprintf(why, size,
             "%s, %s: %s cannot be loaded: the card holds %s, and one .xclbin at a time: give it a "
             "worker with another card, or link the kernels of both into one .xclbin",
             d->platform_name, d->name, path, card->path);
    return -EBUSY;
}

int xilinx_loaded(struct device *d, const void *bytes, size_t len, const char *path,
                  cl_program program, char *why, size_t size)
{
    struct xilinx *card = calloc(1, sizeof(*card));
    void *copy = malloc(len);
    if (!card || !copy) {
        free(card);
        free(copy);
        snprintf(why, size, "%s: out of memory", path);
        return -ENOMEM;
    }
    memcpy(copy, bytes, len);
    snprintf(card->path, sizeof(card->path), "%s", path);
    card->bytes = copy;
    card->len = len;
    card->program = program;
    clRetainProgram(program);
    d->card = card;
    return xclbin_read(&card->xclbin, copy, len, path, why, size);
}

// ---- banks --------------------------------------------------------------------------------------

struct placing {
    const struct xilinx *card;
    const struct bundle *bundle;
    const char *unit; // "": any
    char *why;
    size_t size;
};

static void say_unit(const struct placing *p, const struct bundle_launch *launch, char *text,
                     size_t size)
{
    snprintf(text, size, "%s%s%s", launch->kernel, p->unit[0] ? ":" : "", p->unit);
}

static int check_kernels(const struct placing *p)
{
    char name[2 * BUNDLE_NAME_MAX + 2], names[300];
    for (uint32_t i = 0; i < p->bundle->nlaunches; i++) {
        const struct bundle_launch *launch = &p->bundle->launches[i];
        if (xclbin_has(&p->card->xclbin, launch->kernel, p->unit))
            continue;
        say_unit(p, launch, name, sizeof(name));
        xclbin_names(&p->card->xclbin, names, sizeof(names));
        snprintf(p->why, p->size,
                 "%s/" BUNDLE_FILE ": launch %u: %s has no compute unit \"%s\"; it has: %s",
                 p->bundle->dir, i + 1, p->card->path, name, names);
        return -EINVAL;
    }
    return 0;
}

// The first launch, and the argument of it, that takes the buffer and does not reach the bank;
// false: all do.
static bool out_of_reach(const struct placing *p, uint32_t buffer, uint32_t bank, uint32_t *launch,
                         uint32_t *arg)
{
    for (*launch = 0; *launch < p->bundle->nlaunches; ++*launch) {
        const struct bundle_launch *l = &p->bundle->launches[*launch];
        for (*arg = 0; *arg < l->nargs; ++*arg)
            if (l->args[*arg].kind == BUNDLE_ARG_BUFFER && l->args[*arg].is.buffer == buffer &&
                !xclbin_reaches(&p->card->xclbin, l->kernel, p->unit, *arg, bank))
                return true;
    }
    return false;
}

// Of several the last: groups of banks come behind the banks, and XRT spreads over a group.
static int any_bank(const struct placing *p, uint32_t buffer, uint32_t *bank)
{
    uint32_t launch, arg;
    char name[17];
    for (*bank = p->card->xclbin.banks.n; (*bank)-- > 0;)
        if (xclbin_bank_name(&p->card->xclbin, *bank, name)[0] &&
            !out_of_reach(p, buffer, *bank, &launch, &arg))
            return 0;
    snprintf(p->why, p->size,
             "%s/" BUNDLE_FILE ": buffer \"%s\": no memory bank of %s is wired to all arguments "
             "that take it",
             p->bundle->dir, p->bundle->buffers[buffer].name, p->card->path);
    return -EINVAL;
}

static int named_bank(const struct placing *p, uint32_t buffer, uint32_t bank)
{
    uint32_t launch, arg;
    char bank_name[17], name[2 * BUNDLE_NAME_MAX + 2], wired[100] = "";
    if (!xclbin_bank_name(&p->card->xclbin, bank, bank_name)[0]) {
        snprintf(p->why, p->size, "%s/" BUNDLE_FILE ": buffer \"%s\": %s has no memory bank %u",
                 p->bundle->dir, p->bundle->buffers[buffer].name, p->card->path, bank);
        return -EINVAL;
    }
    if (!out_of_reach(p, buffer, bank, &launch, &arg))
        return 0;
    const struct bundle_launch *l = &p->bundle->launches[launch];
    size_t used = 0;
    for (uint32_t k = 0; k < p->card->xclbin.banks.n && used < sizeof(wired); k++)
        if (xclbin_reaches(&p->card->xclbin, l->kernel, p->unit, arg, k)) {
            char other[17];
            used += (size_t)snprintf(wired + used, sizeof(wired) - used, " %u (%s)", k,
                                     xclbin_bank_name(&p->card->xclbin, k, other));
        }
    say_unit(p, l, name, sizeof(name));
    snprintf(p->why, p->size,
             "%s/" BUNDLE_FILE ": buffer \"%s\": bank %u (%s) is not wired to arg %u of compute "
             "unit \"%s\"; wired:%s",
             p->bundle->dir, p->bundle->buffers[buffer].name, bank, bank_name, arg + 1, name,
             used ? wired : " none");
    return -EINVAL;
}

int xilinx_place(const struct device *d, struct device_model *m, char *why, size_t size)
{
    const struct bundle_program *program = m->chosen;
    const struct bundle *b = &m->bundle;
    uint32_t nunits = device_units(m);
    int rc = 0;
    m->banks = calloc((size_t)nunits * b->nbuffers + 1, sizeof(*m->banks));
    if (!m->banks) {
        snprintf(why, size, "out of memory");
        return -ENOMEM;
    }
    for (uint32_t u = 0; u < nunits && rc == 0; u++) {
        struct placing p = {d->card, b, program->nunits ? program->units[u] : "", why, size};
        rc = check_kernels(&p);
        for (uint32_t i = 0; i < b->nbuffers && rc == 0; i++) {
            const struct bundle_buffer *x = &b->buffers[i];
            uint32_t *bank = &m->banks[u * b->nbuffers + i];
            if (x->nbanks > 1 && x->nbanks != nunits) {
                snprintf(why, size,
                         "%s/" BUNDLE_FILE ": buffer \"%s\": %u banks for %u units; one for all, "
                         "or one each",
                         b->dir, x->name, x->nbanks, nunits);
                return -EINVAL;
            }
            *bank = x->nbanks ? x->banks[x->nbanks > 1 ? u : 0] : 0;
            rc = x->nbanks ? named_bank(&p, i, *bank) : any_bank(&p, i, bank);
        }
    }
    return rc;
}

// As XRT's CL/cl_ext_xilinx.h declares it: what clCreateBuffer takes in the place of a pointer.
struct ext_ptr {
    unsigned flags;
    void *host, *unused;
};
#define EXT_PTR ((cl_mem_flags)1 << 31)
#define EXT_TOPOLOGY (1u << 31) // the low bits are a place in MEM_TOPOLOGY

cl_mem xilinx_buffer(cl_context context, cl_mem_flags flags, size_t bytes, void *host,
                     uint32_t bank, cl_int *e)
{
    struct ext_ptr ext = {EXT_TOPOLOGY | bank, host, NULL};
    return clCreateBuffer(context, flags | EXT_PTR, bytes, &ext, e);
}
