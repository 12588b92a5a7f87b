# SPDX-License-Identifier: Apache-2.0
"""Intel's FPGA emulator as a board is used: programs from saved binaries, kernels that talk through
channels, two boards in one farm."""

import os
import re
import subprocess

import numpy as np
import pytest

import fpga
from conftest import BUILD, wait_until
from test_broker import status_value
from test_opencl import DEVICE, check, device_of, run_worker, write_bundle
from test_spatial import answers_of, raw_manifest, raw_rows, recorded, write_model, spatial

COMPILE = BUILD / "tests" / "fpga" / "compile"
QUICK = 'parameters { key: "sonic_device_timeout_ms" value { string_value: "2000" } }'
PROGRAM = 'program { source: "facile.cl" }'
BINARY = 'program { platform: "Intel(R) FPGA" binary: "facile.aocx" }'
TWICE = """
__kernel void toy(__global const float *x, __global float *y)
{
    int i = get_global_id(0);
    y[i] = 2 * x[i];
}
"""


@pytest.fixture
def intel(farm, monkeypatch):
    """A farm with a broker; the environment of its workers is that of the emulator."""
    if not DEVICE.exists():
        pytest.skip("built without OpenCL (deploy/setup.sh installs its headers and loader)")
    for name, value in fpga.intel_env(boards=2).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(farm.folder))
    farm.start_redis()
    farm.start_broker()
    return farm


def compile_program(text, binary, **env):
    """What aoc does for a board: the saved binary, without its source."""
    source = binary.with_suffix(".cl")
    source.write_text(text)
    subprocess.run([COMPILE, source, binary], check=True, timeout=120, env={**os.environ, **env})
    source.unlink()


def aocx(farm, name, text, manifest=None, **env):
    """A model whose bundle holds a binary alone; returns its path."""
    fixed, _, _ = recorded()
    manifest = manifest or raw_manifest(fixed)
    write_model(farm, name, manifest.replace(PROGRAM, BINARY), "")
    folder = farm.models / name / "1" / "opencl"
    (folder / "facile.cl").unlink()
    binary = folder / "facile.aocx"
    compile_program(text, binary, **env)
    return binary


def toy_aocx(farm, name="bad", text=TWICE, **env):
    """The doubling model from a binary."""
    folder = write_bundle(farm, name, "")
    manifest = folder / "bundle.pbtxt"
    manifest.write_text(manifest.read_text().replace('source: "toy.cl"', 'binary: "toy.aocx"'))
    (folder / "toy.cl").unlink()
    compile_program(text, folder / "toy.aocx", **env)
    return folder / "toy.aocx"


def refusal(farm, name="bad"):
    """The one line of a worker that cannot serve the model."""
    done = run_worker(farm, "Intel", "--model", name)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


# ---- FACILE -------------------------------------------------------------------------------------


def test_a_saved_binary_is_loaded_without_source(intel, tmp_path):
    """Bit for bit hls4ml's answers; and to load it is told to be a reconfiguration, with its cost."""
    fixed, _, answers = recorded()
    aocx(intel, "raw", spatial.kernel(fixed))
    intel.start_worker("o", "opencl:Intel")
    np.testing.assert_array_equal(answers_of(intel, tmp_path, "raw", raw_rows()), answers)
    told = re.compile(r"raw/1:[\d.]+MiB:\d+ms:reconfigures")
    wait_until(lambda: told.search(intel.ask("placement").stdout), "the load's cost in the placement")
    assert not list(intel.folder.glob("sonic-opencl/*"))  # nothing was built


@pytest.mark.parametrize("kind", ["source", "binary"])
def test_kernels_that_talk_through_channels(intel, tmp_path, kind):
    """A reader, the pipeline and a writer at the same time, for many runs on four slots: no row is
    lost, none comes twice, none is another run's."""
    fixed, _, answers = recorded()
    manifest, program = raw_manifest(fixed, channels=True), spatial.kernel(fixed, channels=True)
    if kind == "source":
        write_model(intel, "raw", manifest, program)
    else:
        aocx(intel, "raw", program, manifest)
    worker = intel.start_worker("o", "opencl:Intel")
    got = answers_of(intel, tmp_path, "raw", raw_rows(), "--batch", 700)
    np.testing.assert_array_equal(got, answers)
    assert worker.alive() and status_value(intel, "redispatched") == 0


def test_a_channel_that_nobody_fills_is_ended_by_the_watchdog(intel, rows, tmp_path):
    """The pipeline waits for one row more than there are: no error ever comes of the runtime."""
    fixed, _, _ = recorded()
    program = spatial.kernel(fixed, channels=True)
    waiting = program.replace("for (int r = 0; r < rows; r++) {\n        const uint16 row = read",
                              "for (int r = 0; r <= rows; r++) {\n        const uint16 row = read")
    assert waiting != program
    write_model(intel, "stuck", raw_manifest(fixed, channels=True), waiting, extra=QUICK)
    write_bundle(intel, "twice", "y[i] = 2 * x[i];")
    worker = intel.start_worker("o", "opencl:Intel")
    before = device_of(worker)
    np.save(tmp_path / "in.npy", raw_rows()[:100].astype(np.float32))
    done = intel.submit("stuck", tmp_path / "in.npy", tmp_path / "out.npy")
    assert done.returncode != 0 and not (tmp_path / "out.npy").exists()
    assert "POISON" in done.stderr
    assert "has not ended after 2000 ms" in worker.text()
    check(intel, rows, tmp_path, "twice", 1000, lambda x: 2 * x)  # the device is back
    assert worker.alive() and device_of(worker) not in (before, None)


def test_two_boards_in_one_farm(intel, tmp_path):
    fixed, _, answers = recorded()
    aocx(intel, "raw", spatial.kernel(fixed))
    for board in (0, 1):
        intel.start_worker(f"board{board}", f"opencl:Intel:{board}")
    for _ in range(20):
        got = answers_of(intel, tmp_path, "raw", raw_rows(), "--batch", 100)
        np.testing.assert_array_equal(got, answers)
        answered = dict(re.findall(r"^(board\d) +opencl .*?(\d+)\s*$", intel.ask("status").stdout, re.M))
        if all(int(answered[f"board{board}"]) > 0 for board in (0, 1)):
            return
    pytest.fail(f"one board had nothing to do: {answered}")


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 63, 0.1, 0.5, 0.9, -1])
def test_a_truncated_binary_is_told_in_one_line(intel, keep):
    """keep: bytes, a part of them, or all but one."""
    binary = toy_aocx(intel)
    whole = binary.read_bytes()
    binary.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    text = refusal(intel)
    assert "toy.aocx" in text and "Intel(R) FPGA Emulation" in text, text


def test_a_binary_for_a_processor_that_is_not_here_is_told(intel, monkeypatch):
    """Built for this machine, loaded where the device claims to be an old one."""
    toy_aocx(intel)
    monkeypatch.setenv("CL_CONFIG_CPU_TARGET_ARCH", "corei7")
    text = refusal(intel)
    assert "toy.aocx" in text and "Intel(R) FPGA Emulation" in text, text


def test_a_binary_of_another_runtime_is_told(intel, monkeypatch):
    with monkeypatch.context() as pocl:
        pocl.delenv("OCL_ICD_VENDORS")
        toy_aocx(intel)
    text = refusal(intel)
    assert "toy.aocx is no program for this device" in text, text


def test_a_program_that_does_not_fit_the_device_is_told(intel):
    """More local memory than the device has."""
    text = TWICE.replace("int i", "__local float big[1 << 24];\n    big[get_local_id(0)] = x[0];\n    int i")
    toy_aocx(intel, text=text.replace("2 * x[i]", "x[i] + big[0]"))
    assert "local memory" in refusal(intel)


def test_buffers_that_do_not_fit_the_device_are_told(intel, monkeypatch):
    monkeypatch.setenv("CL_CONFIG_CPU_FORCE_GLOBAL_MEM_SIZE", "64MB")
    monkeypatch.setenv("CL_CONFIG_CPU_FORCE_MAX_MEM_ALLOC_SIZE", "64MB")
    write_bundle(intel, "bad", "y[i] = x[i];", rows=200_000)
    text = refusal(intel)
    assert "lower rows" in text and "4 slots" in text, text
