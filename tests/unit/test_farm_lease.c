// SPDX-License-Identifier: Apache-2.0
// Leases: what a worker's death, silence, hang, lie or leave does to what it holds.
#include "tests/unit/farm_fixture.h"

static struct fx fx;
static struct fx_lease at[FX_ROOM];
static farm_model_id m;
static farm_client_id c;

static void start(uint32_t batch_max)
{
    fx_start_default(&fx);
    m = fx_model(&fx, "m", batch_max);
    c = fx_client(&fx, "t");
}

static void test_lost_requests_return_to_the_head_in_order(void **state)
{
    (void)state;
    start(2);
    farm_worker_id a = fx_worker(&fx, "a", 1, 4, m), b = fx_worker(&fx, "b", 1, 4, m);
    fx_submit(&fx, c, m, 0, 12);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, a, at, 10), 4);
    assert_int_equal(fx_take(&fx, b, at, 10), 4);
    // A graceful end blames nobody; the later one's leases are interleaved with the first one's.
    farm_worker_close(fx.f, fx.now_us, b, false);
    farm_worker_close(fx.f, fx.now_us, a, false);
    fx_check(&fx);
    farm_worker_id w = fx_worker(&fx, "w", 3, 12, m);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 12), 12);
    for (uint64_t i = 0; i < 12; i++)
        assert_int_equal(at[i].seq, i);
    assert_int_equal(fx_stats(&fx).redispatched, 8);
    fx_stop(&fx);
}

static void test_a_stale_lease_is_refused(void **state)
{
    (void)state;
    start(1);
    farm_worker_id a = fx_worker(&fx, "a", 1, 1, m);
    fx_submit(&fx, c, m, 7, 1);
    fx_tick(&fx);
    fx_take(&fx, a, at, 1);
    uint64_t old = at[0].lease;
    farm_worker_close(fx.f, fx.now_us, a, true);
    farm_worker_id b = fx_worker(&fx, "b", 1, 1, m);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, b, at, 1), 1);
    assert_int_not_equal(at[0].lease, old);
    assert_false(fx_ok(&fx, a, old)); // a worker that is gone
    assert_false(fx_ok(&fx, a, at[0].lease));
    farm_worker_id other = fx_worker(&fx, "other", 1, 1, m);
    assert_false(fx_ok(&fx, other, at[0].lease)); // not its lease
    assert_false(fx_ok(&fx, b, old));             // an old generation
    assert_false(fx_ok(&fx, b, 0));
    assert_false(fx_ok(&fx, b, UINT64_MAX));
    assert_true(fx_ok(&fx, b, at[0].lease));
    assert_false(fx_ok(&fx, b, at[0].lease)); // twice
    assert_int_equal(fx_stats(&fx).stale_results, 7);
    fx_expect_answer(&fx, c, 7, SONIC_STATUS_OK);
    fx_stop(&fx);
}

// A lease that was bound but not sent can have no result.
static void test_a_guessed_lease_is_refused(void **state)
{
    (void)state;
    start(1);
    farm_worker_id a = fx_worker(&fx, "a", 1, 1, m);
    fx_submit(&fx, c, m, 7, 1);
    fx_tick(&fx);
    struct farm_dispatch d;
    assert_true(farm_dispatch_peek(fx.f, a, &d));
    assert_false(fx_ok(&fx, a, d.lease));
    fx_stop(&fx);
}

// Four requests on a worker that dies: the killer among them fails at the second death, alone; the
// other three were beside it only once, and are served.
static void test_poison_fails_and_innocents_do_not(void **state)
{
    (void)state;
    start(4);
    farm_worker_id w = fx_worker(&fx, "w", 1, 4, m);
    fx_submit(&fx, c, m, 0, 4);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 10), 4);
    farm_worker_close(fx.f, fx.now_us, w, true);
    uint32_t served = 0, deaths = 1;
    w = fx_worker(&fx, "w", 1, 4, m);
    for (int i = 0; i < 10; i++) {
        fx_tick(&fx);
        uint32_t n = fx_take(&fx, w, at, 10);
        assert_true(n <= 1); // suspects run alone
        if (n && at[0].seq == 2) {
            farm_worker_close(fx.f, fx.now_us, w, true);
            deaths++;
            w = fx_worker(&fx, "w", 1, 4, m);
        } else if (n) {
            assert_true(fx_ok(&fx, w, at[0].lease));
            served++;
        }
    }
    assert_int_equal(served, 3);
    assert_int_equal(deaths, 2);
    assert_int_equal(fx_stats(&fx).poisoned, 1);
    struct farm_answer a;
    uint32_t poisoned = 0;
    while (fx_answer(&fx, c, &a))
        if (a.status == SONIC_STATUS_POISON) {
            assert_int_equal(a.seq, 2);
            assert_non_null(a.text);
            poisoned++;
        }
    assert_int_equal(poisoned, 1);
    fx_stop(&fx);
}

// While a worker drains for a suspect, and while it has it, it gets nothing else.
static void test_a_suspect_is_alone(void **state)
{
    (void)state;
    start(4);
    farm_worker_id a = fx_worker(&fx, "a", 1, 8, m);
    fx_submit(&fx, c, m, 0, 1);
    fx_tick(&fx);
    fx_take(&fx, a, at, 10);
    farm_worker_id b = fx_worker(&fx, "b", 1, 8, m);
    fx_submit(&fx, c, m, 1, 1);
    fx_tick(&fx);
    struct fx_lease beside[8];
    assert_int_equal(fx_take(&fx, b, beside, 8), 1);
    farm_worker_close(fx.f, fx.now_us, a, true); // request 0 is a suspect, b holds 1
    fx_submit(&fx, c, m, 2, 5);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, b, at, 10), 0);
    assert_true(fx_ok(&fx, b, beside[0].lease));
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, b, at, 10), 1);
    assert_int_equal(at[0].seq, 0);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, b, beside, 8), 0);
    assert_true(fx_ok(&fx, b, at[0].lease));
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, b, at, 10), 5);
    fx_stop(&fx);
}

static void test_a_cancelled_suspect_frees_the_worker_that_drained(void **state)
{
    (void)state;
    start(4);
    farm_worker_id a = fx_worker(&fx, "a", 1, 8, m);
    fx_submit(&fx, c, m, 0, 1);
    fx_tick(&fx);
    fx_take(&fx, a, at, 10);
    farm_worker_id b = fx_worker(&fx, "b", 1, 8, m);
    fx_submit(&fx, c, m, 1, 1);
    fx_tick(&fx);
    fx_take(&fx, b, at, 10);
    farm_worker_close(fx.f, fx.now_us, a, true);
    fx_submit(&fx, c, m, 2, 1);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, b, at, 10), 0);
    farm_cancel(fx.f, fx.now_us, c, 0);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, b, at, 10), 1);
    fx_stop(&fx);
}

// What was never sent to the worker cannot have killed it.
static void test_unsent_dispatches_are_not_blamed(void **state)
{
    (void)state;
    start(4);
    farm_worker_id a = fx_worker(&fx, "a", 1, 8, m);
    fx_submit(&fx, c, m, 0, 4);
    fx_tick(&fx);
    farm_worker_close(fx.f, fx.now_us, a, true);
    farm_worker_id b = fx_worker(&fx, "b", 1, 8, m);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, b, at, 10), 4);
    fx_stop(&fx);
}

static void expect_dead(bool dead)
{
    void *user = NULL;
    assert_int_equal(farm_next_dead_worker(fx.f, &user), dead);
    if (dead)
        assert_ptr_equal(user, &fx);
}

static void test_a_silent_worker_is_dead(void **state)
{
    (void)state;
    start(1);
    farm_worker_id w = fx_worker(&fx, "w", 1, 8, m);
    assert_int_equal(fx_tick(&fx), 1000 + 5000000);
    fx.now_us += 4000000;
    farm_worker_beat(fx.f, fx.now_us, w, 1);
    fx.now_us += 4999999;
    assert_int_equal(fx_tick(&fx), fx.now_us + 1);
    expect_dead(false);
    fx.now_us += 1;
    fx_tick(&fx);
    expect_dead(true);
    expect_dead(false);
    assert_int_equal(fx_stats(&fx).workers, 0);
    farm_worker_beat(fx.f, fx.now_us, w, 2); // too late, and harmless
    fx_stop(&fx);
}

// It beats, but its progress stands still while it holds a lease: hung.
static void test_a_hung_worker_is_dead(void **state)
{
    (void)state;
    start(1);
    farm_worker_id w = fx_worker(&fx, "w", 1, 8, m);
    farm_worker_beat(fx.f, fx.now_us, w, 5);
    for (int i = 0; i < 60; i++) { // no lease, no progress: fine for ever
        fx.now_us += 1000000;
        farm_worker_beat(fx.f, fx.now_us, w, 5);
        fx_tick(&fx);
        expect_dead(false);
    }
    fx_submit(&fx, c, m, 0, 1);
    fx_tick(&fx);
    fx_take(&fx, w, at, 1);
    uint64_t leased_us = fx.now_us;
    for (int i = 0; i < 20; i++) {
        fx.now_us += 1000000;
        farm_worker_beat(fx.f, fx.now_us, w, i == 10 ? 6 : 5);
        fx_tick(&fx);
        expect_dead(false);
    }
    while (fx_stats(&fx).workers) {
        fx.now_us += 1000000;
        farm_worker_beat(fx.f, fx.now_us, w, 6);
        fx_tick(&fx);
    }
    expect_dead(true);
    assert_int_equal((fx.now_us - leased_us) / 1000000, 11 + 30);
    assert_int_equal(fx_stats(&fx).queued, 1);
    fx_stop(&fx);
}

// One slot answers all the time, the other one never.
static void test_results_do_not_hide_a_hung_slot(void **state)
{
    (void)state;
    start(1);
    farm_worker_id w = fx_worker(&fx, "w", 2, 8, m);
    fx_submit(&fx, c, m, 0, 1); // never comes back
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 8), 1);
    for (uint64_t i = 1; i < 30; i++) {
        fx_submit(&fx, c, m, i, 1);
        fx_tick(&fx);
        fx.now_us += 1000000;
        assert_int_equal(fx_take(&fx, w, at, 8), 1);
        assert_true(fx_ok(&fx, w, at[0].lease));
        farm_worker_beat(fx.f, fx.now_us, w, 0);
        fx_tick(&fx);
        expect_dead(false);
    }
    fx.now_us += 1000000;
    fx_tick(&fx);
    expect_dead(true);
    assert_int_equal(fx_stats(&fx).queued, 1);
    fx_stop(&fx);
}

static void test_a_draining_worker_gets_nothing_new(void **state)
{
    (void)state;
    start(1);
    farm_worker_id w = fx_worker(&fx, "w", 1, 2, m);
    fx_submit(&fx, c, m, 0, 4);
    fx_tick(&fx);
    struct farm_dispatch d;
    assert_true(farm_dispatch_peek(fx.f, w, &d));
    farm_dispatch_pop(fx.f, w);
    farm_worker_drain(fx.f, fx.now_us, w);
    fx_check(&fx);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 10), 0); // the unsent one went back
    assert_true(fx_ok(&fx, w, d.lease));          // the sent one may finish
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 10), 0);
    assert_int_equal(fx_stats(&fx).queued, 3);
    struct farm_worker_stats s;
    assert_true(farm_worker_stats(fx.f, 0, &s));
    assert_true(s.draining);
    fx_stop(&fx);
}

static void test_not_loaded_takes_the_model_off_the_worker(void **state)
{
    (void)state;
    start(1);
    farm_worker_id a = fx_worker(&fx, "a", 1, 2, m);
    fx_submit(&fx, c, m, 0, 4);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, a, at, 10), 2);
    struct fx_lease held[2] = {at[0], at[1]};
    assert_true(fx_result(&fx, a, held[0].lease, SONIC_STATUS_NOT_LOADED, 0, 0));
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, a, at, 10), 0);
    assert_true(fx_ok(&fx, a, held[1].lease)); // what it holds may still finish
    farm_worker_id b = fx_worker(&fx, "b", 1, 2, m);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, b, at, 10), 2); // at once, and not as a suspect
    assert_int_equal(at[0].seq, 0);
    assert_true(farm_worker_model(fx.f, fx.now_us, a, m, 1)); // it loaded it after all
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, a, at, 10), 1);
    fx_stop(&fx);
}

static void test_device_fault_is_a_death_but_not_of_the_worker(void **state)
{
    (void)state;
    start(1);
    farm_worker_id a = fx_worker(&fx, "a", 1, 8, m);
    fx_submit(&fx, c, m, 0, 2);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, a, at, 10), 2);
    struct fx_lease other = at[1];
    assert_true(fx_result(&fx, a, at[0].lease, SONIC_STATUS_DEVICE_FAULT, 0, 0));
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, a, at, 10), 0); // a suspect waits until it can be alone
    assert_true(fx_ok(&fx, a, other.lease));
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, a, at, 10), 1); // on the same worker
    assert_int_equal(at[0].seq, 0);
    assert_true(fx_result(&fx, a, at[0].lease, SONIC_STATUS_DEVICE_FAULT, 0, 0));
    assert_int_equal(fx_stats(&fx).poisoned, 1);
    assert_int_equal(fx_stats(&fx).queued, 0);
    fx_submit(&fx, c, m, 5, 1); // the worker still serves
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, a, at, 10), 1);
    assert_true(fx_ok(&fx, a, at[0].lease));
    fx_stop(&fx);
}

static void test_busy_gives_a_lease_back(void **state)
{
    (void)state;
    start(1);
    farm_worker_id a = fx_worker(&fx, "a", 1, 8, m);
    fx_submit(&fx, c, m, 0, 2);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, a, at, 10), 2);
    for (unsigned turn = 0; turn < 5; turn++) { // it may say so more often than a request may die
        assert_true(fx_result(&fx, a, at[0].lease, SONIC_STATUS_BUSY, 0, 0));
        fx_tick(&fx);
        assert_int_equal(fx_take(&fx, a, at, 10), 1);
        assert_int_equal(at[0].seq, 0);
    }
    assert_true(fx_ok(&fx, a, at[0].lease));
    assert_int_equal(fx_stats(&fx).poisoned, 0);
    fx_stop(&fx);
}

static void test_both_leases_not_loaded(void **state)
{
    (void)state;
    start(1);
    farm_worker_id a = fx_worker(&fx, "a", 1, 2, m);
    fx_submit(&fx, c, m, 0, 2);
    fx_tick(&fx);
    fx_take(&fx, a, at, 10);
    assert_true(fx_result(&fx, a, at[1].lease, SONIC_STATUS_NOT_LOADED, 0, 0));
    assert_true(fx_result(&fx, a, at[0].lease, SONIC_STATUS_NOT_LOADED, 0, 0));
    assert_int_equal(fx_stats(&fx).queued, 2); // waiting, without any worker
    struct farm_model_stats s;
    assert_true(farm_model_stats(fx.f, fx.now_us, 0, &s));
    assert_int_equal(s.workers, 0);
    fx_stop(&fx);
}

static void test_outcomes_pass_and_lies_become_failures(void **state)
{
    (void)state;
    start(1);
    farm_worker_id w = fx_worker(&fx, "w", 1, 8, m);
    static const enum sonic_status sent[] = {SONIC_STATUS_OK,          SONIC_STATUS_EXEC_FAILED,
                                             SONIC_STATUS_BAD_REQUEST, SONIC_STATUS_DEADLINE,
                                             SONIC_STATUS_QUEUE_FULL,  (enum sonic_status)99};
    static const enum sonic_status seen[] = {SONIC_STATUS_OK,          SONIC_STATUS_EXEC_FAILED,
                                             SONIC_STATUS_BAD_REQUEST, SONIC_STATUS_DEADLINE,
                                             SONIC_STATUS_EXEC_FAILED, SONIC_STATUS_EXEC_FAILED};
    for (uint64_t i = 0; i < 6; i++) {
        fx_submit(&fx, c, m, i, 1);
        fx_tick(&fx);
        assert_int_equal(fx_take(&fx, w, at, 8), 1);
        assert_true(fx_result(&fx, w, at[0].lease, sent[i], 10, 1));
        fx_expect_answer(&fx, c, i, seen[i]);
    }
    assert_int_equal(fx_stats(&fx).answered_ok, 1);
    assert_int_equal(fx_stats(&fx).answered_failed, 5);
    fx_stop(&fx);
}

static void test_workers_max(void **state)
{
    (void)state;
    struct farm_config config = fx_config(&fx);
    config.workers_max = 2;
    fx_start(&fx, &config);
    farm_worker_id a = fx_worker(&fx, "a", 1, 1, FARM_NONE);
    fx_worker(&fx, "b", 1, 1, FARM_NONE);
    struct farm_worker_config w = {.name = "c", .slots = 1};
    assert_int_equal(farm_worker_open(fx.f, fx.now_us, &w), FARM_NONE);
    farm_worker_close(fx.f, fx.now_us, a, false);
    assert_int_not_equal(farm_worker_open(fx.f, fx.now_us, &w), FARM_NONE);
    assert_false(farm_worker_model(fx.f, fx.now_us, a, m, 1));
    fx_stop(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_requests_return_to_the_head_in_order),
        cmocka_unit_test(test_a_stale_lease_is_refused),
        cmocka_unit_test(test_a_guessed_lease_is_refused),
        cmocka_unit_test(test_poison_fails_and_innocents_do_not),
        cmocka_unit_test(test_a_suspect_is_alone),
        cmocka_unit_test(test_a_cancelled_suspect_frees_the_worker_that_drained),
        cmocka_unit_test(test_unsent_dispatches_are_not_blamed),
        cmocka_unit_test(test_a_silent_worker_is_dead),
        cmocka_unit_test(test_a_hung_worker_is_dead),
        cmocka_unit_test(test_results_do_not_hide_a_hung_slot),
        cmocka_unit_test(test_a_draining_worker_gets_nothing_new),
        cmocka_unit_test(test_not_loaded_takes_the_model_off_the_worker),
        cmocka_unit_test(test_device_fault_is_a_death_but_not_of_the_worker),
        cmocka_unit_test(test_busy_gives_a_lease_back),
        cmocka_unit_test(test_both_leases_not_loaded),
        cmocka_unit_test(test_outcomes_pass_and_lies_become_failures),
        cmocka_unit_test(test_workers_max),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
