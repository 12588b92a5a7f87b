// SPDX-License-Identifier: Apache-2.0
// Who is connected: found by return address and by session, never mixed up, cheap to keep.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "broker/peers.h"

static int setup(void **state)
{
    *state = peers_new(0x5eed);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    peers_free(*state);
    return 0;
}

// A message whose sender has this routing id.
static const struct message *from(const void *routing, uint8_t len)
{
    static struct message m;
    memcpy(m.routing, routing, len);
    m.routing_len = len;
    return &m;
}

static void test_found_by_address_and_by_session(void **state)
{
    struct peer *p = peers_add(*state, PEER_CLIENT, from("abcde", 5), 7);
    assert_non_null(p);
    assert_ptr_equal(peers_find(*state, PEER_CLIENT, from("abcde", 5)), p);
    assert_ptr_equal(peers_session(*state, PEER_CLIENT, 7), p);
    assert_null(peers_find(*state, PEER_CLIENT, from("abcd", 4)));
    assert_null(peers_find(*state, PEER_CLIENT, from("abcdf", 5)));
    assert_null(peers_session(*state, PEER_CLIENT, 8));
    peers_remove(*state, p);
    assert_null(peers_find(*state, PEER_CLIENT, from("abcde", 5)));
    assert_null(peers_session(*state, PEER_CLIENT, 7));
    assert_int_equal(peers_count(*state), 0);
}

static void test_sides_are_apart(void **state)
{
    struct peer *client = peers_add(*state, PEER_CLIENT, from("same", 4), 7);
    struct peer *worker = peers_add(*state, PEER_WORKER, from("same", 4), 7);
    assert_non_null(worker);
    assert_ptr_equal(peers_find(*state, PEER_CLIENT, from("same", 4)), client);
    assert_ptr_equal(peers_find(*state, PEER_WORKER, from("same", 4)), worker);
    assert_ptr_equal(peers_session(*state, PEER_CLIENT, 7), client);
    assert_ptr_equal(peers_session(*state, PEER_WORKER, 7), worker);
}

static void test_second_with_the_same_key_is_refused_whole(void **state)
{
    struct peer *p = peers_add(*state, PEER_CLIENT, from("one", 3), 1);
    assert_null(peers_add(*state, PEER_CLIENT, from("one", 3), 2));
    assert_null(peers_add(*state, PEER_CLIENT, from("two", 3), 1));
    assert_ptr_equal(peers_find(*state, PEER_CLIENT, from("one", 3)), p);
    assert_ptr_equal(peers_session(*state, PEER_CLIENT, 1), p);
    assert_null(peers_find(*state, PEER_CLIENT, from("two", 3)));
    assert_null(peers_session(*state, PEER_CLIENT, 2));
    assert_int_equal(peers_count(*state), 1);
}

static void test_longest_and_binary_addresses(void **state)
{
    uint8_t a[255], b[255];
    memset(a, 0, sizeof(a));
    memset(b, 0, sizeof(b));
    b[254] = 1;
    struct peer *pa = peers_add(*state, PEER_WORKER, from(a, 255), 1);
    struct peer *pb = peers_add(*state, PEER_WORKER, from(b, 255), 2);
    struct peer *pc = peers_add(*state, PEER_WORKER, from(a, 254), 3);
    assert_ptr_equal(peers_find(*state, PEER_WORKER, from(a, 255)), pa);
    assert_ptr_equal(peers_find(*state, PEER_WORKER, from(b, 255)), pb);
    assert_ptr_equal(peers_find(*state, PEER_WORKER, from(a, 254)), pc);
}

static void test_walk_survives_removals(void **state)
{
    unsigned seen = 0;
    for (uint32_t i = 0; i < 1000; i++)
        assert_non_null(peers_add(*state, PEER_CLIENT, from(&i, sizeof(i)), i + 1));
    for (struct peer *p = peers_first(*state); p; p = peers_next(*state)) {
        seen++;
        if (p->session % 2)
            peers_remove(*state, p);
    }
    assert_int_equal(seen, 1000);
    assert_int_equal(peers_count(*state), 500);
    for (struct peer *p = peers_first(*state); p; p = peers_next(*state))
        assert_int_equal(p->session % 2, 0);
}

static void test_removal_frees_what_is_held_back(void **state)
{
    for (unsigned i = 0; i < 2; i++) { // the second is left to peers_free
        struct peer *p = peers_add(*state, PEER_CLIENT, from(&i, sizeof(i)), i + 1);
        for (unsigned k = 0; k < 3; k++) {
            struct outgoing *o = calloc(1, sizeof(*o));
            o->header = wire_header_new();
            o->payload = payload_new();
            *p->last = o;
            p->last = &o->next;
        }
        if (i == 0)
            peers_remove(*state, p);
    }
}

static void test_a_peer_is_small(void **state)
{
    struct mallinfo2 before = mallinfo2();
    for (uint32_t i = 0; i < 10000; i++)
        peers_add(*state, PEER_CLIENT, from(&i, sizeof(i)), i + 1);
    struct mallinfo2 after = mallinfo2();
    // Both tables, their items and the record; the farm's own record comes to a few hundred more.
    // (Under a sanitizer's allocator both figures are 0.)
    assert_true(after.uordblks - before.uordblks < 10000 * 1024u);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_found_by_address_and_by_session),
        TEST(test_sides_are_apart),
        TEST(test_second_with_the_same_key_is_refused_whole),
        TEST(test_longest_and_binary_addresses),
        TEST(test_walk_survives_removals),
        TEST(test_removal_frees_what_is_held_back),
        TEST(test_a_peer_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
