#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run_tests.sh BUILD [meson test argument]...: runs the tests of a build folder; the last line is
# "N passed, N failed, N skipped", counted by test program. Exit status: meson's.
set -u
build=$1
shift
rc=0
meson test -C "$build" --no-rebuild --print-errorlogs "$@" </dev/null || rc=$?
# meson's own summary, from the log it has just written
log=$build/meson-logs/testlog.txt
count() {
    local n
    n=$(grep -E "^$1: +[0-9]+" "$log" | tail -n 1 | tr -cd '0-9')
    echo "${n:-0}"
}
passed=$(($(count Ok) + $(count 'Expected Fail')))
failed=$(($(count Fail) + $(count Timeout) + $(count 'Unexpected Pass')))
echo "$passed passed, $failed failed, $(count Skipped) skipped"
[ "$passed" -gt 0 ] || [ $rc != 0 ] || rc=1
exit $rc
