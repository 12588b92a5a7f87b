# SPDX-License-Identifier: Apache-2.0
"""Networks compiled for the overlay kernels, through a real farm: what a device answers is what the
integer arithmetic in numpy gives. The three models, small networks of every operator, refusals.
SONIC_TEST_OPENCL names a platform, as in test_opencl.py."""

import re
import shutil
import sys

import numpy as np
import pytest

from conftest import MODELS, ROOT, real_model, run_direct
from test_opencl import opencl, start_worker  # noqa: F401 (a fixture)

sys.path.insert(0, str(ROOT / "models"))
import graph  # noqa: E402
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


# ---- small networks of every operator -----------------------------------------------------------


def residual(x):
    """Strides, padding, a projection, both kinds of sum, pooling, a mean, softmax."""
    g = graph.Graph("residual", np.random.default_rng(1), len(x) // 2)
    y = g.transpose(g.input("x", x), (0, 3, 1, 2))
    y = g.relu(g.batch_norm(g.conv(y, 13, 7, stride=2, pad=3, bias=False)))
    y = g.max_pool(y, 3, 2, pad=1)
    z = g.batch_norm(g.conv(g.relu(g.conv(y, 6, 1)), 13, 3, pad=1))
    y = g.relu(g.add(z, y))
    y = g.add(g.relu(g.conv(y, 9, 1)), g.relu(g.conv(y, 9, 3, pad=1)))  # no convolution can take this sum
    y = g.global_pool(g.clip(g.batch_norm(y), 0.0, 6.0))
    g.output("y", g.softmax(g.dense_spread(y, 3, 0.0, 1.0)))
    return g


def leaky(x):
    """A batch norm before padding, upsampling, LeakyReLU, dense layers behind an image, two outputs."""
    g = graph.Graph("leaky", np.random.default_rng(2), len(x) // 2)
    y = g.transpose(g.input("x", x), (0, 3, 1, 2))
    y = g.batch_norm(g.repeat(g.repeat(y, 3, 3), 2, 2))
    y = g.leaky_relu(g.conv(y, 7, 5, pad=2), 0.3)
    y = g.batch_norm(g.max_pool(y, 2, 2))
    y = g.leaky_relu(g.conv(y, 10, 3, pad=1), 0.1)
    y = g.relu(g.dense(g.flatten(y), 20))
    g.output("y", g.clip(g.dense_spread(y, 2, 0.5, 1.0), 0.0, 1.5))
    g.output("z", g.sigmoid(g.dense(g.batch_norm(y), 1)))
    return g


def first_channels(x):
    """The client's rows have channels first."""
    g = graph.Graph("first", np.random.default_rng(3), len(x) // 2)
    y = g.relu(g.conv(g.input("x", x), 8, 3, stride=2))
    g.output("y", g.dense(g.flatten(y), 5))
    return g


SMALL = {"residual": (residual, (29, 37, 3)), "leaky": (leaky, (8, 7, 5)), "first": (first_channels, (3, 11, 9)),
         "odd_axes": (lambda x: odd_axes(x), (11, 3, 9))}


def odd_axes(x):
    """Channels in the middle: the conversion permutes."""
    g = graph.Graph("odd", np.random.default_rng(4), len(x) // 2)
    y = g.relu(g.conv(g.transpose(g.input("x", x), (0, 2, 3, 1)), 8, 3))
    g.output("y", g.relu(g.dense(g.flatten(y), 5)))
    return g


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


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name, rows", [("emtrkmichel", 70), ("deepcalo", 70), ("resnet50", 5)])
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
