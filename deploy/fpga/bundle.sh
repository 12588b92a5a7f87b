# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# What the recipes share (sourced): reading what a bundle's manifest says, and adding a program to it.

die() { # WHAT NEXT
    printf '%s: %s: %s\n' "$(basename "$0")" "$1" "$2" >&2
    exit 1
}

need_tool() { # PROGRAM WHAT-IT-IS
    command -v "$1" >/dev/null || die "$1 is not there" "install $2 and load its settings, so that $1 is found"
}

# read_bundle FOLDER: sets manifest, source, options (of its first program that has a source) and
# kernels (all that its launches name).
read_bundle() {
    local line
    manifest=$1/bundle.pbtxt
    [ -f "$manifest" ] || die "$manifest is not there" 'name a bundle: the folder <model>/<version>/opencl (make models)'
    line=$(grep -m1 -E '^program \{.*source:' "$manifest") || die "$manifest has no program with a source" \
        'only those can be compiled; an .xclbin or .aocx that is there already is named in the manifest'
    source=$1/$(sed -E 's/.*source: *"([^"]*)".*/\1/' <<<"$line")
    options=
    [[ $line != *options:* ]] || options=$(sed -E 's/.*options: *"([^"]*)".*/\1/' <<<"$line")
    # OpenCL's own options are the compilers' affair; they take macros.
    read -ra macros < <(tr ' ' '\n' <<<"$options" | grep '^-D' | tr '\n' ' ') || true
    mapfile -t kernels < <(grep -oE 'kernel: *"[^"]+"' "$manifest" | sed -E 's/.*"([^"]*)"/\1/' | sort -u)
    [ -f "$source" ] || die "$source is not there" "$manifest names it"
}

# add_program LINE: before all others, for the first that fits is taken; once.
add_program() {
    grep -qxF "$1" "$manifest" && return 0
    awk -v line="$1" '/^program \{/ && !done { print line; done = 1 } { print }' "$manifest" >"$manifest.part" &&
        mv "$manifest.part" "$manifest"
    printf '%s: %s\n' "$manifest" "$1"
}

run() { # COMMAND...: shown, then run
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    "$@" || die "$1 failed" 'its lines above say why'
}
