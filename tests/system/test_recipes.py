# SPDX-License-Identifier: Apache-2.0
"""The recipes for boards (deploy/fpga), without a vendor's compiler: what they say where it is missing,
what they would call it with, and that the manifest names what came of it."""

import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest

from conftest import ROOT
from test_opencl import opencl, start_worker  # noqa: F401 (a fixture)
from test_spatial import CONFIG, answers_of, raw_rows, spatial

FPGA = ROOT / "deploy" / "fpga"
RECIPES = {"xilinx": (FPGA / "xilinx" / "build.sh", "v++"), "intel": (FPGA / "intel" / "build.sh", "aoc")}
PLATFORM = "xilinx_u250_gen3x16_xdma_4_1_202210_1"
# Notes its arguments, a line a call, and makes what -o names; fails where the test says so.
COMPILER = """#!/bin/sh
printf '%s\\n' "$*" >>"$RECIPE_LOG"
[ -z "$RECIPE_FAILS" ] || exit 9
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made >"$2"; shift; done
"""


@pytest.fixture
def recipe(tmp_path):
    """Runs a vendor's recipe over FACILE's bundle, with a compiler that only notes; returns
    (the process, the compiler's calls, the manifest's programs)."""
    fixed = spatial.Fixed([np.zeros((a, b), np.int64) for a, b in ((47, 31), (31, 11), (11, 3), (3, 1))],
                          [np.zeros(n, np.int64) for n in (31, 11, 3, 1)],
                          np.ones(spatial.NUMBERS, np.float32), np.zeros(spatial.NUMBERS, np.float32))
    bundle = tmp_path / "models" / "facile" / "1" / "opencl"
    bundle.mkdir(parents=True)
    (tmp_path / "models" / "facile" / "config.pbtxt").write_text(CONFIG.format(name="facile"))
    (bundle / "facile.cl").write_text(spatial.kernel(fixed))
    (bundle / "bundle.pbtxt").write_text(spatial.manifest(fixed))
    log, bin_ = tmp_path / "calls", tmp_path / "bin"
    bin_.mkdir()

    def run(vendor, *args, there=True, fails=""):
        script, name = RECIPES[vendor]
        for other in bin_.iterdir():
            other.unlink()
        if there:
            (bin_ / name).write_text(COMPILER)
            (bin_ / name).chmod(0o755)
        log.unlink(missing_ok=True)
        done = subprocess.run([script, *args], capture_output=True, text=True, timeout=60, check=False,
                              env={"PATH": f"{bin_}:/usr/bin:/bin", "RECIPE_LOG": str(log), "RECIPE_FAILS": fails})
        calls = log.read_text().splitlines() if log.exists() else []
        programs = [line for line in (bundle / "bundle.pbtxt").read_text().splitlines() if line.startswith("program")]
        return done, calls, programs

    run.bundle, run.models = bundle, tmp_path / "models"
    return run


def assert_told(done, *words):
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("vendor, args, words", [
    ("xilinx", ("--platform", PLATFORM), ("v++ is not there", "Vitis")),
    ("intel", ("--board", "pac_a10"), ("aoc is not there", "Intel FPGA SDK for OpenCL")),
])
def test_a_missing_compiler_is_told_in_one_line(recipe, vendor, args, words):
    done, _, programs = recipe(vendor, recipe.bundle, *args, there=False)
    assert_told(done, *words)
    assert programs == ['program { source: "facile.cl" }']


@pytest.mark.parametrize("vendor, option, value", [("xilinx", "--platform", PLATFORM), ("intel", "--board", "pac_a10")])
def test_what_is_wrong_is_told_before_anything_is_compiled(recipe, vendor, option, value):
    for args, words in (
        ((recipe.bundle,), ("are needed",)),
        ((recipe.bundle, option), (f"{option} takes a value",)),
        ((recipe.bundle, option, value, "--clok", "1"), ("there is no --clok",)),
        ((recipe.models, option, value), ("bundle.pbtxt is not there", "make models")),
    ):
        done, calls, _ = recipe(vendor, *args)
        assert_told(done, *words)
        assert not calls
    (recipe.bundle / "facile.cl").rename(recipe.bundle / "other.cl")
    assert_told(recipe(vendor, recipe.bundle, option, value)[0], "facile.cl is not there")


def test_what_vitis_is_called_with(recipe):
    done, calls, programs = recipe("xilinx", recipe.bundle, "--platform", PLATFORM)
    assert done.returncode == 0, done.stderr
    work = recipe.bundle / "facile.hw"
    common = f"-t hw --platform {PLATFORM} --temp_dir {work}/temp --log_dir {work}/logs --report_dir {work}/reports"
    assert calls == [
        f"-c {common} --kernel_frequency 300 -k facile -o {work}/facile.xo {recipe.bundle}/facile.cl",
        f"-l {common} --kernel_frequency 300 --optimize 2 --config {FPGA}/xilinx/facile.cfg"
        f" -o {work}/facile.xclbin {work}/facile.xo",
    ]
    assert [shlex.split(line)[2:] for line in done.stdout.splitlines() if line.startswith("+ v++")] == [c.split() for c in calls]
    assert (recipe.bundle / "facile.xclbin").read_text() == "made\n"
    assert programs[0] == 'program { platform: "Xilinx" binary: "facile.xclbin" units: "facile_1" units: "facile_2" }'
    again = recipe("xilinx", recipe.bundle, "--platform", PLATFORM, "--target", "hw_emu", "--clock", "250")
    assert "-t hw_emu" in again[1][0] and "--kernel_frequency 250" in again[1][0]
    assert again[2] == programs  # once


def test_what_aoc_is_called_with(recipe):
    done, calls, programs = recipe("intel", recipe.bundle, "--board", "pac_a10", "--package", "/opt/bsp", "--report")
    assert done.returncode == 0, done.stderr
    end = f"-o {recipe.bundle}/facile.aocx {recipe.bundle}/facile.cl"
    assert calls == [f"-board=pac_a10 -board-package=/opt/bsp -clock=240MHz -rtl -report {end}"]
    assert len(programs) == 1  # nothing to load came of it
    done, calls, programs = recipe("intel", recipe.bundle, "--board", "pac_a10", "--clock", "300")
    assert calls == [f"-board=pac_a10 -clock=300MHz {end}"]
    assert programs[0] == 'program { platform: "Intel(R) FPGA SDK" binary: "facile.aocx" }'


@pytest.mark.parametrize("vendor, args", [("xilinx", ("--platform", PLATFORM)), ("intel", ("--board", "pac_a10"))])
def test_a_compiler_that_fails_leaves_the_manifest(recipe, vendor, args):
    done, calls, programs = recipe(vendor, recipe.bundle, *args, fails="yes")
    assert_told(done, "failed", "say why")
    assert len(calls) == 1 and len(programs) == 1


def test_the_banks_are_of_arguments_that_the_kernel_has(recipe):
    signature = re.search(r"facile\(([^)]*)\)", (recipe.bundle / "facile.cl").read_text()).group(1)
    names = {re.split(r"\W+", argument.strip())[-1] for argument in signature.split(",")}
    placed = re.findall(r"^sp=facile_\d\.(\w+):", (FPGA / "xilinx" / "facile.cfg").read_text(), re.M)
    assert set(placed) == names - {"rows"} and len(placed) == 4


def test_a_device_of_neither_vendor_still_takes_the_source(recipe, opencl, tmp_path):  # noqa: F811
    """The manifest with both recipes' programs is one, and they are passed over."""
    recipe("xilinx", recipe.bundle, "--platform", PLATFORM)
    assert len(recipe("intel", recipe.bundle, "--board", "pac_a10")[2]) == 3
    shutil.copytree(recipe.models / "facile", opencl.models / "facile")
    start_worker(opencl)
    answers = answers_of(opencl, tmp_path, "facile", raw_rows()[:100])
    np.testing.assert_array_equal(answers, np.float32(0.01))  # the weights are 0, and 0 is below the least
