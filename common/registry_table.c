// SPDX-License-Identifier: Apache-2.0
#include "common/registry_table.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 40
#define WIDTH_MAX 64 // a longer value only moves its own line

struct column {
    const char *name;
    size_t width;
};

struct table {
    struct column columns[COLUMNS_MAX];
    size_t n;
};

// The fields of a record, or NULL when it is none.
static const redisReply *fields_of(const redisReply *record)
{
    if (record->type != REDIS_REPLY_ARRAY || record->elements != 2 || !record->element[0]->str ||
        record->element[1]->type != REDIS_REPLY_ARRAY)
        return NULL;
    return record->element[1];
}

static const char *value_of(const redisReply *fields, const char *name)
{
    for (size_t i = 0; i + 1 < fields->elements; i += 2)
        if (fields->element[i]->str && strcmp(fields->element[i]->str, name) == 0)
            return fields->element[i + 1]->str;
    return NULL;
}

static bool is_bytes(const char *name)
{
    size_t n = strlen(name);
    return n > 6 && strcmp(name + n - 6, "_bytes") == 0;
}

// A field's name as it is shown: without its unit, which its values have then.
static const char *title_of(const char *name, char *buf, size_t size)
{
    snprintf(buf, size, "%.*s", (int)strlen(name) - (is_bytes(name) ? 6 : 0), name);
    return buf;
}

// A value as it is shown; `buf` holds it where it is not shown as it is.
static const char *shown(const char *name, const char *value, char *buf, size_t size)
{
    char *end;
    if (!value || !value[0])
        return "-";
    double bytes = is_bytes(name) ? strtod(value, &end) : 0;
    if (!is_bytes(name) || *end)
        return value;
    if (bytes < 1 << 30)
        snprintf(buf, size, "%.1fMiB", bytes / (1 << 20));
    else
        snprintf(buf, size, "%.1fGiB", bytes / (1 << 30));
    return buf;
}

static void put_cell(FILE *out, const char *text, size_t width)
{
    size_t n = 0;
    for (; text[n]; n++)
        fputc(text[n] >= ' ' && text[n] <= '~' ? text[n] : '?', out);
    for (; n < width; n++)
        fputc(' ', out);
}

static void widen(struct column *c, const char *text)
{
    size_t n = strlen(text);
    n = n < WIDTH_MAX ? n : WIDTH_MAX;
    c->width = n > c->width ? n : c->width;
}

static void add_column(struct table *t, const char *name)
{
    char buf[WIDTH_MAX + 1];
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->columns[i].name, name) == 0)
            return;
    if (t->n == COLUMNS_MAX)
        return;
    t->columns[t->n] = (struct column){.name = name};
    widen(&t->columns[t->n++], title_of(name, buf, sizeof(buf)));
}

static void measure(struct table *t, const char *const *columns, const redisReply *records)
{
    char buf[WIDTH_MAX + 1];
    for (size_t i = 0; columns[i]; i++)
        add_column(t, columns[i]);
    for (size_t i = 0; i < records->elements; i++) {
        const redisReply *fields = fields_of(records->element[i]);
        for (size_t k = 0; fields && k + 1 < fields->elements; k += 2)
            if (fields->element[k]->str)
                add_column(t, fields->element[k]->str);
        for (size_t k = 0; fields && k < t->n; k++)
            widen(&t->columns[k], shown(t->columns[k].name, value_of(fields, t->columns[k].name),
                                        buf, sizeof(buf)));
    }
}

void registry_table(FILE *out, const char *title, const char *const *columns,
                    const redisReply *records)
{
    struct table t = {.n = 0};
    struct column name = {.name = title};
    char buf[WIDTH_MAX + 1];
    measure(&t, columns, records);
    widen(&name, title);
    for (size_t i = 0; i < records->elements; i++)
        if (fields_of(records->element[i]))
            widen(&name, records->element[i]->element[0]->str);
    put_cell(out, title, name.width);
    for (size_t k = 0; k < t.n; k++) {
        fputs("  ", out);
        put_cell(out, title_of(t.columns[k].name, buf, sizeof(buf)),
                 k + 1 < t.n ? t.columns[k].width : 0);
    }
    fputc('\n', out);
    for (size_t i = 0; i < records->elements; i++) {
        const redisReply *fields = fields_of(records->element[i]);
        if (!fields)
            continue;
        put_cell(out, records->element[i]->element[0]->str, name.width);
        for (size_t k = 0; k < t.n; k++) {
            const char *field = t.columns[k].name;
            fputs("  ", out);
            put_cell(out, shown(field, value_of(fields, field), buf, sizeof(buf)),
                     k + 1 < t.n ? t.columns[k].width : 0);
        }
        fputc('\n', out);
    }
}
