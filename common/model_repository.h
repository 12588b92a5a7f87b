// SPDX-License-Identifier: Apache-2.0
// The model repository on disk: <root>/<name>/config.pbtxt and <root>/<name>/<version>/..., in
// Triton's layout. The reader of config.pbtxt (protobuf text format) is strict: a field that we do
// not honour is reported with its line, a broken file with file, line and column.
#ifndef SONIC_COMMON_MODEL_REPOSITORY_H
#define SONIC_COMMON_MODEL_REPOSITORY_H

#include <stddef.h>
#include <stdint.h>

#include "common/model_config.h"

// Called for each field that is read but not honoured: "models/x/config.pbtxt:12: ...".
typedef void (*model_warn_fn)(const char *line, void *user);

// Parses config text. `path` is only for messages. Returns 0, or -EINVAL with `why` =
// "path:line:column: what is wrong and what is expected". The version is left 0.
int model_config_parse(const char *text, size_t len, const char *path, struct model_config *c,
                       model_warn_fn warn, void *user, char *why, size_t size);

struct model_entry {
    struct model_config config;
    char dir[4096]; // the version's folder
};

// Reads one model: config.pbtxt, name against folder, version by version_policy (the highest folder
// number by default). Returns 0 or a negative errno with words in `why`.
int model_repository_read(const char *root, const char *name, struct model_entry *e,
                          model_warn_fn warn, void *user, char *why, size_t size);

// Lists the model names below root (folders with a config.pbtxt), sorted; *names is one allocation
// of *n pointers that the caller frees with free(). Returns 0 or a negative errno with `why`.
int model_repository_list(const char *root, char ***names, size_t *n, char *why, size_t size);

#endif
