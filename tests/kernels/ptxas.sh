#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ptxas.sh SOURCES DOCS [NVCC ARCH...]: what ptxas says of the native kernel for each architecture,
# and the occupancy that follows from the published limits, as the table of DOCS (docs/gpu.md). Fails
# on any spilled register or stack frame, and where DOCS, written with the same nvcc, says otherwise.
set -euo pipefail
sources=$1 docs=$2 nvcc=${3-}
if [ -z "$nvcc" ]; then
    echo 'SKIP: this build has no nvcc, so there is no machine code of the GPU to look at'
    exit 77
fi
shift 3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
release=$("$nvcc" --version | sed -n 's/.*, V\([0-9.]*\)$/\1/p')
threads=$(sed -n 's/^#define FACILE_THREADS \([0-9]*\)u$/\1/p' "$sources/worker/kernels/facile_launch.h")

# Per SM: warps, blocks, bytes of shared memory; shared memory's unit, and what the system takes of it
# for each block (CUDA programming guide, technical specifications per compute capability).
limits() {
    case $1 in
    75) echo 32 16 65536 256 0 ;;
    80) echo 64 32 167936 128 1024 ;;
    86) echo 48 16 102400 128 1024 ;;
    89) echo 48 24 102400 128 1024 ;;
    90) echo 64 32 233472 128 1024 ;;
    *) echo "ptxas.sh: no limits are known for sm_$1" >&2 && exit 1 ;;
    esac
}

# Registers come in 256 a warp, 65,536 an SM, spread over its four quarters.
occupancy() { # ARCH REGISTERS SHARED THREADS
    local warps blocks bytes unit system
    read -r warps blocks bytes unit system < <(limits "$1")
    awk -v arch="$1" -v regs="$2" -v shared="$3" -v threads="$4" -v warps="$warps" -v blocks="$blocks" \
        -v bytes="$bytes" -v unit="$unit" -v system_takes="$system" '
        function up(x, to) { return int((x + to - 1) / to) * to }
        BEGIN {
            per_block = up(threads, 32) / 32
            by_registers = int(int(16384 / up(regs * 32, 256)) * 4 / per_block)
            by_shared = int(bytes / up(shared + system_takes, unit))
            by_warps = int(warps / per_block)
            n = by_registers; why = "registers"
            if (by_shared < n) { n = by_shared; why = "shared memory" }
            if (by_warps < n) { n = by_warps; why = "warps" }
            if (blocks < n) { n = blocks; why = "blocks" }
            printf "| sm_%s | %d | %d | %d | %d of %d (%d %%) | %s |\n", arch, regs, shared, n, n * per_block,
                warps, 100 * n * per_block / warps, why
        }'
}

rc=0
echo "nvcc $release, $threads threads a block"
for arch; do
    "$nvcc" -std=c++17 -O3 -I "$sources" -cubin -arch="sm_$arch" -Xptxas -v -o "$scratch/cubin" \
        "$sources/worker/kernels/facile.cu" 2>"$scratch/said" || { cat "$scratch/said"; exit 1; }
    if ! grep -q ' 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads' "$scratch/said"; then
        echo "sm_$arch: registers are spilled, or there is a stack frame:"
        cat "$scratch/said"
        rc=1
    fi
    read -r registers shared < <(sed -n 's/.*Used \([0-9]*\) registers.* \([0-9]*\) bytes smem.*/\1 \2/p' "$scratch/said")
    line=$(occupancy "$arch" "$registers" "$shared" "$threads")
    echo "$line"
    if grep -qF "nvcc $release" "$docs" && ! grep -qxF "$line" "$docs"; then
        echo "sm_$arch: ${docs##*/} has another line for nvcc $release"
        rc=1
    fi
done
exit $rc
