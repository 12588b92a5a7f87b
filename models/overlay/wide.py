# SPDX-License-Identifier: Apache-2.0
"""Integers of 16 bits on the int8 kernels, exactly: for networks that 8 bits are too coarse for.

A value v is two planes of int8, v = 256 × high + low, and so is a weight. A convolution is two of
the int8 ones (the high plane with both bytes of the weights, the low plane with their high byte),
three int8 products for each of 16 bits; the fourth, low × low, is left out: it is 2^-16 of the first.
Sums are in units of 256:
    t = 256 × (high·W_high) + high·W_low + low·W_high
    v = clamp(floor((t × mult[channel] + 2^(shift-1)) / 2^shift) + zero, low, high)
as worker/kernels/overlay_wide.cl has it. zero is a multiple of 256, so that its low plane is 0.
"""
import numpy as np

from overlay import floats, integers
from overlay.integers import HIGH16, LOW16


def planes(v):
    """(high, low) int8 of v, an integer in LOW16..HIGH16."""
    high = (v.astype(np.int32) + 128) >> 8
    return high.astype(np.int8), (v.astype(np.int32) - 256 * high).astype(np.int8)


def compute(step, inputs):
    """The step's output: int16 [rows, h, w, c], or float32 of a head."""
    x = inputs[0]
    if step.kind == "wide_conv":
        if step.head:
            total = np.floor((sums(step, x) + (1 << step.shift >> 1)) * 2.0**-step.shift)
            return integers.finish(step, total)
        return integers.by_parts(step, inputs, np.int16, lambda *part: requantise(step, *part))
    if step.kind == "wide_add":
        total = (x.astype(np.float64) - step.zero_a) * step.mult_a
        return round_off(step, total + (inputs[1].astype(np.float64) - step.zero_b) * step.mult_b)
    assert step.kind == "wide_mean", step.kind
    total = (x.astype(np.float64) - step.zero_a).sum((1, 2), keepdims=True)
    return round_off(step, total * step.mult)


def sums(step, x):
    """t, float64 of integers: [rows, h, w, out]."""
    high, low = planes(x)
    weight_high, weight_low = planes(step.weight)
    outside = step.zero_a // 256
    total = integers.products(step, high, "high", weight_high, outside) * np.float64(256)
    total += integers.products(step, high, "low", weight_low, outside)
    total += integers.products(step, low, "high", weight_high, 0)
    return total + step.bias


def requantise(step, x, second=None):
    total = sums(step, x)
    mult = step.mult.astype(np.float64)
    if step.mult_negative is not None:
        mult = np.where(total < 0, step.mult_negative, mult)
    total *= mult
    if second is not None:
        total += (second.astype(np.float64) - step.zero_b) * step.mult_b
    return round_off(step, total)


def round_off(step, total):
    total = np.floor((total + (1 << step.shift - 1)) * 2.0**-step.shift)
    return np.clip(total + step.zero, step.low, step.high).astype(np.int16)
