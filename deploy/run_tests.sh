#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run_tests.sh BUILD [meson test argument]...: runs the tests of a build folder; the last line is
# "N passed, N failed, N skipped", counted by test program. Exit status: meson's.
set -u
build=$1
shift
# In a bare chroot PoCL misses /sys (worker/executors/opencl/process/vendors.c tells it, tests of kernels alone do not).
[ -d /sys/devices/system/cpu ] || export HWLOC_SYNTHETIC="numa:1(memory=4GB) pu:$(nproc)"
rc=0
# meson's own summary of this run, read below
log=$build/meson-logs/testlog.txt
rm -f "$log"
meson test -C "$build" --no-rebuild --print-errorlogs "$@" </dev/null || rc=$?
count() {
    local n
    n=$(grep -E "^$1: +[0-9]+" "$log" 2>/dev/null | tail -n 1 | tr -cd '0-9')
    echo "${n:-0}"
}
passed=$(($(count Ok) + $(count 'Expected Fail')))
failed=$(($(count Fail) + $(count Timeout) + $(count 'Unexpected Pass')))
echo "$passed passed, $failed failed, $(count Skipped) skipped"
[ "$passed" -gt 0 ] || [ $rc != 0 ] || rc=1
exit $rc
