// SPDX-License-Identifier: Apache-2.0
// What the batcher promises: order, batches up to batch_max, shares, deadlines, revocation, room.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/batcher.h"

#define ITEMS 256

struct fx {
    struct batcher *b;
    struct batch_item items[ITEMS];
    uint32_t n;
};

static bool by_bytes(const struct batch_item *a, const struct batch_item *b)
{
    return a->bytes == b->bytes;
}

static void open_fx(struct fx *f, uint32_t slots, uint32_t room_requests, uint64_t room_bytes)
{
    const struct batcher_model models[] = {
        {.batch_max = 8, .instances = slots},
        {.batch_max = 4, .instances = 1},
        {.batch_max = 0, .instances = slots},
        {.batch_max = 8, .instances = slots, .alike = by_bytes},
    };
    f->n = 0;
    f->b = batcher_new(models, 4, slots, room_requests, room_bytes);
    assert_non_null(f->b);
}

static bool put_full(struct fx *f, uint32_t model, uint32_t rows, uint64_t bytes,
                     uint64_t deadline_us)
{
    struct batch_item *item = &f->items[f->n];
    *item = (struct batch_item){.lease = 100 + f->n,
                                .model = model,
                                .rows = rows,
                                .bytes = bytes,
                                .deadline_us = deadline_us};
    f->n++;
    return batcher_put(f->b, item);
}

static void put(struct fx *f, uint32_t model, uint32_t rows)
{
    assert_true(put_full(f, model, rows, 10, 0));
}

// Takes an execution that must be of these leases, in this order.
static struct batch take(struct fx *f, uint64_t first, uint32_t n)
{
    struct batch batch;
    struct batch_item *late;
    assert_true(batcher_take(f->b, 0, &batch, &late));
    assert_null(late);
    assert_int_equal(batch.n, n);
    uint32_t rows = 0;
    for (struct batch_item *i = batch.items; i; i = i->next, first++) {
        assert_int_equal(i->lease, first);
        assert_int_equal(i->model, batch.model);
        rows += i->rows;
    }
    assert_int_equal(batch.rows, rows);
    return batch;
}

static void nothing(struct fx *f)
{
    struct batch batch;
    struct batch_item *late;
    assert_false(batcher_take(f->b, 0, &batch, &late));
    assert_null(late);
}

static void close_empty(struct fx *f)
{
    struct batcher_load load;
    batcher_load(f->b, &load);
    assert_int_equal(load.requests, 0);
    assert_int_equal(load.waiting, 0);
    assert_int_equal(load.bytes, 0);
    assert_int_equal(load.busy, 0);
    batcher_free(f->b);
}

static void test_batches_in_order_up_to_the_maximum(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, 1, 100, 10000);
    for (int i = 0; i < 10; i++)
        put(&f, 0, 1);
    struct batch a = take(&f, 100, 8);
    nothing(&f); // the one slot is busy
    assert_false(batcher_ready(f.b));
    batcher_done(f.b, &a);
    assert_true(batcher_ready(f.b));
    struct batch b = take(&f, 108, 2);
    batcher_done(f.b, &b);
    nothing(&f);
    close_empty(&f);
}

static void test_a_request_that_does_not_fit_waits_and_is_not_passed(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, 1, 100, 10000);
    put(&f, 0, 6);
    put(&f, 0, 3); // 9 rows: over
    put(&f, 0, 1); // would fit, but came later
    struct batch a = take(&f, 100, 1);
    batcher_done(f.b, &a);
    struct batch b = take(&f, 101, 2);
    batcher_done(f.b, &b);
    close_empty(&f);
}

static void test_the_oldest_request_decides_the_model(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, 1, 100, 10000);
    put(&f, 1, 1);
    put(&f, 0, 1);
    put(&f, 0, 1);
    struct batch a = take(&f, 100, 1);
    assert_int_equal(a.model, 1);
    batcher_done(f.b, &a);
    struct batch b = take(&f, 101, 2);
    assert_int_equal(b.model, 0);
    batcher_done(f.b, &b);
    close_empty(&f);
}

static void test_free_slots_share_what_is_staged(void **state)
{
    struct fx f;
    struct batch taken[4];
    (void)state;
    open_fx(&f, 4, 100, 10000);
    for (int i = 0; i < 8; i++)
        put(&f, 0, 1);
    for (uint64_t i = 0; i < 4; i++)
        taken[i] = take(&f, 100 + 2 * i, 2);
    nothing(&f);
    for (int i = 0; i < 4; i++)
        batcher_done(f.b, &taken[i]);
    close_empty(&f);
}

static void test_a_model_leaves_slots_to_others_that_wait(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, 2, 100, 10000);
    for (int i = 0; i < 4; i++)
        put(&f, 0, 1);
    put(&f, 3, 1);
    struct batch a = take(&f, 100, 4); // not half of it: the other slot is the other model's
    struct batch b = take(&f, 104, 1);
    batcher_done(f.b, &a);
    batcher_done(f.b, &b);
    close_empty(&f);
}

static void test_instances_bound_a_model(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, 4, 100, 10000);
    for (int i = 0; i < 6; i++)
        put(&f, 1, 1);
    struct batch a = take(&f, 100, 4); // no share: it may use one slot only
    nothing(&f);
    assert_false(batcher_ready(f.b));
    put(&f, 0, 1);
    struct batch b = take(&f, 106, 1); // another model goes past it
    batcher_done(f.b, &a);
    struct batch c = take(&f, 104, 2);
    batcher_done(f.b, &b);
    batcher_done(f.b, &c);
    close_empty(&f);
}

static void test_a_model_without_batch_gets_one_each(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, 1, 100, 10000);
    put(&f, 2, 1);
    put(&f, 2, 1);
    struct batch a = take(&f, 100, 1);
    batcher_done(f.b, &a);
    struct batch b = take(&f, 101, 1);
    batcher_done(f.b, &b);
    close_empty(&f);
}

static void test_unlike_shapes_are_not_mixed(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, 1, 100, 10000);
    assert_true(put_full(&f, 3, 1, 10, 0));
    assert_true(put_full(&f, 3, 1, 10, 0));
    assert_true(put_full(&f, 3, 1, 20, 0));
    struct batch a = take(&f, 100, 2);
    batcher_done(f.b, &a);
    struct batch b = take(&f, 102, 1);
    batcher_done(f.b, &b);
    close_empty(&f);
}

static void test_late_requests_do_not_start(void **state)
{
    struct fx f;
    struct batch batch;
    struct batch_item *late;
    (void)state;
    open_fx(&f, 1, 100, 10000);
    assert_true(put_full(&f, 0, 1, 10, 50));
    assert_true(put_full(&f, 0, 1, 10, 51));
    assert_true(put_full(&f, 0, 1, 10, 0));
    assert_true(batcher_take(f.b, 50, &batch, &late)); // due at 50: too late at 50
    assert_int_equal(batch.n, 2);
    assert_non_null(late);
    assert_int_equal(late->lease, 100);
    assert_null(late->next);
    batcher_done(f.b, &batch);
    // All late: nothing to execute, and they come out nevertheless.
    assert_true(put_full(&f, 0, 1, 10, 60));
    assert_true(put_full(&f, 1, 1, 10, 60));
    assert_false(batcher_take(f.b, 100, &batch, &late));
    assert_non_null(late);
    assert_non_null(late->next);
    assert_null(late->next->next);
    close_empty(&f);
}

static void test_expire_finds_late_ones_behind_busy_slots(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, 1, 100, 10000);
    put(&f, 0, 8);
    struct batch a = take(&f, 100, 1);
    assert_true(put_full(&f, 0, 1, 10, 0));
    assert_true(put_full(&f, 0, 1, 10, 70));
    assert_null(batcher_expire(f.b, 69));
    struct batch_item *late = batcher_expire(f.b, 70);
    assert_non_null(late);
    assert_int_equal(late->lease, 102);
    assert_null(late->next);
    batcher_done(f.b, &a);
    struct batch b = take(&f, 101, 1);
    batcher_done(f.b, &b);
    close_empty(&f);
}

static void test_revoke_takes_only_what_has_not_started(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, 1, 100, 10000);
    put(&f, 0, 8);
    put(&f, 0, 1);
    put(&f, 0, 1);
    put(&f, 0, 1);
    struct batch a = take(&f, 100, 1);
    assert_null(batcher_revoke(f.b, 100)); // executing
    assert_null(batcher_revoke(f.b, 999)); // never here
    struct batch_item *item = batcher_revoke(f.b, 102);
    assert_ptr_equal(item, &f.items[2]);
    assert_null(item->next);
    assert_null(batcher_revoke(f.b, 102));
    batcher_done(f.b, &a);
    struct batch_item *late;
    struct batch b;
    assert_true(batcher_take(f.b, 0, &b, &late));
    assert_int_equal(b.n, 2);
    assert_int_equal(b.items->lease, 101);
    assert_int_equal(b.items->next->lease, 103);
    batcher_done(f.b, &b);
    close_empty(&f);
}

static void test_room_counts_executing_requests(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, 1, 3, 100);
    assert_true(put_full(&f, 0, 8, 500, 0)); // the first is never over the room
    assert_false(put_full(&f, 0, 1, 1, 0));
    struct batch a = take(&f, 100, 1);
    assert_false(put_full(&f, 0, 1, 1, 0)); // executing: still here
    batcher_done(f.b, &a);
    assert_true(put_full(&f, 0, 1, 60, 0));
    assert_false(put_full(&f, 0, 1, 41, 0));
    assert_true(put_full(&f, 0, 1, 40, 0));
    assert_false(put_full(&f, 0, 1, 1, 0));
    struct batch_item *all = batcher_clear(f.b);
    int n = 0;
    for (struct batch_item *i = all; i; i = i->next)
        n++;
    assert_int_equal(n, 2);
    for (int i = 0; i < 3; i++)
        assert_true(put_full(&f, 0, 1, 0, 0));
    assert_false(put_full(&f, 0, 1, 0, 0)); // three requests
    batcher_clear(f.b);
    close_empty(&f);
}

// Anything at random, against a plain recount.
static void test_books_stay_right_under_random_events(void **state)
{
    struct fx f;
    struct batch running[3];
    bool here[ITEMS] = {false};
    uint32_t nrunning = 0, held = 0;
    unsigned seed = 7;
    (void)state;
    printf("seed %u\n", seed);
    open_fx(&f, 3, ITEMS, 1 << 30);
    for (uint64_t now_us = 1; now_us < 200000; now_us++) {
        struct batch_item *out = NULL, *late = NULL;
        uint32_t k = (uint32_t)rand_r(&seed) % ITEMS;
        switch (rand_r(&seed) % 4) {
        case 0:
            if (here[k])
                break;
            f.items[k] = (struct batch_item){.lease = k,
                                             .model = k % 4,
                                             .rows = 1 + k % 4,
                                             .bytes = k,
                                             .deadline_us = k % 3 ? 0 : now_us + k};
            assert_true(batcher_put(f.b, &f.items[k]));
            here[k] = true;
            held++;
            break;
        case 1:
            if (batcher_take(f.b, now_us, &running[nrunning < 3 ? nrunning : 0], &late)) {
                assert_true(nrunning < 3);
                assert_true(running[nrunning].n > 0);
                nrunning++;
            }
            out = late;
            break;
        case 2:
            if (nrunning == 0)
                break;
            batcher_done(f.b, &running[--nrunning]);
            for (struct batch_item *i = running[nrunning].items; i; i = i->next, held--)
                here[i->lease] = false;
            break;
        default:
            out = k % 16 ? batcher_revoke(f.b, k) : batcher_expire(f.b, now_us);
        }
        for (; out; out = out->next, held--)
            here[out->lease] = false;
        struct batcher_load load;
        batcher_load(f.b, &load);
        assert_int_equal(load.requests, held);
        assert_int_equal(load.busy, nrunning);
    }
    while (nrunning)
        batcher_done(f.b, &running[--nrunning]);
    batcher_clear(f.b);
    close_empty(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches_in_order_up_to_the_maximum),
        cmocka_unit_test(test_a_request_that_does_not_fit_waits_and_is_not_passed),
        cmocka_unit_test(test_the_oldest_request_decides_the_model),
        cmocka_unit_test(test_free_slots_share_what_is_staged),
        cmocka_unit_test(test_a_model_leaves_slots_to_others_that_wait),
        cmocka_unit_test(test_instances_bound_a_model),
        cmocka_unit_test(test_a_model_without_batch_gets_one_each),
        cmocka_unit_test(test_unlike_shapes_are_not_mixed),
        cmocka_unit_test(test_late_requests_do_not_start),
        cmocka_unit_test(test_expire_finds_late_ones_behind_busy_slots),
        cmocka_unit_test(test_revoke_takes_only_what_has_not_started),
        cmocka_unit_test(test_room_counts_executing_requests),
        cmocka_unit_test(test_books_stay_right_under_random_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
