// SPDX-License-Identifier: Apache-2.0
// .npy headers as NumPy writes them in its three versions, and as nobody should; files that are
// truncated, empty or no files.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/submit/npy.h"

static char folder[] = "/tmp/sonic-npy-XXXXXX";

// A file's first bytes: version, the dict, no padding.
static size_t make(uint8_t *out, unsigned major, const char *dict)
{
    size_t n = strlen(dict), at = major == 1 ? 10 : 12;
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (uint8_t)major;
    out[7] = 0;
    for (unsigned i = 0; i < at - 8; i++)
        out[8 + i] = (uint8_t)(n >> (8 * i));
    memcpy(out + at, dict, n);
    return at + n;
}

// Parses an exact copy on the heap, so that a read past the end is an ASan report.
static bool parse(const uint8_t *file, size_t len, struct npy_header *h, char *why, size_t size)
{
    uint8_t *exact = malloc(len ? len : 1);
    assert_non_null(exact);
    memcpy(exact, file, len);
    bool ok = npy_parse(exact, len, h, why, size);
    free(exact);
    return ok;
}

static struct npy_header parsed(unsigned major, const char *dict)
{
    static uint8_t file[2048];
    struct npy_header h;
    char why[512] = "";
    size_t len = make(file, major, dict);
    if (!parse(file, len, &h, why, sizeof(why)))
        fail_msg("%s: %s", dict, why);
    assert_int_equal(h.data_at, len);
    return h;
}

static const char *refused(unsigned major, const char *dict)
{
    static uint8_t file[2048];
    static char why[512];
    struct npy_header h;
    assert_false(parse(file, make(file, major, dict), &h, why, sizeof(why)));
    return why;
}

static void test_three_versions(void **state)
{
    (void)state;
    for (unsigned major = 1; major <= 3; major++) {
        struct npy_header h = parsed(
            major, "{'descr': '<f4', 'fortran_order': False, 'shape': (16000, 47), }      \n");
        assert_int_equal(h.dtype, SONIC_FP32);
        assert_false(h.big_endian);
        assert_int_equal(h.ndim, 2);
        assert_int_equal(h.shape[0], 16000);
        assert_int_equal(h.shape[1], 47);
        assert_int_equal(h.bytes, 16000 * 47 * 4);
    }
}

static void test_every_dtype(void **state)
{
    (void)state;
    static const struct {
        const char *descr;
        unsigned dtype;
        bool big;
    } known[] = {
        {"|b1", SONIC_BOOL, false},
        {"?b1", 0, false},
        {"|u1", SONIC_UINT8, false},
        {"<u2", SONIC_UINT16, false},
        {">u2", SONIC_UINT16, true},
        {"<u4", SONIC_UINT32, false},
        {"<u8", SONIC_UINT64, false},
        {"|i1", SONIC_INT8, false},
        {">i1", SONIC_INT8, false},
        {"<i2", SONIC_INT16, false},
        {"<i4", SONIC_INT32, false},
        {">i8", SONIC_INT64, true},
        {"<f2", SONIC_FP16, false},
        {"<f4", SONIC_FP32, false},
        {">f8", SONIC_FP64, true},
        {"=f4", SONIC_FP32, false},
        {"<c8", 0, false},
        {"<f16", 0, false},
        {"|O", 0, false},
        {"<U5", 0, false},
        {"<M8", 0, false},
        {"", 0, false},
        {"<b1", SONIC_BOOL, false},
        {"<f1", 0, false},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char dict[128];
        snprintf(dict, sizeof(dict), "{'descr': '%s', 'fortran_order': False, 'shape': (3,), }",
                 known[i].descr);
        if (known[i].dtype == 0) {
            assert_non_null(strstr(refused(1, dict), "its dtype is "));
            continue;
        }
        struct npy_header h = parsed(1, dict);
        assert_int_equal(h.dtype, known[i].dtype);
        assert_int_equal(h.big_endian, known[i].big);
        assert_int_equal(h.bytes, 3 * dtype_bytes(h.dtype));
    }
}

static void test_shapes(void **state)
{
    (void)state;
    struct npy_header h = parsed(1, "{'descr': '<f8', 'fortran_order': False, 'shape': ()}");
    assert_int_equal(h.ndim, 0);
    assert_int_equal(h.bytes, 8);
    h = parsed(1, "{\"shape\": (2L, 0L), \"descr\": \"<f8\", \"fortran_order\": False}");
    assert_int_equal(h.ndim, 2);
    assert_int_equal(h.bytes, 0);
    h = parsed(1, "{'descr': '<f8', 'shape': (1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2)}");
    assert_int_equal(h.ndim, 16);
    refused(1, "{'descr': '<f8', 'shape': (1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2)}");
}

static void test_fortran_order(void **state)
{
    (void)state;
    assert_non_null(strstr(refused(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }"),
                           "Fortran order; save np.ascontiguousarray"));
    struct npy_header h = parsed(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (6,), }");
    assert_int_equal(h.shape[0], 6);
}

static void test_what_is_wrong_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *dict, *why;
    } cases[] = {
        {"", "not one of a .npy file"},
        {"[1]", "not one of a .npy file"},
        {"{", "not one of a .npy file"},
        {"{'descr'", "not one of a .npy file"},
        {"{'descr': '<f4", "not one of a .npy file"},
        {"{'descr': '<f4', 'shape': (3,", "not one of a .npy file"},
        {"{'descr': '<f4', 'shape': (-3,)}", "not one of a .npy file"},
        {"{'descr': '<f4', 'shape': (,)}", "not one of a .npy file"},
        {"{'descr': '<f4', 'shape': (99999999999999999999,)}", "not one of a .npy file"},
        {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': ()}", "not one of a .npy file"},
        {"{'descr': '<f4', 'other': 1, 'shape': ()}", "not one of a .npy file"},
        {"{'descr': [('a', '<f4')], 'shape': ()}", "records (a structured dtype)"},
        {"{'descr': '<f4'}", "lacks shape or descr"},
        {"{'shape': (3,)}", "lacks shape or descr"},
        {"{}", "lacks shape or descr"},
        {"{'descr': '<f4', 'shape': (4294967296, 4294967296, 4)}", "larger than any memory"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_non_null(strstr(refused(2, cases[i].dict), cases[i].why));
}

static void test_the_frame_of_the_header(void **state)
{
    (void)state;
    uint8_t file[2048];
    struct npy_header h;
    char why[512];
    size_t len = make(file, 2, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }");
    for (size_t n = 0; n < len; n++) {
        assert_false(parse(file, n, &h, why, sizeof(why)));
        assert_non_null(strstr(why, n < 10 ? "is not a .npy file" : "truncated inside its header"));
    }
    file[10] = 0x11; // 1 MiB and more
    assert_false(parse(file, len, &h, why, sizeof(why)));
    assert_string_equal(why, "its header is longer than 1 MiB");
    file[6] = 4;
    assert_false(parse(file, len, &h, why, sizeof(why)));
    assert_non_null(strstr(why, "version that is not known here"));
    assert_false(parse((const uint8_t *)"\x89HDF\r\n\x1a\n0123456789", 18, &h, why, sizeof(why)));
    assert_string_equal(why, "it is not a .npy file (np.save writes them)");
}

// Every byte of a good header replaced by every other value: an answer, and never more data than
// the shape says.
static void test_no_damage_gets_through(void **state)
{
    (void)state;
    uint8_t file[256], odd[256];
    struct npy_header h;
    char why[512];
    size_t len = make(file, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 47), }");
    for (size_t at = 0; at < len; at++)
        for (unsigned v = 0; v < 256; v++) {
            memcpy(odd, file, len);
            odd[at] = (uint8_t)v;
            if (parse(odd, len, &h, why, sizeof(why))) {
                assert_true(h.ndim <= NPY_DIMS_MAX);
                assert_true(h.data_at <= len);
                assert_true(dtype_bytes(h.dtype) > 0);
            }
        }
}

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    static const uint64_t shape[8] = {1, 16000, UINT32_MAX, 3, 0, 2, 5, 7};
    char buf[512];
    char why[512];
    struct npy_header h;
    for (unsigned dtype = 1; dtype_bytes(dtype); dtype++)
        for (unsigned ndim = 0; ndim <= 8; ndim++) {
            size_t len = npy_write_header(buf, dtype, ndim, shape);
            assert_int_equal(len % 64, 0);
            assert_int_equal(buf[len - 1], '\n');
            assert_true(parse((uint8_t *)buf, len, &h, why, sizeof(why)));
            assert_int_equal(h.data_at, len);
            assert_int_equal(h.ndim, ndim);
            assert_memory_equal(h.shape, shape, ndim * sizeof(shape[0]));
            assert_int_equal(h.dtype, dtype == SONIC_BF16 ? SONIC_UINT16 : dtype);
        }
}

// ---- files --------------------------------------------------------------------------------------

static void write_file(const char *name, const void *data, size_t len, char *path, size_t size)
{
    snprintf(path, size, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

static void test_a_file_is_mapped(void **state)
{
    (void)state;
    uint8_t file[512];
    char path[4096], why[512] = "";
    struct npy n;
    size_t len = make(file, 1, "{'descr': '<u2', 'fortran_order': False, 'shape': (2,), }\n");
    memcpy(file + len, "\x01\x02\x03\x04", 4);
    write_file("a.npy", file, len + 4, path, sizeof(path));
    assert_int_equal(npy_open(&n, path, why, sizeof(why)), 0);
    assert_int_equal(n.data[3], 4);
    assert_int_equal(n.file_bytes, len + 4);
    assert_true(n.mtime_ns > 0);
    npy_close(&n);
    npy_close(&n); // twice does no harm
    write_file("a.npy", file, len + 3, path, sizeof(path));
    assert_int_equal(npy_open(&n, path, why, sizeof(why)), -EINVAL);
    assert_non_null(strstr(why, "a.npy: truncated: its header announces 4 bytes of data, 3 are"));
    assert_null(n.map);
}

static void test_what_is_no_file(void **state)
{
    (void)state;
    char path[4096], why[512];
    struct npy n;
    assert_int_equal(npy_open(&n, folder, why, sizeof(why)), -EINVAL);
    assert_non_null(strstr(why, "is not a file"));
    snprintf(path, sizeof(path), "%s/none.npy", folder);
    assert_int_equal(npy_open(&n, path, why, sizeof(why)), -ENOENT);
    assert_non_null(strstr(why, "none.npy: No such file"));
    write_file("empty.npy", "", 0, path, sizeof(path));
    assert_int_equal(npy_open(&n, path, why, sizeof(why)), -EINVAL);
    assert_non_null(strstr(why, "empty.npy: is empty"));
    write_file("text.npy", "0.5 0.25 17\n", 12, path, sizeof(path));
    assert_int_equal(npy_open(&n, path, why, sizeof(why)), -EINVAL);
    assert_non_null(strstr(why, "text.npy: it is not a .npy file"));
}

static void test_standard_input_is_spooled(void **state)
{
    (void)state;
    uint8_t file[512];
    char why[512] = "";
    struct npy n;
    int ends[2], saved = dup(STDIN_FILENO);
    size_t len = make(file, 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n");
    memcpy(file + len, "abc", 3);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], file, len + 3), len + 3);
    close(ends[1]);
    dup2(ends[0], STDIN_FILENO);
    close(ends[0]);
    assert_int_equal(npy_open(&n, "-", why, sizeof(why)), 0);
    assert_memory_equal(n.data, "abc", 3);
    assert_true(n.mtime_ns != 0); // by which the same bytes are known again
    npy_close(&n);
    assert_int_equal(npy_open(&n, "-", why, sizeof(why)), -EINVAL); // at its end now
    assert_non_null(strstr(why, "standard input: is empty"));
    dup2(saved, STDIN_FILENO);
    close(saved);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char path[4096];
    static const char *const names[] = {"a.npy", "empty.npy", "text.npy"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_versions),
        cmocka_unit_test(test_every_dtype),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_fortran_order),
        cmocka_unit_test(test_what_is_wrong_is_said),
        cmocka_unit_test(test_the_frame_of_the_header),
        cmocka_unit_test(test_no_damage_gets_through),
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_a_file_is_mapped),
        cmocka_unit_test(test_what_is_no_file),
        cmocka_unit_test(test_standard_input_is_spooled),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
