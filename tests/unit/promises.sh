#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# promises.sh PROMISES.md TESTS: each id of the page has its test under the folder TESTS, and none
# stands there twice.
set -eu
page=$1 tests=$2 rc=0
ids=$(sed -n 's/^| `\([a-z0-9-]*\)` |.*/\1/p' "$page")
[ -n "$ids" ] || { echo "$page: there are no ids in it" >&2; exit 1; }
for id in $ids; do
  name=test_$(printf %s "$id" | tr - _)
  grep -rqE --include='*.py' --include='*.c' "^(def|static void) $name\(" "$tests" ||
    { echo "$page: the promise $id has no test $name under tests/" >&2; rc=1; }
done
twice=$(printf '%s\n' "$ids" | sort | uniq -d)
[ -z "$twice" ] || { echo "$page: twice: $twice" >&2; rc=1; }
exit $rc
