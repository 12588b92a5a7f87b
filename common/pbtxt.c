// SPDX-License-Identifier: Apache-2.0
#include "common/pbtxt.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *at, *end;
    const char *path;
    uint32_t line, column;
    struct pbtxt *out;
    size_t values_used, values_size;
    char *why;
    size_t size;
    bool failed;
};

static bool fail_at(struct reader *r, uint32_t line, uint32_t column, const char *text)
{
    if (!r->failed)
        snprintf(r->why, r->size, "%s:%u:%u: %s", r->path, line, column, text);
    r->failed = true;
    return false;
}

static bool fail(struct reader *r, const char *text)
{
    return fail_at(r, r->line, r->column, text);
}

static void step(struct reader *r)
{
    if (*r->at == '\n') {
        r->line++;
        r->column = 1;
    } else {
        r->column++;
    }
    r->at++;
}

static int peek(const struct reader *r)
{
    return r->at < r->end ? (unsigned char)*r->at : -1;
}

static void skip_space(struct reader *r)
{
    while (r->at < r->end) {
        if (*r->at == '#')
            while (r->at < r->end && *r->at != '\n')
                step(r);
        else if (isspace((unsigned char)*r->at))
            step(r);
        else
            break;
    }
}

static bool take(struct reader *r, char c)
{
    skip_space(r);
    if (peek(r) != c)
        return false;
    step(r);
    return true;
}

static bool put_value(struct reader *r, char c)
{
    // The storage is as large as the text, and no value is longer than what it was written as.
    if (r->values_used >= r->values_size)
        return fail(r, "the value is too long");
    r->out->values[r->values_used++] = c;
    return true;
}

static bool escape(struct reader *r)
{
    static const char from[] = "abfnrtv\\'\"?", to[] = "\a\b\f\n\r\t\v\\'\"?";
    step(r); // the backslash
    int c = peek(r);
    const char *simple = c > 0 ? strchr(from, c) : NULL;
    if (simple) {
        step(r);
        return put_value(r, to[simple - from]);
    }
    unsigned value = 0, digits = 0, base = 8, most = 3;
    if (c == 'x' || c == 'X') {
        step(r);
        base = 16;
        most = 2;
    }
    while (digits < most && (c = peek(r)) >= 0 &&
           (base == 16 ? isxdigit(c) : c >= '0' && c <= '7')) {
        value = value * base + (unsigned)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
        step(r);
        digits++;
    }
    if (digits == 0 || value > 255 || value == 0)
        return fail(r, "unknown escape in a string");
    return put_value(r, (char)value);
}

static bool string_value(struct reader *r)
{
    uint32_t line = r->line, column = r->column;
    char quote = *r->at;
    step(r);
    while (peek(r) >= 0 && *r->at != quote && *r->at != '\n') {
        if (*r->at == '\\') {
            if (!escape(r))
                return false;
        } else {
            if (*r->at == '\0')
                return fail(r, "a zero byte in a string");
            if (!put_value(r, *r->at))
                return false;
            step(r);
        }
    }
    if (peek(r) != quote)
        return fail_at(r, line, column, "this string is not closed on its line");
    step(r);
    return true;
}

static bool scalar(struct reader *r, struct pbtxt_field *f)
{
    skip_space(r);
    int c = peek(r);
    size_t start = r->values_used;
    f->value = r->out->values + start;
    if (c == '"' || c == '\'') {
        f->kind = PBTXT_STRING;
        while (c == '"' || c == '\'') {
            if (!string_value(r))
                return false;
            skip_space(r);
            c = peek(r);
        }
    } else if (c >= 0 && (isalnum(c) || c == '-' || c == '+' || c == '.' || c == '_')) {
        f->kind = isalpha(c) || c == '_' ? PBTXT_IDENT : PBTXT_NUMBER;
        while ((c = peek(r)) > 0 && (isalnum(c) || strchr("-+._", c))) {
            if (!put_value(r, (char)c))
                return false;
            step(r);
        }
    } else {
        return fail(r, "a value is missing here (a number, a name, \"text\" or { ... })");
    }
    if (r->values_used - start > PBTXT_VALUE_MAX)
        return fail(r, "the value is over 1,024 characters");
    return put_value(r, '\0');
}

static struct pbtxt_field *add_field(struct reader *r, const char *name, uint32_t depth,
                                     uint32_t line, uint32_t column)
{
    if (r->out->n == PBTXT_FIELDS_MAX) {
        fail(r, "more than 32,768 fields in one file");
        return NULL;
    }
    struct pbtxt_field *f = &r->out->fields[r->out->n++];
    memset(f, 0, sizeof(*f));
    snprintf(f->name, sizeof(f->name), "%s", name);
    f->depth = depth;
    f->line = line;
    f->column = column;
    f->value = "";
    return f;
}

static bool field_name(struct reader *r, char *name, size_t size)
{
    size_t n = 0;
    int c = peek(r);
    if (c < 0 || !(isalpha(c) || c == '_')) {
        char text[64];
        snprintf(text, sizeof(text), "expected the name of a field, found '%c'",
                 isprint(c) ? c : '?');
        return fail(r, text);
    }
    while ((c = peek(r)) >= 0 && (isalnum(c) || c == '_')) {
        if (n + 1 == size)
            return fail(r, "the name of this field is too long");
        name[n++] = (char)c;
        step(r);
    }
    name[n] = '\0';
    return true;
}

// What is open around the place that is being read.
struct scope {
    char close;    // '}' or '>', 0 at the top, ']' for a list
    char name[64]; // a list's field
    uint32_t line, column;
    bool filled;    // something was read in here
    bool separated; // the last thing read was a separator
};

// Reads a value, or opens a message or list. `name` is the field it belongs to.
static bool value(struct reader *r, struct scope *scopes, uint32_t *open, const char *name,
                  uint32_t messages, uint32_t line, uint32_t column)
{
    skip_space(r);
    int c = peek(r);
    if (c != '{' && c != '<' && c != '[') {
        struct pbtxt_field *f = add_field(r, name, messages, line, column);
        return f && scalar(r, f);
    }
    if (*open + 1 == PBTXT_DEPTH_MAX)
        return fail(r, "nested too deep");
    if (c == '[' && scopes[*open].close == ']')
        return fail(r, "a list in a list");
    if (c != '[') {
        struct pbtxt_field *f = add_field(r, name, messages, line, column);
        if (!f)
            return false;
        f->kind = PBTXT_MESSAGE;
    }
    struct scope *s = &scopes[++*open];
    *s = (struct scope){0};
    s->close = c == '{' ? '}' : c == '<' ? '>' : ']';
    s->line = r->line;
    s->column = r->column;
    snprintf(s->name, sizeof(s->name), "%s", name);
    step(r);
    return true;
}

// How many messages are open: the depth of a field that begins here.
static uint32_t depth_of(const struct scope *scopes, uint32_t open)
{
    uint32_t depth = 0;
    for (uint32_t i = 1; i <= open; i++)
        depth += scopes[i].close != ']';
    return depth;
}

static bool read_field(struct reader *r, struct scope *scopes, uint32_t *open)
{
    char name[64];
    uint32_t line = r->line, column = r->column;
    uint32_t depth = depth_of(scopes, *open);
    if (scopes[*open].close == ']') {
        snprintf(name, sizeof(name), "%s", scopes[*open].name);
        return value(r, scopes, open, name, depth, line, column);
    }
    if (!field_name(r, name, sizeof(name)))
        return false;
    bool colon = take(r, ':');
    skip_space(r);
    if (!colon && peek(r) != '{' && peek(r) != '<' && peek(r) != '[')
        return fail(r, "expected ':' or '{' after the name of a field");
    return value(r, scopes, open, name, depth, line, column);
}

// A comma or semicolon: at most one behind each field, and only commas in a list.
static bool read_separator(struct reader *r, struct scope *s)
{
    if (!s->filled || s->separated)
        return fail(r, "there is nothing before this separator");
    if (s->close == ']' && peek(r) == ';')
        return fail(r, "the values of a list are separated by ','");
    s->separated = true;
    step(r);
    return true;
}

static bool read_close(struct reader *r, const struct scope *s)
{
    if (peek(r) != s->close)
        return fail(r, "this bracket closes nothing that is open");
    if (s->close == ']' && s->separated)
        return fail(r, "a value is missing after the last ',' of this list");
    step(r);
    return true;
}

static bool read_all(struct reader *r)
{
    struct scope scopes[PBTXT_DEPTH_MAX] = {{0}};
    uint32_t open = 0;
    for (skip_space(r); peek(r) >= 0; skip_space(r)) {
        struct scope *s = &scopes[open];
        int c = peek(r);
        if (c == ',' || c == ';') {
            if (!read_separator(r, s))
                return false;
        } else if (c == '}' || c == ']' || c == '>') {
            if (!read_close(r, s))
                return false;
            open--;
        } else {
            if (s->close == ']' && s->filled && !s->separated)
                return fail(r, "expected ',' or ']' after a value of this list");
            s->filled = true;
            s->separated = false;
            if (!read_field(r, scopes, &open))
                return false;
        }
    }
    if (open)
        return fail_at(r, scopes[open].line, scopes[open].column,
                       "the file ends before this bracket is closed");
    return true;
}

int pbtxt_parse(const char *text, size_t len, const char *path, struct pbtxt *p, char *why,
                size_t size)
{
    *p = (struct pbtxt){0};
    if (len > PBTXT_BYTES_MAX) {
        snprintf(why, size, "%s: is over 1 MiB", path);
        return -EINVAL;
    }
    p->fields = malloc(PBTXT_FIELDS_MAX * sizeof(*p->fields));
    p->values = malloc(2 * len + 2);
    if (!p->fields || !p->values) {
        pbtxt_deinit(p);
        snprintf(why, size, "%s: out of memory", path);
        return -ENOMEM;
    }
    struct reader r = {.at = text,
                       .end = text + len,
                       .path = path,
                       .line = 1,
                       .column = 1,
                       .out = p,
                       .values_size = 2 * len + 2,
                       .why = why,
                       .size = size};
    if (read_all(&r))
        return 0;
    pbtxt_deinit(p);
    return -EINVAL;
}

void pbtxt_deinit(struct pbtxt *p)
{
    free(p->fields);
    free(p->values);
    *p = (struct pbtxt){0};
}
