// SPDX-License-Identifier: Apache-2.0
// Everything here is generated from wire.def: one reader and one writer a field kind, and for each
// message the functions that apply them in the table's order.
#include "common/wire.h"

#include <limits.h> // msgpack-c relies on CHAR_MIN without including it
#include <msgpack/sysdep.h>
#include <msgpack/timestamp.h>
#include <stdlib.h>
#include <string.h>

#include "common/mp.h"

// ---- names --------------------------------------------------------------------------------------

const char *wire_type_name(unsigned type)
{
    switch (type) {
#define MESSAGE(NAME, name, number, senders, doc)                                                  \
    case number:                                                                                   \
        return #NAME;
        WIRE_MESSAGES(MESSAGE)
#undef MESSAGE
    }
    return "UNKNOWN";
}

const char *wire_error_name(enum wire_error e)
{
    static const char *const names[WIRE_ERR_COUNT] = {
        "ok", "too_large", "truncated", "format", "type", "role", "limit", "shape", "trailing"};
    return e < WIRE_ERR_COUNT ? names[e] : "unknown";
}

const char *sonic_status_name(unsigned status)
{
    switch (status) {
#define STATUS(NAME, number, retry, text)                                                          \
    case number:                                                                                   \
        return #NAME;
        SONIC_STATUSES(STATUS)
#undef STATUS
    }
    return "UNKNOWN";
}

const char *sonic_status_text(unsigned status)
{
    switch (status) {
#define STATUS(NAME, number, retry, text)                                                          \
    case number:                                                                                   \
        return text;
        SONIC_STATUSES(STATUS)
#undef STATUS
    }
    return "unknown status";
}

bool sonic_status_retries(unsigned status)
{
    switch (status) {
#define STATUS(NAME, number, retry, text)                                                          \
    case number:                                                                                   \
        return retry;
        SONIC_STATUSES(STATUS)
#undef STATUS
    }
    return false;
}

// ---- reading ------------------------------------------------------------------------------------

struct reader {
    struct mp_reader mp;
    const struct wire_tensors *before; // of the item before, NULL when there is none
};

static void set_error(struct mp_reader *r, enum wire_error e)
{
    if (r->error == WIRE_OK)
        r->error = e;
    r->at = r->end;
}

static void read_U8(struct reader *r, uint8_t *v, uint64_t limit)
{
    *v = (uint8_t)mp_uint(&r->mp, limit ? limit : UINT8_MAX);
}

static void read_U32(struct reader *r, uint32_t *v, uint64_t limit)
{
    *v = (uint32_t)mp_uint(&r->mp, limit ? limit : UINT32_MAX);
}

static void read_U64(struct reader *r, uint64_t *v, uint64_t limit)
{
    *v = mp_uint(&r->mp, limit ? limit : UINT64_MAX);
}

static void read_STR(struct reader *r, struct wire_str *v, uint64_t limit)
{
    v->len = mp_bytes(&r->mp, (uint32_t)limit, &v->data);
}

static void read_U32S(struct reader *r, struct wire_u32s *v, uint64_t limit)
{
    v->n = mp_array(&r->mp, (uint32_t)limit);
    for (uint32_t i = 0; i < v->n; i++)
        v->at[i] = (uint32_t)mp_uint(&r->mp, UINT32_MAX);
}

// A tensor: [dtype, [dims...], place, where, offset].
static void read_tensor(struct mp_reader *r, struct tensor *t)
{
    uint32_t n = mp_array(r, 64);
    if (n < 5)
        set_error(r, WIRE_ERR_FORMAT);
    t->dtype = (uint8_t)mp_uint(r, UINT8_MAX);
    t->ndim = (uint8_t)mp_array(r, SONIC_DIMS_MAX);
    for (unsigned i = 0; i < t->ndim; i++)
        t->dims[i] = mp_uint(r, UINT64_MAX);
    t->place = (uint8_t)mp_uint(r, TENSOR_IN_SLAB);
    t->where = (uint32_t)mp_uint(r, UINT32_MAX);
    t->offset = mp_uint(r, UINT64_MAX);
    if (r->error == WIRE_OK && !tensor_bytes(t->dtype, t->ndim, t->dims, &t->bytes))
        set_error(r, WIRE_ERR_SHAPE);
    if (n > 5)
        mp_skip(r, n - 5);
}

// The tensors of the item before once more, each where the packed frame goes on.
static void repeat_tensors(struct reader *r, struct wire_tensors *v)
{
    v->n = 0;
    if (!r->before || r->before->n == 0) {
        set_error(&r->mp, WIRE_ERR_FORMAT);
        return;
    }
    const struct tensor *last = &r->before->at[r->before->n - 1];
    uint64_t offset = last->offset, bytes = last->bytes;
    for (uint32_t i = 0; i < r->before->n; i++) {
        v->at[i] = r->before->at[i];
        if (!tensor_packed_after(&offset, bytes)) {
            set_error(&r->mp, WIRE_ERR_SHAPE);
            return;
        }
        v->at[i].place = TENSOR_IN_FRAME;
        v->at[i].where = SONIC_PACKED_FRAME;
        v->at[i].offset = offset;
        bytes = v->at[i].bytes;
    }
    v->n = r->before->n;
}

static void read_TENSORS(struct reader *r, struct wire_tensors *v, uint64_t limit)
{
    if (mp_nil(&r->mp)) {
        repeat_tensors(r, v);
    } else {
        v->n = mp_array(&r->mp, (uint32_t)limit);
        for (uint32_t i = 0; i < v->n && r->mp.error == WIRE_OK; i++)
            read_tensor(&r->mp, &v->at[i]);
    }
    r->before = v;
}

// A declaration: [name, dtype, [dims...]], dims < 0 = any size.
static void read_spec(struct mp_reader *r, struct tensor_spec *s)
{
    const char *name;
    uint32_t n = mp_array(r, 64);
    if (n < 3)
        set_error(r, WIRE_ERR_FORMAT);
    uint32_t len = mp_bytes(r, SONIC_NAME_MAX, &name);
    memcpy(s->name, name, len);
    s->name[len] = '\0';
    s->dtype = (uint8_t)mp_uint(r, UINT8_MAX);
    s->ndim = (uint8_t)mp_array(r, SONIC_DIMS_MAX);
    for (unsigned i = 0; i < s->ndim; i++)
        s->dims[i] = mp_int(r);
    if (r->error == WIRE_OK && dtype_bytes(s->dtype) == 0)
        set_error(r, WIRE_ERR_SHAPE);
    if (n > 3)
        mp_skip(r, n - 3);
}

static void read_SPECS(struct reader *r, struct wire_specs *v, uint64_t limit)
{
    v->n = mp_array(&r->mp, (uint32_t)limit);
    for (uint32_t i = 0; i < v->n && r->mp.error == WIRE_OK; i++)
        read_spec(&r->mp, &v->at[i]);
}

// Reads one declared field, or zeroes it when an older peer (its version < since) left it out.
#define READ_FIELD(kind, name, limit, since, doc)                                                  \
    if (left > 0) {                                                                                \
        read_##kind(r, &m->name, (limit));                                                         \
        left--;                                                                                    \
    } else if ((since) <= SONIC_PROTOCOL_VERSION_MIN) {                                            \
        set_error(&r->mp, WIRE_ERR_FORMAT);                                                        \
        memset(&m->name, 0, sizeof(m->name));                                                      \
    } else {                                                                                       \
        memset(&m->name, 0, sizeof(m->name));                                                      \
    }

// More fields than any version will have; those beyond ours are a newer peer's and skipped.
#define FIELDS_MAX 64

#define MESSAGE(NAME, name, number, senders, doc)                                                  \
    static void read_##name(struct reader *r, struct wire_##name *m)                               \
    {                                                                                              \
        uint32_t left = mp_array(&r->mp, FIELDS_MAX);                                              \
        WIRE_FIELDS_##name(READ_FIELD);                                                            \
        mp_skip(&r->mp, left);                                                                     \
    }                                                                                              \
    static void read_item_##name(struct reader *r, struct wire_##name##_item *m)                   \
    {                                                                                              \
        uint32_t left = mp_array(&r->mp, FIELDS_MAX);                                              \
        m->unused = 0;                                                                             \
        WIRE_ITEMS_##name(READ_FIELD);                                                             \
        mp_skip(&r->mp, left);                                                                     \
    }
WIRE_MESSAGES(MESSAGE)
#undef MESSAGE

struct wire_decoder {
    struct wire_message message;
    union {
#define MESSAGE(NAME, name, number, senders, doc) struct wire_##name##_item name[SONIC_ITEMS_MAX];
        WIRE_MESSAGES(MESSAGE)
#undef MESSAGE
    } items;
};

struct wire_decoder *wire_decoder_new(void)
{
    return malloc(sizeof(struct wire_decoder));
}

void wire_decoder_free(struct wire_decoder *d)
{
    free(d);
}

static bool sender_allowed(unsigned type, enum wire_role from)
{
    switch (type) {
#define MESSAGE(NAME, name, number, senders, doc)                                                  \
    case number:                                                                                   \
        return ((senders) & (unsigned)from) != 0;
        WIRE_MESSAGES(MESSAGE)
#undef MESSAGE
    }
    return false;
}

static bool type_known(unsigned type)
{
    switch (type) {
#define MESSAGE(NAME, name, number, senders, doc) case number:
        WIRE_MESSAGES(MESSAGE)
#undef MESSAGE
        return true;
    }
    return false;
}

static void read_body(struct reader *r, struct wire_decoder *d)
{
    struct wire_message *m = &d->message;
    switch (m->type) {
#define MESSAGE(NAME, name, number, senders, doc)                                                  \
    case WIRE_##NAME:                                                                              \
        read_##name(r, &m->fields.name);                                                           \
        m->nitems = mp_array(&r->mp, SONIC_ITEMS_MAX);                                             \
        for (uint32_t i = 0; i < m->nitems && r->mp.error == WIRE_OK; i++)                         \
            read_item_##name(r, &d->items.name[i]);                                                \
        m->items.name = d->items.name;                                                             \
        break;
        WIRE_MESSAGES(MESSAGE)
#undef MESSAGE
    case WIRE_NONE:
        break;
    }
}

enum wire_error wire_decode(struct wire_decoder *d, const void *data, size_t len,
                            enum wire_role from, struct wire_message **msg)
{
    struct reader r = {.before = NULL};
    *msg = NULL;
    if (len > SONIC_HEADER_BYTES_MAX)
        return WIRE_ERR_TOO_LARGE;
    mp_init(&r.mp, data, len);
    uint32_t parts = mp_array(&r.mp, FIELDS_MAX);
    if (r.mp.error == WIRE_OK && parts < 3)
        return WIRE_ERR_FORMAT;
    unsigned type = (unsigned)mp_uint(&r.mp, UINT8_MAX);
    if (r.mp.error != WIRE_OK)
        return r.mp.error;
    if (!type_known(type))
        return WIRE_ERR_TYPE;
    if (!sender_allowed(type, from))
        return WIRE_ERR_ROLE;
    d->message.type = (enum wire_type)type;
    read_body(&r, d);
    mp_skip(&r.mp, parts - 3);
    if (r.mp.error != WIRE_OK)
        return r.mp.error;
    if (r.mp.at != r.mp.end)
        return WIRE_ERR_TRAILING;
    *msg = &d->message;
    return WIRE_OK;
}

// ---- writing ------------------------------------------------------------------------------------

struct wire_header {
    size_t used;
    bool overflow;
    size_t items_at; // where the item count's two bytes are
    uint32_t nitems;
    struct wire_tensors before; // of the item before; none: n = 0
    uint8_t bytes[SONIC_HEADER_BYTES_MAX];
};

static inline int header_write(struct wire_header *h, const void *data, size_t len)
{
    if (len > sizeof(h->bytes) - h->used) {
        h->overflow = true;
        return -1;
    }
    if (len > 0) // an empty string may be nowhere
        memcpy(h->bytes + h->used, data, len);
    h->used += len;
    return 0;
}

// msgpack-c's packer, instantiated over our buffer: the template is what its own pack.h and its
// bindings use. Through msgpack_packer each value is an indirect call (110 to 185 ns an item).
#define msgpack_pack_inline_func(name) static inline int pack##name
#define msgpack_pack_user struct wire_header *
#define msgpack_pack_append_buffer(user, buf, len) return header_write(user, buf, len)
#include <msgpack/pack_template.h>

struct wire_header *wire_header_new(void)
{
    struct wire_header *h = malloc(sizeof(*h));
    if (h) {
        h->used = 0;
        h->nitems = 0;
        h->overflow = false;
        h->before.n = 0;
    }
    return h;
}

void wire_header_free(struct wire_header *h)
{
    free(h);
}

static void write_U8(struct wire_header *h, const uint8_t *v, uint64_t limit)
{
    (void)limit;
    pack_uint8(h, *v);
}

static void write_U32(struct wire_header *h, const uint32_t *v, uint64_t limit)
{
    (void)limit;
    pack_uint32(h, *v);
}

static void write_U64(struct wire_header *h, const uint64_t *v, uint64_t limit)
{
    (void)limit;
    pack_uint64(h, *v);
}

// Cut at the limit: only reasons for people can be longer, and their beginning says most.
static void write_STR(struct wire_header *h, const struct wire_str *v, uint64_t limit)
{
    size_t len = v->len <= limit ? v->len : (size_t)limit;
    pack_str(h, len);
    pack_str_body(h, v->data, len);
}

static void write_U32S(struct wire_header *h, const struct wire_u32s *v, uint64_t limit)
{
    (void)limit;
    pack_array(h, v->n);
    for (uint32_t i = 0; i < v->n; i++)
        pack_uint32(h, v->at[i]);
}

// Whether these are the tensors of the item before once more, each packed where the last one ended;
// if so, `before` goes along.
static bool repeats(struct wire_tensors *before, const struct wire_tensors *v)
{
    if (v->n == 0 || v->n != before->n)
        return false;
    uint64_t offset = before->at[v->n - 1].offset, bytes = before->at[v->n - 1].bytes;
    for (uint32_t i = 0; i < v->n; i++) {
        const struct tensor *t = &v->at[i], *b = &before->at[i];
        if (t->place != TENSOR_IN_FRAME || t->where != SONIC_PACKED_FRAME || t->dtype != b->dtype ||
            t->ndim != b->ndim || !tensor_packed_after(&offset, bytes) || t->offset != offset)
            return false;
        for (unsigned k = 0; k < t->ndim; k++)
            if (t->dims[k] != b->dims[k])
                return false;
        bytes = b->bytes;
    }
    for (uint32_t i = 0; i < v->n; i++)
        before->at[i].offset = v->at[i].offset;
    return true;
}

// One that the next item cannot repeat leaves nothing to repeat.
static void remember(struct wire_tensors *before, const struct wire_tensors *v)
{
    before->n = v->n;
    for (uint32_t i = 0; i < v->n; i++) {
        struct tensor *b = &before->at[i];
        *b = v->at[i];
        if (!tensor_bytes(b->dtype, b->ndim, b->dims, &b->bytes))
            before->n = 0;
    }
}

static void write_TENSORS(struct wire_header *h, const struct wire_tensors *v, uint64_t limit)
{
    (void)limit;
    if (repeats(&h->before, v)) {
        pack_nil(h);
        return;
    }
    remember(&h->before, v);
    pack_array(h, v->n);
    for (uint32_t i = 0; i < v->n; i++) {
        const struct tensor *t = &v->at[i];
        pack_array(h, 5);
        pack_uint8(h, t->dtype);
        pack_array(h, t->ndim);
        for (unsigned k = 0; k < t->ndim; k++)
            pack_uint64(h, t->dims[k]);
        pack_uint8(h, t->place);
        pack_uint32(h, t->where);
        pack_uint64(h, t->offset);
    }
}

static void write_SPECS(struct wire_header *h, const struct wire_specs *v, uint64_t limit)
{
    (void)limit;
    pack_array(h, v->n);
    for (uint32_t i = 0; i < v->n; i++) {
        const struct tensor_spec *s = &v->at[i];
        size_t len = strnlen(s->name, SONIC_NAME_MAX);
        pack_array(h, 3);
        pack_str(h, len);
        pack_str_body(h, s->name, len);
        pack_uint8(h, s->dtype);
        pack_array(h, s->ndim);
        for (unsigned k = 0; k < s->ndim; k++)
            pack_int64(h, s->dims[k]);
    }
}

#define COUNT_FIELD(kind, name, limit, since, doc) +1
#define WRITE_FIELD(kind, name, limit, since, doc) write_##kind(h, &m->name, (limit));

// The item count is an array16 whatever it is, so that it can be patched when the items are in.
static void begin_items(struct wire_header *h)
{
    static const char array16[3] = {(char)0xdc, 0, 0};
    header_write(h, array16, sizeof(array16));
    h->items_at = h->used - 2;
    h->nitems = 0;
}

#define MESSAGE(NAME, name, number, senders, doc)                                                  \
    void wire_begin_##name(struct wire_header *h, const struct wire_##name *m)                     \
    {                                                                                              \
        h->used = 0;                                                                               \
        h->overflow = false;                                                                       \
        h->before.n = 0;                                                                           \
        pack_array(h, 3);                                                                          \
        pack_uint8(h, number);                                                                     \
        pack_array(h, 0 WIRE_FIELDS_##name(COUNT_FIELD));                                          \
        WIRE_FIELDS_##name(WRITE_FIELD);                                                           \
        begin_items(h);                                                                            \
    }                                                                                              \
    bool wire_add_##name(struct wire_header *h, const struct wire_##name##_item *m)                \
    {                                                                                              \
        size_t before = h->used;                                                                   \
        if (h->nitems == SONIC_ITEMS_MAX)                                                          \
            return false;                                                                          \
        (void)m;                                                                                   \
        pack_array(h, 0 WIRE_ITEMS_##name(COUNT_FIELD));                                           \
        WIRE_ITEMS_##name(WRITE_FIELD);                                                            \
        if (h->overflow) {                                                                         \
            h->used = before;                                                                      \
            h->overflow = false;                                                                   \
            h->before.n = 0;                                                                       \
            return false;                                                                          \
        }                                                                                          \
        h->nitems++;                                                                               \
        return true;                                                                               \
    }
WIRE_MESSAGES(MESSAGE)
#undef MESSAGE

const void *wire_finish(struct wire_header *h, size_t *len)
{
    h->bytes[h->items_at] = (uint8_t)(h->nitems >> 8);
    h->bytes[h->items_at + 1] = (uint8_t)h->nitems;
    *len = h->used;
    return h->bytes;
}

uint32_t wire_header_items(const struct wire_header *h)
{
    return h->nitems;
}
