# SPDX-License-Identifier: Apache-2.0
"""Networks compiled for the overlay kernels, through a real farm: what a device answers is what the
integer arithmetic in numpy gives, for small networks of every operator and the three models; and the
three built models are as near FP32 as docs/decisions/int8-quantisation.md says.
SONIC_TEST_OPENCL names a platform, as in test_opencl.py."""

import sys

import numpy as np
import pytest

from conftest import MODELS, ROOT, real_model, run_direct
from networks import SMALL
from test_opencl import PLATFORM, opencl, start_worker  # noqa: F401 (a fixture)

sys.path.insert(0, str(ROOT / "models"))
from overlay import bundle, compiler, fold, integers, quantise, reader  # noqa: E402

CONFIG = """name: "{name}"
backend: "opencl"
max_batch_size: 32
input [ {{ name: "{input}" data_type: TYPE_FP32 dims: [ {dims} ] }} ]
output [ {outputs} ]
"""
# A few units in the last place of exp and of division, which OpenCL leaves to the device.
HEAD_TOLERANCE = {"rtol": 2e-6, "atol": 1e-7}


def write(farm, name, files, config):
    folder = farm.models / name / "1" / "opencl"
    folder.mkdir(parents=True)
    (farm.models / name / "config.pbtxt").write_text(config)
    for file, data in files.items():
        (folder / file).write_bytes(data)


def config_of(name, x, plan):
    outputs = ", ".join(f'{{ name: "{tensor}" data_type: TYPE_FP32 dims: [ {plan.shapes[value][2]} ] }}'
                        for tensor, value in plan.outputs.items())
    return CONFIG.format(name=name, input=plan.input_name, dims=", ".join(map(str, x.shape[1:])), outputs=outputs)


def submit(farm, tmp_path, name, x, outputs, *args):
    """{tensor: what the farm answered}."""
    np.save(tmp_path / "in.npy", x)
    if len(outputs) == 1:
        done = farm.submit(name, tmp_path / "in.npy", tmp_path / "out.npy", "--force", *args)
        assert done.returncode == 0, done.stderr
        return {outputs[0]: np.load(tmp_path / "out.npy")}
    done = farm.submit(name, tmp_path / "in.npy", tmp_path / "out", "--force", *args)
    assert done.returncode == 0, done.stderr
    return {tensor: np.load(next(tmp_path.glob(f"out*{tensor}*"))) for tensor in outputs}


def check(plan, got, x):
    """Exact where the head is: elsewhere as near as OpenCL promises exp to be."""
    want = integers.run(plan, x)
    heads = {step.output: step.head for step in plan.steps if step.head}
    for tensor, value in plan.outputs.items():
        if heads[value] in ("linear", "clip"):
            np.testing.assert_array_equal(got[tensor], want[tensor])
        else:
            np.testing.assert_allclose(got[tensor], want[tensor], **HEAD_TOLERANCE)


@pytest.mark.parametrize("bits", [8, 16])
def test_every_operator_is_exact(opencl, tmp_path, bits):  # noqa: F811
    """In runs that are full, and in others; with what lies beyond the calibrated ranges too."""
    cases = {}
    for name, (make, dims) in SMALL.items():
        x = np.random.default_rng(5).gamma(0.5, 2.0, (90, *dims)).astype(np.float32)
        network = fold.fold(reader.read(make(x[:40]).model()))
        plan = quantise.quantise(network, x[:40], bits)
        x[80:] *= 1000
        x[85:] *= -1
        write(opencl, name, bundle.files(plan, 16, name), config_of(name, x, plan))
        cases[name] = plan, x
    start_worker(opencl)
    for name, (plan, x) in cases.items():
        check(plan, submit(opencl, tmp_path, name, x, list(plan.outputs), "--batch", 30), x)


# ---- the three models ---------------------------------------------------------------------------


@pytest.mark.parametrize("name, rows, bits", [("emtrkmichel", 40, 8), ("emtrkmichel", 40, 16),
                                              ("deepcalo", 40, 16), ("resnet50", 3, 16)])
def test_a_model_is_exact(opencl, tmp_path, name, rows, bits):  # noqa: F811
    """On inputs that it was not calibrated on; calibrated on few rows here, for time's sake."""
    source = MODELS / name
    if not (source / "config.pbtxt").exists():
        pytest.skip(f"{source} is not built (make models)")
    network = compiler.network_of((source / "1" / "model.onnx").read_bytes())
    plan = quantise.quantise(network, compiler.rows_of(name, 7, 1, 6), bits)
    write(opencl, name, compiler.files_of(name, plan), (source / "config.pbtxt").read_text())
    start_worker(opencl)
    x = compiler.rows_of(name, 7, 2, rows)
    check(plan, submit(opencl, tmp_path, name, x, list(plan.outputs)), x)


def both(farm, tmp_path, name, rows, outputs, batch=32):
    """What the farm answers with the built bundle, and FP32 in this process: a list of outputs each."""
    source = real_model(farm, name)
    if not (source / "1" / "opencl" / "bundle.pbtxt").exists():
        pytest.skip(f"{source} has no bundle (make models)")
    start_worker(farm)
    x = compiler.rows_of(name, 9, 3, rows)
    got = submit(farm, tmp_path, name, x, outputs, "--batch", batch)
    want = run_direct(source, x, batch=8)
    return [got[name] for name in outputs], want


def test_resnet50_chooses_as_fp32(opencl, tmp_path):  # noqa: F811
    """200 jets; fewer on the emulator, which is slow and gives the same bits (above)."""
    rows = 40 if PLATFORM == "Intel" else 200
    (got,), (want,) = both(opencl, tmp_path, "resnet50", rows, ["classes"], batch=2)
    # At least 99 %; of 40, one jet is more than that.
    assert (got.argmax(1) != want.argmax(1)).sum() <= max(rows // 100, 1)
    assert np.sqrt(((got - want)**2).mean()) < 0.02  # 200 choices alone hide much


def test_deepcalo_measures_as_fp32(opencl, tmp_path):  # noqa: F811
    (got,), (want,) = both(opencl, tmp_path, "deepcalo", 200, ["energy"])
    assert np.sqrt(((got - want)**2).mean()) < 0.01 * want.mean()
    assert np.abs(got - want).max() < 2  # GeV: none lies beyond the range of a value


def test_emtrkmichel_chooses_as_fp32(opencl, tmp_path):  # noqa: F811
    got, want = both(opencl, tmp_path, "emtrkmichel", 200, ["em_trk_none", "michel"])
    assert (got[0].argmax(1) == want[0].argmax(1)).mean() >= 0.99
    assert all(np.abs(a - b).max() < 0.01 for a, b in zip(got, want))
