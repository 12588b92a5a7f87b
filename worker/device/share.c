// SPDX-License-Identifier: Apache-2.0
#include "worker/device/share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/checked.h"

// Well under the broker's --lease, which would take the whole worker for hung.
#define LIMIT_MS 20000

static int take_limit(struct device_share *s, const struct model_config *config, char *why,
                      size_t size)
{
    const char *text = model_config_parameter(config, "sonic_device_timeout_ms");
    char *end;
    s->limit_ms = LIMIT_MS;
    if (!text)
        return 0;
    long n = strtol(text, &end, 10);
    if (!*text || *end || n < 1 || n > 3600000) {
        snprintf(why, size,
                 "model %s: sonic_device_timeout_ms is \"%s\"; 1 to 3600000 are possible",
                 config->name, text);
        return -EINVAL;
    }
    s->limit_ms = (int)n;
    return 0;
}

static bool make_memory(struct device_share *s, uint64_t bytes, uint32_t parts)
{
    errno = EOVERFLOW;
    if (!checked_mul(bytes, parts, &s->bytes) || s->bytes > INT64_MAX)
        return false;
    s->fd = memfd_create("sonic-device", MFD_CLOEXEC);
    if (s->fd < 0 || ftruncate(s->fd, (off_t)s->bytes) != 0)
        return false;
    void *at = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    s->memory = at == MAP_FAILED ? NULL : at;
    return s->memory != NULL;
}

int device_share_begin(struct device_share *s, const struct model_config *config, uint64_t bytes,
                       uint32_t parts, char *why, size_t size)
{
    *s = (struct device_share){.fd = -1};
    int rc = take_limit(s, config, why, size);
    if (rc != 0 || make_memory(s, bytes, parts))
        return rc;
    snprintf(why, size, "model %s: no memory for %u times %llu bytes to share with its device: %s",
             config->name, parts, (unsigned long long)bytes, strerror(errno));
    return -ENOMEM;
}

void device_share_end(struct device_share *s)
{
    if (s->memory)
        munmap(s->memory, s->bytes);
    if (s->fd >= 0)
        close(s->fd);
    *s = (struct device_share){.fd = -1};
}
