// SPDX-License-Identifier: Apache-2.0
// The container "axlf", version 2: a header, a table of sections, the sections. Numbers are
// little-endian, offsets count from the file's start; XRT's xclbin.h declares the same as structs.
#include "worker/executors/opencl/process/xclbin.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAGIC "xclbin2"
#define HEADER_BYTES 456u
#define AT_LENGTH 304u    // uint64: of all but a signature behind it
#define AT_NSECTIONS 448u // uint32
#define SECTION_BYTES 40u // kind uint32 at 0, offset uint64 at 24, size uint64 at 32
#define SECTIONS_MAX 1024u

enum section {
    EMBEDDED_METADATA = 2,
    MEM_TOPOLOGY = 6,
    CONNECTIVITY = 7,
    IP_LAYOUT = 8,
    // The same with groups of banks added, which XRT prefers where they are there.
    GROUP_TOPOLOGY = 26,
    GROUP_CONNECTIVITY = 27,
};

#define BANK_BYTES 40u // used uint8 at 1, name at 24
#define BANK_NAME 24u
#define BANK_NAME_BYTES 16u
#define UNIT_BYTES 80u // "kernel:unit" at 16
#define UNIT_NAME 16u
#define UNIT_NAME_BYTES 64u
#define LINK_BYTES 12u // int32: argument, unit, bank

static uint64_t number(const unsigned char *at, unsigned bytes)
{
    uint64_t v = 0;
    while (bytes-- > 0)
        v = v << 8 | at[bytes];
    return v;
}

struct reading {
    const unsigned char *bytes;
    uint64_t length;
    const char *path;
    char *why;
    size_t size;
};

static int refuse(const struct reading *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static int refuse(const struct reading *r, const char *fmt, ...)
{
    int n = snprintf(r->why, r->size, "%s: ", r->path);
    va_list ap;
    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < r->size)
        vsnprintf(r->why + n, r->size - (size_t)n, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static const unsigned char *find(const struct reading *r, enum section kind)
{
    uint32_t n = (uint32_t)number(r->bytes + AT_NSECTIONS, 4);
    for (uint32_t i = 0; i < n; i++) {
        const unsigned char *s = r->bytes + HEADER_BYTES + i * SECTION_BYTES;
        if (number(s, 4) == kind && number(s + 32, 8) > 0)
            return s;
    }
    return NULL;
}

// A section that is a count and as many items; `padding` bytes lie between the two.
static int table(const struct reading *r, enum section kind, const char *name, uint32_t padding,
                 uint32_t item_bytes, struct xclbin_table *t)
{
    const unsigned char *s = find(r, kind);
    if (!s)
        return refuse(r, "it has no section %s, without which no kernel of it can run", name);
    const unsigned char *data = r->bytes + number(s + 24, 8);
    uint64_t bytes = number(s + 32, 8);
    uint64_t n = bytes < 4 ? 0 : number(data, 4);
    if (n == 0 || n > bytes || 4 + padding + n * item_bytes > bytes)
        return refuse(r, "section %s has %llu bytes for %llu entries", name,
                      (unsigned long long)bytes, (unsigned long long)n);
    *t = (struct xclbin_table){data + 4 + padding, (uint32_t)n};
    return 0;
}

static int check_frame(struct reading *r, size_t len)
{
    if (len < HEADER_BYTES || memcmp(r->bytes, MAGIC, sizeof(MAGIC)) != 0)
        return refuse(r, "this is no .xclbin (it does not begin with \"" MAGIC "\")");
    r->length = number(r->bytes + AT_LENGTH, 8);
    uint64_t n = number(r->bytes + AT_NSECTIONS, 4);
    if (r->length > len)
        return refuse(r, "the file ends early: it has %zu bytes of %llu; copy it again", len,
                      (unsigned long long)r->length);
    if (n > SECTIONS_MAX || HEADER_BYTES + n * SECTION_BYTES > r->length)
        return refuse(r, "%llu sections do not fit into its %llu bytes", (unsigned long long)n,
                      (unsigned long long)r->length);
    for (uint64_t i = 0; i < n; i++) {
        const unsigned char *s = r->bytes + HEADER_BYTES + i * SECTION_BYTES;
        uint64_t offset = number(s + 24, 8), bytes = number(s + 32, 8);
        if (offset > r->length || bytes > r->length - offset)
            return refuse(r, "section %llu reaches beyond its %llu bytes", (unsigned long long)i,
                          (unsigned long long)r->length);
    }
    return 0;
}

int xclbin_read(struct xclbin *x, const void *bytes, size_t len, const char *path, char *why,
                size_t size)
{
    struct reading r = {bytes, 0, path, why, size};
    *x = (struct xclbin){0};
    int rc = check_frame(&r, len);
    if (rc != 0)
        return rc;
    if (!find(&r, EMBEDDED_METADATA))
        return refuse(&r, "it has no section EMBEDDED_METADATA, which describes its kernels");
    bool groups = find(&r, GROUP_TOPOLOGY) && find(&r, GROUP_CONNECTIVITY);
    rc =
        table(&r, groups ? GROUP_TOPOLOGY : MEM_TOPOLOGY, "MEM_TOPOLOGY", 4, BANK_BYTES, &x->banks);
    if (rc == 0)
        rc = table(&r, IP_LAYOUT, "IP_LAYOUT", 4, UNIT_BYTES, &x->units);
    if (rc == 0)
        rc = table(&r, groups ? GROUP_CONNECTIVITY : CONNECTIVITY, "CONNECTIVITY", 0, LINK_BYTES,
                   &x->links);
    for (uint32_t i = 0; i < x->links.n && rc == 0; i++) {
        const unsigned char *link = x->links.items + i * LINK_BYTES;
        if (number(link + 4, 4) >= x->units.n || number(link + 8, 4) >= x->banks.n)
            rc = refuse(&r, "section CONNECTIVITY, entry %u: there is no such unit or bank", i);
    }
    return rc;
}

// ---- compute units ------------------------------------------------------------------------------

static const char *unit_name(const struct xclbin *x, uint32_t i, char name[UNIT_NAME_BYTES + 1])
{
    memcpy(name, x->units.items + i * UNIT_BYTES + UNIT_NAME, UNIT_NAME_BYTES);
    name[UNIT_NAME_BYTES] = '\0';
    return name;
}

static bool is(const struct xclbin *x, uint32_t i, const char *kernel, const char *unit)
{
    char name[UNIT_NAME_BYTES + 1];
    size_t n = strlen(kernel);
    unit_name(x, i, name);
    return strncmp(name, kernel, n) == 0 && name[n] == ':' &&
           (!unit[0] || strcmp(name + n + 1, unit) == 0);
}

bool xclbin_has(const struct xclbin *x, const char *kernel, const char *unit)
{
    for (uint32_t i = 0; i < x->units.n; i++)
        if (is(x, i, kernel, unit))
            return true;
    return false;
}

void xclbin_names(const struct xclbin *x, char *names, size_t size)
{
    char name[UNIT_NAME_BYTES + 1];
    size_t used = 0;
    names[0] = '\0';
    for (uint32_t i = 0; i < x->units.n && used < size; i++)
        used += (size_t)snprintf(names + used, size - used, "%s%s", i ? ", " : "",
                                 unit_name(x, i, name));
}

// ---- banks --------------------------------------------------------------------------------------

bool xclbin_reaches(const struct xclbin *x, const char *kernel, const char *unit, uint32_t arg,
                    uint32_t bank)
{
    for (uint32_t i = 0; i < x->links.n; i++) {
        const unsigned char *link = x->links.items + i * LINK_BYTES;
        if (number(link, 4) == arg && number(link + 8, 4) == bank &&
            is(x, (uint32_t)number(link + 4, 4), kernel, unit))
            return true;
    }
    return false;
}

const char *xclbin_bank_name(const struct xclbin *x, uint32_t bank, char name[17])
{
    name[0] = '\0';
    if (bank < x->banks.n && x->banks.items[bank * BANK_BYTES + 1]) {
        memcpy(name, x->banks.items + bank * BANK_BYTES + BANK_NAME, BANK_NAME_BYTES);
        name[BANK_NAME_BYTES] = '\0';
    }
    return name;
}
