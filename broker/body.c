// SPDX-License-Identifier: Apache-2.0
#include "broker/body.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/slabs.h"

// One tensor. In a slab (tensor.place says so) it stays there.
struct part {
    struct tensor tensor;
    uint32_t at;   // of the copied bytes, in the body's data
    bool in_frame; // the bytes were left in the frame they came in: `at` is its number
};

// One allocation a body: parts, then the frames of large tensors, then the copied bytes, then the
// text. A small tensor's body is a few cache lines.
struct body {
    uint32_t ntensors;
    uint32_t text_at;
    uint32_t nframes;
    bool small;               // goes to the spares
    struct shared_slab *slab; // NULL: no tensor lies in one
    zmq_msg_t *frames;
    uint8_t *data;
    struct part parts[];
};

// Small bodies come and go two a request, a million times a second; the one freed last is still in
// the cache. One thread uses them, the broker's. The address sanitizer is to see each come and go.
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define SPARES_MAX 0u
#else
#define SPARES_MAX 8192u
#endif
#define SMALL_BYTES 320u
static struct {
    uint32_t n;
    void *at[SPARES_MAX + 1];
} spares;

static void *block_new(size_t bytes)
{
    if (bytes > SMALL_BYTES)
        return malloc(bytes);
    return spares.n > 0 ? spares.at[--spares.n] : malloc(SMALL_BYTES);
}

static struct body *body_new(uint32_t ntensors, uint32_t nframes, size_t data_bytes)
{
    size_t frames_at = sizeof(struct body) + ntensors * sizeof(struct part);
    size_t data_at = frames_at + nframes * sizeof(zmq_msg_t);
    struct body *b = block_new(data_at + data_bytes);
    if (!b)
        return NULL;
    b->ntensors = 0;
    b->nframes = 0;
    b->slab = NULL;
    b->frames = (zmq_msg_t *)(void *)((uint8_t *)b + frames_at);
    b->data = (uint8_t *)b + data_at;
    b->small = data_at + data_bytes <= SMALL_BYTES;
    return b;
}

static bool check_slab(const struct shared_slab *s, const struct tensor *t, uint32_t i, char *why,
                       size_t size)
{
    if (!s || s->number != t->where)
        snprintf(why, size, "tensor %u is in slab %u, and its sender shares no such slab", i,
                 t->where);
    else if (t->bytes <= SONIC_PACK_BYTES_MAX || !slab_tensor(s->memory, t))
        snprintf(why, size,
                 "tensor %u does not lie in slab %u as it claims, or is not of floating-point type "
                 "and over %u bytes",
                 i, t->where, SONIC_PACK_BYTES_MAX);
    else
        return true;
    return false;
}

// Checks where every tensor claims to be; returns the bytes to copy, or -1 with words.
static int64_t check_places(struct message *m, const struct wire_tensors *tensors,
                            const struct shared_slab *slab, uint32_t *nframes, char *why,
                            size_t size)
{
    int64_t copied = 0;
    *nframes = 0;
    for (uint32_t i = 0; i < tensors->n; i++) {
        const struct tensor *t = &tensors->at[i];
        if (t->place == TENSOR_IN_SLAB) {
            if (!check_slab(slab, t, i, why, size))
                return -1;
            continue;
        }
        if (!message_tensor(m, t)) {
            snprintf(why, size, "tensor %u does not lie in frame %u as it claims", i, t->where);
            return -1;
        }
        if (t->bytes > SONIC_PACK_BYTES_MAX && !message_own_frame(m, t)) {
            snprintf(why, size, "tensor %u is over %u bytes and has no frame of its own", i,
                     SONIC_PACK_BYTES_MAX);
            return -1;
        }
        if (t->bytes <= SONIC_PACK_BYTES_MAX)
            copied += (int64_t)t->bytes;
        else
            ++*nframes;
    }
    return copied;
}

static void hold_slab(struct body *b, struct shared_slab *slab)
{
    if (!b->slab)
        shared_slab_ref(slab);
    b->slab = slab;
}

struct body *body_take(struct message *m, const struct wire_tensors *tensors, struct wire_str text,
                       struct shared_slab *slab, char *why, size_t size)
{
    uint32_t nframes;
    int64_t copied = check_places(m, tensors, slab, &nframes, why, size);
    if (copied < 0)
        return NULL;
    struct body *b = body_new(tensors->n, nframes, (size_t)copied + text.len + 1);
    if (!b) {
        snprintf(why, size, "the broker is out of memory");
        return NULL;
    }
    uint32_t at = 0;
    for (uint32_t i = 0; i < tensors->n; i++) {
        struct part *part = &b->parts[i];
        part->tensor = tensors->at[i];
        part->in_frame = false;
        if (part->tensor.place == TENSOR_IN_SLAB) {
            hold_slab(b, slab);
            b->ntensors++;
            continue;
        }
        part->in_frame = part->tensor.bytes > SONIC_PACK_BYTES_MAX;
        const void *bytes = message_tensor(m, &part->tensor);
        if (!bytes) { // two tensors claimed one frame, and the first has taken it
            snprintf(why, size, "tensor %u shares its frame with another", i);
            body_free(b);
            return NULL;
        }
        if (part->in_frame) {
            part->at = b->nframes++;
            zmq_msg_init(&b->frames[part->at]);
            zmq_msg_move(&b->frames[part->at], &m->frames[part->tensor.where]);
        } else {
            part->at = at;
            memcpy(b->data + at, bytes, part->tensor.bytes);
            at += (uint32_t)part->tensor.bytes;
        }
        b->ntensors++;
    }
    b->text_at = at;
    if (text.len)
        memcpy(b->data + at, text.data, text.len);
    b->data[at + text.len] = '\0';
    return b;
}

struct body *body_text(const char *text)
{
    size_t len = strlen(text);
    struct body *b = body_new(0, 0, len + 1);
    if (!b)
        return NULL;
    b->text_at = 0;
    memcpy(b->data, text, len + 1);
    return b;
}

void body_free(struct body *b)
{
    if (!b)
        return;
    for (uint32_t i = 0; i < b->nframes; i++)
        zmq_msg_close(&b->frames[i]);
    if (b->slab)
        shared_slab_unref(b->slab);
    if (b->small && spares.n < SPARES_MAX)
        spares.at[spares.n++] = b;
    else
        free(b);
}

uint32_t body_ntensors(const struct body *b)
{
    return b->ntensors;
}

const char *body_reason(const struct body *b)
{
    return (const char *)b->data + b->text_at;
}

struct shared_slab *body_slab(const struct body *b)
{
    return b->slab;
}

bool body_fits(const struct body *b, const struct payload *p, bool in_place)
{
    uint64_t bytes[SONIC_TENSORS_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->ntensors; i++)
        if (!in_place || b->parts[i].tensor.place != TENSOR_IN_SLAB)
            bytes[n++] = b->parts[i].tensor.bytes;
    return payload_fits(p, n, bytes);
}

// libzmq has sent a frame out of a slab. Runs on its I/O thread.
static void slab_sent(void *data, void *hint)
{
    (void)data;
    slab_unref(hint);
}

// A frame over the bytes in the slab: they are copied by the kernel alone.
static void frame_of_slab(struct slab *memory, const struct tensor *t, zmq_msg_t *frame)
{
    slab_ref(memory);
    if (zmq_msg_init_data(frame, (void *)(uintptr_t)slab_tensor(memory, t), t->bytes, slab_sent,
                          memory) != 0)
        abort(); // cannot hold the message that it is about to send (message.c)
}

void body_put(struct body *b, struct payload *p, struct wire_tensors *tensors, bool in_place)
{
    tensors->n = b->ntensors;
    for (uint32_t i = 0; i < b->ntensors; i++) {
        struct part *part = &b->parts[i];
        struct tensor *t = &tensors->at[i];
        *t = part->tensor;
        bool in_slab = t->place == TENSOR_IN_SLAB;
        if (in_slab && in_place)
            continue;
        if (!in_slab && !part->in_frame) {
            payload_pack(p, t, b->data + part->at);
            continue;
        }
        zmq_msg_t frame;
        if (in_slab) {
            frame_of_slab(b->slab->memory, t, &frame);
        } else {
            zmq_msg_init(&frame);
            zmq_msg_copy(&frame, &b->frames[part->at]);
        }
        payload_attach(p, t, &frame);
        zmq_msg_close(&frame);
    }
}
