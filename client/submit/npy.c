// SPDX-License-Identifier: Apache-2.0
#include "client/submit/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/checked.h"

// No array of ours needs more; NumPy itself writes a few hundred bytes.
#define HEADER_MAX (1u << 20)

// ---- the header ---------------------------------------------------------------------------------

struct text {
    const char *at, *end;
};

static void skip_space(struct text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n' || *t->at == '\t'))
        t->at++;
}

static bool take(struct text *t, char c)
{
    skip_space(t);
    if (t->at == t->end || *t->at != c)
        return false;
    t->at++;
    return true;
}

// A quoted string without escapes.
static bool take_string(struct text *t, char *out, size_t size)
{
    skip_space(t);
    if (t->at == t->end || (*t->at != '\'' && *t->at != '"'))
        return false;
    char quote = *t->at++;
    size_t n = 0;
    while (t->at < t->end && *t->at != quote) {
        if (n + 1 == size)
            return false;
        out[n++] = *t->at++;
    }
    out[n] = '\0';
    return t->at++ < t->end;
}

static bool take_bool(struct text *t, bool *out)
{
    skip_space(t);
    size_t left = (size_t)(t->end - t->at);
    *out = left >= 4 && memcmp(t->at, "True", 4) == 0;
    if (!*out && !(left >= 5 && memcmp(t->at, "False", 5) == 0))
        return false;
    t->at += *out ? 4 : 5;
    return true;
}

static bool take_number(struct text *t, uint64_t *out)
{
    skip_space(t);
    uint64_t v = 0;
    const char *start = t->at;
    while (t->at < t->end && *t->at >= '0' && *t->at <= '9') {
        if (!checked_mul(v, 10, &v) || !checked_add(v, (uint64_t)(*t->at - '0'), &v))
            return false;
        t->at++;
    }
    if (t->at < t->end && *t->at == 'L') // files of Python 2
        t->at++;
    *out = v;
    return t->at > start;
}

static bool take_shape(struct text *t, struct npy_header *h)
{
    h->ndim = 0;
    if (!take(t, '('))
        return false;
    while (!take(t, ')')) {
        if (h->ndim == NPY_DIMS_MAX || !take_number(t, &h->shape[h->ndim]))
            return false;
        h->ndim++;
        take(t, ',');
    }
    return true;
}

// "<f4" and its like into a type and a byte order.
static bool take_descr(const char *descr, struct npy_header *h)
{
    char little[8];
    if (strlen(descr) != 3)
        return false;
    snprintf(little, sizeof(little), "%c%.2s", descr[1] == 'b' || descr[2] == '1' ? '|' : '<',
             descr + 1);
    h->big_endian = descr[0] == '>' && descr[2] != '1';
    for (unsigned d = 1; dtype_bytes(d); d++)
        if (d != SONIC_BF16 && strcmp(dtype_numpy(d), little) == 0) {
            h->dtype = (uint8_t)d;
            return strchr("<>|=", descr[0]) != NULL;
        }
    return false;
}

static bool fail(char *why, size_t size, const char *text)
{
    snprintf(why, size, "%s", text);
    return false;
}

static bool parse_dict(struct text *t, struct npy_header *h, char *why, size_t size)
{
    char key[32], descr[64];
    bool fortran = false, have_shape = false, have_descr = false;
    if (!take(t, '{'))
        return fail(why, size, "its header is not one of a .npy file");
    while (!take(t, '}')) {
        bool ok = take_string(t, key, sizeof(key)) && take(t, ':');
        if (ok && strcmp(key, "descr") == 0) {
            if (take(t, '['))
                return fail(why, size,
                            "it holds records (a structured dtype); save one plain "
                            "array a file");
            ok = have_descr = take_string(t, descr, sizeof(descr));
        } else if (ok && strcmp(key, "fortran_order") == 0) {
            ok = take_bool(t, &fortran);
        } else if (ok && strcmp(key, "shape") == 0) {
            ok = have_shape = take_shape(t, h);
        } else {
            ok = false;
        }
        if (!ok)
            return fail(why, size, "its header is not one of a .npy file");
        take(t, ',');
    }
    if (!have_shape || !have_descr)
        return fail(why, size, "its header lacks shape or descr");
    if (!take_descr(descr, h)) {
        snprintf(why, size,
                 "its dtype is %s; bool, integers of 8 to 64 bits and floats of 16, 32 or 64 bits "
                 "are taken: convert it with .astype('float32')",
                 descr);
        return false;
    }
    // One dimension is C and Fortran order at once.
    if (fortran && h->ndim > 1)
        return fail(why, size, "it is in Fortran order; save np.ascontiguousarray(array) instead");
    return true;
}

bool npy_parse(const uint8_t *file, size_t len, struct npy_header *h, char *why, size_t size)
{
    memset(h, 0, sizeof(*h));
    if (len < 10 || memcmp(file, "\x93NUMPY", 6) != 0)
        return fail(why, size, "it is not a .npy file (np.save writes them)");
    unsigned major = file[6];
    if (major < 1 || major > 3)
        return fail(why, size, "it is of a .npy format version that is not known here");
    size_t at = major == 1 ? 10 : 12;
    if (len < at)
        return fail(why, size, "it is truncated inside its header");
    uint64_t n = file[8] | (uint64_t)file[9] << 8;
    if (major > 1)
        n |= (uint64_t)file[10] << 16 | (uint64_t)file[11] << 24;
    if (n > HEADER_MAX)
        return fail(why, size, "its header is longer than 1 MiB");
    if (n > len - at)
        return fail(why, size, "it is truncated inside its header");
    struct text t = {(const char *)file + at, (const char *)file + at + n};
    if (!parse_dict(&t, h, why, size))
        return false;
    h->data_at = at + n;
    uint64_t bytes = dtype_bytes(h->dtype);
    for (unsigned i = 0; i < h->ndim; i++)
        if (!checked_mul(bytes, h->shape[i], &bytes))
            return fail(why, size, "its shape is larger than any memory");
    h->bytes = bytes;
    return true;
}

size_t npy_write_header(char *buf, unsigned dtype, unsigned ndim, const uint64_t *shape)
{
    char dict[400];
    int n = snprintf(dict, sizeof(dict), "{'descr': '%s', 'fortran_order': False, 'shape': (",
                     dtype_numpy(dtype));
    for (unsigned i = 0; i < ndim; i++)
        n += snprintf(dict + n, sizeof(dict) - (size_t)n, "%s%" PRIu64, i ? ", " : "", shape[i]);
    n += snprintf(dict + n, sizeof(dict) - (size_t)n, "%s), }", ndim == 1 ? "," : "");
    size_t total = (10 + (size_t)n + 1 + 63) & ~(size_t)63;
    memcpy(buf, "\x93NUMPY\x01\x00", 8);
    buf[8] = (char)((total - 10) & 0xff);
    buf[9] = (char)((total - 10) >> 8);
    memcpy(buf + 10, dict, (size_t)n);
    memset(buf + 10 + n, ' ', total - 10 - (size_t)n);
    buf[total - 1] = '\n';
    return total;
}

// ---- files --------------------------------------------------------------------------------------

static int fail_errno(int e, const char *path, const char *what, char *why, size_t size)
{
    snprintf(why, size, "%s: %s%s%s", path, what, what[0] ? ": " : "", strerror(e));
    return -e;
}

// Standard input into an unnamed file, so that the rest need not care.
static int spool_stdin(char *why, size_t size)
{
    FILE *spool = tmpfile();
    static char buf[1 << 16];
    ssize_t n;
    if (!spool)
        return fail_errno(errno, "standard input", "cannot make a temporary file", why, size);
    while ((n = read(STDIN_FILENO, buf, sizeof(buf))) > 0)
        if (fwrite(buf, 1, (size_t)n, spool) != (size_t)n)
            break;
    if (n != 0 || fflush(spool) != 0) {
        int e = errno;
        fclose(spool);
        return fail_errno(e, "standard input", "cannot be kept in a temporary file (TMPDIR)", why,
                          size);
    }
    int fd = dup(fileno(spool));
    fclose(spool);
    return fd;
}

static int map_file(struct npy *n, int fd, char *why, size_t size)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fail_errno(errno, n->path, "", why, size);
    if (!S_ISREG(st.st_mode)) {
        snprintf(why, size, "%s: is not a file; use - for standard input", n->path);
        return -EINVAL;
    }
    n->file_bytes = (uint64_t)st.st_size;
    n->mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
    n->map_bytes = (size_t)st.st_size;
    if (st.st_size == 0) {
        snprintf(why, size, "%s: is empty, not even a .npy header is in it", n->path);
        return -EINVAL;
    }
    n->map = mmap(NULL, n->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (n->map == MAP_FAILED) {
        n->map = NULL;
        return fail_errno(errno, n->path, "cannot be mapped", why, size);
    }
    return 0;
}

// Of what came through a pipe: it has no name and no time of change by which it could be known
// again.
static uint64_t hash_bytes(const uint8_t *at, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u, word;
    for (; n >= sizeof(word); at += sizeof(word), n -= sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    for (; n > 0; at++, n--)
        h = (h ^ *at) * 0x100000001b3u;
    return h;
}

int npy_open(struct npy *n, const char *path, char *why, size_t size)
{
    char reason[512];
    bool from_stdin = strcmp(path, "-") == 0;
    memset(n, 0, sizeof(*n));
    snprintf(n->path, sizeof(n->path), "%s", from_stdin ? "standard input" : path);
    int fd = from_stdin ? spool_stdin(why, size) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return from_stdin ? fd : fail_errno(errno, path, "", why, size);
    int rc = map_file(n, fd, why, size);
    close(fd);
    if (rc != 0)
        return rc;
    if (from_stdin)
        n->mtime_ns = hash_bytes(n->map, n->map_bytes);
    if (!npy_parse(n->map, n->map_bytes, &n->header, reason, sizeof(reason))) {
        snprintf(why, size, "%s: %s", n->path, reason);
        npy_close(n);
        return -EINVAL;
    }
    uint64_t there = n->map_bytes - n->header.data_at;
    if (there < n->header.bytes) {
        snprintf(why, size,
                 "%s: truncated: its header announces %" PRIu64 " bytes of data, %" PRIu64
                 " are there; copy or write it again",
                 n->path, n->header.bytes, there);
        npy_close(n);
        return -EINVAL;
    }
    n->data = (const uint8_t *)n->map + n->header.data_at;
    madvise(n->map, n->map_bytes, MADV_SEQUENTIAL);
    return 0;
}

void npy_close(struct npy *n)
{
    if (n->map)
        munmap(n->map, n->map_bytes);
    n->map = NULL;
}
