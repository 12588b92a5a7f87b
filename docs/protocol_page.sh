#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# protocol_page.sh [--check] WIRE_TABLE PROTOCOL.md: writes (or compares) the part of the page below
# its marker line, which wire.def declares and the program WIRE_TABLE prints.
set -eu
check=0
[ "$1" = --check ] && check=1 && shift
table=$1 page=$2 marker='<!-- generated from common/wire.def by `make docs`: do not edit below -->'
new=$(mktemp)
trap 'rm -f "$new"' EXIT
{ sed "/^<!-- generated from/,\$d" "$page"; printf '%s\n\n' "$marker"; "$table"; } >"$new"
if [ $check = 1 ]; then
  diff -u "$page" "$new" || { echo "docs/protocol.md is not what common/wire.def declares: run 'make docs'" >&2; exit 1; }
else
  cat "$new" >"$page"
fi
