// SPDX-License-Identifier: Apache-2.0
// How long a device was idle: against the same computed from all runs at once, in time's order.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "worker/device/timeline.h"

static void test_gaps_between_runs(void **state)
{
    struct timeline t = {0};
    (void)state;
    assert_int_equal(timeline_add(&t, 100, 200), 0); // nothing is known of before
    assert_int_equal(timeline_add(&t, 250, 300), 50);
    assert_int_equal(timeline_add(&t, 260, 310), 0);
    assert_int_equal(timeline_add(&t, 310, 320), 0);
    assert_int_equal(timeline_add(&t, 330, 340), 10);
}

static void test_a_late_run_takes_back(void **state)
{
    struct timeline t = {0};
    (void)state;
    assert_int_equal(timeline_add(&t, 100, 200), 0);
    assert_int_equal(timeline_add(&t, 290, 400), 90);
    assert_int_equal(timeline_add(&t, 200, 295), 0); // it was not idle
    assert_int_equal(timeline_add(&t, 430, 440), 0); // 30 of the 90
    assert_int_equal(timeline_add(&t, 540, 550), 40);
}

#define RUNS 5000u
#define LATE 8u

// Runs of eight slots, told up to eight places late: in the end the sum is exact.
static void test_many_runs_in_any_order(void **state)
{
    static struct timeline_span runs[RUNS];
    static struct timeline t;
    uint64_t at = 1000, reached = 0, idle = 0, told = 0;
    (void)state;
    srand(5);
    for (unsigned i = 0; i < RUNS; i++) {
        at += (uint64_t)(rand() % 100);
        runs[i] = (struct timeline_span){at, at + 1 + (uint64_t)(rand() % 120)};
        idle += reached && at > reached ? at - reached : 0;
        reached = runs[i].to_ns > reached ? runs[i].to_ns : reached;
    }
    for (unsigned i = 0; i + LATE <= RUNS; i += LATE)
        for (unsigned k = LATE - 1; k > 0; k--) {
            unsigned other = (unsigned)rand() % (k + 1);
            struct timeline_span s = runs[i + k];
            runs[i + k] = runs[i + other];
            runs[i + other] = s;
        }
    for (unsigned i = 0; i < RUNS; i++)
        told += timeline_add(&t, runs[i].from_ns, runs[i].to_ns);
    assert_true(idle > 10000);
    assert_int_equal(t.idle_ns, idle);
    assert_true(told >= idle); // a debt may be left, until the next gap
    assert_int_equal(told, t.told_ns);
}

static void test_more_spans_than_are_kept(void **state)
{
    struct timeline t = {0};
    uint64_t told = 0;
    (void)state;
    for (uint64_t i = 1; i <= 10 * TIMELINE_SPANS; i++)
        told += timeline_add(&t, 100 * i, 100 * i + 40);
    assert_int_equal(told, (10 * TIMELINE_SPANS - 1) * 60);
    assert_int_equal(timeline_add(&t, 10, 20), 0); // too late to be known
    assert_int_equal(t.n, TIMELINE_SPANS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gaps_between_runs),
        cmocka_unit_test(test_a_late_run_takes_back),
        cmocka_unit_test(test_many_runs_in_any_order),
        cmocka_unit_test(test_more_spans_than_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
