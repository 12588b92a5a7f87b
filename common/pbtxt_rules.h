// SPDX-License-Identifier: Apache-2.0
// What a message of protobuf text may contain, as tables: each field's name and who takes it. The
// walk refuses what is in no table (with the nearest name that is), reports what is not honoured,
// and refuses a single field that is given twice. All of it with the place in the file.
#ifndef SONIC_COMMON_PBTXT_RULES_H
#define SONIC_COMMON_PBTXT_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pbtxt.h"

#define RULES_MAX 64         // in one table
#define RULES_TOP UINT32_MAX // the index of the file itself

struct rules {
    const struct pbtxt *text;
    const char *path;
    void (*warn)(const char *line, void *user); // or NULL
    void *user;
    char *why; // of the first failure
    size_t size;
};

// Takes the field at `index` into what it belongs to. False after rules_fail.
typedef bool (*rule_fn)(struct rules *r, const struct pbtxt_field *f, uint32_t index, void *into);

enum rule_times { RULE_ONCE, RULE_MANY, RULE_IGNORED };

// A table ends with a NULL name. RULE_IGNORED: a field of the format that is not honoured.
struct rule {
    const char *name;
    rule_fn take;
    enum rule_times times;
};

// Applies a table to the fields of the message at `index`. False: `why` says what and where.
bool rules_walk(struct rules *r, uint32_t index, const struct rule *table, void *into);

// "path:line:column: ..." into `why`; returns false, for `return rules_fail(...)`.
bool rules_fail(struct rules *r, const struct pbtxt_field *f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// "path:line: name what" to the warn function.
void rules_report(struct rules *r, const struct pbtxt_field *f, const char *what);

// Values. *out is written only on success; the bounds are inclusive.
bool rules_number(struct rules *r, const struct pbtxt_field *f, long long min, long long max,
                  long long *out);
bool rules_u32(struct rules *r, const struct pbtxt_field *f, uint32_t max, uint32_t *out);
bool rules_string(struct rules *r, const struct pbtxt_field *f, char *out, size_t size);
// One of `words` (ends with NULL), as its index.
bool rules_word(struct rules *r, const struct pbtxt_field *f, const char *const *words,
                unsigned *out);

#endif
