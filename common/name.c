// SPDX-License-Identifier: Apache-2.0
#include "common/name.h"

#include "common/limits.h"

bool name_is_model(const char *s, size_t len)
{
    if (len == 0 || len > SONIC_NAME_MAX || s[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

bool name_is_label(const char *s, size_t len)
{
    if (len == 0 || len > SONIC_NAME_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (s[i] <= ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\')
            return false;
    return true;
}
