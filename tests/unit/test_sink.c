// SPDX-License-Identifier: Apache-2.0
// An output in the making: nothing under its final name before it is whole, nothing of an earlier
// job taken for this one's, one writer at a time.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/submit/npy.h"
#include "client/submit/sink.h"

static char folder[] = "/tmp/sonic-sink-XXXXXX";
static char path[64], part[64];
static char why[512];

static int setup(void **state)
{
    (void)state;
    why[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    unlink(part);
    return 0;
}

static int prepare(struct sink *s, uint64_t rows)
{
    const uint64_t shape[] = {rows, 2};
    return sink_prepare(s, SONIC_UINT16, 2, shape, why, sizeof(why));
}

static off_t size_of(const char *name)
{
    struct stat st;
    return stat(name, &st) == 0 ? st.st_size : -1;
}

static void test_takes_its_name_when_it_is_whole(void **state)
{
    (void)state;
    static const uint16_t rows[] = {1, 2, 3, 4, 5, 6};
    struct sink s;
    struct npy n;
    assert_int_equal(sink_open(&s, path, false, false, why, sizeof(why)), 0);
    assert_false(s.continued);
    assert_int_equal(prepare(&s, 3), 0);
    assert_int_equal(sink_write(&s, 1, rows + 2, 8), 0); // in any order
    assert_int_equal(sink_write(&s, 0, rows, 4), 0);
    assert_int_equal(sink_sync(&s), 0);
    assert_int_equal(size_of(path), -1);
    assert_true(size_of(part) > 0);
    assert_int_equal(sink_finish(&s, why, sizeof(why)), 0);
    assert_int_equal(size_of(part), -1);
    assert_int_equal(npy_open(&n, path, why, sizeof(why)), 0);
    assert_int_equal(n.header.shape[0], 3);
    assert_memory_equal(n.data, rows, sizeof(rows));
    assert_int_equal(n.file_bytes, n.header.data_at + sizeof(rows));
    npy_close(&n);
}

static void leave_part(uint64_t rows)
{
    struct sink s;
    assert_int_equal(sink_open(&s, path, false, false, why, sizeof(why)), 0);
    assert_int_equal(prepare(&s, rows), 0);
    assert_int_equal(sink_write(&s, 0, "abcd", 4), 0);
    sink_close(&s, false);
}

static void test_an_interrupted_part_needs_a_word(void **state)
{
    (void)state;
    struct sink s;
    char bytes[4];
    leave_part(3);
    assert_int_equal(sink_open(&s, path, false, false, why, sizeof(why)), -EEXIST);
    assert_non_null(strstr(why, "--resume"));
    assert_non_null(strstr(why, "--restart"));
    assert_int_equal(s.fd, -1);
    assert_int_equal(sink_open(&s, path, true, false, why, sizeof(why)), 0);
    assert_true(s.continued);
    assert_int_equal(prepare(&s, 3), 0);
    assert_int_equal(pread(s.fd, bytes, 4, (off_t)s.data_at), 4);
    assert_memory_equal(bytes, "abcd", 4);
    sink_close(&s, false);
    assert_int_equal(sink_open(&s, path, false, true, why, sizeof(why)), 0);
    assert_false(s.continued);
    assert_int_equal(size_of(part), 0);
    sink_close(&s, true);
    assert_int_equal(size_of(part), -1);
}

static void test_resuming_nothing_is_no_continuation(void **state)
{
    (void)state;
    struct sink s;
    assert_int_equal(sink_open(&s, path, true, false, why, sizeof(why)), 0);
    assert_false(s.continued);
    sink_close(&s, true);
}

static void test_nothing_of_a_larger_part_stays_behind(void **state)
{
    (void)state;
    struct sink s;
    leave_part(100);
    assert_int_equal(sink_open(&s, path, true, false, why, sizeof(why)), 0);
    assert_int_equal(prepare(&s, 2), 0);
    assert_int_equal(size_of(part), (off_t)(s.data_at + 8));
    sink_close(&s, true);
}

static void test_one_writer_at_a_time(void **state)
{
    (void)state;
    struct sink first, second;
    assert_int_equal(sink_open(&first, path, false, false, why, sizeof(why)), 0);
    assert_int_equal(prepare(&first, 3), 0);
    off_t size = size_of(part);
    assert_int_equal(sink_open(&second, path, false, true, why, sizeof(why)), -EWOULDBLOCK);
    assert_non_null(strstr(why, "another sonic-submit is writing it"));
    assert_int_equal(size_of(part), size); // a restart that is refused has emptied nothing
    sink_close(&first, false);
    assert_int_equal(sink_open(&second, path, false, true, why, sizeof(why)), 0);
    sink_close(&second, true);
}

static void test_a_place_that_cannot_be_written(void **state)
{
    (void)state;
    struct sink s;
    assert_int_equal(
        sink_open(&s, "/tmp/sonic-no-such-folder/o.npy", false, false, why, sizeof(why)), -ENOENT);
    assert_non_null(strstr(why, "/tmp/sonic-no-such-folder/o.npy: cannot be written here"));
    assert_int_equal(sink_open(&s, path, false, false, why, sizeof(why)), 0);
    assert_int_equal(mkdir(path, 0700), 0); // the final name is taken by a folder
    assert_int_equal(prepare(&s, 1), 0);
    assert_true(sink_finish(&s, why, sizeof(why)) < 0);
    assert_non_null(strstr(why, "cannot be given its name"));
    sink_close(&s, false);
    assert_true(size_of(part) > 0); // what was computed is still there
    assert_int_equal(rmdir(path), 0);
}

static void test_shapes_beyond_any_disk_are_refused(void **state)
{
    (void)state;
    struct sink s;
    const uint64_t wraps[] = {4, 1ull << 62}, large[] = {1ull << 40, 1ull << 20};
    assert_int_equal(sink_open(&s, path, false, false, why, sizeof(why)), 0);
    assert_int_equal(sink_prepare(&s, SONIC_FP32, 2, wraps, why, sizeof(why)), -EFBIG);
    assert_true(sink_prepare(&s, SONIC_FP32, 2, large, why, sizeof(why)) < 0);
    assert_non_null(strstr(why, path));
    assert_int_equal(size_of(part), 0);
    sink_close(&s, true);
}

static void test_standard_output_gets_the_whole_file(void **state)
{
    (void)state;
    struct sink s;
    char got[512];
    int ends[2], saved = dup(STDOUT_FILENO);
    fflush(stdout);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(sink_open(&s, "-", false, false, why, sizeof(why)), 0);
    assert_int_equal(prepare(&s, 1), 0);
    assert_int_equal(sink_write(&s, 0, "abcd", 4), 0);
    dup2(ends[1], STDOUT_FILENO);
    close(ends[1]);
    int rc = sink_finish(&s, why, sizeof(why));
    dup2(saved, STDOUT_FILENO);
    close(saved);
    ssize_t n = read(ends[0], got, sizeof(got));
    close(ends[0]);
    assert_int_equal(rc, 0);
    assert_int_equal(n, 128 + 4);
    assert_memory_equal(got, "\x93NUMPY", 6);
    assert_memory_equal(got + n - 4, "abcd", 4);
}

static void test_hidden_names(void **state)
{
    (void)state;
    char name[64];
    sink_hidden(name, sizeof(name), "out.npy", ".x");
    assert_string_equal(name, ".out.npy.x");
    sink_hidden(name, sizeof(name), "/a/b/out.npy", ".x");
    assert_string_equal(name, "/a/b/.out.npy.x");
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/out.npy", folder);
    snprintf(part, sizeof(part), "%s/.out.npy.sonic-part", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_takes_its_name_when_it_is_whole),
        TEST(test_an_interrupted_part_needs_a_word),
        TEST(test_resuming_nothing_is_no_continuation),
        TEST(test_nothing_of_a_larger_part_stays_behind),
        TEST(test_one_writer_at_a_time),
        TEST(test_a_place_that_cannot_be_written),
        TEST(test_shapes_beyond_any_disk_are_refused),
        TEST(test_standard_output_gets_the_whole_file),
        TEST(test_hidden_names),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
