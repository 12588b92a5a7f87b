#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# build.sh BUNDLE --platform PLATFORM [--target hw|hw_emu] [--clock MHZ] [--config FILE]
#
# Compiles a bundle's OpenCL C for an Alveo card with Vitis' v++, into BUNDLE/<source>.xclbin, and
# puts that program into the manifest. hw takes hours. A card that has it in its manifest needs no
# source; a farm's workers need only XRT.
#   BUNDLE      the folder <model>/<version>/opencl
#   --platform  as `platforminfo -l` lists it, e.g. xilinx_u250_gen3x16_xdma_4_1_202210_1
#   --clock     of the kernels, 300 by default; v++ lowers it where timing is not met, and says so
#   --config    compute units, banks, regions; <source>.cfg beside this script where there is one
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../bundle.sh
. "$here/../bundle.sh"

bundle='' platform='' target=hw clock=300 config=''
while [ $# -gt 0 ]; do
    case $1 in
    --platform | --target | --clock | --config)
        [ $# -gt 1 ] || die "$1 takes a value" "see the head of $0"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    -*) die "there is no $1" "see the head of $0" ;;
    *) bundle=$1 ;;
    esac
    shift
done
if [ -z "$bundle" ] || [ -z "$platform" ]; then die 'a bundle and --platform are needed' "see the head of $0"; fi
read_bundle "$bundle"
need_tool v++ "Vitis (OpenCL C kernels are in its documentation up to 2021.2; later ones may not take them)"

name=$(basename "$source" .cl)
[ -n "$config" ] || config=$here/$name.cfg
configs=()
if [ -f "$config" ]; then configs=(--config "$config"); fi
work=$bundle/$name.$target
mkdir -p "$work"
common=(-t "$target" --platform "$platform" --temp_dir "$work/temp" --log_dir "$work/logs" --report_dir "$work/reports")

objects=()
for kernel in "${kernels[@]}"; do
    run v++ -c "${common[@]}" --kernel_frequency "$clock" ${macros[@]+"${macros[@]}"} -k "$kernel" \
        -o "$work/$kernel.xo" "$source"
    objects+=("$work/$kernel.xo")
done
run v++ -l "${common[@]}" --kernel_frequency "$clock" --optimize 2 ${configs[@]+"${configs[@]}"} \
    -o "$work/$name.xclbin" "${objects[@]}"
cp "$work/$name.xclbin" "$bundle/$name.xclbin"

# Units by name only where the plan is of one kernel: its slots are spread over them.
units=
if [ ${#kernels[@]} = 1 ] && [ ${#configs[@]} -gt 0 ]; then
    n=$(sed -nE "s/^nk=${kernels[0]}:([0-9]+).*/\1/p" "$config")
    for ((i = 1; i <= ${n:-1}; i++)); do units+=" units: \"${kernels[0]}_$i\""; done
fi
add_program "program { platform: \"Xilinx\" binary: \"$name.xclbin\"$units }"
