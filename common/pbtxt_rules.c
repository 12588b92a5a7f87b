// SPDX-License-Identifier: Apache-2.0
#include "common/pbtxt_rules.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool rules_fail(struct rules_reader *p, const struct pbtxt_field *f, const char *fmt, ...)
{
    int n = snprintf(p->why, p->size, "%s:%u:%u: ", p->path, f->line, f->column);
    va_list ap;
    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < p->size)
        vsnprintf(p->why + n, p->size - (size_t)n, fmt, ap);
    va_end(ap);
    return false;
}

void rules_report(struct rules_reader *p, const struct pbtxt_field *f, const char *what)
{
    char line[512];
    snprintf(line, sizeof(line), "%s:%u: %s %s", p->path, f->line, f->name, what);
    if (p->warn)
        p->warn(line, p->user);
}

// ---- values -------------------------------------------------------------------------------------

bool rules_number(struct rules_reader *p, const struct pbtxt_field *f, long long min, long long max,
                  long long *out)
{
    char *end;
    errno = 0;
    long long v = f->kind == PBTXT_NUMBER ? strtoll(f->value, &end, 0) : 0;
    if (f->kind != PBTXT_NUMBER || errno || *end)
        return rules_fail(p, f, "%s takes a whole number", f->name);
    if (v < min || v > max)
        return rules_fail(p, f, "%s is %s; %lld to %lld is possible", f->name, f->value, min, max);
    *out = v;
    return true;
}

bool rules_u32(struct rules_reader *p, const struct pbtxt_field *f, uint32_t max, uint32_t *out)
{
    long long v = 0;
    if (!rules_number(p, f, 0, max, &v))
        return false;
    *out = (uint32_t)v;
    return true;
}

bool rules_string(struct rules_reader *p, const struct pbtxt_field *f, char *out, size_t size)
{
    if (f->kind != PBTXT_STRING)
        return rules_fail(p, f, "%s takes text in quotes", f->name);
    if (strlen(f->value) >= size)
        return rules_fail(p, f, "%s is longer than %zu characters", f->name, size - 1);
    memcpy(out, f->value, strlen(f->value) + 1);
    return true;
}

// ---- walking ------------------------------------------------------------------------------------

static unsigned distance(const char *a, const char *b)
{
    // Levenshtein over two rows; names are at most 63 characters.
    unsigned row[64], n = (unsigned)strlen(b);
    for (unsigned j = 0; j <= n && j < 64; j++)
        row[j] = j;
    for (unsigned i = 1; a[i - 1]; i++) {
        unsigned corner = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= n; j++) {
            unsigned change = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            unsigned least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = change < least ? change : least;
        }
    }
    return row[n];
}

static bool unknown(struct rules_reader *p, const struct pbtxt_field *f, const struct rule *rules)
{
    const char *nearest = NULL;
    unsigned least = 4;
    for (const struct rule *r = rules; r->name; r++)
        if (distance(f->name, r->name) < least) {
            least = distance(f->name, r->name);
            nearest = r->name;
        }
    if (nearest)
        return rules_fail(p, f, "there is no field \"%s\" here; did you mean %s?", f->name,
                          nearest);
    return rules_fail(p, f, "there is no field \"%s\" here", f->name);
}

// Applies the rules to the fields of the message at `index` (UINT32_MAX: the top level).
bool rules_apply(struct rules_reader *p, uint32_t index, const struct rule *rules, void *into)
{
    const struct pbtxt *t = p->text;
    bool top = index == RULES_TOP;
    if (!top && t->fields[index].kind != PBTXT_MESSAGE)
        return rules_fail(p, &t->fields[index], "%s takes { ... }", t->fields[index].name);
    uint32_t depth = top ? 0 : t->fields[index].depth + 1;
    for (uint32_t i = top ? 0 : index + 1; i < t->n && t->fields[i].depth >= depth; i++) {
        const struct pbtxt_field *f = &t->fields[i];
        const struct rule *r = rules;
        if (f->depth > depth)
            continue;
        while (r->name && strcmp(r->name, f->name) != 0)
            r++;
        if (!r->name)
            return unknown(p, f, rules);
        if (!r->take)
            rules_report(p, f, "is not honoured by SONIC");
        else if (!r->take(p, f, i, into))
            return false;
    }
    return true;
}
