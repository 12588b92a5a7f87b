#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# embed.sh FILE NAME HEADER: FILE's bytes as C: NAME[] and NAME_bytes, which HEADER declares.
set -eu
printf '// Written by worker/kernels/embed.sh.\n#include "%s"\n\n' "$3"
printf '_Alignas(64) const unsigned char %s[] = {\n' "$2"
od -An -v -tu1 "$1" | sed 's/[0-9][0-9]*/&,/g'
printf '};\nconst size_t %s_bytes = sizeof(%s);\n' "$2" "$2"
