// SPDX-License-Identifier: Apache-2.0
// When a worker joins, joins again, beats and leaves.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/session.h"

#define BEAT 100000u // us

static void joined(struct session *s, uint64_t now_us)
{
    session_init(s, now_us);
    assert_int_equal(session_due(s, now_us), SESSION_JOIN);
    assert_int_equal(session_due(s, now_us), SESSION_NOTHING);
    session_heard(s, now_us);
    session_accepted(s, now_us, 42, BEAT / 1000);
    assert_int_equal(s->number, 1);
    assert_int_equal(s->epoch, 42);
}

static void test_join_is_repeated_until_accepted(void **state)
{
    struct session s;
    (void)state;
    session_init(&s, 5);
    assert_int_equal(session_due(&s, 5), SESSION_JOIN);
    uint64_t again_us = session_wake_us(&s);
    assert_true(again_us > 5);
    assert_int_equal(session_due(&s, again_us - 1), SESSION_NOTHING);
    assert_int_equal(session_due(&s, again_us), SESSION_JOIN);
}

static void test_beats_come_at_the_brokers_pace(void **state)
{
    struct session s;
    (void)state;
    joined(&s, 1000);
    assert_int_equal(session_wake_us(&s), 1000 + BEAT);
    assert_int_equal(session_due(&s, 1000 + BEAT - 1), SESSION_NOTHING);
    assert_int_equal(session_due(&s, 1000 + BEAT), SESSION_BEAT);
    assert_int_equal(session_due(&s, 1000 + BEAT), SESSION_NOTHING);
}

static void test_silence_of_five_beats_voids_the_session(void **state)
{
    struct session s;
    (void)state;
    joined(&s, 0);
    for (uint64_t t = BEAT; t < 5 * BEAT; t += BEAT)
        assert_int_equal(session_due(&s, t), SESSION_BEAT);
    assert_int_equal(session_due(&s, 5 * BEAT), SESSION_LOST);
    assert_int_equal(session_due(&s, 5 * BEAT), SESSION_JOIN);
    assert_int_equal(session_due(&s, 5 * BEAT), SESSION_NOTHING);
    session_accepted(&s, 6 * BEAT, 43, BEAT / 1000);
    assert_int_equal(s.number, 2);
}

static void test_whatever_the_broker_says_proves_the_link(void **state)
{
    struct session s;
    (void)state;
    joined(&s, 0);
    session_heard(&s, 4 * BEAT);
    assert_int_equal(session_due(&s, 8 * BEAT), SESSION_BEAT);
    assert_int_equal(session_due(&s, 9 * BEAT), SESSION_LOST);
}

static void test_a_broker_that_forgot_us_is_joined_at_once(void **state)
{
    struct session s;
    (void)state;
    joined(&s, 0);
    assert_true(session_unknown(&s, 10));
    assert_int_equal(session_due(&s, 10), SESSION_JOIN);
    assert_false(session_unknown(&s, 11)); // an echo of the same: the JOIN is under way
    assert_int_equal(session_due(&s, 11), SESSION_NOTHING);
}

static void test_a_refused_join_waits_as_told(void **state)
{
    struct session s;
    (void)state;
    session_init(&s, 0);
    assert_int_equal(session_due(&s, 0), SESSION_JOIN);
    session_refused(&s, 10, 5000);
    assert_int_equal(session_due(&s, 5000009), SESSION_NOTHING);
    assert_int_equal(session_due(&s, 5000010), SESSION_JOIN);
}

static void test_leaving_beats_while_it_works_and_ends_when_forgotten(void **state)
{
    struct session s;
    (void)state;
    joined(&s, 0);
    session_leave(&s, 10);
    assert_int_equal(session_due(&s, 10), SESSION_BYE);
    session_empty(&s, 10, false);
    session_heard(&s, 10 + BEAT);
    assert_int_equal(session_due(&s, 10 + BEAT), SESSION_BEAT);
    session_empty(&s, 20 + BEAT, true);
    assert_int_equal(session_due(&s, 20 + BEAT), SESSION_BYE);
    assert_int_equal(session_due(&s, 20 + BEAT), SESSION_NOTHING);
    assert_false(session_unknown(&s, 30 + BEAT));
    assert_int_equal(s.state, SESSION_GONE);
}

static void test_leaving_does_not_wait_for_ever(void **state)
{
    struct session s;
    (void)state;
    joined(&s, 0);
    session_leave(&s, 0);
    session_empty(&s, 0, true);
    uint64_t now_us = 0;
    for (int i = 0; i < 1000 && s.state == SESSION_LEAVING; i++, now_us += BEAT) {
        session_heard(&s, now_us); // beats, but never that it has forgotten us
        session_due(&s, now_us);
    }
    assert_int_equal(s.state, SESSION_GONE);
}

static void test_stopping_before_it_joined_ends_at_once(void **state)
{
    struct session s;
    (void)state;
    session_init(&s, 0);
    session_leave(&s, 0);
    assert_int_equal(s.state, SESSION_GONE);
    assert_int_equal(session_due(&s, 1), SESSION_NOTHING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_join_is_repeated_until_accepted),
        cmocka_unit_test(test_beats_come_at_the_brokers_pace),
        cmocka_unit_test(test_silence_of_five_beats_voids_the_session),
        cmocka_unit_test(test_whatever_the_broker_says_proves_the_link),
        cmocka_unit_test(test_a_broker_that_forgot_us_is_joined_at_once),
        cmocka_unit_test(test_a_refused_join_waits_as_told),
        cmocka_unit_test(test_leaving_beats_while_it_works_and_ends_when_forgotten),
        cmocka_unit_test(test_leaving_does_not_wait_for_ever),
        cmocka_unit_test(test_stopping_before_it_joined_ends_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
