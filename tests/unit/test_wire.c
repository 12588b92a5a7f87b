// SPDX-License-Identifier: Apache-2.0
// The codec against itself, against msgpack-c (an independent reader of what we write), and against
// bytes that no honest peer sends.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <limits.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire.h"

struct fixture {
    struct wire_decoder *decoder;
    struct wire_header *header;
};

static int setup(void **state)
{
    static struct fixture f;
    f.decoder = wire_decoder_new();
    f.header = wire_header_new();
    *state = &f;
    return f.decoder && f.header ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    wire_decoder_free(f->decoder);
    wire_header_free(f->header);
    return 0;
}

static struct wire_submit_item some_request(uint64_t seq)
{
    struct wire_submit_item item = {.seq = seq, .priority = 2, .deadline_us = 1u << 20};
    struct tensor *t = &item.tensors.at[0];
    item.tensors.n = 1;
    *t = (struct tensor){.dtype = SONIC_FP32, .ndim = 2, .dims = {3, 47}, .where = 1, .offset = 64};
    return item;
}

static const void *submit_of(struct wire_header *h, uint32_t n, size_t *len)
{
    struct wire_submit fields = {
        .epoch = UINT64_MAX, .received = 7, .model = wire_str("facile"), .version = 1};
    wire_begin_submit(h, &fields);
    for (uint32_t i = 0; i < n; i++) {
        struct wire_submit_item item = some_request(i);
        assert_true(wire_add_submit(h, &item));
    }
    return wire_finish(h, len);
}

static void test_submit_round_trip(void **state)
{
    struct fixture *f = *state;
    struct wire_message *m;
    size_t len;
    const void *data = submit_of(f->header, 300, &len);
    assert_int_equal(wire_decode(f->decoder, data, len, WIRE_FROM_CLIENT, &m), WIRE_OK);
    assert_int_equal(m->type, WIRE_SUBMIT);
    assert_int_equal(m->nitems, 300);
    assert_true(m->fields.submit.epoch == UINT64_MAX);
    assert_int_equal(m->fields.submit.model.len, 6);
    assert_memory_equal(m->fields.submit.model.data, "facile", 6);
    const struct wire_submit_item *last = &m->items.submit[299];
    assert_int_equal(last->seq, 299);
    assert_int_equal(last->priority, 2);
    assert_int_equal(last->tensors.n, 1);
    assert_int_equal(last->tensors.at[0].bytes, 3 * 47 * 4);
    assert_int_equal(last->tensors.at[0].offset, 64);
}

// What we write is MessagePack to its reference implementation, with the shape the table declares.
static void test_written_header_is_msgpack(void **state)
{
    struct fixture *f = *state;
    size_t len, at = 0;
    const void *data = submit_of(f->header, 5, &len);
    msgpack_unpacked u;
    msgpack_unpacked_init(&u);
    assert_int_equal(msgpack_unpack_next(&u, data, len, &at), MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(at, len);
    assert_int_equal(u.data.type, MSGPACK_OBJECT_ARRAY);
    assert_int_equal(u.data.via.array.size, 3);
    assert_int_equal(u.data.via.array.ptr[0].via.u64, WIRE_SUBMIT);
    assert_int_equal(u.data.via.array.ptr[1].via.array.size, 4);
    assert_int_equal(u.data.via.array.ptr[2].via.array.size, 5);
    msgpack_object seq = u.data.via.array.ptr[2].via.array.ptr[4].via.array.ptr[0];
    assert_int_equal(seq.via.u64, 4);
    msgpack_unpacked_destroy(&u);
}

static void test_join_carries_declarations(void **state)
{
    struct fixture *f = *state;
    struct wire_message *m;
    struct wire_join join = {.version_min = 1,
                             .version_max = 1,
                             .session = 9,
                             .name = wire_str("host-cpu0"),
                             .device_kind = wire_str("cpu"),
                             .device_name = wire_str("AMD EPYC"),
                             .slots = 2};
    struct wire_join_item item = {.name = wire_str("facile"), .version = 1, .batch_max = 16};
    item.preferred = (struct wire_u32s){.n = 2, .at = {4, 8}};
    item.inputs.n = 1;
    item.inputs.at[0] =
        (struct tensor_spec){.name = "channels", .dtype = SONIC_FP32, .ndim = 2, .dims = {-1, 47}};
    size_t len;
    wire_begin_join(f->header, &join);
    assert_true(wire_add_join(f->header, &item));
    const void *data = wire_finish(f->header, &len);
    assert_int_equal(wire_decode(f->decoder, data, len, WIRE_FROM_WORKER, &m), WIRE_OK);
    assert_int_equal(m->items.join[0].preferred.at[1], 8);
    assert_string_equal(m->items.join[0].inputs.at[0].name, "channels");
    assert_true(m->items.join[0].inputs.at[0].dims[0] == -1);
}

static void test_a_peer_may_send_only_its_own_messages(void **state)
{
    struct fixture *f = *state;
    struct wire_message *m;
    size_t len;
    const void *data = submit_of(f->header, 1, &len);
    assert_int_equal(wire_decode(f->decoder, data, len, WIRE_FROM_WORKER, &m), WIRE_ERR_ROLE);
    assert_null(m);
    assert_int_equal(wire_decode(f->decoder, data, len, WIRE_FROM_BROKER, &m), WIRE_ERR_ROLE);
}

static void test_every_truncation_is_refused(void **state)
{
    struct fixture *f = *state;
    struct wire_message *m;
    size_t len;
    const char *data = submit_of(f->header, 3, &len);
    for (size_t cut = 0; cut < len; cut++) {
        char *exact = malloc(cut ? cut : 1); // a block of its own: a read past it is an ASan report
        memcpy(exact, data, cut);
        assert_int_not_equal(wire_decode(f->decoder, exact, cut, WIRE_FROM_CLIENT, &m), WIRE_OK);
        free(exact);
    }
}

static void test_trailing_bytes_are_refused(void **state)
{
    struct fixture *f = *state;
    struct wire_message *m;
    size_t len;
    char longer[1024];
    const char *data = submit_of(f->header, 1, &len);
    memcpy(longer, data, len);
    longer[len] = 0;
    assert_int_equal(wire_decode(f->decoder, longer, len + 1, WIRE_FROM_CLIENT, &m),
                     WIRE_ERR_TRAILING);
}

static void test_hostile_headers(void **state)
{
    struct fixture *f = *state;
    struct wire_message *m;
    static const struct {
        const char *bytes;
        size_t len;
        enum wire_error want;
    } cases[] = {
        {"", 0, WIRE_ERR_TRUNCATED},
        {"\xdd\x10\x00\x00\x00", 5, WIRE_ERR_LIMIT}, // 2^28 elements: msgpack-c allocates 8 GiB
        {"\x93\xcc\xff\x90\x90", 5, WIRE_ERR_TYPE},
        {"\x93\x00\x90\x90", 4, WIRE_ERR_TYPE},
        {"\x92\x05\x90", 3, WIRE_ERR_FORMAT},
        {"\x93\x05\x90\x90", 4, WIRE_ERR_FORMAT},                    // CANCEL without its epoch
        {"\x93\x05\x91\x01\xdd\x00\x01\x00\x00", 9, WIRE_ERR_LIMIT}, // 65,536 items
        {"\x93\x05\x91\x01\xdc\x04\x00\x90", 8, WIRE_ERR_TRUNCATED}, // 1,024 items in one byte
        {"\x93\x05\x91\xc0\x90", 5, WIRE_ERR_FORMAT},                // nil for a number
        {"\x93\x05\x91\xff\x90", 5, WIRE_ERR_FORMAT},                // -1 for a number
        {"\x93\x05\x91\xc1\x90", 5, WIRE_ERR_FORMAT}, // the byte that msgpack never uses
        {"\x81\x05\x91", 3, WIRE_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(
            wire_decode(f->decoder, cases[i].bytes, cases[i].len, WIRE_FROM_CLIENT, &m),
            cases[i].want);
    static char huge[SONIC_HEADER_BYTES_MAX + 1];
    assert_int_equal(wire_decode(f->decoder, huge, sizeof(huge), WIRE_FROM_CLIENT, &m),
                     WIRE_ERR_TOO_LARGE);
}

static enum wire_error decode_one(struct fixture *f, const struct wire_submit_item *item)
{
    struct wire_submit fields = {.epoch = 1, .model = wire_str("m")};
    struct wire_message *m;
    size_t len;
    wire_begin_submit(f->header, &fields);
    assert_true(wire_add_submit(f->header, item));
    const void *data = wire_finish(f->header, &len);
    return wire_decode(f->decoder, data, len, WIRE_FROM_CLIENT, &m);
}

static void test_shape_overflow_is_refused(void **state)
{
    struct wire_submit_item item = some_request(1);
    assert_int_equal(decode_one(*state, &item), WIRE_OK);
    item.tensors.at[0].dims[0] = UINT64_MAX / 8;
    assert_int_equal(decode_one(*state, &item), WIRE_ERR_SHAPE);
    item = some_request(1);
    item.tensors.at[0].dtype = 99;
    assert_int_equal(decode_one(*state, &item), WIRE_ERR_SHAPE);
    item = some_request(1);
    item.tensors.at[0].place = 7;
    assert_int_equal(decode_one(*state, &item), WIRE_ERR_LIMIT);
}

// ---- tensors that repeat ------------------------------------------------------------------------

// Two tensors of `rows` rows, packed from *at on, which moves along.
static struct wire_submit_item packed_request(uint64_t seq, uint64_t rows, uint64_t *at)
{
    struct wire_submit_item item = {.seq = seq};
    for (item.tensors.n = 0; item.tensors.n < 2; item.tensors.n++) {
        uint64_t bytes = rows * (item.tensors.n ? 8 : 300);
        item.tensors.at[item.tensors.n] = (struct tensor){.dtype = SONIC_UINT8,
                                                          .ndim = 2,
                                                          .dims = {rows, bytes / rows},
                                                          .where = SONIC_PACKED_FRAME,
                                                          .offset = *at,
                                                          .bytes = bytes};
        *at = (*at + bytes + SONIC_PACK_ALIGN - 1) & ~(uint64_t)(SONIC_PACK_ALIGN - 1);
    }
    return item;
}

static size_t add_item(struct fixture *f, const struct wire_submit_item *item)
{
    size_t before, after;
    wire_finish(f->header, &before);
    assert_true(wire_add_submit(f->header, item));
    wire_finish(f->header, &after);
    return after - before;
}

static void test_repeated_tensors_travel_as_nil(void **state)
{
    static const uint64_t ROWS[] = {2, 2, 2, 3, 3, 2};
    static const bool SHORT[] = {false, true, true, false, true, false};
    struct fixture *f = *state;
    struct wire_submit fields = {.epoch = 1, .model = wire_str("m")};
    struct wire_submit_item items[6];
    struct wire_message *m;
    uint64_t at = 64;
    size_t len;
    wire_begin_submit(f->header, &fields);
    for (unsigned i = 0; i < 6; i++) {
        items[i] = packed_request(i, ROWS[i], &at);
        size_t bytes = add_item(f, &items[i]);
        assert_true(SHORT[i] ? bytes < 8 : bytes > 16);
    }
    const void *data = wire_finish(f->header, &len);
    assert_int_equal(wire_decode(f->decoder, data, len, WIRE_FROM_CLIENT, &m), WIRE_OK);
    assert_int_equal(m->nitems, 6);
    for (unsigned i = 0; i < 6; i++) {
        const struct wire_tensors *got = &m->items.submit[i].tensors;
        assert_int_equal(got->n, 2);
        for (unsigned k = 0; k < 2; k++) {
            const struct tensor *want = &items[i].tensors.at[k];
            assert_int_equal(got->at[k].offset, want->offset);
            assert_int_equal(got->at[k].bytes, want->bytes);
            assert_int_equal(got->at[k].where, SONIC_PACKED_FRAME);
            assert_memory_equal(got->at[k].dims, want->dims, 2 * sizeof(want->dims[0]));
        }
    }
}

// The same shapes, but not where the packed frame goes on: said in full.
static void test_tensors_elsewhere_do_not_repeat(void **state)
{
    struct fixture *f = *state;
    struct wire_submit fields = {.epoch = 1, .model = wire_str("m")};
    uint64_t at = 0;
    wire_begin_submit(f->header, &fields);
    struct wire_submit_item item = packed_request(1, 2, &at);
    add_item(f, &item);
    item.tensors.at[1].offset += SONIC_PACK_ALIGN;
    assert_true(add_item(f, &item) > 16);
    item.tensors.at[0].where = item.tensors.at[1].where = 2;
    assert_true(add_item(f, &item) > 16);
    assert_true(add_item(f, &item) > 16);
}

// A SUBMIT whose items are given as bytes: seq, priority, deadline, and tensors as written.
static enum wire_error decode_items(struct fixture *f, unsigned n, const char *bytes, size_t len)
{
    char buf[256] = "\x93\x03\x94\x01\x00\xa1m\x00";
    struct wire_message *m;
    buf[8] = (char)(0x90 + n);
    memcpy(buf + 9, bytes, len);
    return wire_decode(f->decoder, buf, 9 + len, WIRE_FROM_CLIENT, &m);
}
#define DECODE(n, bytes) decode_items(*state, n, bytes, sizeof(bytes) - 1)
#define ITEM "\x94\x01\x00\x00"
#define A_BYTE_AT_0 "\x91\x95\x06\x91\x01\x00\x01\x00"
#define A_BYTE_AT_THE_END "\x91\x95\x06\x91\x01\x00\x01\xcf\xff\xff\xff\xff\xff\xff\xff\xff"

static void test_hostile_repeats(void **state)
{
    assert_int_equal(DECODE(2, ITEM A_BYTE_AT_0 ITEM "\xc0"), WIRE_OK);
    assert_int_equal(DECODE(1, ITEM "\xc0"), WIRE_ERR_FORMAT);             // nothing to repeat
    assert_int_equal(DECODE(2, ITEM "\x90" ITEM "\xc0"), WIRE_ERR_FORMAT); // no tensors before
    assert_int_equal(DECODE(2, ITEM A_BYTE_AT_THE_END ITEM "\xc0"), WIRE_ERR_SHAPE);
    // What the message before carried is not repeated in the next.
    assert_int_equal(DECODE(1, ITEM A_BYTE_AT_0), WIRE_OK);
    assert_int_equal(DECODE(1, ITEM "\xc0"), WIRE_ERR_FORMAT);
}

// A newer peer appends fields to messages, items, tensors: they are skipped, whatever their kind.
static void test_newer_fields_are_skipped(void **state)
{
    struct fixture *f = *state;
    struct wire_message *m;
    msgpack_sbuffer buf;
    msgpack_packer p;
    msgpack_sbuffer_init(&buf);
    msgpack_packer_init(&p, &buf, msgpack_sbuffer_write);
    msgpack_pack_array(&p, 4);
    msgpack_pack_uint8(&p, WIRE_CANCEL);
    msgpack_pack_array(&p, 3);
    msgpack_pack_uint64(&p, 77);
    msgpack_pack_double(&p, 1.5);
    msgpack_pack_map(&p, 1);
    msgpack_pack_str(&p, 3);
    msgpack_pack_str_body(&p, "new", 3);
    msgpack_pack_true(&p);
    msgpack_pack_array(&p, 1);
    msgpack_pack_array(&p, 2);
    msgpack_pack_uint64(&p, 5);
    msgpack_pack_nil(&p);
    msgpack_pack_array(&p, 0);
    assert_int_equal(wire_decode(f->decoder, buf.data, buf.size, WIRE_FROM_CLIENT, &m), WIRE_OK);
    assert_int_equal(m->fields.cancel.epoch, 77);
    assert_int_equal(m->items.cancel[0].seq, 5);
    msgpack_sbuffer_destroy(&buf);
}

static void test_deep_nesting_is_refused(void **state)
{
    struct fixture *f = *state;
    struct wire_message *m;
    char deep[256];
    memset(deep, 0x91, sizeof(deep));
    memcpy(deep, "\x94\x05\x91\x01\x90", 5);
    deep[sizeof(deep) - 1] = 0;
    assert_int_equal(wire_decode(f->decoder, deep, sizeof(deep), WIRE_FROM_CLIENT, &m),
                     WIRE_ERR_LIMIT);
}

static void test_a_header_never_outgrows_its_bound(void **state)
{
    struct fixture *f = *state;
    struct wire_message *m;
    struct wire_answer fields = {.epoch = 1};
    char text[SONIC_TEXT_MAX];
    memset(text, 'x', sizeof(text));
    struct wire_answer_item item = {.seq = 1, .status = SONIC_STATUS_BUSY, .text = {text, 512}};
    size_t len;
    uint32_t n = 0;
    wire_begin_answer(f->header, &fields);
    while (wire_add_answer(f->header, &item))
        n++;
    const void *data = wire_finish(f->header, &len);
    assert_true(len <= SONIC_HEADER_BYTES_MAX);
    assert_true(n > 100 && n < SONIC_ITEMS_MAX);
    assert_int_equal(wire_decode(f->decoder, data, len, WIRE_FROM_BROKER, &m), WIRE_OK);
    assert_int_equal(m->nitems, n);
    struct wire_cancel cancel = {.epoch = 1};
    struct wire_cancel_item small = {.seq = 1};
    wire_begin_cancel(f->header, &cancel);
    for (n = 0; wire_add_cancel(f->header, &small); n++)
        ;
    assert_int_equal(n, SONIC_ITEMS_MAX);
}

// Mutated headers: never a crash, and whatever we accept msgpack-c reads as well.
static void test_mutated_headers(void **state)
{
    struct fixture *f = *state;
    struct wire_message *m;
    uint64_t x = 0x9e3779b97f4a7c15u; // fixed: a failure here replays by itself
    size_t len, accepted = 0;
    char buf[4096];
    for (int round = 0; round < 20000; round++) {
        const void *data = submit_of(f->header, 4, &len);
        memcpy(buf, data, len);
        for (int k = 0; k < 2; k++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            buf[x % len] = (char)(x >> 32);
        }
        if (wire_decode(f->decoder, buf, len, WIRE_FROM_CLIENT, &m) != WIRE_OK)
            continue;
        accepted++;
        msgpack_unpacked u;
        size_t at = 0;
        msgpack_unpacked_init(&u);
        assert_int_equal(msgpack_unpack_next(&u, buf, len, &at), MSGPACK_UNPACK_SUCCESS);
        assert_int_equal(at, len);
        msgpack_unpacked_destroy(&u);
    }
    assert_true(accepted > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_submit_round_trip),
        cmocka_unit_test(test_written_header_is_msgpack),
        cmocka_unit_test(test_join_carries_declarations),
        cmocka_unit_test(test_a_peer_may_send_only_its_own_messages),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_trailing_bytes_are_refused),
        cmocka_unit_test(test_hostile_headers),
        cmocka_unit_test(test_shape_overflow_is_refused),
        cmocka_unit_test(test_repeated_tensors_travel_as_nil),
        cmocka_unit_test(test_tensors_elsewhere_do_not_repeat),
        cmocka_unit_test(test_hostile_repeats),
        cmocka_unit_test(test_newer_fields_are_skipped),
        cmocka_unit_test(test_deep_nesting_is_refused),
        cmocka_unit_test(test_a_header_never_outgrows_its_bound),
        cmocka_unit_test(test_mutated_headers),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
