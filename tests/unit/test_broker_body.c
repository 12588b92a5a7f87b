// SPDX-License-Identifier: Apache-2.0
// What a broker keeps of a request: small tensors copied, large ones' frames by reference, nothing
// of a tensor that does not lie where it claims.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "broker/body.h"
#include "common/zsock.h"

#define LARGE (SONIC_PACK_BYTES_MAX + 64u)

struct fixture {
    void *ctx, *a, *b;
    struct wire_header *header;
    struct payload *payload;
    struct message message;
    struct wire_tensors tensors;
    char why[256];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->ctx = zctx_open(1);
    f->a = zmq_socket(f->ctx, ZMQ_PAIR);
    f->b = zmq_socket(f->ctx, ZMQ_PAIR);
    f->header = wire_header_new();
    f->payload = payload_new();
    message_init(&f->message);
    *state = f;
    return zmq_bind(f->a, "inproc://body") | zmq_connect(f->b, "inproc://body");
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    message_clear(&f->message);
    payload_free(f->payload);
    wire_header_free(f->header);
    zmq_close(f->a);
    zmq_close(f->b);
    zctx_close(f->ctx);
    free(f);
    return 0;
}

// Adds a tensor of n bytes, each `fill`, to what is about to be sent.
static void add(struct fixture *f, size_t n, int fill)
{
    struct tensor *t = &f->tensors.at[f->tensors.n++];
    *t = (struct tensor){.dtype = SONIC_UINT8, .ndim = 1, .dims = {n}, .bytes = n};
    zmq_msg_t frame;
    zmq_msg_init_size(&frame, n);
    memset(zmq_msg_data(&frame), fill, n);
    if (n > SONIC_PACK_BYTES_MAX)
        payload_attach(f->payload, t, &frame);
    else
        payload_pack(f->payload, t, zmq_msg_data(&frame));
    zmq_msg_close(&frame);
}

// Sends the payload through real sockets into f->message.
static void travel(struct fixture *f)
{
    struct wire_beat fields = {0};
    wire_begin_beat(f->header, &fields);
    message_clear(&f->message);
    assert_int_equal(message_send(f->a, NULL, 0, f->header, f->payload), 0);
    assert_int_equal(message_receive(f->b, false, &f->message), 1);
}

static struct body *take(struct fixture *f, const char *text)
{
    return body_take(&f->message, &f->tensors, wire_str(text), NULL, f->why, sizeof(f->why));
}

static void assert_filled(struct fixture *f, unsigned i, size_t n, int fill)
{
    const uint8_t *bytes = message_tensor(&f->message, &f->tensors.at[i]);
    assert_non_null(bytes);
    assert_int_equal(f->tensors.at[i].bytes, n);
    for (size_t k = 0; k < n; k++)
        if (bytes[k] != fill)
            fail_msg("byte %zu of tensor %u is %d, not %d", k, i, bytes[k], fill);
}

static void test_small_and_large_come_back_twice(void **state)
{
    struct fixture *f = *state;
    add(f, 100, 1);
    add(f, LARGE, 2);
    add(f, 0, 3);
    add(f, SONIC_PACK_BYTES_MAX, 4);
    add(f, 4 * LARGE, 5);
    travel(f);
    struct body *body = take(f, "why");
    assert_non_null(body);
    assert_int_equal(body_ntensors(body), 5);
    assert_string_equal(body_reason(body), "why");
    message_clear(&f->message);                 // the body stands on its own
    for (unsigned turn = 0; turn < 2; turn++) { // dispatched, and dispatched again
        memset(&f->tensors, 0xff, sizeof(f->tensors));
        assert_true(body_fits(body, f->payload, false));
        body_put(body, f->payload, &f->tensors, false);
        travel(f);
        assert_int_equal(f->tensors.n, 5);
        assert_filled(f, 0, 100, 1);
        assert_filled(f, 1, LARGE, 2);
        assert_filled(f, 2, 0, 3);
        assert_filled(f, 3, SONIC_PACK_BYTES_MAX, 4);
        assert_filled(f, 4, 4 * LARGE, 5);
    }
    body_free(body);
}

static void test_large_frames_are_not_copied(void **state)
{
    struct fixture *f = *state;
    add(f, LARGE, 2);
    travel(f);
    const void *came = message_tensor(&f->message, &f->tensors.at[0]);
    struct body *body = take(f, "");
    body_put(body, f->payload, &f->tensors, false);
    travel(f);
    assert_ptr_equal(message_tensor(&f->message, &f->tensors.at[0]), came);
    body_free(body);
}

static void test_places_that_are_not_there(void **state)
{
    struct fixture *f = *state;
    static const struct {
        struct tensor t;
        const char *words;
    } cases[] = {
        {{.where = 0, .bytes = 8}, "tensor 0 does not lie in frame 0"}, // the header
        {{.where = 3, .bytes = LARGE}, "does not lie in frame 3"},
        {{.where = UINT32_MAX, .bytes = 8}, "does not lie"},
        {{.where = 1, .offset = 64, .bytes = 128}, "does not lie"}, // past the packed frame's end
        {{.where = 1, .offset = UINT64_MAX - 7, .bytes = 8}, "does not lie"},
        {{.where = 1, .offset = 4, .bytes = 8}, "does not lie"}, // not aligned
        {{.where = 2, .bytes = LARGE - 1}, "does not lie"},      // a large one fills its frame
        {{.where = 2, .offset = 64, .bytes = LARGE - 64}, "does not lie"},
        {{.place = TENSOR_IN_SLAB, .where = 1, .bytes = 8}, "slab"},
    };
    add(f, 100, 1);
    add(f, LARGE, 2);
    travel(f);
    f->tensors.n = 1;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        f->tensors.at[0] = cases[i].t;
        if (take(f, "") || !strstr(f->why, cases[i].words))
            fail_msg("case %zu was taken, or told as \"%s\"", i, f->why);
    }
    // A refused message is as it was.
    f->tensors.at[0] = (struct tensor){.where = 2, .bytes = LARGE};
    struct body *body = take(f, "");
    assert_non_null(body);
    body_free(body);
}

static void test_large_tensor_in_the_packed_frame_is_refused(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 3; i++)
        add(f, SONIC_PACK_BYTES_MAX, 1);
    travel(f);
    f->tensors.n = 1;
    f->tensors.at[0] = (struct tensor){.where = 1, .bytes = 2 * SONIC_PACK_BYTES_MAX};
    assert_null(take(f, ""));
    assert_non_null(strstr(f->why, "frame of its own"));
}

static void test_two_tensors_in_one_frame_are_refused(void **state)
{
    struct fixture *f = *state;
    add(f, LARGE, 1);
    travel(f);
    f->tensors.at[f->tensors.n++] = f->tensors.at[0];
    assert_null(take(f, ""));
    assert_non_null(strstr(f->why, "tensor 1 shares its frame"));
}

static void test_a_full_message_says_so(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < SONIC_TENSORS_MAX; i++)
        add(f, LARGE, 1);
    travel(f);
    struct body *body = take(f, "");
    assert_non_null(body);
    unsigned puts = 0;
    while (body_fits(body, f->payload, false)) {
        body_put(body, f->payload, &f->tensors, false);
        assert_true(++puts < SONIC_FRAMES_MAX);
    }
    assert_int_equal(puts, (SONIC_FRAMES_MAX - 2) / SONIC_TENSORS_MAX);
    body_free(body);
}

static void test_words_alone(void **state)
{
    struct fixture *f = *state;
    struct body *body = body_text("the device is gone");
    assert_int_equal(body_ntensors(body), 0);
    assert_string_equal(body_reason(body), "the device is gone");
    assert_true(body_fits(body, f->payload, false));
    body_free(body);
    body_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_small_and_large_come_back_twice),
        TEST(test_large_frames_are_not_copied),
        TEST(test_places_that_are_not_there),
        TEST(test_large_tensor_in_the_packed_frame_is_refused),
        TEST(test_two_tensors_in_one_frame_are_refused),
        TEST(test_a_full_message_says_so),
        TEST(test_words_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
