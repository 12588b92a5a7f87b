// SPDX-License-Identifier: Apache-2.0
// What the parser's files share.
#ifndef SONIC_WORKER_EXECUTORS_OPENCL_BUNDLE_PARSE_H
#define SONIC_WORKER_EXECUTORS_OPENCL_BUNDLE_PARSE_H

#include "common/pbtxt_rules.h"
#include "worker/executors/opencl/bundle.h"

// Parses text into a bundle that is empty but for its dir. 0, or a negative errno with words.
int bundle_parse(const char *text, size_t len, const char *path, struct bundle *b, char *why,
                 size_t size);

// ---- within the parser: all fail by rules_fail
typedef const struct pbtxt_field *bundle_field;

#define BUNDLE_RULES_END                                                                           \
    {                                                                                              \
        NULL, NULL, RULE_ONCE                                                                      \
    }

// Makes room for one more of what is listed, zeroed. NULL after a failure.
void *bundle_append(struct rules *r, bundle_field f, void *list, uint32_t *n, uint32_t max,
                    size_t bytes);
bool bundle_take_u64(struct rules *r, bundle_field f, uint64_t max, uint64_t *out);
bool bundle_take_float(struct rules *r, bundle_field f, float *out);
// The word true: a field that is left out is false.
bool bundle_take_true(struct rules *r, bundle_field f);
// A name that is looked up, or a file of the bundle (BUNDLE_NAME_MAX + 1 bytes): no path leads out
// of its folder.
bool bundle_take_label(struct rules *r, bundle_field f, char *out);
bool bundle_find_buffer(struct rules *r, bundle_field f, const struct bundle *b, uint32_t *out);
// Rules of the file's messages; `into` is the bundle.
bool bundle_take_io(struct rules *r, bundle_field f, uint32_t i, void *into);
bool bundle_take_launch(struct rules *r, bundle_field f, uint32_t i, void *into);

#endif
