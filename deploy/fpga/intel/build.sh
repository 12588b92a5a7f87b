#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# build.sh BUNDLE --board BOARD [--package FOLDER] [--clock MHZ] [--report]
#
# Compiles a bundle's OpenCL C for an Intel board with the FPGA SDK for OpenCL's aoc, into
# BUNDLE/<source>.aocx, and puts that program into the manifest. It takes hours; --report stops
# after minutes, with the estimate of area and the loops' initiation intervals in a report.html.
#   BUNDLE     the folder <model>/<version>/opencl
#   --board    as `aoc -list-boards` lists it, e.g. pac_a10 or pac_s10
#   --package  the board's support package (BSP); else what AOCL_BOARD_PACKAGE_ROOT names
#   --clock    the target, 240 by default; the report says what was reached
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../bundle.sh
. "$here/../bundle.sh"

bundle='' board='' package='' clock=240 stop=()
while [ $# -gt 0 ]; do
    case $1 in
    --board | --package | --clock)
        [ $# -gt 1 ] || die "$1 takes a value" "see the head of $0"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    --report) stop=(-rtl -report) ;;
    -*) die "there is no $1" "see the head of $0" ;;
    *) bundle=$1 ;;
    esac
    shift
done
if [ -z "$bundle" ] || [ -z "$board" ]; then die 'a bundle and --board are needed' "see the head of $0"; fi
read_bundle "$bundle"
need_tool aoc 'the Intel FPGA SDK for OpenCL (Pro Edition) and its Quartus'

name=$(basename "$source" .cl)
packages=()
[ -z "$package" ] || packages=("-board-package=$package")
run aoc "-board=$board" ${packages[@]+"${packages[@]}"} "-clock=${clock}MHz" ${stop[@]+"${stop[@]}"} \
    ${macros[@]+"${macros[@]}"} -o "$bundle/$name.aocx" "$source"
[ ${#stop[@]} -gt 0 ] ||
    add_program "program { platform: \"Intel(R) FPGA SDK\" binary: \"$name.aocx\" }"
