// SPDX-License-Identifier: Apache-2.0
// Messages over real sockets: small tensors packed, large ones in frames of their own, and what a
// peer may claim about places that are not there.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/message.h"
#include "common/zsock.h"

struct fixture {
    void *ctx, *router, *dealer;
    struct wire_header *header;
    struct payload *payload;
    struct wire_decoder *decoder;
    struct message *message;
};

static int setup(void **state)
{
    static struct fixture f;
    char why[256] = "";
    f.ctx = zctx_open(1);
    f.router = zsock_router(f.ctx, "inproc://test", why, sizeof(why));
    f.dealer = zsock_dealer(f.ctx, "inproc://test", 0, why, sizeof(why));
    f.header = wire_header_new();
    f.payload = payload_new();
    f.decoder = wire_decoder_new();
    f.message = malloc(sizeof(*f.message));
    message_init(f.message);
    *state = &f;
    return f.router && f.dealer ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    message_clear(f->message);
    free(f->message);
    wire_decoder_free(f->decoder);
    payload_free(f->payload);
    wire_header_free(f->header);
    zsock_close(f->dealer);
    zsock_close(f->router);
    zctx_close(f->ctx);
    return 0;
}

static int receive(void *socket, bool routed, struct message *m)
{
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&item, 1, 5000), 1);
    message_clear(m);
    return message_receive(socket, routed, m);
}

static struct tensor bytes_tensor(uint64_t n)
{
    struct tensor t = {.dtype = SONIC_UINT8, .ndim = 1, .dims = {n}};
    assert_true(tensor_bytes(t.dtype, t.ndim, t.dims, &t.bytes));
    return t;
}

static void test_small_and_large_tensors_arrive(void **state)
{
    struct fixture *f = *state;
    static uint8_t small[100], large[SONIC_PACK_BYTES_MAX + 1];
    memset(small, 1, sizeof(small));
    memset(large, 2, sizeof(large));
    struct wire_submit fields = {.epoch = 1, .model = wire_str("echo")};
    struct wire_submit_item item = {.seq = 1};
    item.tensors.n = 3;
    item.tensors.at[0] = bytes_tensor(sizeof(small));
    item.tensors.at[1] = bytes_tensor(sizeof(large));
    item.tensors.at[2] = bytes_tensor(sizeof(small));
    zmq_msg_t frame;
    zmq_msg_init_size(&frame, sizeof(large));
    memcpy(zmq_msg_data(&frame), large, sizeof(large));
    payload_pack(f->payload, &item.tensors.at[0], small);
    payload_attach(f->payload, &item.tensors.at[1], &frame);
    payload_pack(f->payload, &item.tensors.at[2], small);
    wire_begin_submit(f->header, &fields);
    assert_true(wire_add_submit(f->header, &item));
    assert_int_equal(message_send(f->dealer, NULL, 0, f->header, f->payload), 0);

    struct wire_message *m;
    assert_int_equal(receive(f->router, true, f->message), 1);
    assert_int_equal(f->message->nframes, 3);
    assert_true(f->message->routing_len > 0);
    assert_int_equal(wire_decode(f->decoder, zmq_msg_data(&f->message->frames[0]),
                                 zmq_msg_size(&f->message->frames[0]), WIRE_FROM_CLIENT, &m),
                     WIRE_OK);
    const struct tensor *at = m->items.submit[0].tensors.at;
    assert_memory_equal(message_tensor(f->message, &at[0]), small, sizeof(small));
    assert_memory_equal(message_tensor(f->message, &at[1]), large, sizeof(large));
    assert_memory_equal(message_tensor(f->message, &at[2]), small, sizeof(small));
    assert_int_equal(at[2].offset % SONIC_PACK_ALIGN, 0);
    assert_int_equal(message_own_frame(f->message, &at[0]), 0);
    assert_int_equal(message_own_frame(f->message, &at[1]), 2);
}

static void test_a_place_outside_the_message_is_no_tensor(void **state)
{
    struct fixture *f = *state;
    zmq_send(f->dealer, "head", 4, ZMQ_SNDMORE);
    zmq_send(f->dealer, "0123456789", 10, ZMQ_SNDMORE);
    zmq_send(f->dealer, "large", 5, 0);
    assert_int_equal(receive(f->router, true, f->message), 1);
    struct tensor t = bytes_tensor(10);
    t.where = 1;
    assert_non_null(message_tensor(f->message, &t));
    t.offset = 64; // past the end
    assert_null(message_tensor(f->message, &t));
    t.offset = UINT64_MAX - 63; // wraps
    assert_null(message_tensor(f->message, &t));
    t.offset = 0;
    t.bytes = 11;
    assert_null(message_tensor(f->message, &t));
    t = bytes_tensor(4); // a frame of its own must be filled exactly
    t.where = 2;
    assert_null(message_tensor(f->message, &t));
    t = bytes_tensor(5);
    t.where = 2;
    assert_non_null(message_tensor(f->message, &t));
    t.where = 0; // the header is nobody's tensor
    assert_null(message_tensor(f->message, &t));
    t.where = 3;
    assert_null(message_tensor(f->message, &t));
    t.where = 2;
    t.place = TENSOR_IN_SLAB;
    assert_null(message_tensor(f->message, &t));
}

static void test_too_many_frames_are_dropped_whole(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < SONIC_FRAMES_MAX; i++)
        zmq_send(f->dealer, "x", 1, ZMQ_SNDMORE);
    zmq_send(f->dealer, "x", 1, 0);
    zmq_send(f->dealer, "next", 4, 0);
    assert_int_equal(receive(f->router, true, f->message), -EMSGSIZE);
    assert_int_equal(f->message->nframes, 0);
    assert_true(f->message->routing_len > 0); // so that the sender can be told
    assert_int_equal(receive(f->router, true, f->message), 1);
    assert_int_equal(zmq_msg_size(&f->message->frames[0]), 4);
}

static void test_sending_to_nobody_keeps_the_message(void **state)
{
    struct fixture *f = *state;
    struct wire_beat fields = {.epoch = 5};
    wire_begin_beat(f->header, &fields);
    assert_int_equal(message_send(f->router, "gone", 4, f->header, NULL), -EHOSTUNREACH);
}

static void test_a_large_packed_frame_is_handed_over(void **state)
{
    struct fixture *f = *state;
    static uint8_t small[SONIC_PACK_BYTES_MAX];
    struct wire_submit fields = {.epoch = 1, .model = wire_str("echo")};
    for (int round = 0; round < 2; round++) {
        wire_begin_submit(f->header, &fields);
        for (unsigned i = 0; i < 20; i++) {
            struct wire_submit_item item = {.seq = i};
            item.tensors.n = 1;
            item.tensors.at[0] = bytes_tensor(sizeof(small));
            memset(small, (int)i, sizeof(small));
            assert_true(payload_fits(f->payload, 1, &item.tensors.at[0].bytes));
            payload_pack(f->payload, &item.tensors.at[0], small);
            assert_true(wire_add_submit(f->header, &item));
        }
        assert_int_equal(message_send(f->dealer, NULL, 0, f->header, f->payload), 0);
        assert_int_equal(receive(f->router, true, f->message), 1);
        struct tensor t = bytes_tensor(sizeof(small));
        t.where = 1;
        t.offset = 19 * sizeof(small);
        memset(small, 19, sizeof(small));
        assert_memory_equal(message_tensor(f->message, &t), small, sizeof(small));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_small_and_large_tensors_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_place_outside_the_message_is_no_tensor, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_too_many_frames_are_dropped_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sending_to_nobody_keeps_the_message, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_large_packed_frame_is_handed_over, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
