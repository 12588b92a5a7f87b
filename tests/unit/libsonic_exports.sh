#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# libsonic_exports.sh LIBRARY HEADER: the library exports every function that the header declares, and
# nothing else.
declared=$(sed -n 's/^SONIC_API .*[ *]\(sonic_[a-z_]*\)(.*/\1/p' "$2" | sort)
exported=$(nm -D --defined-only "$1" | awk '$2 ~ /[A-Z]/ { print $3 }' | sort)
[ -n "$declared" ] && [ "$declared" = "$exported" ] && exit 0
echo "declared in $2:" $declared
echo "exported by $1:" $exported
exit 1
