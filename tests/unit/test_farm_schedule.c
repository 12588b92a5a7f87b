// SPDX-License-Identifier: Apache-2.0
// Late binding: stock, spread, unlike devices, models that share a worker, outboxes.
#include "broker/core/heap.h"
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

// Runs requests through this worker so that the farm learns fixed + per row.
static void teach(farm_worker_id w, farm_model_id model, uint32_t fixed_us, uint32_t row_us,
                  uint32_t batch)
{
    for (uint64_t i = 0; i < 40; i++) {
        uint32_t rows = i % 2 ? 1 : batch;
        fx_submit_as(&fx, c, (struct farm_submit){.seq = i, .model = model, .rows = rows});
        fx_tick(&fx);
        assert_int_equal(fx_take(&fx, w, at, 1), 1);
        assert_true(
            fx_result(&fx, w, at[0].lease, SONIC_STATUS_OK, fixed_us + row_us * rows, rows));
        struct farm_answer a;
        assert_true(fx_answer(&fx, c, &a));
        assert_true(farm_client_received(fx.f, c, i + 1));
    }
    farm_client_close(fx.f, fx.now_us, c); // `received` starts anew
    c = fx_client(&fx, "t");
}

static void test_an_idle_farm_dispatches_at_once(void **state)
{
    (void)state;
    start(64);
    farm_worker_id w = fx_worker(&fx, "w", 1, 1000, m);
    for (uint64_t i = 0; i < 5; i++) {
        fx_submit(&fx, c, m, i, 1);
        fx_tick(&fx);
        assert_int_equal(fx_take(&fx, w, at, 10), 1);
    }
    fx_stop(&fx);
}

static void test_stock_is_two_batches_a_slot(void **state)
{
    (void)state;
    start(4);
    farm_worker_id w = fx_worker(&fx, "w", 3, 1000, m);
    teach(w, m, 10000, 1000, 4); // slow: two batches are more than 2 ms
    fx_submit(&fx, c, m, 0, 100);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 100), 24);
    fx_tick(&fx);
    struct fx_lease more[10];
    assert_int_equal(fx_take(&fx, w, more, 10), 0);
    for (int i = 0; i < 4; i++)
        assert_true(fx_result(&fx, w, at[i].lease, SONIC_STATUS_OK, 14000, 4));
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, more, 10), 4);
    fx_stop(&fx);
}

static void test_stock_of_a_tiny_model_is_two_ms(void **state)
{
    (void)state;
    start(4);
    farm_worker_id w = fx_worker(&fx, "w", 1, 1000, m);
    teach(w, m, 0, 10, 4);
    fx_submit(&fx, c, m, 0, 500);
    fx_tick(&fx);
    assert_in_range(fx_take(&fx, w, at, 500), 190, 210);
    fx_stop(&fx);
}

static void test_room_in_requests_and_bytes(void **state)
{
    (void)state;
    start(64);
    farm_worker_id w = fx_worker(&fx, "w", 4, 5, m);
    struct farm_worker_config v = {
        .name = "v", .slots = 1, .room_requests = 100, .room_bytes = 35, .user = &fx};
    farm_worker_id small = farm_worker_open(fx.f, fx.now_us, &v);
    assert_true(farm_worker_model(fx.f, fx.now_us, small, m, 1));
    fx_submit(&fx, c, m, 0, 100);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 100), 5);
    assert_int_equal(fx_take(&fx, small, at, 100), 3); // of ten bytes each
    fx_stop(&fx);
}

static void test_one_request_over_the_room_in_bytes_goes_alone(void **state)
{
    (void)state;
    start(64);
    struct farm_worker_config v = {
        .name = "v", .slots = 1, .room_requests = 100, .room_bytes = 5, .user = &fx};
    farm_worker_id w = farm_worker_open(fx.f, fx.now_us, &v);
    assert_true(farm_worker_model(fx.f, fx.now_us, w, m, 1));
    fx_submit(&fx, c, m, 0, 2);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 10), 1);
    fx_stop(&fx);
}

static void test_few_requests_spread_over_idle_workers(void **state)
{
    (void)state;
    start(64);
    farm_worker_id w[4];
    for (int i = 0; i < 4; i++)
        w[i] = fx_worker(&fx, "w", 2, 1000, m);
    fx_submit(&fx, c, m, 0, 16);
    fx_tick(&fx);
    for (int i = 0; i < 4; i++)
        assert_int_equal(fx_take(&fx, w[i], at, 100), 4);
    fx_stop(&fx);
}

static void test_under_load_chunks_are_batches(void **state)
{
    (void)state;
    start(8);
    farm_worker_id a = fx_worker(&fx, "a", 1, 1000, m), b = fx_worker(&fx, "b", 1, 1000, m);
    fx_submit(&fx, c, m, 0, 100);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, a, at, 100), 16);
    for (uint64_t i = 0; i < 8; i++) // whole batches, not every other request
        assert_int_equal(at[i].seq / 8, at[0].seq / 8);
    assert_int_equal(fx_take(&fx, b, at, 100), 16);
    fx_stop(&fx);
}

static farm_worker_id fast, slow;

static void start_unlike(void)
{
    start(4);
    fast = fx_worker(&fx, "fast", 1, 1000, m);
    teach(fast, m, 1000, 250, 4); // a batch takes 2 ms
    slow = fx_worker(&fx, "slow", 1, 1000, m);
    fx_submit(&fx, c, m, 0, 1); // nobody knows it: it is explored first
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, fast, at, 1), 0);
    assert_int_equal(fx_take(&fx, slow, at, 1), 1);
    assert_true(fx_result(&fx, slow, at[0].lease, SONIC_STATUS_OK, 100000, 1)); // 100 ms a row
}

static void test_an_unknown_worker_is_explored(void **state)
{
    (void)state;
    start_unlike();
    fx_stop(&fx);
}

// The slow worker would finish a request in 100 ms; the fast one, though stocked, in a few.
static void test_finish_first_leaves_a_slow_worker_empty_at_the_tail(void **state)
{
    (void)state;
    start_unlike();
    fx_submit(&fx, c, m, 100, 20);
    uint32_t n = 0;
    for (int i = 0; i < 10 && n < 20; i++) {
        fx_tick(&fx);
        assert_int_equal(fx_take(&fx, slow, at, 100), 0);
        uint32_t got = fx_take(&fx, fast, at, 100);
        fx.now_us += 2000;
        for (uint32_t k = 0; k < got; k++)
            assert_true(fx_result(&fx, fast, at[k].lease, SONIC_STATUS_OK, 2000, 4));
        n += got;
    }
    assert_int_equal(n, 20);
    fx_stop(&fx);
}

// A queue of a second's work for the fast one is long enough to be worth the slow one's while.
static void test_a_slow_worker_helps_with_a_long_queue(void **state)
{
    (void)state;
    start_unlike();
    fx_submit(&fx, c, m, 100, 900);
    fx_tick(&fx);
    assert_true(fx_take(&fx, slow, at, 100) > 0);
    fx_stop(&fx);
}

// The fast worker is full and never moves: patience with it ends, the slow one is used.
static void test_nothing_waits_for_ever_for_a_fast_worker(void **state)
{
    (void)state;
    start_unlike();
    fx_submit(&fx, c, m, 100, 20);
    uint64_t next_us = fx_tick(&fx);
    assert_int_equal(fx_take(&fx, slow, at, 100), 0);
    assert_in_range(next_us, fx.now_us + 50000, fx.now_us + 1000000);
    farm_worker_beat(fx.f, fx.now_us, fast, 1);
    fx.now_us = next_us;
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, slow, at, 100), 4); // one batch, and patience begins anew
    fx_stop(&fx);
}

// Two models always queued on one worker, one ten times as costly a row: equal time, not equal
// rows.
static void test_models_share_a_worker_by_work(void **state)
{
    (void)state;
    start(4);
    farm_worker_id w = fx_worker(&fx, "w", 1, 1000, m);
    teach(w, m, 0, 10000, 4);
    farm_model_id light = fx_model(&fx, "light", 4);
    assert_true(farm_worker_model(fx.f, fx.now_us, w, light, 1));
    for (uint64_t i = 0; i < 4; i++)
        teach(w, light, 0, 1000, 4);
    fx_submit(&fx, c, m, 0, 100);
    fx_submit(&fx, c, light, 1000, 600);
    uint64_t heavy_us = 0, light_us = 0;
    while (heavy_us + light_us < 600000) {
        fx_tick(&fx);
        uint32_t n = fx_take(&fx, w, at, FX_ROOM);
        assert_true(n > 0);
        for (uint32_t i = 0; i < n; i++) {
            bool is_light = at[i].seq >= 1000;
            *(is_light ? &light_us : &heavy_us) += is_light ? 1000 : 10000;
            assert_true(
                fx_result(&fx, w, at[i].lease, SONIC_STATUS_OK, 4 * (is_light ? 1000 : 10000), 4));
        }
    }
    assert_in_range(heavy_us, 200000, 400000);
    fx_stop(&fx);
}

static void test_the_urgent_model_goes_first(void **state)
{
    (void)state;
    fx_start_default(&fx);
    c = fx_client(&fx, "t");
    struct farm_model_config a = {
        .name = "a", .version = 1, .batch_max = 1, .priority_levels = 2, .default_priority = 2};
    struct farm_model_config b = a;
    strcpy(b.name, "b");
    farm_model_id ma = farm_model_add(fx.f, &a), mb = farm_model_add(fx.f, &b);
    farm_worker_id w = fx_worker(&fx, "w", 1, 1, ma);
    assert_true(farm_worker_model(fx.f, fx.now_us, w, mb, 1));
    fx_submit(&fx, c, ma, 0, 10);
    for (uint64_t i = 0; i < 5; i++)
        fx_submit_as(&fx, c, (struct farm_submit){.seq = 100 + i, .model = mb, .priority = 1});
    for (uint64_t i = 0; i < 15; i++) {
        fx_tick(&fx);
        assert_int_equal(fx_take(&fx, w, at, 10), 1);
        assert_int_equal(at[0].seq, i < 5 ? 100 + i : i - 5);
        assert_true(fx_ok(&fx, w, at[0].lease));
    }
    fx_stop(&fx);
}

// A model with one instance does not fill the stock of a worker with four slots.
static void test_instances_bound_a_models_stock(void **state)
{
    (void)state;
    start(2);
    farm_worker_id w = fx_worker(&fx, "w", 4, 1000, FARM_NONE);
    assert_true(farm_worker_model(fx.f, fx.now_us, w, m, 1));
    fx_submit(&fx, c, m, 0, 100);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 100), 4);
    fx_stop(&fx);
}

static void test_no_worker_means_waiting(void **state)
{
    (void)state;
    start(4);
    farm_worker_id w = fx_worker(&fx, "w", 4, 1000, fx_model(&fx, "other", 4));
    fx_submit(&fx, c, m, 0, 3);
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 100), 0);
    assert_true(farm_worker_model(fx.f, fx.now_us, w, m, 4));
    fx_tick(&fx);
    assert_int_equal(fx_take(&fx, w, at, 100), 3);
    fx_stop(&fx);
}

static void test_worker_outbox_later(void **state)
{
    (void)state;
    start(1);
    farm_worker_id w = fx_worker(&fx, "w", 1, 10, m);
    fx_submit(&fx, c, m, 0, 1);
    fx_tick(&fx);
    void *user;
    assert_int_equal(farm_next_worker(fx.f, &user), w);
    assert_ptr_equal(user, &fx);
    farm_worker_later(fx.f, w); // its socket is full
    assert_int_equal(farm_next_worker(fx.f, &user), FARM_NONE);
    fx_tick(&fx);
    assert_int_equal(farm_next_worker(fx.f, &user), w);
    assert_int_equal(fx_take(&fx, w, at, 10), 1);
    assert_int_equal(farm_next_worker(fx.f, &user), FARM_NONE);
    fx_tick(&fx);
    assert_int_equal(farm_next_worker(fx.f, &user), FARM_NONE);
    farm_worker_later(fx.f, w); // put off, and then there is nothing to send
    fx_tick(&fx);
    assert_int_equal(farm_next_worker(fx.f, &user), FARM_NONE);
    fx_stop(&fx);
}

static void test_client_outbox_later(void **state)
{
    (void)state;
    start(1);
    void *user;
    fx_submit(&fx, c, m, 0, 2);
    assert_int_equal(farm_next_client(fx.f, &user), FARM_NONE);
    farm_cancel(fx.f, fx.now_us, c, 0);
    assert_int_equal(farm_next_client(fx.f, &user), c);
    farm_client_later(fx.f, c);
    farm_cancel(fx.f, fx.now_us, c, 1);
    assert_int_equal(farm_next_client(fx.f, &user), FARM_NONE);
    fx_tick(&fx);
    assert_int_equal(farm_next_client(fx.f, &user), c);
    fx_expect_answer(&fx, c, 0, SONIC_STATUS_CANCELLED);
    fx_expect_answer(&fx, c, 1, SONIC_STATUS_CANCELLED);
    fx_stop(&fx);
}

static void test_stats_look_in(void **state)
{
    (void)state;
    start(4);
    fx_submit(&fx, c, m, 0, 20);
    farm_worker_id w = fx_worker(&fx, "w", 1, 1000, m);
    fx.now_us += 500;
    fx_tick(&fx);
    struct farm_model_stats ms;
    struct farm_worker_stats ws;
    struct farm_tenant_stats ts;
    assert_true(farm_model_stats(fx.f, fx.now_us, 0, &ms));
    assert_false(farm_model_stats(fx.f, fx.now_us, 1, &ms));
    assert_int_equal(ms.queued, 12);
    assert_int_equal(ms.queued_rows, 12);
    assert_int_equal(ms.leased, 8);
    assert_int_equal(ms.oldest_us, 500);
    assert_true(farm_worker_stats(fx.f, 0, &ws));
    assert_false(farm_worker_stats(fx.f, 1, &ws));
    assert_string_equal(ws.name, "w");
    assert_int_equal(ws.leased, 8);
    assert_true(farm_tenant_stats(fx.f, 0, &ts));
    assert_false(farm_tenant_stats(fx.f, 1, &ts));
    assert_string_equal(ts.name, "t");
    assert_int_equal(ts.queued, 12);
    fx_take(&fx, w, at, 10);
    for (int i = 0; i < 8; i++)
        assert_true(fx_result(&fx, w, at[i].lease, SONIC_STATUS_OK, 400, 4));
    assert_true(farm_model_stats(fx.f, fx.now_us, 0, &ms));
    assert_int_equal((int)(ms.rows_per_execution + 0.5), 4);
    assert_int_equal((int)(ms.service_us_per_row + 0.5), 100);
    fx_stop(&fx);
}

static void test_heap_is_ordered(void **state)
{
    (void)state;
    struct heap h = {NULL};
    struct heap_node n[500];
    uint64_t x = 42;
    for (int i = 0; i < 500; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        heap_insert(&h, &n[i], x >> 54);
    }
    for (int i = 0; i < 500; i += 3)
        heap_remove(&h, &n[i]);
    uint64_t last = 0;
    int taken = 0;
    while (h.root) {
        assert_true(h.root->key >= last);
        last = h.root->key;
        heap_remove(&h, h.root);
        taken++;
    }
    assert_int_equal(taken, 333);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_idle_farm_dispatches_at_once),
        cmocka_unit_test(test_stock_is_two_batches_a_slot),
        cmocka_unit_test(test_stock_of_a_tiny_model_is_two_ms),
        cmocka_unit_test(test_room_in_requests_and_bytes),
        cmocka_unit_test(test_one_request_over_the_room_in_bytes_goes_alone),
        cmocka_unit_test(test_few_requests_spread_over_idle_workers),
        cmocka_unit_test(test_under_load_chunks_are_batches),
        cmocka_unit_test(test_an_unknown_worker_is_explored),
        cmocka_unit_test(test_finish_first_leaves_a_slow_worker_empty_at_the_tail),
        cmocka_unit_test(test_a_slow_worker_helps_with_a_long_queue),
        cmocka_unit_test(test_nothing_waits_for_ever_for_a_fast_worker),
        cmocka_unit_test(test_models_share_a_worker_by_work),
        cmocka_unit_test(test_the_urgent_model_goes_first),
        cmocka_unit_test(test_instances_bound_a_models_stock),
        cmocka_unit_test(test_no_worker_means_waiting),
        cmocka_unit_test(test_worker_outbox_later),
        cmocka_unit_test(test_client_outbox_later),
        cmocka_unit_test(test_stats_look_in),
        cmocka_unit_test(test_heap_is_ordered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
