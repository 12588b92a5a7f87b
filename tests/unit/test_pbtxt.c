// SPDX-License-Identifier: Apache-2.0
// The reader of protobuf text: what it understands, where it says that something is wrong, and that
// no file, however odd, gets it beyond its bounds.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pbtxt.h"

// An exact copy on the heap, so that a read past the end is an ASan report.
static int parse_bytes(const char *text, size_t len, struct pbtxt *p, char *why, size_t size)
{
    char *exact = malloc(len ? len : 1);
    assert_non_null(exact);
    memcpy(exact, text, len);
    int rc = pbtxt_parse(exact, len, "a.pbtxt", p, why, size);
    free(exact);
    return rc;
}

static struct pbtxt parsed(const char *text)
{
    struct pbtxt p;
    char why[256] = "";
    if (parse_bytes(text, strlen(text), &p, why, sizeof(why)) != 0)
        fail_msg("%s", why);
    return p;
}

// The words of the refusal; they live until the next call.
static const char *refused_bytes(const char *text, size_t len)
{
    static char why[256];
    struct pbtxt p;
    why[0] = '\0';
    assert_int_equal(parse_bytes(text, len, &p, why, sizeof(why)), -EINVAL);
    assert_null(p.fields);
    assert_null(p.values);
    return why;
}

static const char *refused(const char *text)
{
    return refused_bytes(text, strlen(text));
}

static void check_field(const struct pbtxt *p, uint32_t i, uint32_t depth, enum pbtxt_kind kind,
                        const char *name, const char *value)
{
    assert_true(i < p->n);
    assert_string_equal(p->fields[i].name, name);
    assert_string_equal(p->fields[i].value, value);
    assert_int_equal(p->fields[i].kind, kind);
    assert_int_equal(p->fields[i].depth, depth);
}

static void test_reads_every_form(void **state)
{
    (void)state;
    struct pbtxt p = parsed("# a comment\n"
                            "name: \"x\" # and one behind\n"
                            "size: -12, ratio: 1.5e+3; flag: true\n"
                            "a { b: < c: KIND_CPU > }\n"
                            "dims: [ 1, -1,2 ]\n"
                            "input [ { name: 'one' }, < name: \"two\" > ]\n"
                            "empty: []");
    check_field(&p, 0, 0, PBTXT_STRING, "name", "x");
    check_field(&p, 1, 0, PBTXT_NUMBER, "size", "-12");
    check_field(&p, 2, 0, PBTXT_NUMBER, "ratio", "1.5e+3");
    check_field(&p, 3, 0, PBTXT_IDENT, "flag", "true");
    check_field(&p, 4, 0, PBTXT_MESSAGE, "a", "");
    check_field(&p, 5, 1, PBTXT_MESSAGE, "b", "");
    check_field(&p, 6, 2, PBTXT_IDENT, "c", "KIND_CPU");
    check_field(&p, 7, 0, PBTXT_NUMBER, "dims", "1");
    check_field(&p, 8, 0, PBTXT_NUMBER, "dims", "-1");
    check_field(&p, 9, 0, PBTXT_NUMBER, "dims", "2");
    check_field(&p, 10, 0, PBTXT_MESSAGE, "input", "");
    check_field(&p, 11, 1, PBTXT_STRING, "name", "one");
    check_field(&p, 12, 0, PBTXT_MESSAGE, "input", "");
    check_field(&p, 13, 1, PBTXT_STRING, "name", "two");
    assert_int_equal(p.n, 14);
    pbtxt_deinit(&p);
}

static void test_positions_are_of_the_names(void **state)
{
    (void)state;
    struct pbtxt p = parsed("a: 1\n\n  b {\n\tc: \"x\"\n}");
    assert_int_equal(p.fields[0].line, 1);
    assert_int_equal(p.fields[0].column, 1);
    assert_int_equal(p.fields[1].line, 3);
    assert_int_equal(p.fields[1].column, 3);
    assert_int_equal(p.fields[2].line, 4);
    assert_int_equal(p.fields[2].column, 2);
    pbtxt_deinit(&p);
}

static void test_strings_join_and_unescape(void **state)
{
    (void)state;
    struct pbtxt p = parsed("s: \"a\\n\\t\\\"\\\\\" 'b\"' # between\n \"\\x41\\102\\'\"\n"
                            "t: \"#{}[]\"\nu: ''");
    assert_string_equal(p.fields[0].value, "a\n\t\"\\b\"AB'");
    assert_string_equal(p.fields[1].value, "#{}[]");
    assert_string_equal(p.fields[2].value, "");
    assert_int_equal(p.n, 3);
    pbtxt_deinit(&p);
}

static void test_nothing_is_no_error(void **state)
{
    (void)state;
    struct pbtxt p = parsed("");
    assert_int_equal(p.n, 0);
    pbtxt_deinit(&p);
    p = parsed("  # only words");
    assert_int_equal(p.n, 0);
    pbtxt_deinit(&p);
}

static void test_errors_name_the_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"name \"x\"", "a.pbtxt:1:6: expected ':' or '{' after the name of a field"},
        {"a: 1\n  name:", "a.pbtxt:2:8: a value is missing here (a number, a name, \"text\" or "
                          "{ ... })"},
        {"a: \"x\nb: 1", "a.pbtxt:1:4: this string is not closed on its line"},
        {"a: \"x", "a.pbtxt:1:4: this string is not closed on its line"},
        {"a: \"\\", "a.pbtxt:1:6: unknown escape in a string"},
        {"a: \"\\q\"", "a.pbtxt:1:6: unknown escape in a string"},
        {"a: \"\\0\"", "a.pbtxt:1:7: unknown escape in a string"},
        {"a: \"\\777\"", "a.pbtxt:1:9: unknown escape in a string"},
        {"a {\n b: 1", "a.pbtxt:1:3: the file ends before this bracket is closed"},
        {"a [ 1,\n", "a.pbtxt:1:3: the file ends before this bracket is closed"},
        {"a { b: 1 }\n}", "a.pbtxt:2:1: this bracket closes nothing that is open"},
        {"a { b: 1 ]", "a.pbtxt:1:10: this bracket closes nothing that is open"},
        {"a < b: 1 }", "a.pbtxt:1:10: this bracket closes nothing that is open"},
        {"a: [ 1 2 ]", "a.pbtxt:1:8: expected ',' or ']' after a value of this list"},
        {"a: [ 1, ]", "a.pbtxt:1:9: a value is missing after the last ',' of this list"},
        {"a: [ 1; 2 ]", "a.pbtxt:1:7: the values of a list are separated by ','"},
        {"a: [ , 1 ]", "a.pbtxt:1:6: there is nothing before this separator"},
        {"a: 1,, b: 2", "a.pbtxt:1:6: there is nothing before this separator"},
        {"; a: 1", "a.pbtxt:1:1: there is nothing before this separator"},
        {"a: [ [ 1 ] ]", "a.pbtxt:1:6: a list in a list"},
        {"1a: 2", "a.pbtxt:1:1: expected the name of a field, found '1'"},
        {": 2", "a.pbtxt:1:1: expected the name of a field, found ':'"},
        {"\xff", "a.pbtxt:1:1: expected the name of a field, found '?'"},
        {"a: @", "a.pbtxt:1:4: a value is missing here (a number, a name, \"text\" or { ... })"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(refused(cases[i].text), cases[i].why);
}

static void test_zero_bytes_are_refused_everywhere(void **state)
{
    (void)state;
    static const char *const around[][2] = {{"a: 1", ""},     {"a: 1", "2"}, {"a: x", "y"},
                                            {"a: \"x", "\""}, {"a", ": 1"},  {"", "a: 1"}};
    for (size_t i = 0; i < sizeof(around) / sizeof(around[0]); i++) {
        char text[32];
        size_t before = strlen(around[i][0]), after = strlen(around[i][1]);
        memcpy(text, around[i][0], before);
        text[before] = '\0';
        memcpy(text + before + 1, around[i][1], after);
        assert_non_null(strstr(refused_bytes(text, before + 1 + after), "a.pbtxt:1:"));
    }
}

static char *repeated(const char *part, size_t n)
{
    size_t len = strlen(part);
    char *text = malloc(n * len + 1);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        memcpy(text + i * len, part, len);
    text[n * len] = '\0';
    return text;
}

static void test_depth_is_bounded(void **state)
{
    (void)state;
    char *open = repeated("a{", PBTXT_DEPTH_MAX - 1), *close = repeated("}", PBTXT_DEPTH_MAX - 1);
    char text[256];
    snprintf(text, sizeof(text), "%sb:1%s", open, close);
    struct pbtxt p = parsed(text);
    assert_int_equal(p.fields[p.n - 1].depth, PBTXT_DEPTH_MAX - 1);
    pbtxt_deinit(&p);
    free(open);
    free(close);
    open = repeated("a{", 100000);
    assert_string_equal(refused(open), "a.pbtxt:1:32: nested too deep");
    free(open);
    open = repeated("a[{", 100000);
    assert_non_null(strstr(refused(open), "nested too deep"));
    free(open);
}

static void test_fields_are_bounded(void **state)
{
    (void)state;
    char *text = repeated("a:1\n", PBTXT_FIELDS_MAX);
    struct pbtxt p = parsed(text);
    assert_int_equal(p.n, PBTXT_FIELDS_MAX);
    pbtxt_deinit(&p);
    free(text);
    text = repeated("a:1\n", PBTXT_FIELDS_MAX + 1);
    assert_string_equal(refused(text), "a.pbtxt:32769:3: more than 32,768 fields in one file");
    free(text);
    text = repeated("a:[1,1,1,1,1,1,1,1]", 5000);
    assert_non_null(strstr(refused(text), "more than 32,768 fields"));
    free(text);
}

static void test_bytes_are_bounded(void **state)
{
    (void)state;
    char *text = repeated(" ", PBTXT_BYTES_MAX + 1);
    struct pbtxt p;
    char why[64];
    assert_int_equal(parse_bytes(text, PBTXT_BYTES_MAX, &p, why, sizeof(why)), 0);
    pbtxt_deinit(&p);
    assert_string_equal(refused_bytes(text, PBTXT_BYTES_MAX + 1), "a.pbtxt: is over 1 MiB");
    free(text);
}

static void test_values_and_names_are_bounded(void **state)
{
    (void)state;
    static char text[PBTXT_VALUE_MAX + 64], name[128];
    memset(text, '7', sizeof(text));
    memcpy(text, "a: ", 3);
    text[3 + PBTXT_VALUE_MAX] = '\0';
    struct pbtxt p = parsed(text);
    assert_int_equal(strlen(p.fields[0].value), PBTXT_VALUE_MAX);
    pbtxt_deinit(&p);
    text[3 + PBTXT_VALUE_MAX] = '7';
    text[4 + PBTXT_VALUE_MAX] = '\0';
    assert_non_null(strstr(refused(text), "over 1,024 characters"));
    memset(name, 'n', 63);
    strcpy(name + 63, ":1");
    p = parsed(name);
    assert_int_equal(strlen(p.fields[0].name), 63);
    pbtxt_deinit(&p);
    memset(name, 'n', 64);
    strcpy(name + 64, ":1");
    assert_string_equal(refused(name), "a.pbtxt:1:64: the name of this field is too long");
}

static void test_short_words_are_cut_not_overrun(void **state)
{
    (void)state;
    struct pbtxt p;
    char why[8];
    memset(why, 'z', sizeof(why));
    assert_int_equal(pbtxt_parse("}", 1, "a.pbtxt", &p, why, 4), -EINVAL);
    assert_string_equal(why, "a.p");
    assert_int_equal(why[4], 'z');
}

// Every prefix of a good file, and the file with each byte replaced, ends in an answer.
static void test_no_damage_gets_through(void **state)
{
    (void)state;
    static const char good[] = "a: \"x\\x41\\n\" 'y' # c\nb [ { c: < d: [1, 2.5] > }, {} ]\ne: F";
    static const char odd[] = {'\0', '\xff', '"', '\\', '{', '}', '[', ']', '<', '>', '#', '\n'};
    char why[64], text[sizeof(good)];
    struct pbtxt p;
    for (size_t len = 0; len < sizeof(good); len++)
        if (parse_bytes(good, len, &p, why, sizeof(why)) == 0)
            pbtxt_deinit(&p);
    for (size_t at = 0; at + 1 < sizeof(good); at++)
        for (size_t k = 0; k < sizeof(odd); k++) {
            memcpy(text, good, sizeof(good));
            text[at] = odd[k];
            if (parse_bytes(text, sizeof(good) - 1, &p, why, sizeof(why)) == 0)
                pbtxt_deinit(&p);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_every_form),
        cmocka_unit_test(test_positions_are_of_the_names),
        cmocka_unit_test(test_strings_join_and_unescape),
        cmocka_unit_test(test_nothing_is_no_error),
        cmocka_unit_test(test_errors_name_the_place),
        cmocka_unit_test(test_zero_bytes_are_refused_everywhere),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_fields_are_bounded),
        cmocka_unit_test(test_bytes_are_bounded),
        cmocka_unit_test(test_values_and_names_are_bounded),
        cmocka_unit_test(test_short_words_are_cut_not_overrun),
        cmocka_unit_test(test_no_damage_gets_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
