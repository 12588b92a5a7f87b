// SPDX-License-Identifier: Apache-2.0
// The ledger under what a job can be killed with: torn tails, foreign files, another job's head.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/submit/ledger.h"

#define JOB "model facile version 1\nbatch 16000\ninput /data/a.npy\n"
#define CHUNKS 1000
#define HEAD (32 + sizeof(JOB) - 1)
#define RECORD 16

static char folder[] = "/tmp/sonic-ledger-XXXXXX";
static char path[64];

static int setup(void **state)
{
    struct ledger *l = calloc(1, sizeof(*l));
    char why[512];
    *state = l;
    return l && ledger_create(l, path, JOB, CHUNKS, why, sizeof(why)) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    struct ledger *l = *state;
    if (l->bitmap)
        ledger_close(l, true);
    free(l);
    unlink(path);
    return 0;
}

static void note(struct ledger *l, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++)
        assert_true(ledger_note(l, i));
}

static int resume(struct ledger *l, const char *fingerprint, uint64_t chunks, char *why)
{
    return ledger_resume(l, path, fingerprint, chunks, why, 512);
}

static off_t file_size(void)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void overwrite(off_t at, const char *bytes, size_t n)
{
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, at), n);
    close(fd);
}

static void test_what_was_committed_is_there_again(void **state)
{
    struct ledger *l = *state;
    char why[512] = "";
    note(l, 3, 700); // over several batches of records, and more than a bitmap's byte
    assert_true(ledger_has(l, 3));
    assert_int_equal(l->finished, 700);
    assert_int_equal(file_size(), HEAD); // nothing before the commit
    assert_int_equal(ledger_commit(l), 0);
    assert_int_equal(ledger_commit(l), 0);
    assert_int_equal(file_size(), HEAD + 700 * RECORD);
    ledger_close(l, false);
    assert_int_equal(resume(l, JOB, CHUNKS, why), 0);
    assert_int_equal(l->finished, 700);
    for (uint64_t i = 0; i < CHUNKS; i++)
        assert_int_equal(ledger_has(l, i), i >= 3 && i < 703);
    note(l, 0, 1);
    assert_int_equal(ledger_commit(l), 0);
    ledger_close(l, false);
    assert_int_equal(resume(l, JOB, CHUNKS, why), 0);
    assert_int_equal(l->finished, 701);
}

// Killed after the outputs were synced and before the records were: computed again, never trusted.
static void test_what_was_not_committed_is_not(void **state)
{
    struct ledger *l = *state;
    char why[512] = "";
    note(l, 0, 2);
    assert_int_equal(ledger_commit(l), 0);
    note(l, 2, 5);
    ledger_close(l, false);
    assert_int_equal(resume(l, JOB, CHUNKS, why), 0);
    assert_int_equal(l->finished, 2);
    assert_false(ledger_has(l, 2));
}

static void test_a_torn_tail_is_ignored_and_written_over(void **state)
{
    struct ledger *l = *state;
    char why[512] = "";
    note(l, 0, 4);
    assert_int_equal(ledger_commit(l), 0);
    for (off_t cut = 1; cut <= 2 * RECORD; cut++) {
        ledger_close(l, false);
        assert_int_equal(truncate(path, (off_t)(HEAD + 4 * RECORD) - cut), 0);
        assert_int_equal(resume(l, JOB, CHUNKS, why), 0);
        assert_int_equal(l->finished, cut <= RECORD ? 3 : 2);
        note(l, 3, 1);
        if (cut > RECORD)
            note(l, 2, 1);
        assert_int_equal(ledger_commit(l), 0);
        ledger_close(l, false);
        assert_int_equal(resume(l, JOB, CHUNKS, why), 0);
        assert_int_equal(l->finished, 4);
    }
}

static void test_a_damaged_record_ends_the_list(void **state)
{
    struct ledger *l = *state;
    char why[512] = "";
    note(l, 0, 4);
    assert_int_equal(ledger_commit(l), 0);
    ledger_close(l, false);
    overwrite((off_t)(HEAD + 2 * RECORD), "\x09", 1); // chunk 9, with the check of chunk 2
    assert_int_equal(resume(l, JOB, CHUNKS, why), 0);
    assert_int_equal(l->finished, 2);
    assert_false(ledger_has(l, 9));
    assert_int_equal(file_size(), HEAD + 2 * RECORD);
}

static void test_another_job_is_named_by_its_first_difference(void **state)
{
    struct ledger *l = *state;
    char why[512] = "";
    ledger_close(l, false);
    assert_int_equal(
        resume(l, "model facile version 1\nbatch 8000\ninput /data/a.npy\n", CHUNKS, why), -EINVAL);
    assert_non_null(strstr(why, "the interrupted job had batch 16000, this one has batch 8000: "));
    assert_non_null(strstr(why, "--restart"));
    assert_int_equal(resume(l, JOB, CHUNKS + 1, why), -EINVAL);
    assert_non_null(strstr(why, "is of another job"));
    assert_int_equal(resume(l, JOB "input /data/b.npy\n", CHUNKS, why), -EINVAL);
    assert_non_null(strstr(why, "is of another job"));
    assert_int_equal(l->fd, -1);
    assert_int_equal(file_size(), HEAD); // a refusal changes nothing
}

static void test_foreign_files_are_refused(void **state)
{
    struct ledger *l = *state;
    char why[512] = "";
    ledger_close(l, false);
    static const char *const contents[] = {"", "SONIC", "no ledger at all, but long enough to be"};
    for (size_t i = 0; i < 3; i++) {
        FILE *f = fopen(path, "wb");
        fputs(contents[i], f);
        fclose(f);
        assert_int_equal(resume(l, JOB, CHUNKS, why), -EINVAL);
        assert_non_null(strstr(why, "is no ledger of an interrupted job"));
    }
    unlink(path);
    assert_int_equal(resume(l, JOB, CHUNKS, why), -ENOENT);
}

// Each byte of the head changed: refused in words, whatever length it then claims.
static void test_no_damaged_head_is_trusted(void **state)
{
    struct ledger *l = *state;
    char why[512], head[HEAD];
    note(l, 0, 4);
    assert_int_equal(ledger_commit(l), 0);
    ledger_close(l, false);
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, head, sizeof(head)), sizeof(head));
    close(fd);
    for (size_t at = 0; at < sizeof(head); at++) {
        if (at >= 8 && at < 16) // the count of chunks stands in the check, not for itself
            continue;
        char odd = (char)(head[at] ^ 0x55);
        overwrite((off_t)at, &odd, 1);
        assert_int_equal(resume(l, JOB, CHUNKS, why), -EINVAL);
        overwrite((off_t)at, &head[at], 1);
    }
    assert_int_equal(resume(l, JOB, CHUNKS, why), 0);
    assert_int_equal(l->finished, 4);
}

static void test_creating_replaces_and_closing_removes(void **state)
{
    struct ledger *l = *state;
    char why[512] = "";
    note(l, 0, 4);
    assert_int_equal(ledger_commit(l), 0);
    ledger_close(l, false);
    assert_int_equal(ledger_create(l, path, JOB, CHUNKS, why, sizeof(why)), 0);
    assert_int_equal(file_size(), HEAD);
    ledger_close(l, true);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(ledger_create(l, "/tmp/sonic-no-such-folder/l", JOB, CHUNKS, why, sizeof(why)),
                     -ENOENT);
    assert_non_null(strstr(why, "/tmp/sonic-no-such-folder/l: No such file"));
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/ledger", folder);
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
        TEST(test_what_was_committed_is_there_again),
        TEST(test_what_was_not_committed_is_not),
        TEST(test_a_torn_tail_is_ignored_and_written_over),
        TEST(test_a_damaged_record_ends_the_list),
        TEST(test_another_job_is_named_by_its_first_difference),
        TEST(test_foreign_files_are_refused),
        TEST(test_no_damaged_head_is_trusted),
        TEST(test_creating_replaces_and_closing_removes),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
