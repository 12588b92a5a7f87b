// SPDX-License-Identifier: Apache-2.0
#include "client/submit/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "SONICLG1"
#define FINGERPRINT_MAX 65536u

struct head {
    char magic[8];
    uint64_t chunks;
    uint64_t length; // of the fingerprint that follows
    uint64_t check;  // of all of it
};

struct record {
    uint64_t chunk;
    uint64_t check;
};

// FNV-1a, 64 bit: tells a torn or foreign record from a whole one.
static uint64_t checksum(uint64_t h, const void *data, size_t len)
{
    const uint8_t *at = data;
    if (h == 0)
        h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ at[i]) * 0x100000001b3u;
    return h;
}

static int fail(int e, const char *path, char *why, size_t size)
{
    snprintf(why, size, "%s: %s", path, strerror(e));
    return -e;
}

static bool write_all(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
    return true;
}

static bool prepare(struct ledger *l, const char *path, uint64_t chunks)
{
    memset(l, 0, sizeof(*l));
    l->fd = -1;
    l->chunks = chunks;
    snprintf(l->path, sizeof(l->path), "%s", path);
    l->bitmap = calloc(chunks / 8 + 1, 1);
    return l->bitmap != NULL;
}

static void make_head(struct head *h, const char *fingerprint, uint64_t chunks)
{
    memset(h, 0, sizeof(*h));
    memcpy(h->magic, MAGIC, sizeof(h->magic));
    h->chunks = chunks;
    h->length = strlen(fingerprint);
    h->check = checksum(checksum(0, &h->chunks, sizeof(h->chunks)), fingerprint, h->length);
}

int ledger_create(struct ledger *l, const char *path, const char *fingerprint, uint64_t chunks,
                  char *why, size_t size)
{
    struct head h;
    if (!prepare(l, path, chunks))
        return fail(ENOMEM, path, why, size);
    make_head(&h, fingerprint, chunks);
    l->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (l->fd < 0 || !write_all(l->fd, &h, sizeof(h)) || !write_all(l->fd, fingerprint, h.length) ||
        fdatasync(l->fd) != 0) {
        int e = errno;
        ledger_close(l, l->fd >= 0);
        return fail(e, path, why, size);
    }
    return 0;
}

// ---- resuming -----------------------------------------------------------------------------------

// Names the first line in which two fingerprints differ.
static int different(const char *path, const char *old, const char *now, char *why, size_t size)
{
    while (*old && *now) {
        size_t a = strcspn(old, "\n"), b = strcspn(now, "\n");
        if (a != b || memcmp(old, now, a) != 0) {
            snprintf(why, size,
                     "%s: the interrupted job had %.*s, this one has %.*s: resume it with the same "
                     "arguments, or begin anew with --restart",
                     path, (int)a, old, (int)b, now);
            return -EINVAL;
        }
        old += a + (old[a] != '\0');
        now += b + (now[b] != '\0');
    }
    snprintf(why, size, "%s: is of another job; begin anew with --restart", path);
    return -EINVAL;
}

static bool read_all(int fd, void *data, size_t len)
{
    char *at = data;
    while (len > 0) {
        ssize_t n = read(fd, at, len);
        if (n == 0 || (n < 0 && errno != EINTR))
            return false;
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
    return true;
}

static int read_head(struct ledger *l, const char *fingerprint, char *why, size_t size)
{
    struct head h, want;
    static char old[FINGERPRINT_MAX + 1];
    make_head(&want, fingerprint, l->chunks);
    if (!read_all(l->fd, &h, sizeof(h)) || memcmp(h.magic, MAGIC, sizeof(h.magic)) != 0 ||
        h.length > FINGERPRINT_MAX || !read_all(l->fd, old, h.length)) {
        snprintf(why, size, "%s: is no ledger of an interrupted job; begin anew with --restart",
                 l->path);
        return -EINVAL;
    }
    old[h.length] = '\0';
    if (h.check != want.check || h.length != want.length || strcmp(old, fingerprint) != 0)
        return different(l->path, old, fingerprint, why, size);
    return 0;
}

static void read_records(struct ledger *l)
{
    struct record r;
    off_t whole = lseek(l->fd, 0, SEEK_CUR);
    while (read_all(l->fd, &r, sizeof(r)) && r.chunk < l->chunks &&
           r.check == checksum(0, &r.chunk, sizeof(r.chunk))) {
        if (!ledger_has(l, r.chunk)) {
            l->bitmap[r.chunk / 8] |= (uint8_t)(1u << (r.chunk % 8));
            l->finished++;
        }
        whole += (off_t)sizeof(r);
    }
    // What follows was torn: new records go over it.
    if (ftruncate(l->fd, whole) == 0)
        lseek(l->fd, whole, SEEK_SET);
}

int ledger_resume(struct ledger *l, const char *path, const char *fingerprint, uint64_t chunks,
                  char *why, size_t size)
{
    if (!prepare(l, path, chunks))
        return fail(ENOMEM, path, why, size);
    l->fd = open(path, O_RDWR | O_CLOEXEC);
    int rc = l->fd < 0 ? fail(errno, path, why, size) : read_head(l, fingerprint, why, size);
    if (rc == 0)
        read_records(l);
    else
        ledger_close(l, false);
    return rc;
}

// ---- records ------------------------------------------------------------------------------------

bool ledger_has(const struct ledger *l, uint64_t chunk)
{
    return l->bitmap[chunk / 8] >> (chunk % 8) & 1;
}

bool ledger_note(struct ledger *l, uint64_t chunk)
{
    if (l->npending == l->pending_size) {
        size_t n = l->pending_size ? l->pending_size * 2 : 1024;
        uint64_t *pending = realloc(l->pending, n * sizeof(*pending));
        if (!pending)
            return false;
        l->pending = pending;
        l->pending_size = n;
    }
    l->pending[l->npending++] = chunk;
    l->bitmap[chunk / 8] |= (uint8_t)(1u << (chunk % 8));
    l->finished++;
    return true;
}

int ledger_commit(struct ledger *l)
{
    struct record batch[256];
    for (size_t done = 0; done < l->npending;) {
        size_t n = 0;
        for (; n < 256 && done < l->npending; n++, done++) {
            batch[n].chunk = l->pending[done];
            batch[n].check = checksum(0, &batch[n].chunk, sizeof(batch[n].chunk));
        }
        if (!write_all(l->fd, batch, n * sizeof(batch[0])))
            return -errno;
    }
    l->npending = 0;
    return fdatasync(l->fd) == 0 ? 0 : -errno;
}

void ledger_close(struct ledger *l, bool remove)
{
    if (l->fd >= 0)
        close(l->fd);
    if (remove)
        unlink(l->path);
    free(l->bitmap);
    free(l->pending);
    memset(l, 0, sizeof(*l));
    l->fd = -1;
}
