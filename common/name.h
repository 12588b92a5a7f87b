// SPDX-License-Identifier: Apache-2.0
// Names that people choose and that travel: checked once, at the door.
#ifndef SONIC_COMMON_NAME_H
#define SONIC_COMMON_NAME_H

#include <stdbool.h>
#include <stddef.h>

// A model name: [a-z0-9._-]{1,64}, not starting with a dot (it is also a folder name).
bool name_is_model(const char *s, size_t len);
// A tenant, worker or tensor name: 1..64 printable ASCII characters, no space, quote or backslash.
bool name_is_label(const char *s, size_t len);

#endif
