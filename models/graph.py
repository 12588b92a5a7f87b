# SPDX-License-Identifier: Apache-2.0
"""A small ONNX builder that computes while it builds.

Every value carries a sample: a numpy array with one row per example input. Each operator appends
its ONNX node and evaluates itself on the sample, so that
  - weights can depend on data (batch-norm statistics, heads scaled to a wanted spread),
  - the numpy result is an independent check of what an ONNX runtime later computes,
  - parameters and multiply-accumulates are counted where they arise.
Statistics are taken from the first `calibrate` rows only; the rest are for checks.
Convolutional values are NCHW. Not done here: training, control flow, types other than float32.
"""
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, checker, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # what belongs to opset 17; every ONNX Runtime since 1.12 reads it
BN_EPSILON = 1e-5


@dataclass
class Value:
    """A tensor in the graph: its ONNX name and its sample, float32 [rows, ...]."""

    name: str
    sample: np.ndarray


class Graph:
    def __init__(self, name, rng, calibrate):
        self.name, self.rng, self.calibrate = name, rng, calibrate
        self.trainable = self.statistics = self.macs = 0
        self.outputs = {}
        self._input = self._feed = None
        self._nodes, self._initializers, self._outputs = [], [], []

    def input(self, name, sample):
        """The graph's one input; sample float32 [rows, *dims] fixes dims, rows become dynamic."""
        sample = np.ascontiguousarray(sample, np.float32)
        self._input = helper.make_tensor_value_info(
            name, TensorProto.FLOAT, ["batch", *sample.shape[1:]])
        self._feed = Value(name, sample)
        return self._feed

    def sample_feed(self, rows):
        """The input's last rows, by its name, for a runtime to compute."""
        return {self._feed.name: self._feed.sample[-rows:]}

    def output(self, name, x):
        """Makes x an output called name."""
        self._nodes.append(helper.make_node("Identity", [x.name], [name]))
        self._outputs.append(helper.make_tensor_value_info(
            name, TensorProto.FLOAT, ["batch", *x.sample.shape[1:]]))
        self.outputs[name] = x.sample

    def model(self):
        """The finished ModelProto, checked by onnx."""
        graph = helper.make_graph(self._nodes, self.name, [self._input], self._outputs,
                                  self._initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)],
                                  ir_version=IR_VERSION, producer_name="sonic")
        checker.check_model(model, full_check=True)
        return model

    # Layers with parameters.

    def conv(self, x, channels, kernel, stride=1, pad=0, bias=True, gain=2.0):
        """Square convolution, He weights (variance gain / fan-in, He et al. 2015), zero bias."""
        n, c, h, w = x.sample.shape
        fan_in = c * kernel * kernel
        weight = self._normal((channels, c, kernel, kernel), np.sqrt(gain / fan_in))
        names = [x.name, self._parameter("weight", weight)]
        if bias:
            names.append(self._parameter("bias", np.zeros(channels, np.float32)))
        out = conv2d(x.sample, weight, stride, pad)
        self.macs += channels * fan_in * out.shape[2] * out.shape[3]
        return self._add("Conv", names, out, kernel_shape=[kernel] * 2, strides=[stride] * 2,
                         pads=[pad] * 4)

    def batch_norm(self, x, scale=1.0):
        """Normalises axis 1 by the calibration rows' mean and variance, then times scale."""
        rows = x.sample[:self.calibrate]
        axes = tuple(a for a in range(rows.ndim) if a != 1)
        mean = rows.mean(axes, dtype=np.float64).astype(np.float32)
        var = rows.var(axes, dtype=np.float64).astype(np.float32)
        return self.batch_norm_with(x, np.full_like(mean, scale), np.zeros_like(mean), mean, var)

    def batch_norm_with(self, x, scale, shift, mean, var):
        """Batch norm over axis 1 with the vectors given, each float32 [axis 1]."""
        names = [x.name, self._parameter("scale", scale), self._parameter("shift", shift),
                 self._statistic("mean", mean), self._statistic("var", var)]
        column = (-1,) + (1,) * (x.sample.ndim - 2)
        factor = (scale / np.sqrt(var + np.float32(BN_EPSILON))).reshape(column)
        out = (x.sample - mean.reshape(column)) * factor + shift.reshape(column)
        return self._add("BatchNormalization", names, out, epsilon=BN_EPSILON)

    def dense(self, x, units, gain=2.0):
        """Fully connected over [rows, features], He weights, zero bias."""
        features = x.sample.shape[1]
        weight = self._normal((features, units), np.sqrt(gain / features))
        return self.dense_with(x, weight, np.zeros(units, np.float32))

    def dense_spread(self, x, units, mean, std, target=None):
        """A head whose outputs have the given mean and std on the calibration rows.

        The units' outputs are decorrelated, so that no class of a softmax shadows another. Where a
        target [rows] is given, each unit's sign is turned to rise with it.
        """
        rows = x.sample[:self.calibrate].astype(np.float64)
        weight = self.rng.normal(size=(rows.shape[1], units))
        centred = (rows - rows.mean(0)) @ weight
        factor = np.linalg.cholesky(centred.T @ centred / len(rows))
        weight = weight @ np.linalg.inv(factor).T * std
        if target is not None:
            along = (rows @ weight - (rows @ weight).mean(0)).T @ target[:self.calibrate]
            weight *= np.where(along < 0, -1.0, 1.0)
        bias = mean - rows.mean(0) @ weight
        return self.dense_with(x, weight.astype(np.float32), bias.astype(np.float32))

    def dense_with(self, x, weight, bias):
        """x @ weight + bias; weight float32 [features, units], bias float32 [units]."""
        self.macs += weight.size
        names = [x.name, self._parameter("weight", weight), self._parameter("bias", bias)]
        return self._add("Gemm", names, x.sample @ weight + bias)

    # Layers without.

    def relu(self, x):
        return self._add("Relu", [x.name], np.maximum(x.sample, 0))

    def leaky_relu(self, x, alpha):
        out = np.where(x.sample < 0, np.float32(alpha) * x.sample, x.sample)
        return self._add("LeakyRelu", [x.name], out, alpha=alpha)

    def clip(self, x, low, high):
        names = [x.name] + [self._constant("bound", np.float32(v)) for v in (low, high)]
        return self._add("Clip", names, np.clip(x.sample, np.float32(low), np.float32(high)))

    def add(self, a, b):
        return self._add("Add", [a.name, b.name], a.sample + b.sample)

    def max_pool(self, x, kernel, stride, pad=0):
        out = max_pool2d(x.sample, kernel, stride, pad)
        return self._add("MaxPool", [x.name], out, kernel_shape=[kernel] * 2,
                         strides=[stride] * 2, pads=[pad] * 4)

    def global_pool(self, x):
        out = x.sample.mean((2, 3), dtype=np.float64, keepdims=True).astype(np.float32)
        return self.flatten(self._add("GlobalAveragePool", [x.name], out))

    def flatten(self, x):
        return self._add("Flatten", [x.name], x.sample.reshape(len(x.sample), -1), axis=1)

    def softmax(self, x):
        e = np.exp(x.sample - x.sample.max(1, keepdims=True))
        return self._add("Softmax", [x.name], e / e.sum(1, keepdims=True), axis=1)

    def sigmoid(self, x):
        return self._add("Sigmoid", [x.name], 1 / (1 + np.exp(-x.sample)))

    def transpose(self, x, order):
        out = np.ascontiguousarray(x.sample.transpose(order))
        return self._add("Transpose", [x.name], out, perm=list(order))

    def reshape(self, x, dims):
        """Reshapes each row to dims; free of cost, also in the runtime."""
        shape = self._constant("shape", np.array([-1, *dims], np.int64))
        return self._add("Reshape", [x.name, shape], x.sample.reshape(-1, *dims))

    def repeat(self, x, axis, times):
        """Nearest-neighbour upsampling of one axis by a whole factor."""
        scales = np.ones(x.sample.ndim, np.float32)
        scales[axis] = times
        names = [x.name, "", self._constant("scales", scales)]
        return self._add("Resize", names, np.repeat(x.sample, times, axis), mode="nearest",
                         coordinate_transformation_mode="asymmetric", nearest_mode="floor")

    # Plumbing.

    def _add(self, op, names, sample, **attributes):
        name = f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, names, [name], name=name, **attributes))
        return Value(name, np.ascontiguousarray(sample, np.float32))

    def _normal(self, shape, std):
        return self.rng.standard_normal(shape, np.float32) * np.float32(std)

    def _constant(self, kind, array):
        name = f"{kind}_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def _parameter(self, kind, array):
        self.trainable += array.size
        return self._constant(kind, array.astype(np.float32))

    def _statistic(self, kind, array):
        self.statistics += array.size
        return self._constant(kind, array.astype(np.float32))


def conv2d(x, weight, stride, pad):
    """Convolution of x [n, c, h, w] with weight [o, c, k, k]; image by image, to bound memory."""
    channels, _, kernel, _ = weight.shape
    flat = weight.reshape(channels, -1)
    if pad:
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = None
    for i, image in enumerate(x):
        windows = sliding_window_view(image, (kernel, kernel), (1, 2))[:, ::stride, ::stride]
        _, height, width = windows.shape[:3]
        columns = windows.transpose(0, 3, 4, 1, 2).reshape(flat.shape[1], height * width)
        if out is None:
            out = np.empty((len(x), channels, height, width), np.float32)
        np.matmul(flat, columns, out=out[i].reshape(channels, -1))
    return out


def max_pool2d(x, kernel, stride, pad):
    """Maximum over kernel × kernel windows of x [n, c, h, w]; incomplete windows are dropped."""
    if pad:
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=-np.inf)
    height = (x.shape[2] - kernel) // stride + 1
    width = (x.shape[3] - kernel) // stride + 1
    out = None
    for row in range(kernel):
        for col in range(kernel):
            part = x[:, :, row:row + stride * height:stride, col:col + stride * width:stride]
            part = part[:, :, :height, :width]
            out = part.copy() if out is None else np.maximum(out, part, out=out)
    return out
