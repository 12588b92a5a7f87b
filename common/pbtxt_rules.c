// SPDX-License-Identifier: Apache-2.0
#include "common/pbtxt_rules.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool rules_fail(struct rules *r, const struct pbtxt_field *f, const char *fmt, ...)
{
    int n = snprintf(r->why, r->size, "%s:%u:%u: ", r->path, f->line, f->column);
    va_list ap;
    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < r->size)
        vsnprintf(r->why + n, r->size - (size_t)n, fmt, ap);
    va_end(ap);
    return false;
}

void rules_report(struct rules *r, const struct pbtxt_field *f, const char *what)
{
    char line[512];
    snprintf(line, sizeof(line), "%s:%u: %s %s", r->path, f->line, f->name, what);
    if (r->warn)
        r->warn(line, r->user);
}

// ---- values -------------------------------------------------------------------------------------

bool rules_number(struct rules *r, const struct pbtxt_field *f, long long min, long long max,
                  long long *out)
{
    char *end = NULL;
    errno = 0;
    long long v = f->kind == PBTXT_NUMBER ? strtoll(f->value, &end, 0) : 0;
    if (f->kind != PBTXT_NUMBER || *end)
        return rules_fail(r, f, "%s takes a whole number", f->name);
    if (errno || v < min || v > max)
        return rules_fail(r, f, "%s is %s; %lld to %lld is possible", f->name, f->value, min, max);
    *out = v;
    return true;
}

bool rules_u32(struct rules *r, const struct pbtxt_field *f, uint32_t max, uint32_t *out)
{
    long long v = 0;
    if (!rules_number(r, f, 0, max, &v))
        return false;
    *out = (uint32_t)v;
    return true;
}

bool rules_string(struct rules *r, const struct pbtxt_field *f, char *out, size_t size)
{
    if (f->kind != PBTXT_STRING)
        return rules_fail(r, f, "%s takes text in quotes", f->name);
    if (strlen(f->value) >= size)
        return rules_fail(r, f, "%s is longer than %zu characters", f->name, size - 1);
    memcpy(out, f->value, strlen(f->value) + 1);
    return true;
}

bool rules_word(struct rules *r, const struct pbtxt_field *f, const char *const *words,
                unsigned *out)
{
    char possible[256] = "";
    for (unsigned i = 0; words[i]; i++) {
        if (f->kind == PBTXT_IDENT && strcmp(f->value, words[i]) == 0) {
            *out = i;
            return true;
        }
        size_t used = strlen(possible);
        snprintf(possible + used, sizeof(possible) - used, "%s%s", i ? ", " : "", words[i]);
    }
    if (f->kind != PBTXT_IDENT)
        return rules_fail(r, f, "%s takes one of these words, without quotes: %s", f->name,
                          possible);
    return rules_fail(r, f, "%s is %s; possible are: %s", f->name, f->value, possible);
}

// ---- walking ------------------------------------------------------------------------------------

// Levenshtein's distance; a field's name has at most 63 characters.
static unsigned distance(const char *a, const char *b)
{
    unsigned row[64], n = (unsigned)strlen(b);
    assert(n < 64);
    for (unsigned j = 0; j <= n; j++)
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

static bool unknown(struct rules *r, const struct pbtxt_field *f, const struct rule *table)
{
    // A third of a name may be mistyped before a guess is worse than the list.
    unsigned least = (unsigned)strlen(f->name) / 3 + 2;
    const char *nearest = NULL;
    char possible[400] = "";
    for (const struct rule *rule = table; rule->name; rule++) {
        unsigned d = distance(f->name, rule->name);
        size_t used = strlen(possible);
        if (d < least) {
            least = d;
            nearest = rule->name;
        }
        if (rule->times != RULE_IGNORED)
            snprintf(possible + used, sizeof(possible) - used, "%s%s", used ? ", " : "",
                     rule->name);
    }
    if (nearest)
        return rules_fail(r, f, "there is no field \"%s\" here; did you mean %s?", f->name,
                          nearest);
    return rules_fail(r, f, "there is no field \"%s\" here; there are: %s", f->name, possible);
}

// One field by its rule; `seen` has a bit for each rule that was used in this message.
static bool apply(struct rules *r, uint32_t i, const struct rule *table, uint64_t *seen, void *into)
{
    const struct pbtxt_field *f = &r->text->fields[i];
    unsigned k = 0;
    while (table[k].name && strcmp(table[k].name, f->name) != 0)
        k++;
    if (!table[k].name)
        return unknown(r, f, table);
    assert(k < RULES_MAX);
    bool again = *seen >> k & 1;
    *seen |= UINT64_C(1) << k;
    if (table[k].times == RULE_IGNORED) {
        if (!again)
            rules_report(r, f, "is not honoured by SONIC");
        return true;
    }
    if (again && table[k].times == RULE_ONCE)
        return rules_fail(r, f, "%s is given a second time", f->name);
    return table[k].take(r, f, i, into);
}

bool rules_walk(struct rules *r, uint32_t index, const struct rule *table, void *into)
{
    const struct pbtxt *t = r->text;
    bool top = index == RULES_TOP;
    uint64_t seen = 0;
    if (!top && t->fields[index].kind != PBTXT_MESSAGE)
        return rules_fail(r, &t->fields[index], "%s takes { ... }", t->fields[index].name);
    uint32_t depth = top ? 0 : t->fields[index].depth + 1;
    for (uint32_t i = top ? 0 : index + 1; i < t->n && t->fields[i].depth >= depth; i++)
        if (t->fields[i].depth == depth && !apply(r, i, table, &seen, into))
            return false;
    return true;
}
