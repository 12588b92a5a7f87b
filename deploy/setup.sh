#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# setup.sh [build|demo|test|ci] [--fpga] [--cuda]: installs what that step needs and this machine lacks.
# Each step includes the ones before it. Distribution packages come by apt (sudo where not root);
# everything else goes into .deps/ beside the sources: a Python venv, ONNX Runtime where the
# distribution has none, and installed.txt, the record of what was added to the machine.
# --fpga: also the vendors' OpenCL runtimes that need no board, for the tests: Intel's FPGA emulator
# (500 MB, under Intel's licence, in .deps/fpga/intel), Xilinx' XRT, Oclgrind, and hls4ml.
# --cuda: also what executes models on an NVIDIA GPU, in .deps/onnxruntime-gpu: ONNX Runtime with CUDA
# (250 MB) and, where the machine has none, CUDA 13's libraries and cuDNN (1 GB, under NVIDIA's licences).
# Environment: PYTHON  the interpreter for the venv (default: the distribution's python3).
set -euo pipefail

level='' extras=''
for word in "$@"; do
    case $word in
    build | demo | test | ci) level=$word ;;
    --fpga | --cuda) extras+=" ${word#--}" ;;
    *)
        sed -n '3,11p' "$0" | cut -c3-
        exit 2
        ;;
    esac
done
# A step needs the packages of those before it.
case ${level:-build} in
build) steps=build ;;
demo) steps='build demo' ;;
test) steps='build demo test' ;;
ci) steps='build demo test ci' ;;
esac
steps+=$extras

top=$(cd "$(dirname "$0")/.." && pwd)
deps=$top/.deps
log=$deps/setup.log

# a|b: the first that the distribution has (Debian 13 renamed msgpack-c's C library).
packages_build='gcc libc6-dev meson ninja-build pkg-config libzmq3-dev libczmq-dev
    libmsgpack-c-dev|libmsgpack-dev libhiredis-dev libcmocka-dev ocl-icd-opencl-dev python3-venv'
packages_demo='redis-server pocl-opencl-icd'
packages_test=''
packages_ci='clang libclang-rt-dev llvm clang-format'
packages_cuda=''
packages_fpga='g++ oclgrind pocl-opencl-icd libxrt1 libxrt-dev libxrt-utils'

# ONNX Runtime, for distributions without libonnxruntime-dev. The library is the one inside the
# Python wheel, the C header the one of the next Debian; the library serves every older header.
ort_version=1.32.0
ort_header_suite=trixie
ort_header_api=21
declare -A ort_sha256=(
    [x86_64]=6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f
    [aarch64]=49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a
)

main() {
    mkdir -p "$deps" 2>/dev/null && [ -w "$deps" ] ||
        die "$deps cannot be written by $(id -un)" "give it to this user (chown -R) or remove it"
    exec 9>"$deps/.lock"
    flock -w 1800 9 || die "another set-up has held $deps/.lock for half an hour" "wait for it, or end it"
    : >"$log"
    install_packages
    make_venv
    fetch_onnxruntime
    local step
    for step in $steps; do
        case $step in
        demo) install_python demo "$top/models/requirements.txt" ;;
        test) install_python test "$top/tests/requirements.txt" ;;
        fpga) install_fpga ;;
        cuda) install_cuda ;;
        esac
    done
}

say() { printf 'setup: %s\n' "$1"; }

# die WHAT NEXT: what is wrong, what to do; the log's end where something ran.
die() {
    if [ -s "$log" ]; then
        tail -n 12 "$log" >&2
        printf 'setup: (all of it: %s)\n' "$log" >&2
    fi
    printf 'setup: %s\nsetup: what to do: %s\n' "$1" "$2" >&2
    exit 1
}

# retry WHAT COMMAND...: runs what reaches for the network up to four times, with growing pauses.
retry() {
    local what=$1 n
    shift
    for n in 1 2 3 4; do
        "$@" >>"$log" 2>&1 </dev/null && return 0
        [ $n = 4 ] || {
            say "$what failed, try $n of 4; again in $((n * 5)) s"
            sleep $((n * 5))
        }
    done
    return 1
}

# --- distribution packages -----------------------------------------------------------------------

# The words of the wanted list of which no alternative is installed.
missing_packages() {
    local installed word name found
    installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' 2>/dev/null) "
    for word in "$@"; do
        found=0
        for name in ${word//|/ }; do
            [[ $installed != *" installed:$name "* ]] || found=1
        done
        [ $found = 1 ] || printf '%s\n' "$word"
    done
}

install_packages() {
    local wanted='' step list missing
    for step in $steps; do
        list=packages_$step
        wanted+=" ${!list}"
    done
    command -v dpkg-query >/dev/null ||
        die 'this machine has no dpkg: set-up knows Debian and Ubuntu' \
            "install by hand: $wanted, and ONNX Runtime (meson setup -Donnxruntime=PREFIX)"
    # shellcheck disable=SC2086
    missing=$(missing_packages $wanted)
    [ -n "$missing" ] || return 0

    local names=() admin=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null ||
            die "these packages are missing, and there is neither root nor sudo here:" \
                "ask the administrator for: apt-get install $(choose_packages $missing; echo "${names[*]}")"
        admin=(sudo env)
    fi
    say "packages missing: $(echo $missing)"
    # shellcheck disable=SC2086
    retry 'apt-get update' update_packages $missing ||
        die "apt knows no package $word_unknown" 'look at the network and the apt sources, then run this again'
    ! apt_has libonnxruntime-dev || names+=(libonnxruntime-dev)

    local before after
    before=$(dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' | grep '^installed ' | sort)
    say "installing ${names[*]}"
    [[ " ${names[*]} " != *' redis-server '* ]] || guard_services
    retry 'apt-get install' "${admin[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 install --no-install-recommends "${names[@]}" ||
        die "apt-get could not install ${names[*]}" 'see the lines above; mend apt, then run this again'
    unguard_services
    after=$(dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' | grep '^installed ' | sort)
    comm -13 <(printf '%s\n' "$before") <(printf '%s\n' "$after") |
        sed 's/^installed /apt /' >>"$deps/installed.txt"
}

# An update that fails for a source that we do not need is no failure, and apt-get calls one that
# reached nothing a success: what counts is that apt knows the packages afterwards.
update_packages() {
    "${admin[@]}" apt-get -q -o DPkg::Lock::Timeout=300 update || true
    choose_packages "$@"
}

# Sets names: for each word its first alternative that apt has.
choose_packages() {
    local word name
    names=()
    for word in "$@"; do
        word_unknown=$word
        for name in ${word//|/ }; do
            ! apt_has "$name" || { word_unknown=''; break; }
        done
        [ -z "$word_unknown" ] || return 1
        names+=("$name")
    done
}

apt_has() { [[ $(LC_ALL=C apt-cache policy "$1" 2>/dev/null) == *'Candidate: '[!\(]* ]]; }

# The farm starts a Redis of its own: installing redis-server must leave no service behind, neither
# now (policy-rc.d, unless the machine has one) nor at the next boot (disabled).
guard=
guard_services() {
    [ -e /usr/sbin/policy-rc.d ] || {
        guard=/usr/sbin/policy-rc.d
        trap unguard_policy EXIT
        printf '#!/bin/sh\n# sonic set-up, for the length of one apt-get install\nexit 101\n' |
            "${admin[@]}" tee $guard >/dev/null
        "${admin[@]}" chmod 755 $guard
    }
    redis_is_new=1
}

unguard_policy() {
    [ -z "$guard" ] || "${admin[@]}" rm -f "$guard"
    guard=
}

redis_is_new=0
unguard_services() {
    unguard_policy
    [ $redis_is_new = 0 ] || {
        "${admin[@]}" update-rc.d redis-server disable >>"$log" 2>&1 || true
        say 'redis-server is installed with its system service disabled: the farm starts its own'
    }
}

# --- Python --------------------------------------------------------------------------------------

make_venv() {
    local python=${PYTHON:-/usr/bin/python3} now
    now=$(readlink -f "$(command -v "$python")") || die "no Python at $python" 'set PYTHON to one that has venv'
    [ "$now" != "$(cat "$deps/venv/made-with" 2>/dev/null)" ] || return 0
    say "making .deps/venv with $now"
    rm -rf "$deps/venv"
    "$python" -m venv "$deps/venv" >>"$log" 2>&1 ||
        die "$python could not make a venv" 'set PYTHON to an interpreter that has the venv module'
    printf '%s\n' "$now" >"$deps/venv/made-with"
}

# install_python STEP REQUIREMENTS: once per content of the file.
install_python() {
    local stamp=$deps/venv/installed-$1
    cmp -s "$2" "$stamp" && return
    say "installing Python packages into .deps/venv: $(grep -oE '^[a-z0-9_-]+==\S+' "$2" | tr '\n' ' ')"
    mkdir -p "$deps/wheels"
    retry 'pip install' "$deps/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: \
        --find-links "$deps/wheels" -r "$2" ||
        die "pip could not install ${2#"$top/"}" 'look at the network and the package index, then run this again'
    cp "$2" "$stamp"
}

# --- ONNX Runtime --------------------------------------------------------------------------------

fetch_onnxruntime() {
    local at=$deps/onnxruntime want="$ort_version header $ort_header_api"
    [ "$want" != "$(cat "$at/version" 2>/dev/null)" ] || return 0
    ! pkg-config --exists libonnxruntime || return 0
    local cpu sum
    cpu=$(uname -m)
    sum=${ort_sha256[$cpu]-}
    [ -n "$sum" ] || die "no ONNX Runtime is known for $cpu" 'build one and give meson -Donnxruntime=PREFIX'
    rm -rf "$at" "$at.part"
    mkdir -p "$at.part/lib" "$deps/wheels"
    trap 'rm -rf "$deps/onnxruntime.part"; unguard_policy' EXIT

    say "ONNX Runtime: the C API's header, from $ort_header_suite's libonnxruntime-dev"
    fetch_header "$at.part"
    say "ONNX Runtime: the library, from the Python wheel onnxruntime $ort_version"
    retry 'the download' "$deps/venv/bin/python" -m pip download -q --disable-pip-version-check --no-deps \
        --only-binary :all: -d "$deps/wheels" "onnxruntime==$ort_version" ||
        die "the wheel onnxruntime $ort_version could not be downloaded" \
            'look at the network and the package index, then run this again'
    unpack_library "$at.part" "$sum"
    verify_library "$at.part/lib/libonnxruntime.so.1"
    printf '%s\n' "$want" >"$at.part/version"
    mv "$at.part" "$at"
}

unpack_library() { # PREFIX SHA256
    local lib=$1/lib
    "$deps/venv/bin/python" - "$deps/wheels" "$ort_version" "$1" >>"$log" 2>&1 <<'PY' ||
import glob, os, sys, zipfile
wheels, version, prefix = sys.argv[1:]
wheel = zipfile.ZipFile(sorted(glob.glob(f"{wheels}/onnxruntime-{version}-*.whl"))[-1])
for member, target in ((f"capi/libonnxruntime.so.{version}", f"lib/libonnxruntime.so.{version}"),
                       ("LICENSE", "LICENSE"), ("ThirdPartyNotices.txt", "ThirdPartyNotices.txt")):
    with open(os.path.join(prefix, target), "wb") as out:
        out.write(wheel.read(f"onnxruntime/{member}"))
PY
        die "the wheel onnxruntime $ort_version does not hold its library" "remove $deps/wheels and run this again"
    echo "$2  $lib/libonnxruntime.so.$ort_version" | sha256sum -c --quiet >>"$log" 2>&1 ||
        die "libonnxruntime.so.$ort_version is not the one that this version of SONIC was tested with" \
            "remove $deps/wheels and run this again; if it stays so, the package index serves another build"
    chmod 755 "$lib/libonnxruntime.so.$ort_version"
    ln -s "libonnxruntime.so.$ort_version" "$lib/libonnxruntime.so.1"
    ln -s libonnxruntime.so.1 "$lib/libonnxruntime.so"
}

# The library loads here, is the version it claims, and serves the header's API.
verify_library() {
    "$deps/venv/bin/python" - "$1" "$ort_version" "$ort_header_api" >>"$log" 2>&1 <<'PY' ||
import ctypes, sys
class Base(ctypes.Structure):
    _fields_ = [("get_api", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)),
                ("get_version", ctypes.CFUNCTYPE(ctypes.c_char_p))]
library = ctypes.CDLL(sys.argv[1])
library.OrtGetApiBase.restype = ctypes.POINTER(Base)
base = library.OrtGetApiBase().contents
version = base.get_version().decode()
assert version == sys.argv[2], f"{sys.argv[1]} says it is version {version}"
assert base.get_api(int(sys.argv[3])), f"{sys.argv[1]} does not serve API {sys.argv[3]}"
PY
        die "$1 does not work on this machine" 'build an ONNX Runtime and give meson -Donnxruntime=PREFIX'
}

# fetch_header PREFIX: downloads (never installs) libonnxruntime-dev of the suite that has it, by the
# machine's own apt entry for its distribution, with the suite replaced, in an apt state of its own.
fetch_header() {
    local codename work entry apt
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    work=$(mktemp -d "$deps/apt.XXXXXX")
    mkdir -p "$work"/{entries,state/lists/partial,cache/archives/partial}
    : >"$work/status"
    suite_entries "$codename" "$work/entries"
    for entry in "$work"/entries/*; do
        apt=(apt-get -q -o "Dir::State=$work/state" -o "Dir::State::status=$work/status"
            -o "Dir::Cache=$work/cache" -o "Dir::Etc::sourcelist=$entry" -o Dir::Etc::sourceparts=-
            -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any -o Acquire::Languages=none)
        [ -e "$entry" ] && retry "apt-get update of $ort_header_suite" "${apt[@]}" update &&
            (cd "$work" && retry 'the download' "${apt[@]}" download libonnxruntime-dev) && break
    done
    set -- "$1" "$work"/libonnxruntime-dev_*.deb
    [ -e "$2" ] || {
        rm -rf "$work"
        die "libonnxruntime-dev of $ort_header_suite could not be downloaded by the apt sources of this machine" \
            'look at the network and run this again, or give meson -Donnxruntime=PREFIX'
    }
    dpkg -x "$2" "$work/root"
    cp -r "$work/root/usr/include" "$1/include"
    rm -rf "$work"
    grep -q "^#define ORT_API_VERSION $ort_header_api\$" "$1/include/onnxruntime/onnxruntime_c_api.h" ||
        die "libonnxruntime-dev of $ort_header_suite has another API version than $ort_header_api" \
            'give meson -Donnxruntime=PREFIX, or mend ort_header_api in deploy/setup.sh'
}

# suite_entries CODENAME FOLDER: a sources file in FOLDER per apt entry of the main archive, both formats.
suite_entries() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        case $file in
        *.list)
            grep -E "^deb (\[[^]]*\] )?[^ ]+ $1 " "$file" |
                sed -E "s/^(deb (\[[^]]*\] )?[^ ]+) $1 .*/\1 $ort_header_suite main/" |
                split -l 1 --additional-suffix=.list - "$2/$(basename "$file" .list)-" || true
            ;;
        *.sources)
            awk -v RS= -v suite="$1" -v new="$ort_header_suite" -v out="$2/$(basename "$file" .sources)-" '
                $0 ~ "(^|\n)Suites:[^\n]*[ \t]" suite "([ \t\n]|$)" && $0 ~ "(^|\n)Types:[^\n]*deb([ \t\n]|$)" {
                    gsub(/(^|\n)#[^\n]*/, "")
                    sub(/^\n/, "")
                    sub(/Suites:[^\n]*/, "Suites: " new)
                    sub(/Types:[^\n]*/, "Types: deb")
                    sub(/Components:[^\n]*/, "Components: main")
                    print >(out NR ".sources")
                }' "$file"
            ;;
        esac
    done
}

# --- the FPGA vendors' runtimes ------------------------------------------------------------------

# The last release that carries the emulator with its configuration.
intel_wheels='intel-opencl-rt==2023.2.4 intel-cmplr-lib-rt==2023.2.4 tbb==2021.13.1'

install_fpga() {
    fetch_intel_emulator
    make_xrt_folder
    install_hls4ml
}

# Of the wheels' gigabyte only what the emulator loads: its library, compiler and maths.
fetch_intel_emulator() {
    local at=$deps/fpga/intel
    [ "$intel_wheels" != "$(cat "$at/version" 2>/dev/null)" ] || return 0
    [ "$(uname -m)" = x86_64 ] || {
        say "Intel's FPGA emulator is there for x86_64 only: its tests will be skipped"
        return 0
    }
    say "Intel's FPGA emulator, from the Python wheels $intel_wheels"
    rm -rf "$at" "$at.part"
    mkdir -p "$at.part/wheels"
    # shellcheck disable=SC2086
    retry 'the download' "$deps/venv/bin/python" -m pip download -q --disable-pip-version-check --no-deps \
        --no-cache-dir --only-binary :all: -d "$at.part/wheels" $intel_wheels ||
        die "Intel's wheels could not be downloaded" 'look at the network and the package index, then run this again'
    "$deps/venv/bin/python" - "$at.part" >>"$log" 2>&1 <<'PY' ||
import glob, os, re, sys, zipfile
keep = re.compile(r"libintelocl_emu\.so|cl\.fpga_emu\.cfg|libcommon_clang\.so|clbltfn\w+\.rtl|cllibrary\w*\.(rtl|o)|"
                  r"__ocl_svml_\w+\.so|lib(svml|imf|irng|intlc)\.so(\.5)?|libtbb(malloc)?\.so\.\d+|LICENSE.*|EULA.*")
for path in glob.glob(sys.argv[1] + "/wheels/*.whl"):
    with zipfile.ZipFile(path) as wheel:
        for member in wheel.namelist():
            name = os.path.basename(member)
            if keep.fullmatch(name):
                name = name if "lib/" in member else f"{os.path.basename(path).split('-')[0]}-{name}"
                with open(os.path.join(sys.argv[1], name), "wb") as out:
                    out.write(wheel.read(member))
assert os.path.exists(sys.argv[1] + "/libintelocl_emu.so")
PY
        die "Intel's wheels do not hold the emulator" 'run this again; if it stays so, the package index serves others'
    rm -rf "$at.part/wheels"
    printf '%s\n' "$intel_wheels" >"$at.part/version"
    mv "$at.part" "$at"
}

# XRT looks for its parts in $XILINX_XRT/lib; the distribution has them among all others.
make_xrt_folder() {
    local library
    library=$(ldconfig -p | sed -n 's/.*libxilinxopencl\.so\.2 .*=> //p' | head -n 1)
    [ -n "$library" ] || die 'libxrt1 is installed, and libxilinxopencl.so.2 is not there' 'look at the package libxrt1'
    mkdir -p "$deps/fpga/xrt"
    ln -sfn "$(dirname "$library")" "$deps/fpga/xrt/lib"
}

# In a venv of its own: what it needs must not decide what the models are built with.
install_hls4ml() {
    local at=$deps/fpga/hls4ml wanted=$top/tests/fpga/requirements.txt
    ! cmp -s "$wanted" "$at/installed" || return 0
    say "installing into .deps/fpga/hls4ml: $(grep -oE '^[a-z0-9_-]+==\S+' "$wanted" | tr '\n' ' ')"
    rm -rf "$at"
    "$(cat "$deps/venv/made-with")" -m venv "$at" >>"$log" 2>&1 || die 'no venv for hls4ml' 'see the lines above'
    retry 'pip install' "$at/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: -r "$wanted" ||
        die "pip could not install ${wanted#"$top/"}" 'look at the network and the package index, then run this again'
    cp "$wanted" "$at/installed"
}

# --- NVIDIA GPUs ---------------------------------------------------------------------------------

# One wheel for every Python here: of another Python's wheel the provider is another build.
ort_gpu_wheel='onnxruntime-gpu==1.31.1'
ort_gpu_python='--python-version 3.11 --implementation cp --platform manylinux_2_28_x86_64
    --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64'
ort_gpu_sha256='5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303  libonnxruntime.so.1.31.1
d5290158115fa5569a3fe8f1f4037ee9b0e86658a96e52f852bbb7039aa88137  libonnxruntime_providers_cuda.so
086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d  libonnxruntime_providers_shared.so
1882ee49fdb0e6fc2d272b00cfaf9a3310bf8580a34385c0eec4d82014ea172e  libonnxruntime_providers_tensorrt.so'
# What the provider links and loads of CUDA 13, and where to have it.
cuda_libraries='libcudart.so.13 libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libcudnn.so.9 libnvrtc.so.13'
cuda_wheels='nvidia-cuda-runtime==13.0.96 nvidia-cublas==13.1.0.3 nvidia-curand==10.4.0.35
    nvidia-cudnn-cu13==9.19.0.56 nvidia-cuda-nvrtc==13.0.88'

install_cuda() {
    local at=$deps/onnxruntime-gpu wheels=$ort_gpu_wheel known library
    [ "$(uname -m)" = x86_64 ] || {
        say 'ONNX Runtime with CUDA is there for x86_64 only: nothing is installed for GPUs'
        return 0
    }
    known=$(ldconfig -p)
    for library in $cuda_libraries; do
        [[ $known == *"$library "* ]] || { wheels+=" $(echo $cuda_wheels)"; break; }
    done
    # A folder with CUDA's libraries serves a machine that has its own by now as well.
    [[ $(cat "$at/version" 2>/dev/null) != "$wheels"* ]] || return 0
    say "ONNX Runtime with CUDA, from the Python wheels $wheels"
    rm -rf "$at.part"
    mkdir -p "$at.part/wheels" "$at.part/lib"
    trap 'rm -rf "$deps/onnxruntime-gpu.part"; unguard_policy' EXIT
    # shellcheck disable=SC2086
    retry 'the download' "$deps/venv/bin/python" -m pip download -q --disable-pip-version-check --no-deps \
        --no-cache-dir --only-binary :all: $ort_gpu_python -d "$at.part/wheels" $wheels ||
        die 'the wheels for GPUs could not be downloaded' 'look at the network and the package index, then run this again'
    unpack_cuda "$at.part"
    rm -rf "$at.part/wheels"
    printf '%s\n' "$wheels" >"$at.part/version"
    rm -rf "$at"
    mv "$at.part" "$at"
}

# Shared libraries alone, and the licences; each wheel has its own idea of where they are.
unpack_cuda() { # PREFIX
    "$deps/venv/bin/python" - "$1" >>"$log" 2>&1 <<'PY' ||
import glob, os, re, shutil, sys, zipfile
prefix = sys.argv[1]
library = re.compile(r"(onnxruntime/capi|nvidia/\w+/lib)/(lib[\w-]+\.so(\.[\d.]+)?)")
licence = re.compile(r"(.*/)?(LICENSE|License|ThirdPartyNotices)[\w.]*")
for path in glob.glob(prefix + "/wheels/*.whl"):
    with zipfile.ZipFile(path) as wheel:
        for member in wheel.namelist():
            to = library.fullmatch(member)
            if to:
                to = f"lib/{to[2]}"
            elif licence.fullmatch(member):
                to = f"{os.path.basename(path).split('-')[0]}-{os.path.basename(member)}"
            if to:
                with wheel.open(member) as data, open(os.path.join(prefix, to), "wb") as out:
                    shutil.copyfileobj(data, out)
PY
        die 'the wheels for GPUs cannot be unpacked' "look at the room below $deps, and run this again"
    (cd "$1/lib" && echo "$ort_gpu_sha256" | sha256sum -c --quiet) >>"$log" 2>&1 ||
        die "the wheel $ort_gpu_wheel is not the one that this version of SONIC was tested with" \
            'run this again; if it stays so, the package index serves another build'
    (cd "$1/lib" && chmod 755 lib* && ln -s libonnxruntime.so.?* libonnxruntime.so.1)
    # It loads wherever it lies, GPU or not: what needs one is the provider.
    "$deps/venv/bin/python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1]).OrtGetApiBase' \
        "$1/lib/libonnxruntime.so.1" >>"$log" 2>&1 ||
        die "$ort_gpu_wheel does not work on this machine" 'see the lines above'
}

main
