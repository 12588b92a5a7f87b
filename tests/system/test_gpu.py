# SPDX-License-Identifier: Apache-2.0
"""A real NVIDIA GPU: `meson test --suite gpu`, skipped in words where there is none. SONIC_TEST_GPU=stub
takes the tests' own instead, which shows that these tests themselves work.

Against the CPU, FP32 without TF32: of values of the size of 1, 1e-4 and a thousandth.
"""

import json
import os
import pathlib
import signal
import subprocess

import numpy as np
import pytest

import gpu
from conftest import BUILD, WORKER, real_model, run_direct, wait_until
from test_cuda import copy_model, parameter, result
from test_opencl import device_of

MODELS = {"facile": ((47,), 16000, 40000), "deepcalo": ((56, 11, 4), 32, 400),
          "emtrkmichel": ((48, 48, 1), 128, 600), "resnet50": ((224, 224, 3), 10, 30)}


@pytest.fixture
def device(farm, monkeypatch):
    if os.environ.get("SONIC_TEST_GPU") == "stub":
        for key, value in gpu.stub_env().items():
            monkeypatch.setenv(key, value)
    elif not pathlib.Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is no NVIDIA driver on this machine")
    farm.start_broker()
    return farm


def start(farm, model):
    """A worker with this model; skips where set-up has not been here."""
    worker = farm.start("worker-g", WORKER, "--broker", farm.worker, "--device", "cuda", "--models", farm.models,
                        "--model", model)
    wait_until(lambda: farm.workers_seen() or not worker.alive(), "the worker", 300)
    if not worker.alive() and "deploy/setup.sh --cuda" in worker.text():
        pytest.skip(worker.text().strip().splitlines()[-1])
    assert worker.alive(), worker.text()
    return worker


def used_memory(worker):
    """MiB of the GPU that the device process has; None: nobody says."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],
                              capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return dict(line.split(", ") for line in done.stdout.splitlines()).get(str(device_of(worker)))


def output_names(model):
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(str(model / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    return [o.name for o in session.get_outputs()]


@pytest.mark.parametrize("model", MODELS)
def test_the_gpu_gives_what_the_cpu_gives(device, rows, tmp_path, model):
    dims, batch, n = MODELS[model]
    source = real_model(device, model)
    path, array = rows(n, dims=dims)
    worker = start(device, model)
    wanted = run_direct(source, array, batch)
    before = used_memory(worker)
    out = tmp_path / "out.npy"  # of a model with several outputs: out.NAME.npy
    done = device.submit(model, path, out, "--force", "--batch", batch)
    assert done.returncode == 0, done.stderr
    names = output_names(source)
    files = [tmp_path / f"out.{name}.npy" for name in names] if len(names) > 1 else [out]
    for file, b in zip(files, wanted):
        np.testing.assert_allclose(np.load(file), b, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(b).max())))
    assert used_memory(worker) == before
    assert "event=device_fault" not in worker.text()


def test_the_native_kernel_gives_what_the_cpu_gives(device, rows, tmp_path):
    source = real_model(device, "facile")
    if not (source / "1" / "cuda" / "facile.bin").exists():
        pytest.skip(f"{source}/1/cuda/facile.bin is not built (make models)")
    copy_model(device, source, "native", parameter("sonic_cuda_kernel", "facile"))
    path, array = rows(40000, dims=(47,))
    start(device, "native")
    got = result(device, "native", path, tmp_path, "--batch", 16000)
    np.testing.assert_allclose(got, run_direct(source, array)[0], rtol=1e-4, atol=5e-4)


def test_copies_hide_behind_computing(device):
    """By the device's own events: a batch among others adds less time than one by itself takes."""
    source = real_model(device, "facile")
    done = subprocess.run([BUILD / "tests" / "bench" / "bench_gpu", source.parent, "facile", "16000", "2"],
                          capture_output=True, text=True, timeout=300, check=False)
    if "deploy/setup.sh --cuda" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    times = json.loads(done.stdout)
    assert times["alone_us"] > 0 and times["span_us"] > 0
    if os.environ.get("SONIC_TEST_GPU") != "stub":  # whose times mean nothing
        assert times["span_us"] < times["alone_us"], times


def test_a_process_that_is_killed_costs_nobody_a_result(device, rows, tmp_path):
    source = real_model(device, "facile")
    path, array = rows(200000, dims=(47,))
    worker = start(device, "facile")
    job = subprocess.Popen(device.submit_args("facile", path, tmp_path / "out.npy", "--batch", 500),
                           stdin=subprocess.DEVNULL)
    os.kill(device_of(worker), signal.SIGKILL)
    assert job.wait(300) == 0
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), run_direct(source, array)[0], rtol=1e-3, atol=1e-3)
    wait_until(lambda: "event=device_fault" in worker.text() and worker.alive(), "the fault")
