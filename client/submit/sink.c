// SPDX-License-Identifier: Apache-2.0
#include "client/submit/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "client/submit/npy.h"
#include "common/checked.h"
#include "common/tensor.h"

void sink_hidden(char *out, size_t size, const char *path, const char *suffix)
{
    const char *slash = strrchr(path, '/');
    int dir = slash ? (int)(slash - path + 1) : 0;
    snprintf(out, size, "%.*s.%s%s", dir, path, path + dir, suffix);
}

static int fail(int e, const char *path, const char *what, char *why, size_t size)
{
    snprintf(why, size, "%s: %s: %s", path, what, strerror(e));
    return -e;
}

// Opens and locks the part. A job that ended in between has given the file its final name: a lock
// on that is no lock on the part, and what is written there would be lost or, worse, found.
static int lock_part(struct sink *s, struct stat *st, char *why, size_t size)
{
    for (;;) {
        struct stat named;
        s->fd = open(s->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (s->fd < 0)
            return fail(errno, s->path, "cannot be written here", why, size);
        if (flock(s->fd, LOCK_EX | LOCK_NB) != 0) {
            snprintf(why, size, "%s: another sonic-submit is writing it", s->path);
            return -EWOULDBLOCK;
        }
        if (fstat(s->fd, st) != 0)
            return fail(errno, s->part, "cannot be looked at", why, size);
        if (stat(s->part, &named) == 0 && named.st_ino == st->st_ino && named.st_dev == st->st_dev)
            return 0;
        close(s->fd);
    }
}

static int open_part(struct sink *s, bool resume, bool restart, char *why, size_t size)
{
    struct stat st;
    int rc = lock_part(s, &st, why, size);
    if (rc != 0)
        return rc;
    if (st.st_size > 0 && !resume && !restart) {
        snprintf(why, size,
                 "%s: an interrupted job left %s behind: go on with --resume, or begin "
                 "anew with --restart",
                 s->path, s->part);
        return -EEXIST;
    }
    s->continued = st.st_size > 0 && !restart;
    if (restart && ftruncate(s->fd, 0) != 0)
        return fail(errno, s->part, "cannot be emptied", why, size);
    return 0;
}

// So that a full disk is found now and not hours later.
static int reserve(struct sink *s, char *why, size_t size)
{
    struct statvfs fs;
    int e = posix_fallocate(s->fd, 0, (off_t)(s->data_at + s->bytes));
    if (e == 0)
        return 0;
    if (e == EOPNOTSUPP || e == EINVAL)
        return ftruncate(s->fd, (off_t)(s->data_at + s->bytes)) == 0
                   ? 0
                   : fail(errno, s->path, "cannot be written", why, size);
    uint64_t there = fstatvfs(s->fd, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
    if (e == ENOSPC)
        snprintf(why, size, "%s: no space left: it needs %.1f MB, %.1f MB are free", s->path,
                 (double)(s->data_at + s->bytes) / 1e6, (double)there / 1e6);
    else
        fail(e, s->path, "cannot be written", why, size);
    return -e;
}

int sink_open(struct sink *s, const char *path, bool resume, bool restart, char *why, size_t size)
{
    struct stat st;
    memset(s, 0, sizeof(*s));
    s->fd = -1;
    snprintf(s->path, sizeof(s->path), "%s", path);
    if (strcmp(path, "-") == 0) {
        FILE *spool = tmpfile();
        s->fd = spool ? dup(fileno(spool)) : -1;
        if (spool)
            fclose(spool);
        return s->fd >= 0
                   ? 0
                   : fail(errno, "standard output", "cannot make a temporary file", why, size);
    }
    // In the end the part takes this name: a device or a pipe would be gone then.
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        snprintf(why, size, "%s: is not a regular file; use - for standard output", path);
        return -EINVAL;
    }
    sink_hidden(s->part, sizeof(s->part), path, ".sonic-part");
    int rc = open_part(s, resume, restart, why, size);
    if (rc != 0)
        sink_close(s, false);
    return rc;
}

int sink_prepare(struct sink *s, unsigned dtype, unsigned ndim, const uint64_t *shape, char *why,
                 size_t size)
{
    char header[512];
    uint64_t end;
    bool fits = tensor_bytes(dtype, ndim - 1, shape + 1, &s->row_bytes) &&
                checked_mul(s->row_bytes, shape[0], &s->bytes) &&
                checked_add(s->bytes, sizeof(header), &end) && end <= INT64_MAX;
    if (!fits)
        return fail(EFBIG, s->path, "cannot be written", why, size);
    s->data_at = npy_write_header(header, dtype, ndim, shape);
    int rc = reserve(s, why, size);
    // A part of another job that was larger: nothing of it may stay behind the end.
    if (rc == 0 && ftruncate(s->fd, (off_t)(s->data_at + s->bytes)) != 0)
        rc = fail(errno, s->path, "cannot be written", why, size);
    if (rc == 0 && pwrite(s->fd, header, s->data_at, 0) != (ssize_t)s->data_at)
        rc = fail(errno, s->path, "cannot be written", why, size);
    return rc;
}

int sink_write(struct sink *s, uint64_t row, const void *data, size_t bytes)
{
    const char *at = data;
    off_t offset = (off_t)(s->data_at + row * s->row_bytes);
    while (bytes > 0) {
        ssize_t n = pwrite(s->fd, at, bytes, offset);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            at += n;
            offset += n;
            bytes -= (size_t)n;
        }
    }
    return 0;
}

int sink_sync(struct sink *s)
{
    return fdatasync(s->fd) == 0 ? 0 : -errno;
}

static int copy_to_stdout(struct sink *s, char *why, size_t size)
{
    static char buf[1 << 16];
    uint64_t total = s->data_at + s->bytes;
    for (uint64_t at = 0; at < total;) {
        ssize_t n = pread(s->fd, buf, sizeof(buf), (off_t)at);
        if (n <= 0)
            return fail(n < 0 ? errno : EIO, "standard output", "lost its temporary file", why,
                        size);
        for (ssize_t done = 0; done < n;) {
            ssize_t m = write(STDOUT_FILENO, buf + done, (size_t)(n - done));
            if (m < 0 && errno != EINTR)
                return fail(errno, "standard output", "cannot be written", why, size);
            done += m > 0 ? m : 0;
        }
        at += (uint64_t)n;
    }
    return 0;
}

// A new name is only as durable as its folder.
static void sync_folder(const char *path)
{
    char copy[4200];
    snprintf(copy, sizeof(copy), "%s", path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

int sink_finish(struct sink *s, char *why, size_t size)
{
    if (s->part[0] == '\0') {
        int rc = copy_to_stdout(s, why, size);
        sink_close(s, false);
        return rc;
    }
    if (fsync(s->fd) != 0)
        return fail(errno, s->path, "cannot be brought to disk", why, size);
    if (rename(s->part, s->path) != 0)
        return fail(errno, s->path, "cannot be given its name", why, size);
    sync_folder(s->path);
    sink_close(s, false);
    return 0;
}

void sink_close(struct sink *s, bool remove)
{
    if (s->fd >= 0)
        close(s->fd);
    if (remove && s->part[0])
        unlink(s->part);
    s->fd = -1;
}
