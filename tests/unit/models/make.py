#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tiny models that the executor's tests load; their files are committed (under 2 kB each).

affine  y = 2 x + 1, FP32[batch, 3]
types   one Identity for each element type, [batch, 2]
free    y = x, FP32[batch, n]; its output has a free dimension
"""
import pathlib

from onnx import TensorProto, checker, helper, save

HERE = pathlib.Path(__file__).parent
TYPES = "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FLOAT16 BFLOAT16 FLOAT DOUBLE".split()


def info(name, kind, dims):
    return helper.make_tensor_value_info(name, getattr(TensorProto, kind), dims)


def write(name, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(constants))
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    checker.check_model(model, full_check=True)
    path = HERE / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    print(path, path.stat().st_size, "bytes")


def main():
    node = helper.make_node
    write(
        "affine",
        [node("Mul", ["x", "two"], ["twice"]), node("Add", ["twice", "one"], ["y"])],
        [info("x", "FLOAT", ["batch", 3])],
        [info("y", "FLOAT", ["batch", 3])],
        [helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in (("two", 2.0), ("one", 1.0))],
    )
    kinds = [(k.lower(), k) for k in TYPES]
    write(
        "types",
        [node("Identity", ["i_" + n], ["o_" + n]) for n, _ in kinds],
        [info("i_" + n, k, ["batch", 2]) for n, k in kinds],
        [info("o_" + n, k, ["batch", 2]) for n, k in kinds],
    )
    write("free", [node("Identity", ["x"], ["y"])], [info("x", "FLOAT", ["batch", "n"])], [info("y", "FLOAT", ["batch", "n"])])


if __name__ == "__main__":
    main()
