# SPDX-License-Identifier: Apache-2.0
"""A Network in floating point: what the integers are calibrated on and compared with."""
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def stored_input(network, x):
    """The input value float32 [rows, h, w, c] of what clients send, float32 [rows, ...]."""
    image = x.reshape(len(x), -1)[:, network.place.reshape(-1)].reshape(len(x), *network.place.shape)
    return image * network.in_scale.astype(np.float32) + network.in_shift.astype(np.float32)


def run(network, x, each=None):
    """Outputs {name: float32 [rows, units]}. each(value name, array) sees every value as it comes;
    a value is dropped after its last use."""
    values = {network.input_value: stored_input(network, x)}
    last = {v: op for op in network.ops for v in op.inputs}
    if each:
        each(network.input_value, values[network.input_value])
    for op in network.ops:
        values[op.output] = compute(op, [values[v] for v in op.inputs])
        if each:
            each(op.output, values[op.output])
        for value in set(op.inputs):
            if last[value] is op:
                del values[value]
    return {name: head(network.producer(v), values[v].reshape(len(x), -1))
            for name, v in network.outputs.items()}


def compute(op, inputs):
    x = inputs[0]
    if op.kind == "conv":
        bias = op.bias.astype(np.float32)
        x = convolve(x, flatten(op.weight), op.weight.shape[1:3], op.stride, op.pads) + bias
        return op.act(x + inputs[1] if len(inputs) > 1 else x)
    if op.kind == "add":
        return op.act(x + inputs[1])
    if op.kind == "max_pool":
        return pool(x, op.kernel, op.stride, op.pads, -np.inf)
    if op.kind == "mean":
        return x.mean((1, 2), dtype=np.float64, keepdims=True).astype(np.float32)
    assert op.kind == "upsample", op.kind
    return x.repeat(op.factors[0], 1).repeat(op.factors[1], 2)


def head(op, x):
    if op.head == "softmax":
        e = np.exp(x - x.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)
    return 1 / (1 + np.exp(-x)) if op.head == "sigmoid" else x


def padded(image, pads, value):
    """[h, w, c] or [rows, h, w, c] with a border of value; pads: top, left, bottom, right."""
    if not any(pads):
        return image
    lead = ((0, 0),) * (image.ndim - 3)
    return np.pad(image, (*lead, (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)), constant_values=value)


def flatten(weight, real=np.float32):
    """Weights [out, ky, kx, in] as convolve takes them: a matrix [ky × kx × in, out]."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1).T.astype(real))


def convolve(x, flat, kernel, stride, pads, outside=0):
    """x [rows, h, w, c] with flattened weights of a kernel (height, width), both of one type; image
    by image, to bound memory. Windows see `outside` around the image. A product of matrices."""
    if tuple(kernel) == x.shape[1:3] and not any(pads):
        return (x.reshape(len(x), -1) @ flat)[:, None, None, :]
    out = None
    for i, image in enumerate(x):
        if tuple(kernel) == (1, 1) and not any(pads):
            columns = image[::stride, ::stride]
        else:
            windows = sliding_window_view(padded(image, pads, outside), kernel, (0, 1))
            columns = windows[::stride, ::stride].transpose(0, 1, 3, 4, 2)
        if out is None:
            out = np.empty((len(x), *columns.shape[:2], flat.shape[1]), x.dtype)
        np.matmul(columns.reshape(-1, len(flat)), flat, out=out[i].reshape(-1, flat.shape[1]))
    return out


def pool(x, kernel, stride, pads, outside):
    """The maximum over windows of x [rows, h, w, c]; `outside` must be the type's least."""
    x = padded(x, pads, outside)
    height = (x.shape[1] - kernel[0]) // stride + 1
    width = (x.shape[2] - kernel[1]) // stride + 1
    out = None
    for row in range(kernel[0]):
        for col in range(kernel[1]):
            part = x[:, row:row + stride * height:stride, col:col + stride * width:stride]
            part = part[:, :height, :width]
            out = part.copy() if out is None else np.maximum(out, part, out=out)
    return out
