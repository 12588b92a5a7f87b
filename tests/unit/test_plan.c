// SPDX-License-Identifier: Apache-2.0
// Chunks and shards cover a file exactly, for many sizes; the ways to name a shard.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "client/submit/plan.h"

// Walks one shard's chunks; returns the row after its last.
static uint64_t check_shard(const struct plan *p, uint64_t rows, uint64_t next)
{
    uint64_t at = 0;
    if (p->chunks)
        assert_int_equal(p->first_row, next);
    for (uint64_t i = 0; i < p->chunks; i++) {
        uint64_t begin;
        uint32_t n = plan_rows(p, i, &begin);
        assert_int_equal(begin, at);
        assert_in_range(n, 1, p->batch);
        if (next + at + n < rows)
            assert_int_equal(n, p->batch); // only the file's last chunk is short
        at += n;
    }
    assert_int_equal(at, p->rows);
    return next + at;
}

static void test_shards_cover_a_file_exactly(void **state)
{
    (void)state;
    static const uint32_t batches[] = {1, 2, 3, 7, 100, 16000};
    for (uint64_t rows = 0; rows <= 130; rows++)
        for (size_t b = 0; b < sizeof(batches) / sizeof(batches[0]); b++)
            for (uint32_t count = 0; count <= 17; count++) {
                uint64_t next = 0, least = UINT64_MAX, most = 0;
                for (uint32_t i = 0; i < (count ? count : 1); i++) {
                    struct plan p;
                    plan_make(&p, rows, batches[b], (struct shard){i, count});
                    next = check_shard(&p, rows, next);
                    least = p.chunks < least ? p.chunks : least;
                    most = p.chunks > most ? p.chunks : most;
                }
                assert_int_equal(next, rows);
                assert_true(most - least <= 1);
            }
}

static void test_large_files_do_not_overflow(void **state)
{
    (void)state;
    const uint64_t rows = 1ull << 62;
    uint64_t next = 0;
    for (uint32_t i = 0; i < 1000000; i += 1) {
        struct plan p;
        plan_make(&p, rows, 16000, (struct shard){i, 1000000});
        assert_int_equal(p.first_row, next);
        next += p.rows;
    }
    assert_int_equal(next, rows);
}

static void test_shards_are_named(void **state)
{
    (void)state;
    struct shard s;
    char why[256];
    assert_true(shard_parse("0/1", &s, why, sizeof(why)));
    assert_true(shard_parse("15/16", &s, why, sizeof(why)));
    assert_int_equal(s.index, 15);
    assert_int_equal(s.count, 16);
    static const char *const wrong[] = {
        "",     "1",     "16/16",     "1/0",  "0/0",
        "-1/4", "1/4x",  "1/ 4",      " 1/4", "+1/4",
        "a/b",  "1/2/3", "0/1000001", "/",    "4294967296/4294967297"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(shard_parse(wrong[i], &s, why, sizeof(why)));
        assert_non_null(strstr(why, "say INDEX/COUNT"));
    }
}

static void clear_environment(void)
{
    unsetenv("SLURM_ARRAY_TASK_ID");
    unsetenv("SLURM_ARRAY_TASK_MIN");
    unsetenv("SLURM_ARRAY_TASK_COUNT");
    unsetenv("_CONDOR_PROCNO");
    unsetenv("SONIC_SHARDS");
}

static void test_shards_from_the_batch_system(void **state)
{
    (void)state;
    struct shard s;
    char why[256];
    clear_environment();
    assert_false(shard_parse("auto", &s, why, sizeof(why)));
    assert_non_null(strstr(why, "no Slurm array task"));
    setenv("SLURM_ARRAY_TASK_ID", "12", 1);
    setenv("SLURM_ARRAY_TASK_COUNT", "4", 1);
    assert_false(shard_parse("auto", &s, why, sizeof(why)));
    setenv("SLURM_ARRAY_TASK_MIN", "10", 1);
    assert_true(shard_parse("auto", &s, why, sizeof(why)));
    assert_int_equal(s.index, 2);
    assert_int_equal(s.count, 4);
    setenv("SLURM_ARRAY_TASK_MIN", "13", 1);
    assert_false(shard_parse("auto", &s, why, sizeof(why)));
    clear_environment();
    setenv("_CONDOR_PROCNO", "3", 1);
    assert_false(shard_parse("auto", &s, why, sizeof(why)));
    setenv("SONIC_SHARDS", "5", 1);
    assert_true(shard_parse("auto", &s, why, sizeof(why)));
    assert_int_equal(s.index, 3);
    assert_int_equal(s.count, 5);
    clear_environment();
}

static void test_names_of_parts(void **state)
{
    (void)state;
    static const struct {
        const char *path, *part, *name;
    } cases[] = {
        {"out.npy", "michel", "out.michel.npy"},
        {"a.b/out", "x", "a.b/out.x"},
        {"a.b/.npy", "x", "a.b/.npy.x"},
        {"a/o.u.npy", "shard-00002-of-00016", "a/o.u.shard-00002-of-00016.npy"},
    };
    char name[64], cut[6];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        plan_name(name, sizeof(name), cases[i].path, cases[i].part);
        assert_string_equal(name, cases[i].name);
    }
    plan_name(cut, sizeof(cut), "out.npy", "x");
    assert_string_equal(cut, "out.x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards_cover_a_file_exactly),
        cmocka_unit_test(test_large_files_do_not_overflow),
        cmocka_unit_test(test_shards_are_named),
        cmocka_unit_test(test_shards_from_the_batch_system),
        cmocka_unit_test(test_names_of_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
