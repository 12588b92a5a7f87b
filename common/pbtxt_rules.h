// SPDX-License-Identifier: Apache-2.0
// Applies a table of rules to the fields of a text-format file: each field's value is taken by its
// rule, a known field without a rule is reported with its line, an unknown one is an error that
// names the nearest known name.
#ifndef SONIC_COMMON_PBTXT_RULES_H
#define SONIC_COMMON_PBTXT_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pbtxt.h"

struct rules_reader {
    const struct pbtxt *text;
    const char *path;                           // for messages
    void (*warn)(const char *line, void *user); // or NULL
    void *user;
    char *why; // where the first error goes: "path:line:column: ..."
    size_t size;
};

// Takes the value of one field (a message's fields begin after `index`) into the caller's struct.
// False after rules_fail.
typedef bool (*rule_fn)(struct rules_reader *r, const struct pbtxt_field *f, uint32_t index,
                        void *into);

struct rule {
    const char *name; // NULL ends a table
    rule_fn take;     // NULL: a known field that is not honoured
};

// Applies the table to the fields of the message at `index` (RULES_TOP: the top level).
#define RULES_TOP UINT32_MAX
bool rules_apply(struct rules_reader *r, uint32_t index, const struct rule *rules, void *into);

// Writes the error; always false.
bool rules_fail(struct rules_reader *r, const struct pbtxt_field *f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// Hands "path:line: NAME what" to the reader's warn.
void rules_report(struct rules_reader *r, const struct pbtxt_field *f, const char *what);

// The value as a whole number within bounds, or as text that fits. False after rules_fail.
bool rules_number(struct rules_reader *r, const struct pbtxt_field *f, long long min, long long max,
                  long long *out);
bool rules_u32(struct rules_reader *r, const struct pbtxt_field *f, uint32_t max, uint32_t *out);
bool rules_string(struct rules_reader *r, const struct pbtxt_field *f, char *out, size_t size);

#endif
