// SPDX-License-Identifier: Apache-2.0
// A config.pbtxt of any bytes: refused in words that name a place, or a configuration that survives
// the way over the wire's structs.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model_repository.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void warn(const char *line, void *user)
{
    check(strncmp(line, "a:", 2) == 0);
    ++*(int *)user;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model_config c, back;
    static struct wire_join_item item;
    char why[256] = "";
    int warnings = 0;
    int rc =
        model_config_parse((const char *)data, size, "a", &c, warn, &warnings, why, sizeof(why));
    if (rc != 0) {
        unsigned line, column;
        check(sscanf(why, "a:%u:%u: ", &line, &column) == 2 && line > 0 && column > 0);
        return 0;
    }
    check(c.ninputs > 0 && c.noutputs > 0 && c.backend[0] && c.default_rows > 0);
    model_config_to_wire(&c, &item);
    if (!c.name[0]) // the folder's name goes there
        item.name = wire_str("a");
    check(model_config_from_wire(&item, &back, why, sizeof(why)));
    check(model_config_agrees(&c, &back, why, sizeof(why)));
    return 0;
}
