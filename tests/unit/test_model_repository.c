// SPDX-License-Identifier: Apache-2.0
// The model repository on disk: which version is served, which names are taken, and the words for
// each thing that can be missing or odd.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/model_repository.h"

#define BODY                                                                                       \
    "backend: 'null' max_batch_size: 8 "                                                           \
    "input { name: 'x' data_type: TYPE_FP32 dims: 4 } "                                            \
    "output { name: 'y' data_type: TYPE_FP32 dims: 4 } "

static char root[64];
static struct model_entry entry; // large
static char why[1024];

static int set_up(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/sonic_test_repository_XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int tear_down(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *below(const char *name)
{
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

static void folder(const char *name)
{
    assert_int_equal(mkdir(below(name), 0755), 0);
}

static void file(const char *name, const char *text, size_t len)
{
    FILE *f = fopen(below(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

// A model with version folders 1, 2 and 10, and things that are no versions.
static void model(const char *name, const char *config)
{
    static const char *const inside[] = {"",     "/1",   "/2",   "/10",  "/011",        "/0",
                                         "/-12", "/+13", "/14b", "/ 15", "/99999999999"};
    char path[128];
    for (size_t i = 0; i < sizeof(inside) / sizeof(inside[0]); i++) {
        snprintf(path, sizeof(path), "%s%s", name, inside[i]);
        folder(path);
    }
    snprintf(path, sizeof(path), "%s/77", name); // a file
    file(path, "", 0);
    snprintf(path, sizeof(path), "%s/config.pbtxt", name);
    file(path, config, strlen(config));
}

static int read_model(const char *name)
{
    why[0] = '\0';
    return model_repository_read(root, name, &entry, NULL, NULL, why, sizeof(why));
}

static void served(const char *name, uint32_t version)
{
    char dir[512];
    if (read_model(name) != 0)
        fail_msg("%s", why);
    assert_int_equal(entry.config.version, version);
    snprintf(dir, sizeof(dir), "%s/%s/%u", root, name, version);
    assert_string_equal(entry.dir, dir);
    assert_string_equal(entry.config.name, name);
}

// What is refused, with the words after the repository's path.
static void refused(const char *name, int error, const char *words)
{
    char want[1024];
    snprintf(want, sizeof(want), "%s%s", root, words);
    assert_int_equal(read_model(name), error);
    assert_string_equal(why, want);
}

static void test_version_policy_chooses_the_folder(void **state)
{
    (void)state;
    model("plain", BODY);
    served("plain", 10);
    model("latest", BODY "version_policy { latest { num_versions: 2 } }");
    served("latest", 10);
    model("all", BODY "version_policy { all { } }");
    served("all", 10);
    model("pinned", BODY "version_policy { specific { versions: [ 1, 2, 3 ] } }");
    served("pinned", 2);
    model("absent", BODY "version_policy { specific { versions: [ 3, 4 ] } }");
    assert_int_equal(read_model("absent"), -ENOENT);
    assert_non_null(strstr(why, "/absent: version_policy (specific 3, 4) serves none of its "
                                "versions, the highest of which is 10: change one of them"));
}

static void test_names_are_of_the_folder(void **state)
{
    (void)state;
    model("one", "name: 'one' " BODY);
    served("one", 10);
    model("two", "name: 'three' " BODY);
    refused("two", -EINVAL,
            "/two/config.pbtxt: the name in it is \"three\", the folder is \"two\": make them "
            "equal");
}

static void test_no_name_leaves_the_repository(void **state)
{
    (void)state;
    static const char *const names[] = {"../x", "a/b", "/etc", ".", "..", ".git", "", "A", "a b"};
    model("x", BODY);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(read_model(names[i]), -EINVAL);
        assert_non_null(strstr(why, "is no name of a model (1 to 64 of a-z 0-9 . _ -)"));
    }
}

static void test_no_such_model_lists_those_there_are(void **state)
{
    (void)state;
    refused("x", -ENOENT,
            ": there is no model \"x\"; there is none (a folder with a config.pbtxt)");
    model("b", BODY);
    model("a", BODY);
    refused("x", -ENOENT, ": there is no model \"x\"; there are: a, b");
    folder("bare");
    refused("bare", -ENOENT, "/bare: its config.pbtxt is missing");
    folder("empty");
    file("empty/config.pbtxt", BODY, strlen(BODY));
    assert_int_equal(read_model("empty"), -ENOENT);
    assert_non_null(strstr(why, "/empty: it has no version: put the model into a folder such as "));
    strcat(root, "/nowhere");
    refused("x", -ENOENT, ": cannot be read as a model repository: No such file or directory");
    *strrchr(root, '/') = '\0';
}

static void test_odd_files_are_words_not_waits(void **state)
{
    (void)state;
    folder("pipe");
    assert_int_equal(mkfifo(below("pipe/config.pbtxt"), 0600), 0);
    refused("pipe", -EINVAL, "/pipe/config.pbtxt: is not a file");
    folder("dir");
    folder("dir/config.pbtxt");
    refused("dir", -EINVAL, "/dir/config.pbtxt: is not a file");
    folder("loop");
    assert_int_equal(symlink("config.pbtxt", below("loop/config.pbtxt")), 0);
    refused("loop", -ELOOP,
            "/loop/config.pbtxt: cannot be read: Too many levels of symbolic links");
    static char big[(1 << 20) + 1];
    memset(big, ' ', sizeof(big));
    folder("big");
    file("big/config.pbtxt", big, sizeof(big));
    refused("big", -EINVAL, "/big/config.pbtxt: is over 1 MiB");
    model("broken", "name: \"broken\"\nmax_batchsize: 3\n");
    refused("broken", -EINVAL,
            "/broken/config.pbtxt:2:1: there is no field \"max_batchsize\" here; did you mean "
            "max_batch_size?");
}

static void test_an_unreadable_file_is_named(void **state)
{
    (void)state;
    model("locked", BODY);
    assert_int_equal(chmod(root, 0755), 0);
    assert_int_equal(chmod(below("locked/config.pbtxt"), 0), 0);
    bool is_root = geteuid() == 0; // who reads everything
    if (is_root)
        assert_int_equal(seteuid(65534), 0);
    int rc = read_model("locked");
    if (is_root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(rc, -EACCES);
    assert_non_null(strstr(why, "/locked/config.pbtxt: cannot be read: Permission denied"));
}

static void test_lists_models_sorted(void **state)
{
    (void)state;
    char **names;
    size_t n;
    assert_int_equal(model_repository_list(root, &names, &n, why, sizeof(why)), 0);
    assert_int_equal(n, 0);
    free(names);
    model("resnet50", BODY);
    model("deepcalo", BODY);
    model(".hidden", BODY);
    model("Upper", BODY);
    folder("no-config");
    file("a-file", "", 0);
    assert_int_equal(model_repository_list(root, &names, &n, why, sizeof(why)), 0);
    assert_int_equal(n, 2);
    assert_string_equal(names[0], "deepcalo");
    assert_string_equal(names[1], "resnet50");
    free(names);
    assert_int_equal(model_repository_list(below("a-file"), &names, &n, why, sizeof(why)),
                     -ENOTDIR);
    assert_non_null(strstr(why, "cannot be read as a model repository: Not a directory"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_version_policy_chooses_the_folder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names_are_of_the_folder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_name_leaves_the_repository, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_such_model_lists_those_there_are, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_odd_files_are_words_not_waits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_unreadable_file_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lists_models_sorted, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
