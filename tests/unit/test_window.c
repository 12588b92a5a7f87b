// SPDX-License-Identifier: Apache-2.0
// The client's window against simulated brokers: whatever they lose, repeat, reorder or refuse,
// each request is completed exactly once, and in flight is never more than was granted.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/window.h"

static int setup(void **state)
{
    *state = window_new(7);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    window_free(*state);
    return 0;
}

static struct window_request *submit(struct window *w, uint64_t bytes, uint64_t deadline_us)
{
    struct window_request r = {.model = "echo", .bytes = bytes, .deadline_us = deadline_us};
    struct window_request *q = window_submit(w, 100, &r);
    assert_non_null(q);
    assert_string_equal(q->model, "echo");
    return q;
}

// Sends all that the window allows; how many that was.
static unsigned send_all(struct window *w)
{
    unsigned n = 0;
    for (struct window_request *r; (r = window_next(w)) != NULL; n++)
        window_sent(w, r);
    return n;
}

static struct window_counts counts_of(struct window *w)
{
    struct window_counts c;
    window_counts(w, &c);
    return c;
}

static void check_done(struct window *w, struct window_request *r, uint64_t seq,
                       enum sonic_status status)
{
    assert_non_null(r);
    assert_int_equal(r->seq, seq);
    assert_int_equal(r->status, status);
    assert_int_equal(r->state, WINDOW_DONE);
    assert_null(window_find(w, seq));
    window_release(w, r);
}

static void answer_ok(struct window *w, uint64_t seq)
{
    struct window_request *r = window_answer(w, 200, seq, SONIC_STATUS_OK, 0, true);
    assert_non_null(r);
    assert_int_equal(r->seq, seq);
    window_release(w, r);
}

static void busy(struct window *w, uint64_t now_us, uint64_t seq, uint64_t after_us)
{
    assert_null(window_answer(w, now_us, seq, SONIC_STATUS_BUSY, after_us, false));
}

static void test_sends_within_the_grant_in_order(void **state)
{
    struct window *w = *state;
    for (int i = 0; i < 5; i++)
        submit(w, 10, 0);
    assert_null(window_next(w)); // nothing is granted yet
    window_grant(w, 2, 1000);
    assert_int_equal(window_next(w)->seq, 1);
    assert_int_equal(send_all(w), 2);
    answer_ok(w, 2);
    assert_int_equal(window_next(w)->seq, 3);
    window_grant(w, 100, 30);
    assert_int_equal(send_all(w), 2); // 3 * 10 bytes are in flight
    struct window_counts c = counts_of(w);
    assert_int_equal(c.pending, 4);
    assert_int_equal(c.queued, 1);
    assert_int_equal(c.in_flight, 3);
    assert_int_equal(c.in_flight_bytes, 30);
    assert_int_equal(c.received, 1);
}

static void test_says_how_large_a_window_it_needs(void **state)
{
    struct window *w = *state;
    submit(w, 10, 0);
    submit(w, 5000, 0);
    assert_int_equal(counts_of(w).needed_bytes, 5000);
    window_grant(w, 8, 100);
    assert_int_equal(send_all(w), 1);
    answer_ok(w, 1);
    assert_null(window_next(w));
    window_grant(w, 8, 5000);
    assert_int_equal(send_all(w), 1);
    answer_ok(w, 2);
    assert_int_equal(counts_of(w).needed_bytes, 0);
}

static void test_a_request_over_the_limit_is_refused(void **state)
{
    struct window *w = *state;
    submit(w, 5000, 0);
    submit(w, 10, 0);
    window_limit(w, 1000);
    window_grant(w, 8, 1000);
    assert_int_equal(counts_of(w).needed_bytes, 10); // nothing is asked for that cannot be had
    check_done(w, window_due(w, 100), 1, SONIC_STATUS_BAD_REQUEST);
    assert_null(window_due(w, 100));
    submit(w, 1001, 0); // the limit is known now
    check_done(w, window_due(w, 100), 3, SONIC_STATUS_BAD_REQUEST);
    assert_int_equal(window_next(w)->seq, 2);
    window_limit(w, 5); // another broker's
    check_done(w, window_due(w, 100), 2, SONIC_STATUS_BAD_REQUEST);
}

static void test_a_second_answer_is_dropped(void **state)
{
    struct window *w = *state;
    window_grant(w, 8, 1000);
    submit(w, 10, 0);
    send_all(w);
    answer_ok(w, 1);
    assert_null(window_answer(w, 200, 1, SONIC_STATUS_OK, 0, true));
    assert_null(window_answer(w, 200, 77, SONIC_STATUS_OK, 0, true));
    struct window_counts c = counts_of(w);
    assert_int_equal(c.duplicates, 2);
    assert_int_equal(c.received, 3); // the broker counted each that it sent
    assert_int_equal(c.pending, 0);
}

static void test_busy_waits_its_time_and_goes_first(void **state)
{
    struct window *w = *state;
    window_grant(w, 1, 1000);
    submit(w, 10, 0);
    submit(w, 10, 0);
    send_all(w);
    busy(w, 1000, 1, 50000);
    assert_int_equal(counts_of(w).received, 0);
    assert_int_equal(window_next(w)->seq, 2);
    assert_null(window_due(w, 50999));
    assert_int_equal(window_next(w)->seq, 2);
    uint64_t wake_us = window_wake(w);
    assert_in_range(wake_us, 51000, 76000); // its time and up to half of it again
    assert_null(window_due(w, wake_us));
    assert_int_equal(window_next(w)->seq, 1);
    assert_int_equal(counts_of(w).retried, 1);
    send_all(w);
    assert_null(window_due(w, UINT64_MAX - 1));
    assert_int_equal(window_wake(w), UINT64_MAX);
}

static void test_repeated_busy_backs_off_up_to_a_second(void **state)
{
    struct window *w = *state;
    uint64_t now_us = 0, last_us = 0;
    window_grant(w, 1, 1000);
    submit(w, 10, 0);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(send_all(w), 1);
        busy(w, now_us, 1, 0);
        uint64_t wait_us = window_wake(w) - now_us;
        assert_in_range(wait_us, 10000, 1500000);
        if (i < 6)
            assert_true(wait_us > last_us / 2);
        last_us = wait_us;
        now_us = window_wake(w);
        assert_null(window_due(w, now_us));
    }
    assert_true(last_us >= 1000000);
    send_all(w);
    busy(w, now_us, 1, 5000000); // what the broker asks for is honoured, however long
    assert_true(window_wake(w) - now_us >= 5000000);
}

static void test_retries_until_another_status(void **state)
{
    struct window *w = *state;
    window_grant(w, 8, 1000);
    submit(w, 10, 0);
    send_all(w);
    assert_null(window_answer(w, 0, 1, SONIC_STATUS_REGISTER_AGAIN, 0, false));
    assert_null(window_due(w, 10000000));
    send_all(w);
    check_done(w, window_answer(w, 0, 1, SONIC_STATUS_EXEC_FAILED, 0, true), 1,
               SONIC_STATUS_EXEC_FAILED);
}

static void test_reopen_queues_all_oldest_first(void **state)
{
    struct window *w = *state;
    window_grant(w, 4, 1000);
    for (int i = 0; i < 9; i++)
        submit(w, 10, 0);
    send_all(w); // 1 2 3 4
    busy(w, 0, 1, 0);
    busy(w, 0, 3, 0);
    send_all(w);                       // 5 6
    assert_null(window_due(w, 20000)); // 1 and 3 are queued again
    answer_ok(w, 4);
    assert_int_equal(window_next(w)->seq, 1); // sent after 5 and 6
    send_all(w);
    busy(w, 20000, 6, 0);
    busy(w, 20000, 2, 0);
    window_reopen(w);
    struct window_counts c = counts_of(w);
    assert_int_equal(c.received, 0);
    assert_int_equal(c.in_flight, 0);
    assert_int_equal(c.in_flight_bytes, 0);
    assert_int_equal(c.queued, 8);
    window_grant(w, 100, 1000);
    static const uint64_t order[] = {1, 2, 3, 5, 6, 7, 8, 9};
    for (size_t i = 0; i < 8; i++) {
        struct window_request *r = window_next(w);
        assert_int_equal(r->seq, order[i]);
        window_sent(w, r);
    }
    assert_null(window_next(w));
}

static void test_reopen_orders_many(void **state)
{
    struct window *w = *state;
    window_grant(w, 1000, UINT64_MAX);
    for (int i = 0; i < 3000; i++)
        submit(w, 1, 0);
    send_all(w);
    for (uint64_t seq = 1000; seq > 3; seq -= 3)
        busy(w, 0, seq, seq * 7919 % 1000 * 100);
    send_all(w);
    window_reopen(w);
    window_grant(w, 5000, UINT64_MAX);
    for (uint64_t seq = 1; seq <= 3000; seq++) {
        assert_int_equal(window_next(w)->seq, seq);
        window_sent(w, window_next(w));
    }
}

// An answer of the first attempt that comes while the second is queued is as good.
static void test_a_late_answer_counts(void **state)
{
    struct window *w = *state;
    window_grant(w, 8, 1000);
    submit(w, 10, 0);
    submit(w, 10, 0);
    send_all(w);
    busy(w, 0, 2, 0);
    window_reopen(w);
    check_done(w, window_answer(w, 0, 1, SONIC_STATUS_OK, 0, true), 1, SONIC_STATUS_OK);
    busy(w, 0, 2, 0); // but a refusal of it changes nothing
    assert_int_equal(window_find(w, 2)->state, WINDOW_QUEUED);
    assert_int_equal(counts_of(w).duplicates, 1);
    check_done(w, window_answer(w, 0, 2, SONIC_STATUS_OK, 0, true), 2, SONIC_STATUS_OK);
    assert_null(window_next(w));
}

static void test_deadlines_end_what_was_not_sent(void **state)
{
    struct window *w = *state;
    window_grant(w, 1, 1000);
    submit(w, 10, 5000);
    submit(w, 10, 6000);
    submit(w, 10, 4000);
    submit(w, 10, 0);
    send_all(w);
    assert_int_equal(window_wake(w), 4000);
    assert_null(window_due(w, 3999));
    check_done(w, window_due(w, 4000), 3, SONIC_STATUS_DEADLINE);
    assert_null(window_due(w, 4000));
    assert_null(window_due(w, 5500)); // what is sent is the broker's to end
    busy(w, 5500, 1, 100);
    check_done(w, window_due(w, 5500), 1, SONIC_STATUS_DEADLINE);
    assert_null(window_due(w, 5500));
    check_done(w, window_due(w, 9000), 2, SONIC_STATUS_DEADLINE);
    assert_null(window_due(w, 9000));
    assert_int_equal(window_wake(w), UINT64_MAX);
    assert_int_equal(counts_of(w).pending, 1);
}

static void test_cancel_in_each_state(void **state)
{
    struct window *w = *state;
    window_grant(w, 2, 1000);
    for (int i = 0; i < 3; i++)
        submit(w, 10, 0);
    send_all(w);
    busy(w, 0, 2, 1000000);
    assert_int_equal(window_cancel(w, 3), 0); // queued
    assert_int_equal(window_cancel(w, 2), 0); // waiting
    assert_int_equal(window_wake(w), 0);
    check_done(w, window_due(w, 0), 2, SONIC_STATUS_CANCELLED);
    check_done(w, window_due(w, 0), 3, SONIC_STATUS_CANCELLED);
    assert_null(window_due(w, 0));
    assert_int_equal(window_cancel(w, 3), -1);
    assert_int_equal(window_cancel(w, 99), -1);
    assert_int_equal(window_cancel(w, 1), 1); // sent: the broker decides
    assert_null(window_due(w, 0));
    check_done(w, window_answer(w, 0, 1, SONIC_STATUS_BUSY, 0, false), 1, SONIC_STATUS_CANCELLED);
}

static void test_a_cancelled_request_is_not_sent_again(void **state)
{
    struct window *w = *state;
    window_grant(w, 2, 1000);
    submit(w, 10, 0);
    submit(w, 10, 50);
    send_all(w);
    assert_int_equal(window_cancel(w, 1), 1);
    window_reopen(w);
    assert_int_equal(window_wake(w), 0);
    check_done(w, window_due(w, 0), 1, SONIC_STATUS_CANCELLED);
    assert_null(window_due(w, 0));
    assert_int_equal(window_next(w)->seq, 2);
}

static void test_giving_up_ends_all(void **state)
{
    struct window *w = *state;
    window_grant(w, 2, 1000);
    for (int i = 0; i < 4; i++)
        submit(w, 10, 0);
    send_all(w);
    busy(w, 0, 2, 0);
    bool seen[5] = {false};
    for (int i = 0; i < 4; i++) {
        struct window_request *r = window_give_up(w, SONIC_STATUS_LOST);
        assert_int_equal(r->status, SONIC_STATUS_LOST);
        assert_false(seen[r->seq]);
        seen[r->seq] = true;
        window_release(w, r);
    }
    assert_null(window_give_up(w, SONIC_STATUS_LOST));
    assert_int_equal(counts_of(w).in_flight_bytes, 0);
}

// ---- random brokers -----------------------------------------------------------------------------

#define MOST 400u

static char running[24]; // the seed that fails, should it

struct chaos {
    struct window *w;
    uint64_t random, now_us, submitted;
    uint8_t completed[MOST + 1], cancelled[MOST + 1];
    uint64_t wire[4 * MOST]; // what the broker has and has not answered
    size_t nwire;
};

static uint64_t draw(struct chaos *c, uint64_t n)
{
    c->random ^= c->random << 13;
    c->random ^= c->random >> 7;
    c->random ^= c->random << 17;
    return c->random % n;
}

static void complete(struct chaos *c, struct window_request *r)
{
    if (!r)
        return;
    assert_in_range(r->seq, 1, c->submitted);
    assert_int_equal(c->completed[r->seq]++, 0);
    if (r->status == SONIC_STATUS_CANCELLED)
        assert_true(c->cancelled[r->seq]);
    window_release(c->w, r);
}

static void chaos_send(struct chaos *c)
{
    for (struct window_request *r; (r = window_next(c->w)) != NULL;) {
        assert_false(c->completed[r->seq]);
        assert_false(r->cancelled);
        assert_true(!r->deadline_us || r->deadline_us > c->now_us);
        window_sent(c->w, r);
        if (c->nwire < 4 * MOST && draw(c, 10)) // one in ten is lost
            c->wire[c->nwire++] = r->seq;
    }
    struct window_counts counts = counts_of(c->w);
    assert_true(counts.in_flight <= counts.pending);
    assert_int_equal(counts.pending, counts.queued + counts.in_flight);
}

static void chaos_answer(struct chaos *c)
{
    if (c->nwire == 0)
        return;
    size_t at = draw(c, c->nwire); // in any order
    uint64_t seq = c->wire[at];
    if (draw(c, 8)) // else it is answered once more
        c->wire[at] = c->wire[--c->nwire];
    enum sonic_status status = draw(c, 3)   ? SONIC_STATUS_OK
                               : draw(c, 2) ? SONIC_STATUS_BUSY
                                            : SONIC_STATUS_EXEC_FAILED;
    complete(c, window_answer(c->w, c->now_us, seq, status, draw(c, 3) * 5000, draw(c, 2)));
}

static void chaos_step(struct chaos *c)
{
    struct window_request r = {.model = "echo", .bytes = 1 + draw(c, 50)};
    uint64_t seq = draw(c, c->submitted + 2);
    switch (draw(c, 12)) {
    case 0:
    case 1:
    case 2:
        r.deadline_us = draw(c, 3) ? 0 : c->now_us + draw(c, 100000);
        if (c->submitted < MOST && window_submit(c->w, c->now_us, &r))
            c->submitted++;
        break;
    case 3:
        window_grant(c->w, (uint32_t)draw(c, 40), draw(c, 2000));
        break;
    case 4:
        if (window_cancel(c->w, seq) >= 0)
            c->cancelled[seq] = 1;
        break;
    case 5:
        if (draw(c, 4) == 0) {
            window_reopen(c->w);
            assert_int_equal(counts_of(c->w).received, 0);
            if (draw(c, 2)) // a broker that was restarted; else its answers may still arrive
                c->nwire = 0;
        }
        break;
    case 6:
        c->now_us += draw(c, 20000);
        break;
    default:
        chaos_answer(c);
    }
    while ((seq = counts_of(c->w).pending) > 0) {
        complete(c, window_due(c->w, c->now_us));
        if (counts_of(c->w).pending == seq)
            break;
    }
    chaos_send(c);
}

static void chaos_run(uint64_t seed)
{
    static struct chaos c;
    memset(&c, 0, sizeof(c));
    c.random = seed * 0x9e3779b97f4a7c15u | 1;
    c.w = window_new(seed);
    assert_non_null(c.w);
    for (int i = 0; i < 3000; i++)
        chaos_step(&c);
    // A broker that works again: everything ends without giving up.
    c.nwire = 0;
    window_reopen(c.w);
    window_grant(c.w, 1000, UINT64_MAX);
    for (int i = 0; i < 100000 && counts_of(c.w).pending > 0; i++) {
        c.now_us += 1000;
        struct window_request *r = window_due(c.w, c.now_us);
        complete(&c, r);
        if (!r)
            chaos_send(&c);
        chaos_answer(&c);
        if (i % 1000 == 999)
            window_reopen(c.w);
    }
    for (uint64_t seq = 1; seq <= c.submitted; seq++)
        assert_int_equal(c.completed[seq], 1);
    window_free(c.w);
}

static void test_exactly_one_completion_under_random_events(void **state)
{
    (void)state;
    const char *only = getenv("TEST_SEED"); // to replay one
    uint64_t first = only ? strtoull(only, NULL, 10) : 1, last = only ? first : 200;
    for (uint64_t seed = first; seed <= last; seed++) {
        snprintf(running, sizeof(running), "%llu", (unsigned long long)seed);
        chaos_run(seed);
    }
    running[0] = '\0';
}

static void say_seed(void)
{
    if (running[0])
        fprintf(stderr, "replay with TEST_SEED=%s\n", running);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_sends_within_the_grant_in_order),
        TEST(test_says_how_large_a_window_it_needs),
        TEST(test_a_request_over_the_limit_is_refused),
        TEST(test_a_second_answer_is_dropped),
        TEST(test_busy_waits_its_time_and_goes_first),
        TEST(test_repeated_busy_backs_off_up_to_a_second),
        TEST(test_retries_until_another_status),
        TEST(test_reopen_queues_all_oldest_first),
        TEST(test_reopen_orders_many),
        TEST(test_a_late_answer_counts),
        TEST(test_deadlines_end_what_was_not_sent),
        TEST(test_cancel_in_each_state),
        TEST(test_a_cancelled_request_is_not_sent_again),
        TEST(test_giving_up_ends_all),
        cmocka_unit_test(test_exactly_one_completion_under_random_events),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    say_seed();
    return failed;
}
