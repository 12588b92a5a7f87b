# SPDX-License-Identifier: Apache-2.0
"""A Plan as kernel launches of worker/kernels/overlay.cl: arguments, packed weights, logical buffers."""
from dataclasses import dataclass

import numpy as np

from overlay import wide

FLT_MAX = float(np.finfo(np.float32).max)
ACTIVATIONS = {"linear": 0, "relu": 1, "clip": 2, "sigmoid": 3, "softmax": 4}
STAGED = "staged"  # the input value's stem, as kernels have it; INPUT_BUFFER is what the host writes
INPUT_BUFFER = "in"


@dataclass
class Launch:
    """args: a buffer's name, an int, a float, or ROWS; writes: which buffers it writes."""

    kernel: str
    args: list
    writes: list

    def reads(self):
        return [a for a in self.args if isinstance(a, str) and a not in (*self.writes, ROWS)]


ROWS = "\0rows"


def up(n, multiple):
    return -(-n // multiple) * multiple


class Lowering:
    """launches; scratch {name: bytes a row}; weights {name: bytes}; outputs {tensor: (buffer, n)}."""

    def __init__(self, plan):
        self.plan = plan
        self.launches, self.scratch, self.weights, self.outputs = [], {}, {}, {}
        self.pads, self.pad_bytes, self.zeros = set(), 4, 8
        self.stem = {plan.input_value: STAGED}
        self.stage()
        for number, step in enumerate(plan.steps):
            self.number = number
            self.stem[step.output] = f"v{number}"
            getattr(self, step.kind)(step)
        for zero in sorted(self.pads):
            self.weights[f"pad{zero}"] = np.full(self.pad_bytes, zero, np.int8).tobytes()
        if plan.bits == 16:
            self.weights["zeros"] = bytes(4 * self.zeros)

    # ---- what operations use ---------------------------------------------------------------------

    def shape(self, value):
        """height, width, padded channels."""
        height, width, channels = self.plan.shapes[value]
        return height, width, up(channels, 4)

    def planes(self, value):
        """The names of a value's buffers."""
        stem = self.stem[value]
        return [stem] if self.plan.bits == 8 else [f"{stem}.high", f"{stem}.low"]

    def make(self, value):
        """The same, with the buffers as scratch."""
        for name in self.planes(value):
            self.scratch[name] = int(np.prod(self.shape(value)))
        return self.planes(value)

    def constant(self, name, array):
        self.weights[f"{name}{self.number}"] = array.tobytes()
        return f"{name}{self.number}"

    def pad(self, zero, in_c):
        self.pads.add(zero)
        self.pad_bytes = max(self.pad_bytes, in_c)
        return f"pad{zero}"

    def launch(self, kernel, args, writes):
        self.launches.append(Launch(kernel, [int(a) if isinstance(a, np.integer) else a for a in args],
                                    writes))

    def vector(self, values, n):
        out = np.zeros(n, np.int32)
        out[:len(values)] = values
        return out

    # ---- input -------------------------------------------------------------------------------------

    def strides(self):
        """(in_pixel, in_channel) in elements; the manifest's columns may have to permute first."""
        height, width, channels = self.plan.shapes[self.plan.input_value]
        flat = self.plan.place.reshape(height * width, channels)
        for strides in ((channels, 1), (1, height * width)):
            pixels = np.arange(height * width)[:, None] * strides[0]
            if (flat == pixels + np.arange(channels) * strides[1]).all():
                return strides
        return None

    def stage(self):
        height, width, channels = self.plan.shapes[self.plan.input_value]
        pixel, channel = self.strides() or (channels, 1)
        out = self.make(self.plan.input_value)
        shape = [height * width, channels]
        if self.plan.bits == 8:
            shape.append(height * width * channels)
        self.launch("stage" if self.plan.bits == 8 else "wide_stage",
                    [INPUT_BUFFER, *out, ROWS, *shape, pixel, channel, up(channels, 4)], out)

    # ---- convolutions ------------------------------------------------------------------------------

    def geometry(self, step):
        """in_h ... pad_left of a convolution; a kernel that is the whole image is a dense layer."""
        height, width, channels = self.shape(step.inputs[0])
        out_h, out_w, out_c = self.shape(step.output)
        kernel = step.weight.shape[1:3]
        if kernel == (height, width) and not any(step.pads):
            return [1, 1, height * width * channels, 1, 1, out_c, 1, 1, 1, 1, 0, 0]
        return [height, width, channels, out_h, out_w, out_c, *kernel, step.stride, step.stride,
                step.pads[0], step.pads[1]]

    def pack(self, weight, in_c):
        """int8 [out, ky, kx, in] to blocks of 8 output channels × 4 of K."""
        weight = np.pad(weight, ((0, up(len(weight), 8) - len(weight)), (0, 0), (0, 0),
                                 (0, up(weight.shape[3], 4) - weight.shape[3])))
        flat = weight.reshape(len(weight) // 8, 8, -1, 4)
        return np.ascontiguousarray(flat.transpose(0, 2, 1, 3))

    def conv(self, step):
        geometry = self.geometry(step)
        in_c, out_c = geometry[2], geometry[5]
        co8 = up(out_c, 8)
        source, = self.planes(step.inputs[0])
        weights = self.constant("w", self.pack(step.weight, in_c))
        bias = self.constant("b", self.vector(step.bias, co8))
        given = [source, self.pad(step.zero_a, in_c), weights, bias]
        if step.head:
            return self.head(step, given, geometry)
        mult = self.vector(step.mult, co8)
        kernel, second, last = "conv", [], []
        if step.mult_negative is not None:
            kernel, mult = "conv_leaky", np.concatenate([mult, self.vector(step.mult_negative, co8)])
        if len(step.inputs) > 1:
            kernel, second = "conv_add", self.planes(step.inputs[1])
            last = [step.mult_b, step.zero_b]
        out = self.make(step.output)
        self.launch(kernel, [*given, self.constant("m", mult), *out, *second, ROWS, *geometry, out_c, 0,
                             step.shift, step.zero, step.low, step.high, *last], out)

    def wide_conv(self, step):
        geometry = self.geometry(step)
        in_c, out_c = geometry[2], geometry[5]
        pixels = geometry[3] * geometry[4]
        high, low = self.planes(step.inputs[0])
        both = np.zeros((2 * out_c, *step.weight.shape[1:]), np.int8)
        both[:len(step.weight)], both[out_c:out_c + len(step.weight)] = wide.planes(step.weight)
        weights = self.constant("w", self.pack(both, in_c))
        bias = np.zeros(up(2 * out_c, 8), np.int32)
        bias[:len(step.bias)] = (step.bias + 128) >> 8
        bias[out_c:out_c + len(step.bias)] = step.bias - ((step.bias + 128) >> 8) * 256
        top, middle = f"v{self.number}.top", f"v{self.number}.middle"
        self.scratch[top], self.scratch[middle] = 8 * pixels * out_c, 4 * pixels * out_c
        self.zeros = max(self.zeros, up(out_c, 8))
        twice = [*geometry[:5], 2 * out_c, *geometry[6:]]
        self.launch("conv_acc", [high, self.pad(step.zero_a // 256, in_c), weights,
                                 self.constant("b", bias), top, ROWS, *twice, 2 * out_c, 0], [top])
        self.launch("conv_acc", [low, self.pad(0, in_c), weights, "zeros", middle, ROWS, *geometry, out_c,
                                 0], [middle])
        if step.head:
            acc = f"v{self.number}.acc"
            self.scratch[acc] = 4 * out_c
            self.launch("wide_acc", [top, middle, acc, ROWS, 1, out_c, step.shift], [acc])
            return self.numbers(step, acc, out_c)
        negative = step.mult if step.mult_negative is None else step.mult_negative
        mult = np.concatenate([self.vector(step.mult, out_c), self.vector(negative, out_c)])
        kernel, second, last = "wide_finish", [], []
        if len(step.inputs) > 1:
            kernel, second = "wide_finish_add", self.planes(step.inputs[1])
            last = [step.mult_b, step.zero_b]
        out = self.make(step.output)
        self.launch(kernel, [top, middle, self.constant("m", mult), *out, *second, ROWS, pixels, out_c,
                             step.shift, step.zero, step.low, step.high, *last], out)

    def head(self, step, given, geometry):
        acc = f"v{self.number}.acc"
        self.scratch[acc] = 4 * geometry[5]
        self.launch("conv_acc", [*given, acc, ROWS, *geometry, geometry[5], 0], [acc])
        self.numbers(step, acc, geometry[5])

    def numbers(self, step, acc, out_c):
        """Sums to the FP32 that clients get."""
        tensor = next(t for t, v in self.plan.outputs.items() if v == step.output)
        n = len(step.scale)
        out = f"out{len(self.outputs)}"
        self.outputs[tensor] = out, n
        kind = "relu" if step.head == "clip" and step.bounds == (0.0, np.inf) else step.head
        bounds = [float(np.clip(b, -FLT_MAX, FLT_MAX)) for b in step.bounds]
        self.launch("head", [acc, self.constant("f", step.scale.astype(np.float32)), out, ROWS, 1, n,
                             out_c, ACTIVATIONS[kind], *bounds], [out])

    # ---- the others --------------------------------------------------------------------------------

    def add(self, step):
        a, b = (self.planes(v) for v in step.inputs)
        out = self.make(step.output)
        kernel = "add" if self.plan.bits == 8 else "wide_add"
        self.launch(kernel, [*a, *b, *out, ROWS, int(np.prod(self.shape(step.output))), step.mult_a,
                             step.zero_a, step.mult_b, step.zero_b, step.shift, step.zero, step.low,
                             step.high], out)

    wide_add = add

    def max_pool(self, step):
        height, width, channels = self.shape(step.inputs[0])
        out_h, out_w, _ = self.shape(step.output)
        out = self.make(step.output)
        args = [*self.planes(step.inputs[0]), *out, ROWS, height, width, channels, out_h, out_w,
                *step.kernel, step.stride, step.stride, step.pads[0], step.pads[1]]
        if self.plan.bits == 8:
            self.launch("maxpool", [*args, channels, 0], out)
        else:
            self.launch("wide_maxpool", args, out)

    def mean(self, step):
        height, width, channels = self.shape(step.inputs[0])
        out = self.make(step.output)
        self.launch("avgpool" if self.plan.bits == 8 else "wide_avgpool",
                    [*self.planes(step.inputs[0]), *out, ROWS, height * width, channels, step.zero_a,
                     step.mult, step.shift, step.zero, step.low, step.high], out)

    wide_mean = mean

    def upsample(self, step):
        height, width, channels = self.shape(step.inputs[0])
        for source, target in zip(self.planes(step.inputs[0]), self.make(step.output)):
            self.launch("upsample_nearest", [source, target, ROWS, height, width, channels, *step.factors,
                                             channels, 0], [target])

