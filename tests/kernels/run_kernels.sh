#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run_kernels.sh intel|oclgrind CHECK_KERNELS SOURCES: the kernels' test on Intel's FPGA emulator, or with few
# small shapes under Oclgrind, which sees accesses out of bounds and races. Skipped in words where that is
# not installed; with SONIC_FPGA=required (CI) it fails.
set -uo pipefail
runtime=$1 check=$2
shift 2
missing() {
    echo "$1 is not installed: deploy/setup.sh --fpga"
    [ "${SONIC_FPGA:-}" = required ] && exit 1
    exit 77
}
case $runtime in
intel)
    emulator=$(cd "$(dirname "$0")/../.." && pwd)/.deps/fpga/intel/libintelocl_emu.so
    [ -e "$emulator" ] || missing "Intel's FPGA emulator"
    OCL_ICD_VENDORS=$emulator exec "$check" --platform Intel --cases 100 \
        --options '-cl-std=CL1.2 -DPAIRS -DTILE_PIXELS=3 -DTILE_K=2304' "$@"
    ;;
oclgrind)
    command -v oclgrind >/dev/null || missing Oclgrind
    # A block of K that most windows are longer than.
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    oclgrind --data-races --max-errors 20 "$check" --platform Oclgrind --small --cases 40 \
        --options '-cl-std=CL1.2 -DTILE_PIXELS=2 -DTILE_K=24' "$@" >"$log" 2>&1
    rc=$?
    cat "$log"
    ! grep -qE 'Invalid (read|write)|data race' "$log" || exit 1
    exit $rc
    ;;
esac
