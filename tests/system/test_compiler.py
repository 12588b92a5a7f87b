# SPDX-License-Identifier: Apache-2.0
"""The overlay's compiler by itself: what passes may not change, the memory plan, what is refused."""
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import ROOT
from networks import SMALL

sys.path.insert(0, str(ROOT / "models"))
import graph  # noqa: E402
from overlay import floats, fold, integers, memory, quantise, reader, wide  # noqa: E402
from overlay.launches import Lowering  # noqa: E402
from overlay.network import Unmappable  # noqa: E402


def small(name, rows=24):
    """(graph, the rows of its sample) of a small network."""
    make, dims = SMALL[name]
    x = np.random.default_rng(11).gamma(0.5, 2.0, (rows, *dims)).astype(np.float32)
    return make(x), x


# ---- passes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_folding_changes_no_result(name):
    g, x = small(name)
    network = fold.fold(reader.read(g.model()))
    assert {op.kind for op in network.ops} <= {"conv", "add", "max_pool", "mean", "upsample"}
    for output, got in floats.run(network, x).items():
        np.testing.assert_allclose(got, g.outputs[output], rtol=2e-4, atol=2e-5)


def test_what_folds_where():
    """Of 20 and of 16 nodes little is left; one sum alone has no convolution that could take it."""
    residual = fold.fold(reader.read(small("residual")[0].model())).ops
    assert [op.kind for op in residual if len(op.inputs) == 2] == ["conv", "add"]
    assert residual[-1].head == "softmax" and sum(op.kind == "conv" for op in residual) == 7
    leaky = fold.fold(reader.read(small("leaky")[0].model()))
    assert [op.kind for op in leaky.ops][:3] == ["upsample", "upsample", "conv"]
    assert (leaky.in_scale != 1).all()  # the first batch norm is before padding: only the input takes it
    assert {op.act.slope for op in leaky.ops} == {1.0, float(np.float32(0.3)), float(np.float32(0.1))}


@pytest.mark.parametrize("bits, off", [(8, 0.15), (16, 0.001)])
@pytest.mark.parametrize("name", SMALL)
def test_integers_are_near_floats(name, bits, off):
    g, x = small(name, 48)
    plan = quantise.quantise(fold.fold(reader.read(g.model())), x, bits)
    for output, got in integers.run(plan, x).items():
        want = g.outputs[output]
        assert np.sqrt(((got - want)**2).mean()) < off * want.std()


def test_planes_make_the_value():
    v = np.arange(integers.LOW16, integers.HIGH16 + 1)
    high, low = wide.planes(v)
    assert (256 * high.astype(int) + low == v).all()


# ---- the memory plan ----------------------------------------------------------------------------


def live(uses, sizes):
    """For each launch, the values that must not share a buffer while it runs."""
    spans = {}
    for i, (reads, writes) in enumerate(uses):
        for value in (*reads, *writes):
            if value in sizes:
                spans.setdefault(value, [i, i])[1] = i
    return [[v for v, (first, last) in spans.items() if first <= i <= last] for i in range(len(uses))]


def check_plan(uses, sizes):
    at, buffers = memory.assign(uses, sizes)
    for values in live(uses, sizes):
        assert len({at[v] for v in values}) == len(values)
    assert all(buffers[at[v]] >= sizes[v] for v in at)
    return buffers


@pytest.mark.parametrize("seed", range(20))
def test_values_of_one_time_never_share(seed):
    """Random chains with values that live on, as residuals do."""
    rng = np.random.default_rng(seed)
    sizes = {f"v{i}": int(rng.integers(1, 1000)) for i in range(40)}
    uses = [(["in"], ["v0"])]
    for i in range(1, 40):
        reads = {f"v{max(0, i - int(back))}" for back in rng.integers(1, 6, 2)}
        uses.append((sorted(reads), [f"v{i}"]))
    check_plan(uses, sizes)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", SMALL)
def test_buffers_are_used_again(name, bits):
    g, x = small(name)
    lowering = Lowering(quantise.quantise(fold.fold(reader.read(g.model())), x, bits))
    uses = [(launch.reads(), launch.writes) for launch in lowering.launches]
    buffers = check_plan(uses, lowering.scratch)
    if len(lowering.launches) > 10:
        assert sum(buffers) < 0.7 * sum(lowering.scratch.values())


# ---- refusals -----------------------------------------------------------------------------------


def network(*nodes, dims=(3, 8, 8), **constants):
    """A model of these nodes from "x" to "y"."""
    return helper.make_model(helper.make_graph(
        nodes, "refused", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *dims])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()]))


def node(op, *inputs, **attributes):
    return helper.make_node(op, inputs, ["y"], name="culprit", **attributes)


KERNEL = np.ones((4, 3, 3, 3))
REFUSED = {
    "operator": (network(node("Tanh", "x")), "operator Tanh is not one of the overlay's"),
    "grouped": (network(node("Conv", "x", "w", group=3), w=np.ones((3, 1, 3, 3))), "group is 3"),
    "dilated": (network(node("Conv", "x", "w", dilations=[2, 2]), w=KERNEL), r"dilations is \[2, 2\]"),
    "computed weights": (network(node("Conv", "x", "x")), 'its input "x" must be a constant'),
    "attribute": (network(node("Relu", "x", strange=1)), "attribute strange"),
    "domain": (network(node("Relu", "x", domain="com.vendor")), "domain com.vendor"),
    "unflattened": (network(node("Gemm", "x", "w"), w=np.ones((8, 2))), "an image that nothing has flattened"),
    "softmax within": (network(node("Softmax", "x", axis=-1)), "not a dense layer's"),
    "no dense end": (network(node("Conv", "x", "w"), w=KERNEL), 'output "y" does not come from a dense layer'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_mapped_is_named(name):
    model, why = REFUSED[name]
    with pytest.raises(Unmappable, match=why) as refused:
        fold.fold(reader.read(model))
    line = str(refused.value)
    assert line.startswith('node "culprit" cannot be mapped: ') and "\n" not in line
    assert line.endswith("serve this model from its model.onnx (no opencl folder)") or "export" in line


def test_an_output_finer_than_the_sums_unit_is_refused():
    """A layer that yields little from large inputs: no multiplier brings the sum to its output's scale."""
    g = graph.Graph("coarse", np.random.default_rng(1), 8)
    x = g.input("x", np.random.default_rng(2).normal(size=(16, 4)).astype(np.float32) * 1e9)
    y = g.relu(g.dense_with(x, np.full((4, 4), 1e-3, np.float32), np.full(4, -1e9, np.float32)))
    g.output("y", g.dense(y, 2))
    with pytest.raises(Unmappable, match='node "gemm_0" cannot be mapped: .* too coarse'):
        quantise.quantise(fold.fold(reader.read(g.model())), x.sample, 8)
