# SPDX-License-Identifier: Apache-2.0
"""A Network in floating point to a Plan in integers, by rows of calibration data.

Weights: int8, symmetric, a scale for each output channel. Activations: int8 with a scale and a zero a
value; the range is the one of the least squared error on the calibration rows. Then each layer's bias
takes up the mean error that the integers before it have made (bias correction, Nagel et al. 2019).
"""
import numpy as np

from overlay import floats, integers
from overlay.integers import MEAN_BITS, MULT_UNIT, OPERAND_BITS, SUM_MAX, Plan, Step
from overlay.network import Unmappable

SAMPLE = 1 << 17  # elements of a value that decide its range
CANDIDATES = 40  # ranges that are tried, from the full one down
SHIFT_MAX = 30
MULT_MAX = (1 << 31) - MULT_UNIT


def quantise(network, x, bits=8, room=1.25):
    """The Plan of a folded Network, calibrated on x float32 [rows, ...]; in 8 or 16 bits (wide.py), these
    with ranges `room` times those of the calibration rows."""
    if bits == 16:
        from overlay.wide_quantise import WideQuantiser
        return WideQuantiser(network, x, room).plan
    return Quantiser(network, x).plan


class Quantiser:
    """Walks through the network once, with the calibration rows in floating point and in integers."""

    BITS = 8
    KIND = ""

    def __init__(self, network, x, room=1.0):
        self.network, self.room = network, room
        value = network.input_value
        reals = {value: floats.stored_input(network, x)}
        scale, zero = self.choose(reals[value])
        self.plan = Plan(self.BITS, network.input_name, value, network.place,
                         (network.in_scale / scale).astype(np.float32),
                         (network.in_shift / scale + zero).astype(np.float32), network.shapes, [],
                         network.outputs, {value: (scale, zero)})
        codes = {value: integers.store(self.plan, x)}
        last = {v: op for op in network.ops for v in op.inputs}
        for op in network.ops:
            real = floats.compute(op, [reals[v] for v in op.inputs])
            inputs = [codes[v] for v in op.inputs]
            step = getattr(self, op.kind)(op, real, reals[op.inputs[0]], inputs)
            self.plan.steps.append(step)
            reals[op.output] = real
            if self.BITS == 8:  # wide integers need no correction
                codes[op.output] = integers.compute(step, inputs)
            else:
                codes[op.output] = None
            for v in set(op.inputs):
                if last[v] is op:
                    del reals[v], codes[v]

    def step(self, op, kind, **rest):
        """What all kinds share."""
        zeros = [self.plan.quanta[v][1] for v in op.inputs]
        return Step(kind, op.node, list(op.inputs), op.output, zero_a=zeros[0], zero_b=zeros[-1],
                    kernel=op.kernel, stride=op.stride, pads=op.pads, factors=op.factors, **rest)

    def conv(self, op, real, real_in, codes):
        in_scale, zero_in = self.plan.quanta[op.inputs[0]]
        unit = np.maximum(np.abs(op.weight).max((1, 2, 3)), 1e-12) / 127
        weight = np.rint(op.weight / unit[:, None, None, None]).astype(np.int8)
        unit = unit * in_scale
        bias = np.rint(op.bias / unit) - zero_in * weight.astype(np.int64).sum((1, 2, 3))
        step = self.step(op, "conv", weight=weight, bias=bias.astype(np.int64))
        want = floats.convolve(real_in, floats.flatten(op.weight), op.weight.shape[1:3], op.stride, op.pads)
        want = want.mean((0, 1, 2), dtype=np.float64) + op.bias
        total = integers.sums(step, codes[0])
        step.bias += np.rint(want / unit - total.mean((0, 1, 2))).astype(np.int64)
        check_sums(step)
        if op.head:
            return self.head(op, step, unit)
        out_scale, step.zero = self.plan.quanta[op.output] = self.choose(real)
        scale = unit / out_scale
        if len(op.inputs) > 1:
            scale_b = self.plan.quanta[op.inputs[1]][0] / out_scale
            step.shift = min(shift_of(op, scale.max(), 32), shift_of(op, scale_b, 32 - OPERAND_BITS))
            step.mult_b = multiplier(scale_b, 32 - OPERAND_BITS + step.shift)
        else:
            step.shift = shift_of(op, scale.max(), 32)
        step.mult = multiplier(scale, 32 + step.shift)
        if op.act.slope != 1.0:
            step.mult_negative = multiplier(scale * op.act.slope, 32 + step.shift)
        self.clamp(op, step)
        return step

    def clamp(self, op, step, low=-128, high=127):
        scale, zero = self.plan.quanta[op.output]
        step.low, step.high = (int(np.clip(np.rint(bound / scale + zero), low, high))
                               for bound in (op.act.low, op.act.high))

    def head(self, op, step, unit):
        step.scale = unit.astype(np.float32)
        step.head, step.bounds = op.head, (op.act.low, op.act.high)
        if op.head == "linear" and step.bounds != (-np.inf, np.inf):
            step.head = "clip"
        return step

    def add(self, op, real, real_in, codes):
        out_scale, zero = self.plan.quanta[op.output] = self.choose(real)
        a, b = (self.plan.quanta[v][0] / out_scale for v in op.inputs)
        shift = shift_of(op, max(a, b), 32 - OPERAND_BITS)
        step = self.step(op, "add", zero=zero, shift=shift,
                         mult_a=multiplier(a, 32 - OPERAND_BITS + shift),
                         mult_b=multiplier(b, 32 - OPERAND_BITS + shift))
        self.clamp(op, step)
        return step

    def max_pool(self, op, real, real_in, codes):
        self.plan.quanta[op.output] = self.plan.quanta[op.inputs[0]]
        return self.step(op, op.kind)

    upsample = max_pool

    def mean(self, op, real, real_in, codes):
        out_scale, zero = self.plan.quanta[op.output] = self.choose(real)
        height, width, _ = self.network.shapes[op.inputs[0]]
        scale = self.plan.quanta[op.inputs[0]][0] / out_scale / (height * width)
        shift = shift_of(op, scale, 32 - MEAN_BITS)
        return self.step(op, "mean", zero=zero, shift=shift,
                         mult=multiplier(scale, 32 - MEAN_BITS + shift))

    def choose(self, x):
        """(scale, zero) of a value with the least squared error over a sample of x."""
        low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
        if low == high:
            return 1.0, 0
        flat = x.reshape(-1)
        sample = flat[::max(1, len(flat) // SAMPLE)].astype(np.float64)
        best = None
        for part in np.linspace(1.0, 0.2, CANDIDATES):
            scale = (high - low) * part / 255
            zero = int(np.clip(np.rint(-128 - low * part / scale), -128, 127))
            codes = np.clip(np.rint(sample / scale) + zero, -128, 127)
            error = float((((codes - zero) * scale - sample)**2).mean())
            if best is None or error < best[0]:
                best = error, scale, zero
        return best[1:]


def shift_of(op, scale, bits):
    """The largest shift with scale × 2^(bits + shift) below 2^31."""
    shift = int(np.floor(np.log2(MULT_MAX / scale))) - bits
    if shift < 1:
        raise Unmappable(op.node, f"its output is {scale:.3g} of the unit of its input, which is too coarse")
    return min(shift, SHIFT_MAX)


def multiplier(scale, bits):
    mult = np.rint(np.asarray(scale) * 2.0**bits / MULT_UNIT).astype(np.int64) * MULT_UNIT
    return mult if mult.ndim else int(mult)


def check_sums(step):
    """Sums must stay inside int32 whatever comes in."""
    reach = np.abs(step.weight.astype(np.int64)).sum((1, 2, 3)) * 128 + np.abs(step.bias)
    if reach.max() >= SUM_MAX:
        raise Unmappable(step.node, f"sums may reach {reach.max()}, beyond the {SUM_MAX} of exact arithmetic")
