// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "client/extents.h"

#define PAGES 64u
#define BYTES (PAGES * (uint64_t)EXTENTS_ALIGN)

static void test_first_fit_in_pages(void **state)
{
    (void)state;
    struct extents *e = extents_new(BYTES + 17); // what is over a page is not given out
    assert_int_equal(extents_free_bytes(e), BYTES);
    assert_int_equal(extents_take(e, 1), 0);
    assert_int_equal(extents_take(e, EXTENTS_ALIGN + 1), EXTENTS_ALIGN);
    assert_int_equal(extents_take(e, EXTENTS_ALIGN), 3 * EXTENTS_ALIGN);
    extents_give(e, 0, 1);
    assert_int_equal(extents_take(e, 2 * EXTENTS_ALIGN), 4 * EXTENTS_ALIGN);
    assert_int_equal(extents_take(e, 7), 0); // the lowest that fits
    extents_free(e);
}

static void test_what_makes_no_sense_is_not_there(void **state)
{
    (void)state;
    struct extents *e = extents_new(BYTES);
    assert_true(extents_take(e, 0) == EXTENTS_NONE);
    assert_true(extents_take(e, BYTES + 1) == EXTENTS_NONE);
    assert_true(extents_take(e, UINT64_MAX) == EXTENTS_NONE);
    assert_int_equal(extents_take(e, BYTES), 0);
    assert_true(extents_take(e, 1) == EXTENTS_NONE);
    extents_give(e, 0, BYTES);
    assert_int_equal(extents_free_bytes(e), BYTES);
    extents_free(e);
    extents_free(NULL);
}

// A map of pages says who has what; nothing may overlap, and all comes back in one piece.
static void test_random_takes_and_gives_never_overlap(void **state)
{
    (void)state;
    struct extents *e = extents_new(BYTES);
    uint8_t taken[PAGES] = {0};
    struct {
        uint64_t offset, bytes;
    } parts[PAGES];
    unsigned n = 0;
    srand(7);
    for (unsigned turn = 0; turn < 20000; turn++) {
        if (n > 0 && rand() % 2) {
            unsigned i = (unsigned)rand() % n;
            extents_give(e, parts[i].offset, parts[i].bytes);
            memset(taken + parts[i].offset / EXTENTS_ALIGN, 0,
                   (parts[i].bytes + EXTENTS_ALIGN - 1) / EXTENTS_ALIGN);
            parts[i] = parts[--n];
            continue;
        }
        uint64_t bytes = 1 + (uint64_t)rand() % (9 * EXTENTS_ALIGN);
        uint64_t pages = (bytes + EXTENTS_ALIGN - 1) / EXTENTS_ALIGN;
        uint64_t offset = extents_take(e, bytes);
        if (offset == EXTENTS_NONE) { // then there is indeed no such run of pages
            uint64_t run = 0;
            for (unsigned p = 0; p < PAGES; p++) {
                run = taken[p] ? 0 : run + 1;
                assert_true(run < pages);
            }
            continue;
        }
        assert_true(offset + bytes <= BYTES);
        for (uint64_t p = offset / EXTENTS_ALIGN; p < offset / EXTENTS_ALIGN + pages; p++) {
            assert_int_equal(taken[p], 0);
            taken[p] = 1;
        }
        parts[n].offset = offset;
        parts[n++].bytes = bytes;
    }
    while (n > 0) {
        n--;
        extents_give(e, parts[n].offset, parts[n].bytes);
    }
    assert_int_equal(extents_take(e, BYTES), 0);
    extents_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_fit_in_pages),
        cmocka_unit_test(test_what_makes_no_sense_is_not_there),
        cmocka_unit_test(test_random_takes_and_gives_never_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
