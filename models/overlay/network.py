# SPDX-License-Identifier: Apache-2.0
"""What the overlay compiler works on: a network of a few kinds of operation over images.

Every value is an image [height, width, channels] a row (a vector is 1 × 1 × n), channels last, as the
kernels hold it. Weights are float64 until they are quantised.
"""
from dataclasses import dataclass, field

import numpy as np


class Unmappable(ValueError):
    """A model that the overlay cannot run: one line that names the node and the way out."""

    def __init__(self, node, why, way_out="serve this model from its model.onnx (no opencl folder)"):
        super().__init__(f'node "{node}" cannot be mapped: {why}; {way_out}')


@dataclass
class Activation:
    """max(low, min(high, x)), with negative x times slope before."""

    low: float = -np.inf
    high: float = np.inf
    slope: float = 1.0

    def __call__(self, x):
        if self.slope != 1.0:
            x = np.where(x < 0, x * np.asarray(self.slope, x.dtype), x)
        if self.low == -np.inf and self.high == np.inf:
            return x
        return np.clip(x, np.asarray(self.low, x.dtype), np.asarray(self.high, x.dtype))


@dataclass
class Op:
    """One operation. kind is
    conv      weight [out, ky, kx, in], bias [out]; stride, pads. A dense layer is one whose kernel
              is the whole image. A second input is added before the activation
    add       of two values of one shape
    max_pool  kernel, stride, pads
    mean      over height and width
    upsample  nearest, by `factors` in height and width
    affine    scale and shift [channels]; folded away before anything runs
    activate  folded away likewise
    softmax, sigmoid, output    at the end alone; folded into a conv whose `head` is then set
    """

    kind: str
    node: str  # of the ONNX model, for messages
    inputs: list
    output: str
    weight: np.ndarray = None
    bias: np.ndarray = None
    scale: np.ndarray = None
    shift: np.ndarray = None
    kernel: tuple = (1, 1)
    stride: int = 1
    pads: tuple = (0, 0, 0, 0)  # top, left, bottom, right
    factors: tuple = (1, 1)
    act: Activation = field(default_factory=Activation)
    head: str = None  # of a conv that ends in FP32: "linear", "softmax" or "sigmoid"


@dataclass
class Network:
    """ops in an order that can be executed; shapes (height, width, channels) of all values. Element
    (h, w, c) of the input value is element place[h, w, c] of the row that a client sends, times
    in_scale[c] plus in_shift[c]. outputs maps each declared output to the value that it is."""

    input_name: str
    input_value: str
    place: np.ndarray
    in_scale: np.ndarray
    in_shift: np.ndarray
    shapes: dict
    ops: list
    outputs: dict

    def consumers(self, value):
        return [op for op in self.ops if value in op.inputs]

    def producer(self, value):
        return next((op for op in self.ops if op.output == value), None)
