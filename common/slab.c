// SPDX-License-Identifier: Apache-2.0
#include "common/slab.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/checked.h"

#define PAGE 4096u
// What a slab must be sealed against. The owner also takes writing from everybody else where the
// kernel can (F_SEAL_FUTURE_WRITE, Linux 5.1).
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

struct slab {
    atomic_uint refs;
    int fd;
    uint64_t bytes;
    void *data;
};

static struct slab *slab_over(int fd, uint64_t bytes, int protection)
{
    struct slab *s = malloc(sizeof(*s));
    if (!s)
        return NULL;
    s->data = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
    if (s->data == MAP_FAILED) {
        int e = errno;
        free(s);
        errno = e;
        return NULL;
    }
    atomic_init(&s->refs, 1);
    s->fd = fd;
    s->bytes = bytes;
    return s;
}

static bool seal(int fd)
{
    if (fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0)
        return true;
    return errno == EINVAL && fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) == 0;
}

struct slab *slab_new(uint64_t bytes)
{
    if (!checked_align(bytes, PAGE, &bytes) || bytes == 0 || bytes > INT64_MAX) {
        errno = EINVAL;
        return NULL;
    }
    int fd = memfd_create("sonic-slab", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return NULL;
    struct slab *s =
        ftruncate(fd, (off_t)bytes) == 0 ? slab_over(fd, bytes, PROT_READ | PROT_WRITE) : NULL;
    int e = errno;
    if (!s) {
        close(fd);
    } else if (!seal(fd)) { // only after it is mapped: no writable mapping can follow
        e = errno;
        slab_unref(s);
        s = NULL;
    }
    errno = e;
    return s;
}

// Sealed huge pages are none: they can still be missing when they are touched.
bool slab_is_memory(int fd)
{
    struct statfs fs;
    return fcntl(fd, F_GET_SEALS) >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

// Why a descriptor is no slab of that size; NULL: it is one.
static const char *no_slab(int fd, uint64_t bytes)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS)
        return "is no memory whose size is sealed";
    if (!slab_is_memory(fd))
        return "is no ordinary memory";
    if (fstat(fd, &st) != 0 || bytes == 0 || bytes % PAGE != 0 || (uint64_t)st.st_size != bytes)
        return "has not the size that was told";
    return NULL;
}

struct slab *slab_map(int fd, uint64_t bytes, char *why, size_t size)
{
    const char *wrong = no_slab(fd, bytes);
    struct slab *s = wrong ? NULL : slab_over(fd, bytes, PROT_READ);
    if (wrong)
        snprintf(why, size, "the descriptor %s", wrong);
    else if (!s)
        snprintf(why, size, "%llu bytes cannot be mapped: %s", (unsigned long long)bytes,
                 strerror(errno));
    if (!s)
        close(fd);
    return s;
}

void slab_ref(struct slab *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

void slab_unref(struct slab *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    munmap(s->data, s->bytes);
    slab_close_fd(s);
    free(s);
}

int slab_fd(const struct slab *s)
{
    return s->fd;
}

void slab_close_fd(struct slab *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

uint64_t slab_bytes(const struct slab *s)
{
    return s->bytes;
}

void *slab_data(const struct slab *s)
{
    return s->data;
}

bool slab_takes(unsigned dtype)
{
    return dtype == SONIC_FP64 || dtype == SONIC_FP32 || dtype == SONIC_FP16 || dtype == SONIC_BF16;
}

const void *slab_tensor(const struct slab *s, const struct tensor *t)
{
    uint64_t end;
    if (!slab_takes(t->dtype) || t->offset % SONIC_PACK_ALIGN != 0 ||
        !checked_add(t->offset, t->bytes, &end) || end > s->bytes)
        return NULL;
    return (const char *)s->data + t->offset;
}
