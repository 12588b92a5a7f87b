#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# uninstall.sh BUILD: removes the files that the last `make install` of that build folder wrote, by
# its log, and the folders it made where they are empty. Says what set-up added to the machine.
set -euo pipefail
build=$1
deps=$(cd "$(dirname "$0")/.." && pwd)/.deps
log=$build/meson-logs/install-log.txt
[ -f "$log" ] || log=$deps/install-log.txt # where make clean keeps it

if [ -f "$log" ]; then
    # meson writes a folder after its content
    grep -v '^#' "$log" | while IFS= read -r path; do
        if [ -d "$path" ] && [ ! -L "$path" ]; then
            rmdir --ignore-fail-on-non-empty -- "$path"
        else
            rm -f -- "$path"
        fi
    done
    # A later install over an earlier one logs no folder, because they were there: ours are known.
    grep -E '/(lib|share/doc)/(.*/)?sonic/' "$log" | while IFS= read -r path; do
        while path=${path%/*} && [[ $path =~ /(lib/(.*/)?sonic|share/doc/sonic(/.*)?)$ ]]; do
            [ ! -d "$path" ] || rmdir --ignore-fail-on-non-empty -- "$path"
        done
    done
    rm -f "$log"
    echo 'uninstall: what make install wrote is removed'
else
    echo "uninstall: make install has not run from this folder: there is no log of what it wrote"
fi
if [ -s "$deps/installed.txt" ]; then
    echo 'uninstall: set-up installed these distribution packages, which stay (others may need them by now);'
    echo 'uninstall: to remove them: apt-get remove' "$(awk '$1 == "apt" { printf "%s ", $2 }' "$deps/installed.txt")"
fi
[ ! -d "$deps" ] || echo "uninstall: what set-up fetched is in $deps; remove that folder when it is no longer needed"
