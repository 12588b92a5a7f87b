# SPDX-License-Identifier: Apache-2.0
"""hls4ml_emulate.py NETWORK ROWS OUT: what hls4ml's own C++ emulation makes of a network.

NETWORK is an .npz of int16 weights w0, w1, ... [n_in, n_out] and biases b0, b1, ... in units of 2^-10,
ROWS an .npy of int16 [rows, n_in] in the same units; OUT becomes an .npy of int16 [rows]. The network
is handed to hls4ml as ONNX, with ReLU between its dense layers, converted with one precision,
ap_fixed<16,6>, for everything, and compiled by g++. Runs with the interpreter that has hls4ml
(deploy/setup.sh --fpga)."""

import pathlib
import sys
import tempfile

import hls4ml
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ONE = 1 << 10
FLOAT = TensorProto.FLOAT


def to_onnx(layers):
    """Dense layers as MatMul and Add, the form that hls4ml reads."""
    nodes, constants, known = [], [], []
    last = "x"

    def add(kind, *inputs, width):
        nonlocal last
        output = f"{kind.lower()}{len(nodes)}"
        nodes.append(helper.make_node(kind, [last, *inputs], [output], name=output))
        known.append(helper.make_tensor_value_info(output, FLOAT, [1, width]))
        last = output

    for i, (weight, bias) in enumerate(layers):
        for name, values in ((f"w{i}", weight), (f"b{i}", bias)):
            constants.append(numpy_helper.from_array((values / ONE).astype(np.float32), name))
            known.insert(0, helper.make_tensor_value_info(name, FLOAT, values.shape))
        add("MatMul", f"w{i}", width=len(bias))
        add("Add", f"b{i}", width=len(bias))
        if i < len(layers) - 1:
            add("Relu", width=len(bias))
    graph = helper.make_graph(
        nodes, "facile", [helper.make_tensor_value_info("x", FLOAT, [1, len(layers[0][0])])],
        [known.pop()], constants, value_info=known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def emulate(layers, rows, folder):
    model = to_onnx(layers)
    onnx.checker.check_model(model)
    config = hls4ml.utils.config_from_onnx_model(
        model, granularity="model", backend="Vitis", default_precision="ap_fixed<16,6>")
    config["Model"]["Strategy"] = "Latency"
    network = hls4ml.converters.convert_from_onnx_model(
        model, hls_config=config, output_dir=str(folder), project_name="facile", backend="Vitis",
        io_type="io_parallel")
    network.compile()
    out = network.predict(np.ascontiguousarray(rows / ONE, dtype=np.float32))
    return np.rint(np.asarray(out, np.float64).reshape(-1) * ONE).astype(np.int16)


def main():
    network, rows, out = sys.argv[1:]
    arrays = np.load(network)
    layers = [(arrays[f"w{i}"], arrays[f"b{i}"]) for i in range(len(arrays.files) // 2)]
    with tempfile.TemporaryDirectory(prefix="sonic-hls4ml-") as folder:
        np.save(out, emulate(layers, np.load(rows), pathlib.Path(folder)))


if __name__ == "__main__":
    main()
