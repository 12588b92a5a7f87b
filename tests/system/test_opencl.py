# SPDX-License-Identifier: Apache-2.0
"""Bundles on whatever OpenCL device this machine has (PoCL will do), and devices that fail.
SONIC_TEST_OPENCL names another platform; with "Intel" it is Intel's FPGA emulator."""

import os
import pathlib
import re
import signal
import subprocess

import numpy as np
import pytest

import fpga
from conftest import BUILD, ROOT, WORKER, real_model, run_direct, toy_config, wait_until
from test_broker import status_value

DEVICE = BUILD / "worker" / "sonic-device-opencl"
PLATFORM = os.environ.get("SONIC_TEST_OPENCL", "")  # a part of its name; "": the first

MANIFEST = """
rows: {rows}
program {{ source: "toy.cl" }}
buffer {{ name: "x" use: INPUT bytes: {bytes} }}
buffer {{ name: "y" use: OUTPUT bytes: {bytes} }}
input {{ tensor: "x" buffer: "x" type: FP32 }}
output {{ tensor: "y" buffer: "y" type: FP32 }}
launch {{ kernel: "toy" arg {{ buffer: "x" }} arg {{ buffer: "y" }} global {{ size: 16 rows: true }} }}
"""
KERNEL = "__kernel void toy(__global const float *x, __global float *y)"
INDEX = "int i = get_global_id(0);"


def write_bundle(farm, name, body, rows=32, manifest=None, backend="opencl", **kwargs):
    """A model of 16 values a row and its bundle; returns the bundle's folder."""
    folder = farm.models / name / "1" / "opencl"
    folder.mkdir(parents=True)
    (farm.models / name / "config.pbtxt").write_text(toy_config(name, backend, **kwargs))
    (folder / "toy.cl").write_text(f"{KERNEL} {{ {INDEX} {body} }}\n")
    (folder / "bundle.pbtxt").write_text((manifest or MANIFEST).format(rows=rows, bytes=rows * 64))
    return folder


@pytest.fixture
def opencl(farm, monkeypatch):
    """A farm with a broker; skips in words where there is nothing to test on."""
    if not DEVICE.exists():
        pytest.skip("built without OpenCL")
    for name, value in (fpga.intel_env() if PLATFORM == "Intel" else {}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(farm.folder))
    write_bundle(farm, "twice", "y[i] = 2 * x[i];")
    done = run_worker(farm, "no such platform")
    if "no OpenCL platform is installed" in done.stderr:
        pytest.skip("no OpenCL platform is installed")
    farm.start_broker()
    return farm


def run_worker(farm, platform, *args):
    """A worker that is expected not to start."""
    return subprocess.run(
        [WORKER, "--broker", farm.worker, "--device", f"opencl:{platform}", "--models", farm.models, *args],
        capture_output=True, text=True, timeout=60, check=False,
    )


def start_worker(farm, name="o", *args):
    return farm.start_worker(name, f"opencl:{PLATFORM}", *args)


def device_of(worker):
    """The pid of a worker's device process."""
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may hold anything: state and parent.
            if int(stat.read_text().rpartition(")")[2].split()[1]) == worker.pid:
                return int(stat.parent.name)
        except (OSError, IndexError):
            continue  # it has just ended
    return None


def check(farm, rows, tmp_path, model, n, want, *args):
    source, array = rows(n)
    out = tmp_path / f"{model}.npy"
    done = farm.submit(model, source, out, "--force", *args)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(out), want(array))


# ---- the ordinary course ------------------------------------------------------------------------


def test_a_bundle_computes(opencl, rows, tmp_path):
    worker = start_worker(opencl)
    check(opencl, rows, tmp_path, "twice", 1000, lambda x: 2 * x, "--batch", 7)
    check(opencl, rows, tmp_path, "twice", 1000, lambda x: 2 * x, "--batch", 64)  # split: the plan takes 32
    device = device_of(worker)
    assert worker.end() == 0
    assert not os.path.exists(f"/proc/{device}")


def test_cpu_and_opencl_take_from_one_queue(opencl, rows, tmp_path):
    """The same declaration, another backend: a delay device stands for the CPU, and echoes."""
    folder = opencl.models / "slow" / "1" / "opencl"
    folder.mkdir(parents=True)
    (folder / "toy.cl").write_text(f"{KERNEL} {{ {INDEX} y[i] = x[i]; }}\n")
    (folder / "bundle.pbtxt").write_text(MANIFEST.format(rows=4, bytes=256))
    start_worker(opencl)
    opencl.start_worker("c", "delay:20000")
    check(opencl, rows, tmp_path, "slow", 4000, lambda x: x, "--batch", 1)
    answered = dict(re.findall(r"^(o|c) +(?:opencl|delay) .*?(\d+)\s*$", opencl.ask("status").stdout, re.M))
    assert int(answered["o"]) > 0 and int(answered["c"]) > 0


def test_a_program_is_built_once(opencl):
    start_worker(opencl).end()
    kept = list((opencl.folder / "sonic-opencl").iterdir())
    assert len(kept) == 1
    first = kept[0].stat().st_mtime_ns
    start_worker(opencl).end()
    kept[0].write_bytes(kept[0].read_bytes()[:-100])  # harmed: built again, not trusted
    start_worker(opencl).end()
    assert first < kept[0].stat().st_mtime_ns


# ---- failures -----------------------------------------------------------------------------------


def test_a_killed_device_process_loses_nothing(opencl, rows, tmp_path):
    write_bundle(opencl, "busy", "float v = x[i]; for (int k = 0; k < 200000; k++) v = v * 0.5f + x[i] * 0.5f; y[i] = x[i] + 0 * v;")
    worker = start_worker(opencl)
    source, array = rows(3000)
    job = subprocess.Popen(
        opencl.submit_args("busy", source, tmp_path / "out.npy", "--batch", 1),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    wait_until(lambda: status_value(opencl, "answered_ok") > 50, "the job to be under way")
    os.kill(device_of(worker), signal.SIGKILL)
    _, errors = job.communicate(timeout=120)
    assert job.returncode == 0, errors
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), array)
    assert worker.alive() and "event=device_fault" in worker.text()
    assert "signal 9" in worker.text()


@pytest.mark.parametrize(
    "body, word",
    [
        ("if (x[0] == 42) { *(__global volatile float *)(x[1] == 0 ? (size_t)8 : (size_t)y) = 1; } y[i] = x[i];", "signal 11"),
        ("volatile int stop = 0; while (x[0] == 42 && !stop); y[i] = x[i];", "has not ended after 1000 ms"),
    ],
)
def test_a_kernel_that_kills_its_device_is_poison_for_its_request_alone(opencl, rows, tmp_path, monkeypatch, body, word):
    # A sanitizer would make an exit of the signal.
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":handle_segv=0")
    extra = 'parameters { key: "sonic_device_timeout_ms" value { string_value: "1000" } }'
    write_bundle(opencl, "trap", body, extra=extra)
    worker = start_worker(opencl)
    check(opencl, rows, tmp_path, "trap", 100, lambda x: x, "--batch", 1)
    bad = np.zeros((1, 16), np.float32)
    bad[0, 0] = 42
    np.save(tmp_path / "bad.npy", bad)
    done = opencl.submit("trap", tmp_path / "bad.npy", tmp_path / "bad-out.npy")
    assert done.returncode != 0 and not (tmp_path / "bad-out.npy").exists()
    assert "POISON" in done.stderr
    assert word in worker.text(), worker.text()
    check(opencl, rows, tmp_path, "trap", 100, lambda x: x, "--batch", 1)  # the device is back
    assert worker.alive()


def test_a_device_that_fails_again_and_again_is_given_up(opencl, rows, tmp_path):
    worker = start_worker(opencl)
    for _ in range(5):
        device = wait_until(lambda: device_of(worker), "the device process")
        os.kill(device, signal.SIGKILL)
        source, _ = rows(1)
        opencl.submit("twice", source, tmp_path / "out.npy", "--force", "--deadline", 5)
        if status_value(opencl, "quarantined"):
            break
    assert "5 faults in ten minutes" in worker.text()
    line = next(x for x in opencl.ask("status").stdout.splitlines() if "quarantined: " in x)
    assert "signal 9" in line and "(5 faults in ten minutes)" in line
    assert worker.alive() and device_of(worker) is None


# ---- bad input ----------------------------------------------------------------------------------


def refusal(farm, name="bad"):
    done = run_worker(farm, PLATFORM, "--model", name)
    assert done.returncode == 5, done.stderr
    return done.stderr.strip().splitlines()[-1]


def bad_bundle(farm, old, new, body="y[i] = x[i];"):
    assert old in MANIFEST
    return write_bundle(farm, "bad", body, manifest=MANIFEST.replace(old, new))


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('kernel: "toy"', 'kernel: "tyo"', ["CL_INVALID_KERNEL_NAME", "tyo"]),
        ('arg {{ buffer: "y" }}', 'arg {{ buffer: "z" }}', ["8:", 'no buffer "z"']),
        ('arg {{ buffer: "y" }}', "", ["launch 1 gives 1 args", '"toy" has 2']),
        ('arg {{ buffer: "y" }}', "arg {{ float: 1 }}", ["arg 2 does not fit"]),
        ("use: OUTPUT bytes: {bytes}", "use: OUTPUT bytes: 8", ["do not fit into buffer", "of 8"]),
        ("rows: {rows}", "rows: 0", ["rows is missing"]),
        ("rows: {rows}", "rowss: {rows}", ["2:1:", "did you mean rows"]),
        ('tensor: "x"', 'tensor: "q"', ['input "x" of config.pbtxt is missing']),
        ('source: "toy.cl"', 'source: "../toy.cl"', ["without slashes"]),
        ('source: "toy.cl"', 'source: "none.cl"', ["none.cl", "No such file"]),
        ('source: "toy.cl"', 'platform: "Elsewhere" source: "toy.cl"', ["no program of it is for platform"]),
        ('source: "toy.cl"', 'binary: "toy.cl"', ["toy.cl is no program for this device"]),
        ('use: INPUT', "use: WEIGHTS", ["no weights file is named"]),
        ("global {{ size: 16 rows: true }}", "global {{ size: 65536 }} local: 65536 global {{ size: 65536 }} local: 65536",
         ["runs in groups of", "local makes it 4294967296"]),
    ],
)
def test_a_bad_manifest_is_told_in_one_line(opencl, old, new, words):
    bad_bundle(opencl, old, new)
    text = refusal(opencl)
    for word in words:
        assert word in text, text


def test_a_program_that_does_not_build_is_told(opencl):
    write_bundle(opencl, "bad", "y[i] = nothing(x[i]);")
    assert "toy.cl does not build" in refusal(opencl)


def test_truncated_weights_are_told(opencl):
    folder = bad_bundle(
        opencl, 'buffer {{ name: "y"', 'weights: "w.bin" buffer {{ name: "w" use: WEIGHTS bytes: 64 offset: 64 }} buffer {{ name: "y"'
    )
    (folder / "w.bin").write_bytes(b"x" * 127)
    text = refusal(opencl)
    assert "w.bin: the file ends early" in text and "64 to 128" in text


def test_no_such_platform_or_device(opencl):
    done = run_worker(opencl, "no such platform")
    assert done.returncode == 5 and 'no OpenCL platform "no such platform"; there are: "' in done.stderr
    done = run_worker(opencl, f"{PLATFORM}:no such device")
    assert done.returncode == 5 and 'has no device "no such device"; it has: "' in done.stderr
    done = run_worker(opencl, "::65")
    assert done.returncode == 2 and "1 to 64 slots" in done.stderr


def test_a_machine_without_opencl(opencl, monkeypatch):
    monkeypatch.setenv("OCL_ICD_VENDORS", str(opencl.folder))
    done = run_worker(opencl, "")
    assert done.returncode == 5 and "no OpenCL platform is installed" in done.stderr


def test_status_says_how_devices_spend_their_time(opencl, rows, tmp_path):
    worker = start_worker(opencl)
    check(opencl, rows, tmp_path, "twice", 5000, lambda x: 2 * x, "--batch", 10)
    os.kill(device_of(worker), signal.SIGKILL)
    check(opencl, rows, tmp_path, "twice", 5000, lambda x: 2 * x, "--batch", 10)

    line = re.compile(r"^o( +[\d.]+){5} +1$", re.M)  # the last column: faults
    wait_until(lambda: line.search(opencl.ask("status").stdout), "the device's line in the status")


# ---- FACILE -------------------------------------------------------------------------------------


def channels(spatial, n):
    """Generated channels, and rows at the edges of what a channel can be: float32 [., 47]."""
    import inputs

    x, _ = inputs.channels(np.random.default_rng(5), n)
    rng = np.random.default_rng(6)
    edge = np.zeros((500, 47), np.float32)
    edge[:, :10] = rng.choice([0, -1e9, 1e9, np.inf, -np.inf, 1e-30, 1, 72, 2500], (500, 10))
    edge[:, 10:17] = rng.integers(0, 2, (500, 7))
    code = rng.integers(0, 31, 500)  # 0: none
    edge[np.arange(500)[code > 0], 16 + code[code > 0]] = 1
    return np.concatenate([x, edge])


def test_facile_is_bit_exact(opencl, tmp_path, monkeypatch):
    """Through sonic-submit and the device what the integer model of its arithmetic gives: no bit less."""
    monkeypatch.syspath_prepend(str(ROOT / "models"))
    import spatial

    source = real_model(opencl, "facile")
    fixed = spatial.quantise((source / "1" / "model.onnx").read_bytes(), 1)
    x = channels(spatial, 40_000)
    np.save(tmp_path / "in.npy", x)
    start_worker(opencl)
    done = opencl.submit("facile", tmp_path / "in.npy", tmp_path / "out.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), spatial.reference(fixed, x))
    direct = run_direct(source, x[:40_000], 16_000)[0]
    energy = direct[:, 0]
    off = np.abs(np.load(tmp_path / "out.npy")[:40_000, 0] - energy)
    assert np.median(off[energy > 30] / energy[energy > 30]) < 0.01  # and it is FACILE

    x[7, 17:] = 0.5  # no code: told, never guessed
    np.save(tmp_path / "bad.npy", x)
    done = opencl.submit("facile", tmp_path / "bad.npy", tmp_path / "bad-out.npy")
    assert done.returncode != 0 and not (tmp_path / "bad-out.npy").exists()
