// SPDX-License-Identifier: Apache-2.0
// The registry's records as a table for people. What Redis says is not trusted: any shape of reply
// is taken, and only printable characters come out.
#ifndef SONIC_COMMON_REGISTRY_TABLE_H
#define SONIC_COMMON_REGISTRY_TABLE_H

#include <hiredis/hiredis.h>
#include <stdio.h>

// Prints `records`, an array of [name, [field, value, ...]], a line a record under a line of field
// names. Fields of `columns` (ends with NULL) come first, in that order; numbers of a field named
// ..._bytes come in MiB or GiB.
void registry_table(FILE *out, const char *title, const char *const *columns,
                    const redisReply *records);

#endif
