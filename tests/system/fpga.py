# SPDX-License-Identifier: Apache-2.0
"""The FPGA vendors' OpenCL runtimes as deploy/setup.sh --fpga installs them: what a process needs in
its environment to use one. Where a runtime is not there the test is skipped in words; with
SONIC_FPGA=required (CI) it fails."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPS = ROOT / ".deps" / "fpga"


def missing(what):
    words = f"{what} is not installed: deploy/setup.sh --fpga"
    if os.environ.get("SONIC_FPGA") == "required":
        pytest.fail(words)
    pytest.skip(words)


def intel_env(boards=1):
    """Intel's FPGA Emulation Platform, and no other, with so many emulated boards."""
    library = DEPS / "intel" / "libintelocl_emu.so"
    if not library.exists():
        missing("Intel's FPGA emulator")
    return {"OCL_ICD_VENDORS": str(library), "CL_CONFIG_CPU_EMULATE_DEVICES": str(boards)}


def xrt_env():
    """Xilinx' XRT, and no other, in the mode that does all but compute."""
    folder = DEPS / "xrt"
    library = folder / "lib" / "libxilinxopencl.so.2"
    if not library.exists():
        missing("Xilinx' XRT")
    return {"OCL_ICD_VENDORS": str(library), "XILINX_XRT": str(folder), "XCL_EMULATION_MODE": "noop"}


def hls4ml_python():
    """The interpreter that has hls4ml."""
    python = DEPS / "hls4ml" / "bin" / "python"
    if not (DEPS / "hls4ml" / "installed").exists():
        missing("hls4ml")
    return python


def oclgrind():
    """The program."""
    for folder in os.environ["PATH"].split(":"):
        if os.access(f"{folder}/oclgrind", os.X_OK):
            return f"{folder}/oclgrind"
    missing("Oclgrind")
    return None
