// SPDX-License-Identifier: Apache-2.0
#include "worker/mappings.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/side.h"

// As many as a broker holds; whatever is over it comes in frames.
#define MAPPINGS_MAX 1024u

struct mapping {
    uint32_t number;
    struct slab *slab;
};

struct mappings {
    int fd;
    const char *endpoint; // NULL: no session yet
    uint64_t epoch, session;
    uint32_t n;
    struct mapping at[MAPPINGS_MAX];
    struct wire_decoder *decoder;
    struct wire_header *header;
};

struct mappings *mappings_new(void)
{
    struct mappings *ms = calloc(1, sizeof(*ms));
    if (!ms)
        return NULL;
    ms->fd = -1;
    ms->decoder = wire_decoder_new();
    ms->header = wire_header_new();
    if (!ms->decoder || !ms->header) {
        mappings_free(ms);
        return NULL;
    }
    return ms;
}

static void drop_all(struct mappings *ms)
{
    while (ms->n > 0)
        slab_unref(ms->at[--ms->n].slab);
}

// Without the connection nobody says what is not needed any more: all goes, and is shared anew.
static void disconnect(struct mappings *ms)
{
    if (ms->fd >= 0)
        close(ms->fd);
    ms->fd = -1;
    drop_all(ms);
}

void mappings_free(struct mappings *ms)
{
    if (!ms)
        return;
    disconnect(ms);
    wire_decoder_free(ms->decoder);
    wire_header_free(ms->header);
    free(ms);
}

void mappings_tend(struct mappings *ms)
{
    if (ms->fd >= 0 || !ms->endpoint)
        return;
    ms->fd = side_connect(ms->endpoint);
    if (ms->fd < 0)
        return;
    struct wire_attend fields = {.epoch = ms->epoch, .session = ms->session};
    wire_begin_attend(ms->header, &fields);
    if (!side_send(ms->fd, ms->header, -1))
        disconnect(ms);
}

void mappings_leave(struct mappings *ms)
{
    disconnect(ms);
    ms->endpoint = NULL;
}

void mappings_attend(struct mappings *ms, const char *endpoint, uint64_t epoch, uint64_t session)
{
    disconnect(ms);
    ms->endpoint = endpoint;
    ms->epoch = epoch;
    ms->session = session;
    mappings_tend(ms);
}

int mappings_fd(const struct mappings *ms)
{
    return ms->fd;
}

static struct mapping *find(const struct mappings *ms, uint32_t number)
{
    for (uint32_t i = 0; i < ms->n; i++)
        if (ms->at[i].number == number)
            return (struct mapping *)&ms->at[i];
    return NULL;
}

// The descriptor is taken over. Whether the slab can be used from now on.
static bool take_share(struct mappings *ms, const struct wire_share *m, int fd)
{
    char why[256];
    if (find(ms, m->slab)) { // told again, over a new connection
        close(fd);
        return true;
    }
    if (ms->n == MAPPINGS_MAX || m->bytes > SONIC_SLAB_BYTES_MAX) {
        close(fd);
        return false;
    }
    struct slab *slab = slab_map(fd, m->bytes, why, sizeof(why));
    if (!slab) {
        log_warn("slab_not_mapped", "slab=%u why=\"%s\"", m->slab, why);
        return false;
    }
    slab_close_fd(slab);
    ms->at[ms->n++] = (struct mapping){m->slab, slab};
    return true;
}

static void take_forget(struct mappings *ms, uint32_t number)
{
    struct mapping *at = find(ms, number);
    if (!at)
        return;
    slab_unref(at->slab);
    *at = ms->at[--ms->n];
}

// One packet; its slab's number when that is mapped now, else 0.
static uint32_t take_packet(struct mappings *ms, const void *packet, size_t len, int passed)
{
    struct wire_message *m;
    if (wire_decode(ms->decoder, packet, len, WIRE_FROM_BROKER, &m) == WIRE_OK) {
        if (m->type == WIRE_SHARE && passed >= 0 && m->fields.share.epoch == ms->epoch)
            return take_share(ms, &m->fields.share, passed) ? m->fields.share.slab : 0;
        if (m->type == WIRE_FORGET && m->fields.forget.epoch == ms->epoch)
            take_forget(ms, m->fields.forget.slab);
    }
    if (passed >= 0)
        close(passed);
    return 0;
}

uint32_t mappings_next(struct mappings *ms)
{
    uint8_t packet[SIDE_PACKET_MAX];
    size_t len;
    int passed, rc = 0;
    while (ms->fd >= 0 && (rc = side_receive(ms->fd, packet, sizeof(packet), &len, &passed)) > 0) {
        uint32_t number = take_packet(ms, packet, len, passed);
        if (number)
            return number;
    }
    if (rc < 0)
        disconnect(ms);
    return 0;
}

struct slab *mappings_get(const struct mappings *ms, uint32_t number)
{
    struct mapping *at = find(ms, number);
    if (!at)
        return NULL;
    slab_ref(at->slab);
    return at->slab;
}
