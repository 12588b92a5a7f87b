// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/executors/opencl/process/xclbin.h"

// tests/fpga/xclbin.py wrote it: kernel "twice" (two pointers and a number) in two units on two
// banks.
static unsigned char whole[4096];
static size_t len;

static int setup(void **state)
{
    FILE *f = fopen(TEST_XCLBIN, "rb");
    (void)state;
    assert_non_null(f);
    len = fread(whole, 1, sizeof(whole), f);
    fclose(f);
    return 0;
}

static void units_and_banks(void **state)
{
    struct xclbin x;
    char why[200], text[100];
    (void)state;
    assert_int_equal(xclbin_read(&x, whole, len, "f", why, sizeof(why)), 0);
    xclbin_names(&x, text, sizeof(text));
    assert_string_equal(text, "twice:twice_1, twice:twice_2");
    assert_true(xclbin_has(&x, "twice", "") && xclbin_has(&x, "twice", "twice_2"));
    assert_false(xclbin_has(&x, "twice", "twice_3"));
    assert_false(xclbin_has(&x, "twic", "") || xclbin_has(&x, "twice_1", ""));
    for (uint32_t arg = 0; arg < 3; arg++)
        for (uint32_t bank = 0; bank < 3; bank++) {
            assert_int_equal(xclbin_reaches(&x, "twice", "twice_1", arg, bank),
                             arg < 2 && bank == 0);
            assert_int_equal(xclbin_reaches(&x, "twice", "twice_2", arg, bank),
                             arg < 2 && bank == 1);
            assert_int_equal(xclbin_reaches(&x, "twice", "", arg, bank), arg < 2 && bank < 2);
        }
    char name[17];
    assert_string_equal(xclbin_bank_name(&x, 1, name), "bank1");
    assert_string_equal(xclbin_bank_name(&x, 2, name), "");
}

static void names_are_cut_to_the_room(void **state)
{
    struct xclbin x;
    char why[200], text[10];
    (void)state;
    assert_int_equal(xclbin_read(&x, whole, len, "f", why, sizeof(why)), 0);
    xclbin_names(&x, text, sizeof(text));
    assert_string_equal(text, "twice:twi");
}

// Memory of just that size: a sanitizer sees a look beyond it.
static void every_truncation_is_refused(void **state)
{
    (void)state;
    for (size_t n = 0; n < len; n++) {
        struct xclbin x;
        char why[200] = "";
        unsigned char *cut = malloc(n + 1);
        memcpy(cut + 1, whole, n);
        assert_int_equal(xclbin_read(&x, cut + 1, n, "f", why, sizeof(why)), -EINVAL);
        assert_non_null(strstr(why, n < 456 ? "no .xclbin" : "ends early"));
        free(cut);
    }
}

// A file that is whole may have a signature behind it.
static void a_signature_may_follow(void **state)
{
    struct xclbin x;
    char why[200];
    (void)state;
    assert_int_equal(xclbin_read(&x, whole, len + 100, "f", why, sizeof(why)), 0);
}

static void a_connection_to_nothing_is_refused(void **state)
{
    struct xclbin x;
    char why[200];
    unsigned char bad[sizeof(whole)];
    (void)state;
    assert_int_equal(xclbin_read(&x, whole, len, "f", why, sizeof(why)), 0);
    size_t at = (size_t)(x.links.items - whole);
    memcpy(bad, whole, sizeof(bad));
    bad[at + 8] = 2; // the bank
    assert_int_equal(xclbin_read(&x, bad, len, "f", why, sizeof(why)), -EINVAL);
    assert_string_equal(why, "f: section CONNECTIVITY, entry 0: there is no such unit or bank");
    memcpy(bad, whole, sizeof(bad));
    bad[at - 1] = 0x7f; // the count
    assert_int_equal(xclbin_read(&x, bad, len, "f", why, sizeof(why)), -EINVAL);
    assert_non_null(strstr(why, "section CONNECTIVITY has 52 bytes for 2130706436 entries"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_and_banks),
        cmocka_unit_test(names_are_cut_to_the_room),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(a_signature_may_follow),
        cmocka_unit_test(a_connection_to_nothing_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
