# SPDX-License-Identifier: Apache-2.0
"""Models on a GPU, through a whole farm. The GPU, CUDA and the runtime's CUDA provider are the tests'
own (tests/gpu/stub_cuda.h): what is queued happens later, and a use of memory before that ends the
device process.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnx.parser
import pytest

from conftest import ROOT, WORKER, real_model, run_direct, wait_until
from gpu import GPU, stub_env
from test_broker import status_value

UNIT_MODELS = pathlib.Path(__file__).resolve().parents[1] / "unit" / "models"


@pytest.fixture
def stub(farm, monkeypatch):
    """A farm on a machine with the stub GPU."""
    for key, value in stub_env().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("SONIC_STUB_REPORT", str(farm.folder / "report"))
    farm.start_broker()
    return farm


def copy_model(farm, source, name, extra="", edit=lambda text: text):
    """A model of the repository under another name, with more in its config."""
    folder = farm.models / name
    folder.mkdir()
    for entry in source.iterdir():
        if entry.name != "config.pbtxt":
            (folder / entry.name).symlink_to(entry)
    text = (source / "config.pbtxt").read_text().replace(f'name: "{source.name}"', f'name: "{name}"', 1)
    (folder / "config.pbtxt").write_text(edit(text) + extra)
    return folder


def parameter(key, value):
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def slow_calls(farm):
    path = farm.folder / "report"
    lines = path.read_text().splitlines() if path.exists() else []
    return [x for x in lines if not x.startswith("option ")]


def result(farm, model, source, tmp_path, *args):
    out = tmp_path / "out.npy"
    done = farm.submit(model, source, out, "--force", *args)
    assert done.returncode == 0, done.stderr + farm.logs()
    return np.load(out)


def test_facile_by_the_runtime(stub, rows, tmp_path):
    """Equal to the CPU's, whole batches and padded ones, and nothing is allocated after the load."""
    source = real_model(stub, "facile")
    worker = stub.start_worker("g", "cuda", "--model", "facile")
    path, array = rows(20000, dims=(47,))
    wanted = run_direct(source, array)[0]
    before = slow_calls(stub)
    assert before
    for batch in (16000, 1000, 37):
        got = result(stub, "facile", path, tmp_path, "--batch", batch)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert slow_calls(stub) == before
    assert worker.alive() and "event=device_fault" not in worker.text()


def affine(farm, name="affine", batch_max=64, extra=""):
    """y = 2 x + 1 over rows of three."""
    folder = farm.models / name
    folder.mkdir(exist_ok=True)
    if not (folder / "1").exists():
        (folder / "1").symlink_to(UNIT_MODELS / "affine" / "1")
    (folder / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {batch_max}\n'
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]\n'
        'output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]\n' + QUICK + extra)


QUICK = parameter("sonic_device_timeout_ms", "1500")


def check(farm, rows, tmp_path, n, *args, model="affine"):
    source, array = rows(n, dims=(3,))
    np.testing.assert_array_equal(result(farm, model, source, tmp_path, *args), 2 * array + 1)


def refusal(farm, *args, device="cuda", status=5):
    """The last line of a worker that does not start."""
    done = subprocess.run(
        [WORKER, "--broker", farm.worker, "--device", device, "--models", farm.models, "--model", "affine", *args],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stderr.strip().splitlines()[-1]


# ---- the ordinary course ------------------------------------------------------------------------


def test_facile_by_the_native_kernel(stub, rows, tmp_path):
    source = real_model(stub, "facile")
    sys.path.insert(0, str(ROOT / "models"))
    import native  # noqa: PLC0415

    folder = copy_model(stub, source, "native", parameter("sonic_cuda_kernel", "facile"))
    (folder / "1").unlink()
    (folder / "1" / "cuda").mkdir(parents=True)
    (folder / "1" / "cuda" / "facile.bin").write_bytes(native.weights((source / "1" / "model.onnx").read_bytes(), 1))
    worker = stub.start("worker-g", WORKER, "--broker", stub.worker, "--device", "cuda", "--models", stub.models,
                        "--model", "native")
    wait_until(lambda: stub.workers_seen() or not worker.alive(), "the worker")
    if "has no native kernel (nvcc was missing)" in worker.text():
        pytest.skip("built without nvcc: no native kernel")
    path, array = rows(20000, dims=(47,))
    wanted = run_direct(source, array)[0]
    before = slow_calls(stub)
    for batch in (16000, 999, 37):
        np.testing.assert_allclose(result(stub, "native", path, tmp_path, "--batch", batch), wanted, rtol=1e-4, atol=5e-4)
    assert slow_calls(stub) == before
    assert "event=device_fault" not in worker.text()


def test_two_models_with_two_instances(stub, rows, tmp_path):
    affine(stub, extra="instance_group [ { kind: KIND_GPU count: 2 } ]\n")
    affine(stub, "other")
    worker = stub.start_worker("g", "cuda:0:8")
    assert "model=affine version=1 batch_max=64 instances=5" in worker.text()
    for n in (1, 7, 64):
        check(stub, rows, tmp_path, 999, "--batch", n)
        check(stub, rows, tmp_path, 999, "--batch", n, model="other")
    assert "event=device_fault" not in worker.text()


def test_the_gpus_of_an_instance_group(stub, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("SONIC_STUB_GPUS", "2")
    affine(stub, extra="instance_group [ { kind: KIND_GPU gpus: [ 1 ] } ]\n")
    assert "no instance_group of its config.pbtxt is for this cuda device" in refusal(stub, device="cuda:0")
    stub.start_worker("g", "cuda:1")
    check(stub, rows, tmp_path, 99)


def test_a_gpu_by_its_uuid(stub, rows, tmp_path, monkeypatch):
    affine(stub)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa,MIG-bbbb")
    assert "MIG-cccc is not among the GPUs of this job" in refusal(stub, device="cuda:MIG-cccc")
    stub.start_worker("g", "cuda:MIG-bbbb:2")
    check(stub, rows, tmp_path, 99)


def test_a_gpu_by_its_uuid_among_those_of_the_job(stub, rows, tmp_path, monkeypatch):
    """A batch system has given them by their numbers, or none."""
    affine(stub)
    monkeypatch.setenv("SONIC_STUB_GPUS", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    uuid = "GPU-01122334-4556-6778-899a-abbccddeef00"
    assert "GPU-ffff is not among the GPUs of this job: CUDA_VISIBLE_DEVICES is 4,7" in refusal(stub, device="cuda:GPU-ffff")
    worker = stub.start_worker("g", f"cuda:{uuid}")
    assert 'device="Stub GPU (GPU 1)"' in worker.text()
    check(stub, rows, tmp_path, 99)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA shows no GPU (CUDA_VISIBLE_DEVICES is )" in refusal(stub, device=f"cuda:{uuid}")


def test_the_variant_that_a_config_names(stub, rows, tmp_path):
    """A file that computes in FP16, with inputs and outputs as declared; three times x tells it from model.onnx."""
    folder = UNIT_MODELS / "affine" / "1"
    affine(stub, extra=parameter("sonic_cuda_model", "fp16.onnx"))
    (stub.models / "affine" / "1").unlink()
    (stub.models / "affine" / "1").mkdir()
    (stub.models / "affine" / "1" / "model.onnx").symlink_to(folder / "model.onnx")
    onnx.save(onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        half (float[batch, 3] x) => (float[batch, 3] y) <float three = {3}> {
            h = Cast<to = 10>(x)
            t = Cast<to = 10>(three)
            p = Mul(h, t)
            y = Cast<to = 1>(p)
        }"""), stub.models / "affine" / "1" / "fp16.onnx")
    stub.start_worker("g", "cuda")
    source, array = rows(99, dims=(3,))
    np.testing.assert_allclose(result(stub, "affine", source, tmp_path, "--batch", 7), 3 * array, rtol=2e-3, atol=1e-3)


def test_settings_reach_the_provider(stub):
    settings = {"tf32": "1", "cudnn_search": "EXHAUSTIVE", "memory_mib": "100", "graphs": "1", "buckets": "8,64"}
    affine(stub, extra="".join(parameter(f"sonic_cuda_{k}", v) for k, v in settings.items()))
    stub.start_worker("g", "cuda")
    report = (stub.folder / "report").read_text()
    for line in ("use_tf32=1", "cudnn_conv_algo_search=EXHAUSTIVE", f"gpu_mem_limit={100 << 20}",
                 "enable_cuda_graph=1", "device_id=0"):
        assert f"option {line}\n" in report, report


def test_graphs_are_captured_at_load(stub, rows, tmp_path):
    affine(stub, extra=parameter("sonic_cuda_graphs", "1") + parameter("sonic_cuda_buckets", "8,64")
           + "instance_group [ { kind: KIND_GPU count: 2 } ]\n")
    stub.start_worker("g", "cuda:0:8")
    before = slow_calls(stub)
    assert before.count("capture of graphs") == 2
    for n in (1, 8, 37):
        check(stub, rows, tmp_path, 999, "--batch", n)
    assert slow_calls(stub) == before


# ---- one fault ----------------------------------------------------------------------------------

# Twelve runs and a kernel each warm the model up; copies are the batches'.
@pytest.mark.parametrize(
    "fault, words",
    [
        ("cudaMemcpyAsync@30=700", [GPU, "copying", "model affine", "cudaErrorIllegalAddress (700)"]),
        ("copy@30=700", [GPU, "model affine", "cudaErrorIllegalAddress (700)"]),
        ("kernel@16=700", [GPU, "model affine", "cudaErrorIllegalAddress (700)"]),
        ("cudaEventSynchronize@10=719", [GPU, "in a batch of model affine", "(719)"]),
        ("cudaStreamWaitEvent@10=719", [GPU, "model affine", "(719)"]),
        ("cudaEventSynchronize@10=exit", [GPU]),
        ("cudaMemcpyAsync@30=abort", [GPU, "it died of signal 6"]),
        ("run@16=segv", [GPU, "it died of signal 11"]),
        ("kernel@16=hang", [GPU, "a run has not ended after 1500 ms"]),
        ("cudaEventSynchronize@10=hang", [GPU, "a run has not ended after 1500 ms"]),
    ],
)
def test_a_fault_costs_nobody_a_result(stub, rows, tmp_path, monkeypatch, fault, words):
    affine(stub)
    monkeypatch.setenv("SONIC_STUB_FAULTS", fault)
    monkeypatch.setenv("SONIC_STUB_ONCE", str(stub.folder / "had"))
    # A sanitizer would make an exit of the signal.
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":handle_segv=0:handle_abort=0")
    worker = stub.start_worker("g", "cuda")
    check(stub, rows, tmp_path, 999, "--batch", 7)
    assert (stub.folder / "had").exists()
    line = next(x for x in worker.text().splitlines() if "event=device_fault" in x)
    for word in words:
        assert word in line, line
    assert status_value(stub, "redispatched") > 0
    assert status_value(stub, "quarantined") == 0 and worker.alive()


def test_a_gpu_that_falls_off_the_bus(stub, rows, tmp_path, monkeypatch):
    affine(stub)
    gone = stub.folder / "gone"
    monkeypatch.setenv("SONIC_STUB_FAULTS", "kernel@13=719")
    monkeypatch.setenv("SONIC_STUB_GONE", str(gone))
    worker = stub.start_worker("g", "cuda")
    gone.touch()
    source, _ = rows(99, dims=(3,))
    stub.submit("affine", source, tmp_path / "out.npy", "--batch", 1, "--deadline", 5)
    wait_until(lambda: status_value(stub, "quarantined") == 1, "the quarantine")
    assert "CUDA shows no GPU" in stub.ask("status").stdout
    assert worker.alive()


def test_a_lack_of_memory_halves_the_batch_once(stub, rows, tmp_path, monkeypatch):
    affine(stub)
    monkeypatch.setenv("SONIC_STUB_FAULTS", "run@15=2")
    worker = stub.start_worker("g", "cuda")
    check(stub, rows, tmp_path, 999, "--batch", 7)
    assert "event=device_fault" not in worker.text()


@pytest.mark.parametrize("fault, words", [("run@15+=2", "out of memory; GPU=0 (in two halves too: lower max_batch_size"), ("run@15+=5", "as it was asked to")])
def test_rows_that_cannot_be_computed_fail_with_the_reason(stub, rows, tmp_path, monkeypatch, fault, words):
    """That request alone: the device is not to blame."""
    affine(stub)
    monkeypatch.setenv("SONIC_STUB_FAULTS", fault)
    worker = stub.start_worker("g", "cuda")
    source, _ = rows(999, dims=(3,))
    done = stub.submit("affine", source, tmp_path / "out.npy", "--batch", 7)
    assert done.returncode != 0 and words in done.stderr and GPU in done.stderr, done.stderr
    assert worker.alive() and "event=device_fault" not in worker.text()


def test_rows_after_those_that_cannot_be_computed(stub, rows, tmp_path, monkeypatch):
    """What a run leaves in CUDA's last error is not the next one's."""
    affine(stub)
    monkeypatch.setenv("SONIC_STUB_FAULTS", "run@13=5")
    stub.start_worker("g", "cuda:0:1")
    source, _ = rows(7, dims=(3,))
    done = stub.submit("affine", source, tmp_path / "no.npy", "--batch", 7)
    assert done.returncode != 0 and "as it was asked to" in done.stderr, done.stderr
    check(stub, rows, tmp_path, 99, "--batch", 7)


# ---- not starting -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env, device, words",
    [
        ({"SONIC_CUDART": "/no/cudart.so"}, "cuda", ["the CUDA runtime cannot be loaded", "/no/cudart.so", "--cuda"]),
        ({"SONIC_LIBCUDA": "/no/cuda.so"}, "cuda", ["no NVIDIA driver on this machine", "/no/cuda.so"]),
        ({"SONIC_ORT_CUDA": "/no/ort.so"}, "cuda", ["ONNX Runtime for CUDA cannot be loaded", "/no/ort.so", "--cuda"]),
        ({"SONIC_STUB_DRIVER": "0"}, "cuda", ["no NVIDIA driver on this machine"]),
        ({"SONIC_STUB_DRIVER": "12040"}, "cuda", ["driver is of CUDA 12.4, the CUDA runtime here is 13.0", "newer"]),
        ({"SONIC_STUB_GPUS": "0"}, "cuda", ["CUDA shows no GPU", "CUDA_VISIBLE_DEVICES is not set"]),
        ({"SONIC_STUB_GPUS": "2"}, "cuda:2", ["no GPU 2: CUDA shows 2, 0 to 1"]),
        ({"SONIC_STUB_FAULTS": "cudaSetDevice=46"}, "cuda", [GPU, "is busy", "nvidia-smi -c DEFAULT"]),
        ({"SONIC_STUB_FAULTS": "cudaHostRegister=2"}, "cuda", [GPU, "pinning", "locked memory"]),
        ({"SONIC_STUB_FAULTS": "provider=5"}, "cuda", [GPU, "model affine: ONNX Runtime refuses the GPU", "--cuda", "as it was asked to"]),
        ({"SONIC_STUB_FAULTS": "session=2"}, "cuda", ["model.onnx", "out of memory"]),
        ({"SONIC_STUB_FAULTS": "run@5=2"}, "cuda", [GPU, "does not execute", "out of memory", "lower max_batch_size"]),
        ({"SONIC_STUB_FAULTS": "session=abort"}, "cuda", [GPU, "failed while it loaded", "it died of signal 6"]),
    ],
)
def test_what_is_missing_is_told_in_one_line(stub, monkeypatch, env, device, words):
    affine(stub)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    text = refusal(stub, device=device)
    for word in words:
        assert word in text, text


def test_a_machine_without_a_gpu(farm):
    """The libraries as they are here, or are not."""
    stub_env()
    if pathlib.Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has an NVIDIA driver")
    affine(farm)
    text = refusal(farm)
    assert "the CUDA runtime cannot be loaded" in text or "there is no NVIDIA driver on this machine" in text, text


def test_a_model_larger_than_the_gpu(stub, monkeypatch):
    affine(stub, batch_max=65536)
    monkeypatch.setenv("SONIC_STUB_MIB", "4")
    text = refusal(stub)
    assert f"{GPU}: model affine: no memory for the buffers of 4 slots, 6 MiB where 4 MiB are free" in text, text


def test_an_argument_that_makes_no_sense(stub):
    affine(stub)
    for device in ("cuda:x", "cuda:0:0", "cuda:0:65", "cuda:0:1:2"):
        assert "cuda[:DEVICE[:SLOTS]] is possible" in refusal(stub, device=device, status=2)


@pytest.mark.parametrize(
    "extra, words",
    [
        (parameter("sonic_cuda_bucket", "8"), "there is no parameter sonic_cuda_bucket"),
        (parameter("sonic_cuda_buckets", "8,65"), 'sonic_cuda_buckets is "8,65"'),
        (parameter("sonic_cuda_tf32", "yes"), 'sonic_cuda_tf32 is "yes"; possible are 0 1'),
        (parameter("sonic_cuda_provider", "rocm"), "possible are cuda tensorrt"),
        (parameter("sonic_cuda_provider", "tensorrt"), "the stub has no TensorRT"),
        (parameter("sonic_cuda_provider", "tensorrt") + parameter("sonic_cuda_graphs", "1"), "TensorRT keeps one graph"),
        (parameter("sonic_cuda_memory_mib", "0"), 'sonic_cuda_memory_mib is "0"'),
        (parameter("sonic_cuda_model", "../x.onnx"), "without a path"),
        (parameter("sonic_cuda_model", "fp16.onnx"), "1/fp16.onnx: No such file"),
        ('default_model_filename: "other.onnx"\n', "1/other.onnx: No such file"),
        (parameter("sonic_cuda_kernel", "resnet"), 'no native kernel "resnet" (there is: facile)'),
        (parameter("sonic_cuda_kernel", "facile"), "takes rows of FP32[47]"),
    ],
)
def test_a_setting_that_makes_no_sense(stub, extra, words):
    affine(stub, extra=extra)
    text = refusal(stub)
    assert words in text, text


def test_dims_that_are_free(stub):
    affine(stub)
    config = stub.models / "affine" / "config.pbtxt"
    config.write_text(config.read_text().replace("dims: [ 3 ]", "dims: [ -1 ]"))
    assert "a CUDA device takes tensors of fixed size only" in refusal(stub)


def test_nodes_that_the_gpu_does_not_compute(stub, monkeypatch):
    affine(stub)
    monkeypatch.setenv("SONIC_STUB_CPU_NODES", "  NonMaxSuppression (boxes)")
    worker = stub.start_worker("g", "cuda")
    line = next(x for x in worker.text().splitlines() if "event=cpu_nodes" in x)
    assert "model=affine" in line and "1 nodes have no" in line and "NonMaxSuppression (boxes)" in line, line
    affine(stub, extra=parameter("sonic_cuda_cpu_nodes", "refuse"))
    text = refusal(stub)
    assert "NonMaxSuppression (boxes), which sonic_cuda_cpu_nodes in config.pbtxt refuses" in text, text
