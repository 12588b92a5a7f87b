// SPDX-License-Identifier: Apache-2.0
// A reader of protobuf text format (config.pbtxt), as a flat list of fields in order: bounded,
// without recursion over the input's depth beyond a fixed stack, with the position of everything.
//
// Understood: `name: value`, `name { ... }`, `name: < ... >`, lists `[a, b]` of values or messages,
// repeated fields, strings with escapes (adjacent ones joined), numbers, identifiers, comments.
#ifndef SONIC_COMMON_PBTXT_H
#define SONIC_COMMON_PBTXT_H

#include <stddef.h>
#include <stdint.h>

#define PBTXT_BYTES_MAX (1u << 20)
#define PBTXT_FIELDS_MAX 32768 // a bundle's plan has a dozen a launch
#define PBTXT_DEPTH_MAX 16
#define PBTXT_VALUE_MAX 1024

enum pbtxt_kind { PBTXT_MESSAGE, PBTXT_STRING, PBTXT_NUMBER, PBTXT_IDENT };

struct pbtxt_field {
    char name[64];
    enum pbtxt_kind kind;
    uint32_t line, column; // of the name
    uint32_t depth;        // 0 = top level; a message's fields follow it with depth + 1
    const char *value;     // terminated; "" for a message
};

struct pbtxt {
    uint32_t n;
    struct pbtxt_field *fields;
    char *values; // storage behind the value pointers
};

// Reads text. 0, or -EINVAL with `why` = "path:line:column: ..."; -ENOMEM.
int pbtxt_parse(const char *text, size_t len, const char *path, struct pbtxt *p, char *why,
                size_t size);
void pbtxt_deinit(struct pbtxt *p);

#endif
