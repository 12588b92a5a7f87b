# SPDX-License-Identifier: Apache-2.0
"""What no emulator does: a board that is lost, hangs, or has a library that ends the process.

The device is the tests' own (tests/fpga/stub_icd.h): a vendor's library with faults to order.
"""

import os
import shutil

import numpy as np
import pytest

from conftest import BUILD, WORKER, Process, wait_until
from test_broker import status_value
from test_opencl import DEVICE, check, run_worker, write_bundle

STUB = BUILD / "tests" / "fpga" / "libstub_icd.so"
BOARD = "SONIC stub, stub board"
MANIFEST = """
rows: {rows}
program {{ PROGRAM }}
buffer {{ name: "x" use: INPUT bytes: {bytes} }}
buffer {{ name: "y" use: OUTPUT bytes: {bytes} }}
input {{ tensor: "x" buffer: "x" type: FP32 }}
output {{ tensor: "y" buffer: "y" type: FP32 }}
launch {{ kernel: "KERNEL" arg {{ buffer: "x" }} arg {{ buffer: "y" }} global {{ size: 16 rows: true }} }}
"""
QUICK = 'parameters { key: "sonic_device_timeout_ms" value { string_value: "1000" } }'


def stub_bundle(farm, name, kernel="twice", program='source: "toy.cl"', rows=32, manifest=MANIFEST, **kwargs):
    text = manifest.replace("KERNEL", kernel).replace("PROGRAM", program)
    folder = write_bundle(farm, name, "", rows=rows, manifest=text, **kwargs)
    (folder / "toy.cl").write_text(f"{kernel}\n")
    return folder


@pytest.fixture
def stub(farm, monkeypatch):
    """A farm whose OpenCL is the stub: the model `twice` doubles."""
    if not DEVICE.exists() or not STUB.exists():
        pytest.skip("built without OpenCL (deploy/setup.sh installs its headers and loader)")
    monkeypatch.setenv("OCL_ICD_VENDORS", str(STUB))
    monkeypatch.setenv("XDG_CACHE_HOME", str(farm.folder))
    # A sanitizer would make an exit of the signal, and of a library's exit() in the middle a leak.
    options = ":handle_segv=0:handle_abort=0:detect_leaks=0"
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + options)
    stub_bundle(farm, "twice", extra=QUICK)
    farm.start_broker()
    return farm


def device_row(farm):
    """The device's line of the status, as {column: number}; {} while it has none."""
    lines = farm.ask("status").stdout.splitlines()
    for i, line in enumerate(lines):
        if line.startswith("DEVICE ") and i + 1 < len(lines):
            return dict(zip(line.split()[1:], map(float, lines[i + 1].split()[1:])))
    return {}


# ---- it works without faults --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "in-order"])
def test_the_stub_computes(stub, rows, tmp_path, monkeypatch, kind):
    """Also without a queue that runs out of order, and where the calls hang that are not needed."""
    monkeypatch.setenv("SONIC_STUB_DEVICE", kind)
    monkeypatch.setenv("SONIC_STUB_FAULTS", "clFinish=hang,clFlush=hang")
    stub.start_worker("o", "opencl")
    for n in (1, 7, 32, 64):  # padded, whole, split
        check(stub, rows, tmp_path, "twice", 999, lambda x: 2 * x, "--batch", n)


def test_times_that_are_not_told_are_not_invented(stub, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("SONIC_STUB_FAULTS", "profiling=zero")
    worker = stub.start_worker("o", "opencl")
    check(stub, rows, tmp_path, "twice", 999, lambda x: 2 * x, "--batch", 7)
    assert worker.alive() and not device_row(stub)


# ---- one fault ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault, words",
    [
        ("clEnqueueNDRangeKernel@10=-2", [BOARD, 'launching kernel "twice"', "CL_DEVICE_NOT_AVAILABLE (-2)"]),
        ("clEnqueueNDRangeKernel@10=-5", [BOARD, 'launching kernel "twice"', "CL_OUT_OF_RESOURCES (-5)"]),
        ("clEnqueueNDRangeKernel@10=-4", [BOARD, 'launching kernel "twice"', "CL_MEM_OBJECT_ALLOCATION_FAILURE (-4)"]),
        ("kernel@10=-14", [BOARD, 'in step "twice"', "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST (-14)"]),
        ("kernel@10=-5", [BOARD, 'in step "twice"', "CL_OUT_OF_RESOURCES (-5)"]),
        ("copy@40=-5", [BOARD, "in step", "CL_OUT_OF_RESOURCES (-5)"]),
        ("clWaitForEvents@10=-5", [BOARD, 'waiting for "the run"', "CL_OUT_OF_RESOURCES (-5)"]),
        ("clWaitForEvents@10=exit", [BOARD, "it left with status 3"]),
        ("clWaitForEvents@10=abort", [BOARD, "it died of signal 6"]),
        ("clEnqueueNDRangeKernel@10=segv", [BOARD, "it died of signal 11"]),
        ("clWaitForEvents@10=hang", [BOARD, "a run has not ended after 1000 ms"]),
        ("kernel@10=hang", [BOARD, "a run has not ended after 1000 ms"]),
    ],
)
def test_a_fault_costs_nobody_a_result(stub, rows, tmp_path, monkeypatch, fault, words):
    monkeypatch.setenv("SONIC_STUB_FAULTS", fault)
    monkeypatch.setenv("SONIC_STUB_ONCE", str(stub.folder / "had"))
    worker = stub.start_worker("o", "opencl")
    check(stub, rows, tmp_path, "twice", 999, lambda x: 2 * x, "--batch", 7)
    assert (stub.folder / "had").exists()
    line = next(x for x in worker.text().splitlines() if "event=device_fault" in x)
    for word in words:
        assert word.replace('"', "'") in line, line  # a log's quotes are its own
    assert status_value(stub, "redispatched") > 0
    wait_until(lambda: device_row(stub).get("faults") == 1, "the fault in the status")
    assert status_value(stub, "quarantined") == 0 and worker.alive()


# ---- faults again and again ---------------------------------------------------------------------


def test_a_quarantined_device_says_why_in_the_status(stub, rows, tmp_path, monkeypatch):
    """Five faults in ten minutes. The worker stays and offers nothing, also to the next broker."""
    stub_bundle(stub, "both", "copy", backend="null")
    monkeypatch.setenv("SONIC_STUB_FAULTS", "clEnqueueNDRangeKernel=-2")
    worker = stub.start_worker("o", "opencl")
    source, array = rows(8)
    for _ in range(6):  # a request is tried twice, then it is poison
        stub.submit("both", source, tmp_path / "out.npy", "--force", "--deadline", 5)
        if status_value(stub, "quarantined"):
            break
    reason = (
        f'o  opencl  quarantined: {BOARD}: launching kernel "copy": CL_DEVICE_NOT_AVAILABLE (-2)'
        " (5 faults in ten minutes)"
    )

    def told():
        lines = [x.split() for x in stub.ask("status").stdout.splitlines()]
        return any(" ".join(x[:2] + x[6:]) == " ".join(reason.split()) for x in lines)

    assert told(), stub.ask("status").stdout
    assert worker.alive() and "event=device_quarantined" in worker.text()

    # Another serves the model; nothing is sent to the one that is out.
    before = status_value(stub, "redispatched")
    stub.start_worker("c", "null")
    done = stub.submit("both", source, tmp_path / "out.npy", "--force")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), array)
    assert status_value(stub, "redispatched") == before

    # A broker that is started again learns it too, and that there is no model of this worker's.
    stub.processes[0].kill()
    stub.processes[0].wait()
    stub.start_broker()
    wait_until(told, "the reason in the new broker's status")
    done = stub.submit("both", source, tmp_path / "out.npy", "--force")
    assert done.returncode == 0, done.stderr

    # Mended: the worker is started anew, and the device serves.
    assert worker.end() == 0
    monkeypatch.delenv("SONIC_STUB_FAULTS")
    stub.start_worker("p", "opencl")
    check(stub, rows, tmp_path, "twice", 99, lambda x: 2 * x)
    assert status_value(stub, "quarantined") == 0


def test_a_device_that_does_not_come_back_is_quarantined_at_once(stub, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("SONIC_STUB_FAULTS", "clEnqueueNDRangeKernel@3=-2")
    worker = stub.start_worker("o", "opencl")
    (stub.models / "twice" / "1" / "opencl" / "toy.cl").unlink()
    source, _ = rows(8)
    stub.submit("twice", source, tmp_path / "out.npy", "--batch", 1, "--deadline", 2)
    wait_until(lambda: status_value(stub, "quarantined") == 1, "the quarantine")
    assert "toy.cl: No such file" in stub.ask("status").stdout
    assert worker.alive()


# ---- loading ------------------------------------------------------------------------------------


def refusal(farm, *args):
    done = run_worker(farm, "", "--model", "twice", *args)
    assert done.returncode == 5, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "fault, words",
    [
        ("clCreateContext=-6", [BOARD, "the device cannot be opened", "CL_OUT_OF_HOST_MEMORY (-6)"]),
        ("clCreateCommandQueue=-5", [BOARD, "the device cannot be opened", "CL_OUT_OF_RESOURCES (-5)"]),
        ("clCreateBuffer@3=-4", [BOARD, 'no device memory for buffer "x"', "CL_MEM_OBJECT_ALLOCATION_FAILURE (-4)"]),
        ("clBuildProgram=-11", [BOARD, "toy.cl does not build", "it needs 105 % of the board error: does not fit"]),
        ("clCreateKernel=-46", ['its program has no kernel "twice"']),
        ("clBuildProgram=exit", [BOARD, "failed while it loaded", "it left with status 3"]),
        ("clBuildProgram=segv", [BOARD, "failed while it loaded", "it died of signal 11"]),
        ("clCreateContext=abort", ["ended while it opened the device"]),
    ],
)
def test_a_fault_at_load_is_told_in_one_line(stub, monkeypatch, fault, words):
    monkeypatch.setenv("SONIC_STUB_FAULTS", fault)
    text = refusal(stub)
    for word in words:
        assert word in text, text


def test_a_platform_without_devices(stub, monkeypatch):
    monkeypatch.setenv("SONIC_STUB_DEVICE", "none")
    assert 'platform "SONIC stub" has no device: CL_DEVICE_NOT_FOUND (-1)' in refusal(stub)


def test_a_vendors_library_that_misses_another(stub, monkeypatch):
    """The ICD loader passes over it in silence: told are the file, and what is missing."""
    vendors = stub.folder / "vendors"
    vendors.mkdir()
    broken = stub.folder / "libbroken.so"
    broken.write_bytes(STUB.read_bytes().replace(b"libc.so.6\0", b"libq.so.6\0"))
    (vendors / "board.icd").write_text(f"{broken}\n")
    monkeypatch.setenv("OCL_ICD_VENDORS", str(vendors))
    text = refusal(stub)
    assert "none of 1 OpenCL libraries here shows a platform" in text
    assert "board.icd names a library that cannot be loaded: libq.so.6: cannot open shared object file" in text
    # Beside one that works, which is not the one asked for.
    (vendors / "stub.icd").write_text(f"{STUB}\n")
    done = run_worker(stub, "Xilinx")
    assert 'no OpenCL platform "Xilinx"; there are: "SONIC stub"; ' in done.stderr
    assert "libq.so.6: cannot open" in done.stderr


def test_a_bundle_larger_than_the_device(stub, monkeypatch):
    monkeypatch.setenv("SONIC_STUB_MIB", "1")
    shutil.rmtree(stub.models / "twice")
    stub_bundle(stub, "twice", rows=8192, batch_max=8192)  # 512 KiB, twice, in four slots
    text = refusal(stub)
    assert f"its buffers take 4194304 bytes in 4 slots; {BOARD} has 1048576" in text, text
    shutil.rmtree(stub.models / "twice")
    stub_bundle(stub, "twice", rows=32768, batch_max=8192)
    text = refusal(stub)
    assert f'buffer "x" has 2097152 bytes; {BOARD} takes 1048576 at most' in text, text


def test_a_program_for_another_device(stub):
    shutil.rmtree(stub.models / "twice")
    folder = stub_bundle(stub, "twice", program='binary: "toy.bin"')
    (folder / "toy.bin").write_bytes(b"another board's program")
    assert "toy.bin is no program for this device: CL_INVALID_BINARY (-42)" in refusal(stub)


# ---- what a placement is told -------------------------------------------------------------------


def test_placement_shows_what_a_load_costs(farm, monkeypatch):
    if not DEVICE.exists() or not STUB.exists():
        pytest.skip("built without OpenCL (deploy/setup.sh installs its headers and loader)")
    monkeypatch.setenv("OCL_ICD_VENDORS", str(STUB))
    monkeypatch.setenv("XDG_CACHE_HOME", str(farm.folder))
    stub_bundle(farm, "source")
    folder = stub_bundle(farm, "binary", program='binary: "toy.bin"')
    (folder / "toy.bin").write_bytes(b"STUB program\ntwice\n")
    farm.start_redis()
    farm.start_broker()
    farm.start_worker("o", "opencl")

    def models():
        words = [w for w in farm.ask("placement").stdout.split() if "binary/1:" in w]
        return dict(m.split("/1:") for m in words[0].split(",")) if words else None

    told = wait_until(models, "the models in the placement")
    assert told["binary"].endswith("ms:reconfigures") and told["source"].endswith("ms"), told
