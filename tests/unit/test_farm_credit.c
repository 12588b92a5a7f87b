// SPDX-License-Identifier: Apache-2.0
// Credit: windows in requests and bytes, and the memory they are granted out of.
#include "tests/unit/farm_fixture.h"

static struct fx fx;
static struct fx_lease at[FX_ROOM];

static enum sonic_status open_with(struct farm_want want, farm_client_id *id, struct farm_grant *g)
{
    enum sonic_status s = farm_client_open(fx.f, fx.now_us, "t", 1, &want, &fx, id, g);
    fx_check(&fx);
    return s;
}

static enum sonic_status submit_bytes(farm_client_id c, farm_model_id m, uint64_t seq,
                                      uint64_t bytes)
{
    return fx_submit_as(&fx, c, (struct farm_submit){.seq = seq, .model = m, .bytes = bytes});
}

static void test_window_in_requests(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 1);
    farm_client_id c;
    struct farm_grant g;
    assert_int_equal(open_with((struct farm_want){3, 1000, 0}, &c, &g), SONIC_STATUS_OK);
    assert_int_equal(g.requests, 3);
    assert_int_equal(g.bytes, 1000);
    fx_submit(&fx, c, m, 0, 3);
    assert_int_equal(submit_bytes(c, m, 3, 1), SONIC_STATUS_BUSY);
    // Not the answer frees credit, but its acknowledgement.
    farm_cancel(fx.f, fx.now_us, c, 0);
    assert_int_equal(submit_bytes(c, m, 3, 1), SONIC_STATUS_BUSY);
    fx_expect_answer(&fx, c, 0, SONIC_STATUS_CANCELLED);
    assert_int_equal(submit_bytes(c, m, 3, 1), SONIC_STATUS_BUSY);
    assert_true(farm_client_received(fx.f, c, 1));
    assert_int_equal(submit_bytes(c, m, 3, 1), SONIC_STATUS_OK);
    fx_stop(&fx);
}

static void test_window_in_bytes(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 1);
    farm_client_id c;
    struct farm_grant g;
    assert_int_equal(open_with((struct farm_want){10, 1000, 0}, &c, &g), SONIC_STATUS_OK);
    assert_int_equal(submit_bytes(c, m, 0, 600), SONIC_STATUS_OK);
    assert_int_equal(submit_bytes(c, m, 1, 401), SONIC_STATUS_BUSY);
    assert_int_equal(submit_bytes(c, m, 1, UINT64_MAX), SONIC_STATUS_BUSY);
    assert_int_equal(submit_bytes(c, m, 1, 400), SONIC_STATUS_OK);
    assert_int_equal(submit_bytes(c, m, 2, 0), SONIC_STATUS_OK);
    assert_int_equal(fx_stats(&fx).used_bytes, 1000);
    fx_stop(&fx);
}

static void test_received_is_cumulative_and_checked(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 1);
    farm_client_id c = fx_client(&fx, "t");
    fx_submit(&fx, c, m, 0, 4);
    for (uint64_t i = 0; i < 4; i++)
        farm_cancel(fx.f, fx.now_us, c, i);
    assert_false(farm_client_received(fx.f, c, 1)); // nothing was sent yet
    for (uint64_t i = 0; i < 3; i++)
        fx_expect_answer(&fx, c, i, SONIC_STATUS_CANCELLED);
    assert_true(farm_client_received(fx.f, c, 2));
    assert_true(farm_client_received(fx.f, c, 2));
    assert_true(farm_client_received(fx.f, c, 1)); // an old word: nothing to do
    assert_int_equal(fx_stats(&fx).unacknowledged, 1);
    assert_false(farm_client_received(fx.f, c, 4));
    assert_true(farm_client_received(fx.f, c, 3));
    assert_int_equal(fx_stats(&fx).unacknowledged, 0);
    fx_check(&fx);
    fx_stop(&fx);
}

// A client that does not read is not served further once its outputs exceed its window.
static void test_unread_outputs_stop_submits(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 1);
    farm_worker_id w = fx_worker(&fx, "w", 1, 10, m);
    farm_client_id c;
    struct farm_grant g;
    assert_int_equal(open_with((struct farm_want){10, 100, 0}, &c, &g), SONIC_STATUS_OK);
    fx_submit(&fx, c, m, 0, 1);
    fx_tick(&fx);
    fx_take(&fx, w, at, 10);
    struct farm_result r = {.lease = at[0].lease, .bytes = 101, .payload = fx_payload(&fx, 0)};
    assert_true(farm_result(fx.f, fx.now_us, w, &r));
    assert_int_equal(submit_bytes(c, m, 1, 1), SONIC_STATUS_BUSY);
    fx_expect_answer(&fx, c, 0, SONIC_STATUS_OK);
    assert_int_equal(submit_bytes(c, m, 1, 1), SONIC_STATUS_BUSY);
    assert_true(farm_client_received(fx.f, c, 1));
    assert_int_equal(submit_bytes(c, m, 1, 1), SONIC_STATUS_OK);
    fx_stop(&fx);
}

static void start_with_memory(uint64_t bytes)
{
    struct farm_config c = fx_config(&fx);
    c.memory_bytes_max = bytes;
    c.grant_floor_bytes = 10000;
    c.grant_floor_requests = 8;
    fx_start(&fx, &c);
}

static void test_busy_when_memory_is_granted_out(void **state)
{
    (void)state;
    start_with_memory(1000000);
    farm_client_id ids[256];
    struct farm_grant g;
    uint32_t n = 0;
    while (open_with((struct farm_want){1000, 1u << 30, 0}, &ids[n], &g) == SONIC_STATUS_OK) {
        assert_true(g.bytes >= 10000 && g.bytes <= 125000);
        assert_int_equal(g.retry_after_us, 0);
        assert_true(++n < 256);
    }
    assert_true(g.retry_after_us > 0);
    assert_true(n > 10); // each gets a part of what is free, so many fit
    assert_int_equal(fx_stats(&fx).clients, n);
    farm_client_close(fx.f, fx.now_us, ids[0]);
    assert_int_equal(open_with((struct farm_want){1000, 1u << 30, 0}, &ids[0], &g),
                     SONIC_STATUS_OK);
    fx_stop(&fx);
}

static void test_records_are_charged(void **state)
{
    (void)state;
    start_with_memory(1000000);
    farm_client_id c;
    struct farm_grant g;
    assert_int_equal(open_with((struct farm_want){100000, 1, 0}, &c, &g), SONIC_STATUS_OK);
    assert_true(g.requests >= 8 && g.requests < 1000);
    assert_true(fx_stats(&fx).granted_bytes > g.requests * 100ull);
    fx_stop(&fx);
}

static void test_need_is_met_or_busy(void **state)
{
    (void)state;
    start_with_memory(1000000);
    farm_client_id a, b;
    struct farm_grant g;
    assert_int_equal(open_with((struct farm_want){1, 1000, 500000}, &a, &g), SONIC_STATUS_OK);
    assert_int_equal(g.bytes, 500000);
    assert_int_equal(open_with((struct farm_want){1, 1000, 500000}, &b, &g), SONIC_STATUS_BUSY);
    assert_int_equal(open_with((struct farm_want){1, 1000, 400000}, &b, &g), SONIC_STATUS_OK);
    fx_stop(&fx);
}

// Waiting for what will never be free would be for ever: the client is told the limit instead.
static void test_an_impossible_need_is_taken_for_none(void **state)
{
    (void)state;
    start_with_memory(1000000);
    farm_client_id a, b;
    struct farm_grant g;
    assert_int_equal(farm_request_bytes_max(fx.f), 500000);
    assert_int_equal(open_with((struct farm_want){1, 1000, 500001}, &a, &g), SONIC_STATUS_OK);
    assert_int_equal(g.bytes, 1000);
    assert_int_equal(open_with((struct farm_want){1, 1000, UINT64_MAX}, &b, &g), SONIC_STATUS_OK);
    farm_client_want(fx.f, fx.now_us, a, &(struct farm_want){1, 2000, UINT64_MAX}, &g);
    assert_int_equal(g.bytes, 2000);
    assert_int_equal(g.retry_after_us, 0);
    fx_stop(&fx);
}

static void test_clients_max(void **state)
{
    (void)state;
    struct farm_config c = fx_config(&fx);
    c.clients_max = 1;
    fx_start(&fx, &c);
    farm_client_id a, b;
    struct farm_grant g;
    assert_int_equal(open_with((struct farm_want){1, 1, 0}, &a, &g), SONIC_STATUS_OK);
    assert_int_equal(open_with((struct farm_want){1, 1, 0}, &b, &g), SONIC_STATUS_BUSY);
    fx_stop(&fx);
}

// However many newcomers ask, the one that runs keeps its whole window.
static void test_a_running_client_is_never_cut_off(void **state)
{
    (void)state;
    start_with_memory(1000000);
    farm_model_id m = fx_model(&fx, "m", 1);
    farm_client_id first, other;
    struct farm_grant g, mine;
    assert_int_equal(open_with((struct farm_want){50, 100000, 0}, &first, &mine), SONIC_STATUS_OK);
    while (open_with((struct farm_want){1000, 1u << 30, 0}, &other, &g) == SONIC_STATUS_OK)
        ;
    for (uint64_t i = 0; i < mine.requests; i++)
        assert_int_equal(submit_bytes(first, m, i, mine.bytes / mine.requests), SONIC_STATUS_OK);
    farm_client_want(fx.f, fx.now_us, first, &(struct farm_want){1000, 1u << 30, 0}, &g);
    assert_true(g.requests >= mine.requests && g.bytes >= mine.bytes);
    fx_stop(&fx);
}

static void test_want_less_holds_at_once(void **state)
{
    (void)state;
    start_with_memory(10000000);
    farm_model_id m = fx_model(&fx, "m", 1);
    farm_client_id c;
    struct farm_grant g;
    assert_int_equal(open_with((struct farm_want){100, 100000, 0}, &c, &g), SONIC_STATUS_OK);
    fx_submit(&fx, c, m, 0, 20);
    farm_client_want(fx.f, fx.now_us, c, &(struct farm_want){50, 5000, 0}, &g);
    assert_int_equal(g.requests, 50);
    assert_int_equal(g.bytes, 5000);
    farm_client_want(fx.f, fx.now_us, c, &(struct farm_want){5, 50, 0}, &g);
    assert_int_equal(g.requests, 20); // never less than in use
    assert_int_equal(g.bytes, 200);
    assert_int_equal(g.retry_after_us, 0);
    fx_check(&fx);
    fx_stop(&fx);
}

static void test_want_more_is_granted_from_what_is_free(void **state)
{
    (void)state;
    start_with_memory(1000000);
    farm_client_id c, other;
    struct farm_grant g;
    assert_int_equal(open_with((struct farm_want){10, 10000, 0}, &c, &g), SONIC_STATUS_OK);
    farm_client_want(fx.f, fx.now_us, c, &(struct farm_want){20, 50000, 0}, &g);
    assert_int_equal(g.requests, 20);
    assert_int_equal(g.bytes, 50000);
    // Asking again and again does not creep beyond a part of what is free.
    for (int i = 0; i < 100; i++)
        farm_client_want(fx.f, fx.now_us, c, &(struct farm_want){20, 1u << 30, 0}, &g);
    assert_in_range(g.bytes, 50000, 125000);
    farm_client_want(fx.f, fx.now_us, c, &(struct farm_want){20, 1u << 30, 300000}, &g);
    assert_int_equal(g.bytes, 300000);
    assert_int_equal(g.retry_after_us, 0);
    assert_int_equal(open_with((struct farm_want){8, 500000, 500000}, &other, &g), SONIC_STATUS_OK);
    farm_client_want(fx.f, fx.now_us, c, &(struct farm_want){20, 1u << 30, 500000}, &g);
    assert_int_equal(g.bytes, 300000);
    assert_true(g.retry_after_us > 0);
    fx_check(&fx);
    fx_stop(&fx);
}

static void test_close_reclaims_all(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_model_id m = fx_model(&fx, "m", 1);
    farm_worker_id w = fx_worker(&fx, "w", 1, 6, m);
    farm_client_id c = fx_client(&fx, "t");
    fx_submit(&fx, c, m, 0, 10);
    fx_tick(&fx);
    uint32_t n = fx_take(&fx, w, at, 10);
    assert_int_equal(n, 2);
    assert_true(fx_ok(&fx, w, at[0].lease)); // an answer that waits
    farm_cancel(fx.f, fx.now_us, c, 9);
    fx_expect_answer(&fx, c, 0, SONIC_STATUS_OK); // one that was sent; 9's waits
    farm_client_close(fx.f, fx.now_us, c);
    fx_check(&fx);
    struct farm_stats s = fx_stats(&fx);
    assert_int_equal(s.clients + s.granted_bytes + s.used_bytes + s.queued + s.leased, 0);
    assert_int_equal(s.waiting_answers + s.unacknowledged, 0);
    assert_int_equal(s.dropped, 8);
    assert_int_equal(fx.live, 0);
    uint64_t lease;
    assert_true(farm_revoke_pop(fx.f, w, &lease));
    assert_int_equal(lease, at[1].lease);
    assert_false(fx_ok(&fx, w, at[1].lease));
    farm_client_close(fx.f, fx.now_us, c); // a stale id is refused, not followed
    farm_cancel(fx.f, fx.now_us, c, 3);
    assert_true(farm_client_received(fx.f, c, 100));
    farm_client_id again = fx_client(&fx, "t");
    assert_int_not_equal(again, c);
    fx_stop(&fx);
}

static void test_idle_client_is_small(void **state)
{
    (void)state;
    fx_start_default(&fx);
    farm_client_id c;
    struct farm_grant g;
    for (int i = 0; i < 4096; i++) // the floor of 256 KiB each: as many as the memory allows
        if (open_with((struct farm_want){1, 1, 0}, &c, &g) != SONIC_STATUS_OK)
            fail_msg("client %d of 4096 was refused", i);
    fx_stop(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window_in_requests),
        cmocka_unit_test(test_window_in_bytes),
        cmocka_unit_test(test_received_is_cumulative_and_checked),
        cmocka_unit_test(test_unread_outputs_stop_submits),
        cmocka_unit_test(test_busy_when_memory_is_granted_out),
        cmocka_unit_test(test_records_are_charged),
        cmocka_unit_test(test_need_is_met_or_busy),
        cmocka_unit_test(test_an_impossible_need_is_taken_for_none),
        cmocka_unit_test(test_clients_max),
        cmocka_unit_test(test_a_running_client_is_never_cut_off),
        cmocka_unit_test(test_want_less_holds_at_once),
        cmocka_unit_test(test_want_more_is_granted_from_what_is_free),
        cmocka_unit_test(test_close_reclaims_all),
        cmocka_unit_test(test_idle_client_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
