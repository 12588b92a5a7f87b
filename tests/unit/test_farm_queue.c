// SPDX-License-Identifier: Apache-2.0
// Queues: order, fair shares, priority, deadlines, delays, bounds, cancels.
#include "tests/unit/farm_fixture.h"

static struct fx fx;
static struct fx_lease at[FX_ROOM];

// The order in which one slot, one request at a time, is given what is queued.
static uint32_t drain(farm_worker_id w, uint64_t *seqs, uint32_t max)
{
    uint32_t n = 0;
    for (;;) {
        fx_tick(&fx);
        uint32_t got = fx_take(&fx, w, at, FX_ROOM);
        if (got == 0)
            return n;
        for (uint32_t i = 0; i < got && n < max; i++) {
            seqs[n++] = at[i].seq;
            assert_true(fx_ok(&fx, w, at[i].lease));
        }
    }
}

static void test_first_in_first_out(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 4);
    farm_client_id c = fx_client(&fx, "t");
    fx_submit(&fx, c, m, 0, 50);
    farm_worker_id w = fx_worker(&fx, "w", 1, 10, m);
    uint64_t seqs[50];
    assert_int_equal(drain(w, seqs, 50), 50);
    for (uint64_t i = 0; i < 50; i++)
        assert_int_equal(seqs[i], i);
    fx_stop(&fx);
}

// A tenant with 200 queued and one with 20: the second is through after about 40, not after 220.
static void test_drr_is_fair_between_tenants(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 4);
    farm_client_id many = fx_client(&fx, "many"), few = fx_client(&fx, "few");
    fx_submit(&fx, many, m, 0, 200);
    fx_submit(&fx, few, m, 1000, 20);
    farm_worker_id w = fx_worker(&fx, "w", 1, 8, m);
    uint64_t seqs[220];
    assert_int_equal(drain(w, seqs, 220), 220);
    uint32_t last = 0;
    for (uint32_t i = 0; i < 220; i++)
        if (seqs[i] >= 1000)
            last = i;
    assert_in_range(last, 35, 44);
    fx_stop(&fx);
}

// Shares are of rows: requests of 4 rows get a quarter as many turns as requests of 1 row.
static void test_drr_counts_rows(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 4);
    farm_client_id wide = fx_client(&fx, "wide"), thin = fx_client(&fx, "thin");
    for (uint64_t i = 0; i < 100; i++)
        fx_submit_as(&fx, wide, (struct farm_submit){.seq = i, .model = m, .rows = 4});
    fx_submit(&fx, thin, m, 1000, 100);
    farm_worker_id w = fx_worker(&fx, "w", 1, 8, m);
    uint64_t seqs[200];
    assert_int_equal(drain(w, seqs, 200), 200);
    uint32_t wide_ones = 0, thin_ones = 0;
    while (thin_ones < 80)
        *(seqs[wide_ones + thin_ones] < 1000 ? &wide_ones : &thin_ones) += 1;
    assert_in_range(wide_ones, 18, 22);
    fx_stop(&fx);
}

static farm_model_id model_as(struct farm_model_config c)
{
    strcpy(c.name, "m");
    c.version = 1;
    return farm_model_add(fx.f, &c);
}

static void test_priority_first(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = model_as(
        (struct farm_model_config){.batch_max = 2, .priority_levels = 3, .default_priority = 2});
    farm_client_id c = fx_client(&fx, "t");
    fx_submit_as(&fx, c, (struct farm_submit){.seq = 3, .model = m, .priority = 3});
    fx_submit_as(&fx, c, (struct farm_submit){.seq = 2, .model = m});
    fx_submit_as(&fx, c, (struct farm_submit){.seq = 1, .model = m, .priority = 1});
    fx_submit_as(&fx, c, (struct farm_submit){.seq = 4, .model = m, .priority = 200});
    farm_worker_id w = fx_worker(&fx, "w", 1, 1, m);
    uint64_t seqs[4];
    assert_int_equal(drain(w, seqs, 4), 4);
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(seqs[i], i + 1);
    fx_stop(&fx);
}

static void test_deadline_of_a_queued_request(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = model_as((struct farm_model_config){.batch_max = 1});
    farm_client_id c = fx_client(&fx, "t");
    fx_submit_as(&fx, c, (struct farm_submit){.seq = 1, .model = m, .deadline_us = 900});
    fx_submit_as(&fx, c, (struct farm_submit){.seq = 2, .model = m, .deadline_us = 500});
    fx_submit_as(&fx, c, (struct farm_submit){.seq = 3, .model = m});
    assert_int_equal(fx_tick(&fx), 1500);
    fx.now_us = 1499;
    fx_tick(&fx);
    struct farm_answer a;
    assert_false(fx_answer(&fx, c, &a));
    fx.now_us = 1500;
    assert_int_equal(fx_tick(&fx), 1900);
    assert_true(fx_answer(&fx, c, &a));
    assert_int_equal(a.seq, 2);
    assert_int_equal(a.status, SONIC_STATUS_DEADLINE);
    assert_non_null(a.text);
    assert_int_equal(a.queue_us, 500);
    fx.now_us = 5000;
    fx_tick(&fx);
    fx_expect_answer(&fx, c, 1, SONIC_STATUS_DEADLINE);
    assert_int_equal(fx_stats(&fx).deadline_missed, 2);
    assert_int_equal(fx_stats(&fx).queued, 1);
    fx_stop(&fx);
}

static void test_leased_past_its_deadline_may_finish(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m =
        model_as((struct farm_model_config){.batch_max = 1, .default_deadline_us = 100});
    farm_client_id c = fx_client(&fx, "t");
    farm_worker_id w = fx_worker(&fx, "w", 1, 1, m);
    fx_submit(&fx, c, m, 7, 1);
    fx_tick(&fx);
    struct farm_dispatch d;
    assert_true(farm_dispatch_peek(fx.f, w, &d));
    assert_int_equal(d.deadline_us, 1100);
    assert_int_equal(fx_take(&fx, w, at, 1), 1);
    fx.now_us += 1000;
    fx_tick(&fx);
    assert_true(fx_ok(&fx, w, at[0].lease));
    fx_expect_answer(&fx, c, 7, SONIC_STATUS_OK);
    fx_stop(&fx);
}

static void test_lost_past_its_deadline_is_answered(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = model_as((struct farm_model_config){.batch_max = 1});
    farm_client_id c = fx_client(&fx, "t");
    farm_worker_id w = fx_worker(&fx, "w", 1, 1, m);
    fx_submit_as(&fx, c, (struct farm_submit){.seq = 7, .model = m, .deadline_us = 100});
    fx_tick(&fx);
    fx_take(&fx, w, at, 1);
    fx.now_us += 1000;
    farm_worker_close(fx.f, fx.now_us, w, true);
    fx_tick(&fx);
    fx_expect_answer(&fx, c, 7, SONIC_STATUS_DEADLINE);
    fx_stop(&fx);
}

static void test_queue_full(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = model_as((struct farm_model_config){.batch_max = 1, .queue_max = 3});
    farm_client_id c = fx_client(&fx, "t");
    fx_submit(&fx, c, m, 0, 3);
    assert_int_equal(fx_submit_as(&fx, c, (struct farm_submit){.seq = 3, .model = m}),
                     SONIC_STATUS_QUEUE_FULL);
    farm_worker_id w = fx_worker(&fx, "w", 1, 1, m);
    fx_tick(&fx); // a leased one is not in the queue any more
    fx_take(&fx, w, at, 1);
    fx_submit(&fx, c, m, 3, 1);
    assert_int_equal(fx_stats(&fx).refused, 1);
    fx_stop(&fx);
}

static void test_unfit_requests_are_refused(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 4);
    farm_client_id c = fx_client(&fx, "t");
    assert_int_equal(fx_submit_as(&fx, c, (struct farm_submit){.model = m, .rows = 5}),
                     SONIC_STATUS_BAD_REQUEST);
    assert_int_equal(fx_submit_as(&fx, c, (struct farm_submit){.model = m + 1}),
                     SONIC_STATUS_MODEL_UNKNOWN);
    assert_int_equal(fx_submit_as(&fx, c, (struct farm_submit){.model = FARM_NONE}),
                     SONIC_STATUS_MODEL_UNKNOWN);
    assert_int_equal(fx_submit_as(&fx, c + 1, (struct farm_submit){.model = m}),
                     SONIC_STATUS_REGISTER_AGAIN);
    fx_stop(&fx);
}

static void test_models_are_found_by_name_and_version(void **state)
{
    (void)state;
    fx_start_default(&fx);
    struct farm_model_config c = {.name = "m", .batch_max = 1};
    farm_model_id ids[4];
    for (uint32_t v = 1; v < 4; v++) {
        c.version = v == 1 ? 9 : v;
        ids[v] = farm_model_add(fx.f, &c);
    }
    assert_int_equal(farm_model_find(fx.f, "m", 1, 0), ids[1]);
    assert_int_equal(farm_model_find(fx.f, "m", 1, 3), ids[3]);
    assert_int_equal(farm_model_find(fx.f, "m", 1, 4), FARM_NONE);
    assert_int_equal(farm_model_find(fx.f, "mm", 2, 0), FARM_NONE);
    assert_int_equal(farm_model_add(fx.f, &c), ids[3]);
    for (uint32_t v = 10; farm_model_add(fx.f, &c) != FARM_NONE; v++)
        c.version = v;
    assert_int_equal(c.version, 10 + SONIC_MODELS_MAX - 3);
    fx_stop(&fx);
}

static void test_queue_delay_holds_until_a_full_batch(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = model_as((struct farm_model_config){.batch_max = 4, .queue_delay_us = 500});
    farm_client_id c = fx_client(&fx, "t");
    farm_worker_id w = fx_worker(&fx, "w", 1, 100, m);
    fx_submit(&fx, c, m, 0, 3);
    assert_int_equal(fx_tick(&fx), 1500);
    assert_int_equal(fx_take(&fx, w, at, 10), 0);
    fx_submit(&fx, c, m, 3, 2);
    fx_tick(&fx); // a full batch goes, the fifth waits anew
    assert_int_equal(fx_take(&fx, w, at, 10), 4);
    fx.now_us = 1500;
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 10), 1);
    fx_stop(&fx);
}

static void test_queue_delay_ends(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = model_as((struct farm_model_config){.batch_max = 4, .queue_delay_us = 500});
    farm_client_id c = fx_client(&fx, "t");
    farm_worker_id w = fx_worker(&fx, "w", 1, 100, m);
    fx_submit(&fx, c, m, 0, 2);
    fx.now_us = 1499;
    assert_int_equal(fx_tick(&fx), 1500);
    assert_int_equal(fx_take(&fx, w, at, 10), 0);
    fx.now_us = 1500;
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 10), 2);
    fx_stop(&fx);
}

static void test_preferred_sizes(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = model_as((struct farm_model_config){
        .batch_max = 16, .queue_delay_us = 500, .npreferred = 4, .preferred = {8, 4, 99, 0}});
    farm_client_id c = fx_client(&fx, "t");
    farm_worker_id w = fx_worker(&fx, "w", 1, 100, m);
    fx_submit(&fx, c, m, 0, 3);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 100), 0);
    fx_submit(&fx, c, m, 3, 2); // five: the largest that fits is four
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 100), 4);
    fx_submit(&fx, c, m, 5, 13); // fourteen: eight and four
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 100), 12);
    fx_stop(&fx);
}

static void test_no_delay_never_holds(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m =
        model_as((struct farm_model_config){.batch_max = 16, .npreferred = 1, .preferred = {8}});
    farm_client_id c = fx_client(&fx, "t");
    farm_worker_id w = fx_worker(&fx, "w", 1, 100, m);
    fx_submit(&fx, c, m, 0, 1);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 10), 1);
    fx_stop(&fx);
}

static void test_cancel_a_queued_request(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 1);
    farm_client_id c = fx_client(&fx, "t");
    fx_submit(&fx, c, m, 0, 300);
    farm_cancel(fx.f, fx.now_us, c, 200);
    farm_cancel(fx.f, fx.now_us, c, 200);
    farm_cancel(fx.f, fx.now_us, c, 999);
    fx_expect_answer(&fx, c, 200, SONIC_STATUS_CANCELLED);
    struct farm_answer a;
    assert_false(fx_answer(&fx, c, &a));
    assert_int_equal(fx_stats(&fx).cancelled, 1);
    assert_int_equal(fx_stats(&fx).queued, 299);
    fx_stop(&fx);
}

// A client that picks its numbers so that all fall into one chain costs itself, not the farm.
static void test_cancel_is_bounded(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 1);
    farm_client_id c = fx_client(&fx, "t");
    for (uint64_t i = 0; i < FX_ROOM; i++) // the same number, over and over
        fx_submit_as(&fx, c, (struct farm_submit){.seq = 5, .model = m});
    for (uint64_t i = 0; i < FX_ROOM; i++)
        farm_cancel(fx.f, fx.now_us, c, 5);
    assert_int_equal(fx_stats(&fx).cancelled, FX_ROOM);
    fx_stop(&fx);
}

static void test_cancel_a_leased_request(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 1);
    farm_client_id c = fx_client(&fx, "t");
    farm_worker_id w = fx_worker(&fx, "w", 1, 2, m);
    fx_submit(&fx, c, m, 0, 2);
    fx_tick(&fx);
    struct farm_dispatch d;
    assert_true(farm_dispatch_peek(fx.f, w, &d));
    farm_dispatch_pop(fx.f, w); // 0 is on the worker, 1 in its outbox still
    farm_cancel(fx.f, fx.now_us, c, 0);
    farm_cancel(fx.f, fx.now_us, c, 1);
    fx_check(&fx);
    fx_expect_answer(&fx, c, 0, SONIC_STATUS_CANCELLED);
    fx_expect_answer(&fx, c, 1, SONIC_STATUS_CANCELLED);
    uint64_t lease;
    assert_true(farm_revoke_pop(fx.f, w, &lease));
    assert_int_equal(lease, d.lease);
    assert_false(farm_revoke_pop(fx.f, w, &lease));
    assert_int_equal(fx_take(&fx, w, at, 10), 0);
    assert_false(fx_ok(&fx, w, d.lease));
    assert_int_equal(fx_stats(&fx).stale_results, 1);
    fx_stop(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_in_first_out),
        cmocka_unit_test(test_drr_is_fair_between_tenants),
        cmocka_unit_test(test_drr_counts_rows),
        cmocka_unit_test(test_priority_first),
        cmocka_unit_test(test_deadline_of_a_queued_request),
        cmocka_unit_test(test_leased_past_its_deadline_may_finish),
        cmocka_unit_test(test_lost_past_its_deadline_is_answered),
        cmocka_unit_test(test_queue_full),
        cmocka_unit_test(test_unfit_requests_are_refused),
        cmocka_unit_test(test_models_are_found_by_name_and_version),
        cmocka_unit_test(test_queue_delay_holds_until_a_full_batch),
        cmocka_unit_test(test_queue_delay_ends),
        cmocka_unit_test(test_preferred_sizes),
        cmocka_unit_test(test_no_delay_never_holds),
        cmocka_unit_test(test_cancel_a_queued_request),
        cmocka_unit_test(test_cancel_is_bounded),
        cmocka_unit_test(test_cancel_a_leased_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
