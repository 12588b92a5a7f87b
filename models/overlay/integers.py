# SPDX-License-Identifier: Apache-2.0
"""The overlay's arithmetic in numpy, exactly: what every device must give, bit for bit.

An activation is int8 q for scale × (q - zero). Sums are int32. A sum becomes an activation by
    mul_hi(a, m) = floor(a × m / 2^32)
    q = clamp(floor((sum + 2^(shift-1)) / 2^shift) + zero_out, lo, hi)
as worker/kernels/overlay.cl has it. Here all of it is done in floating point of which every
intermediate is an integer (or a binary fraction) that the type holds: products of matrices in float32
while sums stay below 2^24, in float64 otherwise; multipliers have 24 significant bits.
"""
from dataclasses import dataclass, field

import numpy as np

from overlay import floats

LOW16, HIGH16 = -32768, 32639  # so that both bytes of v are signed: v = 256 × high + low
MULT_UNIT = 128  # multipliers are multiples of this: 24 bits, so that sum × mult fits into float64
SUM_MAX = 1 << 29  # of a convolution's sums: 29 + 24 bits
OPERAND_BITS = 20  # an int8 operand of a sum is shifted up by this before mul_hi
MEAN_BITS = 4
PART = 1 << 18  # sums of a convolution at a time


@dataclass
class Step:
    """An operation in integers. kind: conv, add, max_pool, mean, upsample, or of wide.py. Which of the
    fields are meaningful depends on it; mult is int64 [out], or one number."""

    kind: str
    node: str
    inputs: list
    output: str
    weight: np.ndarray = None  # int8 [out, ky, kx, in]; wide: int16
    bias: np.ndarray = None  # int64 [out], in int32's range
    mult: np.ndarray = None
    mult_negative: np.ndarray = None  # where the sum is negative (LeakyReLU)
    mult_a: int = 0
    mult_b: int = 0  # of the second input
    shift: int = 0
    zero_a: int = 0  # of the inputs
    zero_b: int = 0
    zero: int = 0  # of the output
    low: int = -128
    high: int = 127
    kernel: tuple = (1, 1)
    stride: int = 1
    pads: tuple = (0, 0, 0, 0)
    factors: tuple = (1, 1)
    scale: np.ndarray = None  # of a head: float32 [out]
    head: str = None  # linear, clip, softmax, sigmoid
    bounds: tuple = (0.0, 0.0)  # of a head that clips
    prepared: dict = field(default_factory=dict)  # weights as matrices, made when first needed


@dataclass
class Plan:
    """A network in integers of `bits` (8, or 16: wide.py). The input is stored as round(x × in_scale +
    in_offset), float32 [c] each, element (h, w, c) from element place[h, w, c] of the client's row."""

    bits: int
    input_name: str
    input_value: str
    place: np.ndarray
    in_scale: np.ndarray
    in_offset: np.ndarray
    shapes: dict
    steps: list
    outputs: dict
    quanta: dict = field(default_factory=dict)  # value: (scale, zero)


def store(plan, x):
    """The input value [rows, h, w, c] as the device has it of x float32."""
    image = x.reshape(len(x), -1)[:, plan.place.reshape(-1)].reshape(len(x), *plan.place.shape)
    image = np.rint(image * plan.in_scale + plan.in_offset)
    if plan.bits == 16:
        return np.clip(image, LOW16, HIGH16).astype(np.int16)
    return np.clip(image, -128, 127).astype(np.int8)


def run(plan, x):
    """Outputs {name: float32 [rows, units]} of x float32 [rows, ...]."""
    values = {plan.input_value: store(plan, x)}
    last = {v: step for step in plan.steps for v in step.inputs}
    for step in plan.steps:
        values[step.output] = compute_any(step, [values[v] for v in step.inputs])
        for value in set(step.inputs):
            if last[value] is step:
                del values[value]
    return {name: values[v].reshape(len(x), -1) for name, v in plan.outputs.items()}


def compute_any(step, inputs):
    from overlay import wide
    return (wide.compute if step.kind.startswith("wide_") else compute)(step, inputs)


def compute(step, inputs):
    """The step's output: int8 [rows, h, w, c], or float32 of a head."""
    x = inputs[0]
    if step.kind == "conv":
        if step.head:
            return finish(step, sums(step, x))
        return by_parts(step, inputs, np.int8, lambda x, *second: requantise(step, sums(step, x), *second))
    if step.kind == "add":
        total = operand(x, step.zero_a, step.mult_a)
        return round_off(step, total + operand(inputs[1], step.zero_b, step.mult_b))
    if step.kind == "max_pool":
        return floats.pool(x, step.kernel, step.stride, step.pads, np.iinfo(x.dtype).min)
    if step.kind == "mean":
        total = (x.astype(np.int64) - step.zero_a).sum((1, 2), keepdims=True).astype(np.float64)
        return round_off(step, mul_hi(total * (1 << MEAN_BITS), step.mult))
    assert step.kind == "upsample", step.kind
    return x.repeat(step.factors[0], 1).repeat(step.factors[1], 2)


def by_parts(step, inputs, kind, compute_part):
    """A convolution of a few images at a time: what is float64 of them stays in the cache."""
    rows = len(inputs[0])
    pixels = 1 if step.weight.shape[1:3] == inputs[0].shape[1:3] else inputs[0][0, ..., 0].size
    part = max(1, PART // (pixels * len(step.weight)))
    parts = [compute_part(*(v[i:i + part] for v in inputs)) for i in range(0, rows, part)]
    return np.concatenate(parts).astype(kind, copy=False)


def sums(step, x):
    """What a convolution sums, float64 of integers: [rows, h, w, out]."""
    return products(step, x, "weight", step.weight, step.zero_a) + step.bias.astype(np.float64)


def products(step, x, name, weight, outside):
    """The convolution of codes x int8 with weights int8, in a type that holds every sum exactly. The
    weights' matrix is kept in the step by name."""
    if name not in step.prepared:
        reach = 128 * int(np.abs(weight.astype(np.int64)).sum((1, 2, 3)).max())
        step.prepared[name] = floats.flatten(weight, np.float32 if reach < 1 << 24 else np.float64)
    flat = step.prepared[name]
    return floats.convolve(x.astype(flat.dtype), flat, weight.shape[1:3], step.stride, step.pads, outside)


def requantise(step, total, second=None):
    mult = step.mult.astype(np.float64)
    if step.mult_negative is not None:
        mult = np.where(total < 0, step.mult_negative, step.mult)
    total = mul_hi(total, mult)
    if second is not None:
        total += operand(second, step.zero_b, step.mult_b)
    return round_off(step, total)


def operand(q, zero, mult):
    return mul_hi((q.astype(np.float64) - zero) * (1 << OPERAND_BITS), mult)


def mul_hi(a, mult):
    return np.floor(a * mult * 2.0**-32)


def round_off(step, total):
    total = np.floor((total + (1 << step.shift - 1)) * 2.0**-step.shift)
    return np.clip(total + step.zero, step.low, step.high).astype(np.int8)


def finish(step, total):
    """A head: sums [rows, 1, 1, n] to float32 [rows, n]."""
    x = total.reshape(len(total), -1).astype(np.float32) * step.scale
    if step.head == "clip":
        return np.clip(x, np.float32(step.bounds[0]), np.float32(step.bounds[1]))
    return floats.head(step, x)
