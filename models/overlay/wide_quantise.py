# SPDX-License-Identifier: Apache-2.0
"""A Network to a Plan in 16 bits (wide.py). Ranges are the calibration rows' full ones with room above:
there are bits enough for both."""
import numpy as np

from overlay.integers import HIGH16, LOW16
from overlay.network import Unmappable
from overlay.quantise import Quantiser

EXACT_BITS = 52  # sums × multipliers stay below 2^52: float64 holds them, and int64 all the more
MULT_BITS = 23
OPERAND_MULT_MAX = (1 << 31) - 1
SHIFT_MAX = 46
WEIGHT_MAX = 32_639


class WideQuantiser(Quantiser):
    BITS = 16

    def conv(self, op, real, real_in, codes):
        in_scale, zero_in = self.plan.quanta[op.inputs[0]]
        unit = np.maximum(np.abs(op.weight).max((1, 2, 3)), 1e-12) / WEIGHT_MAX
        weight = np.rint(op.weight / unit[:, None, None, None]).astype(np.int16)
        unit = unit * in_scale * 256
        bias = np.rint(op.bias / unit) - zero_in // 256 * weight.astype(np.int64).sum((1, 2, 3))
        step = self.step(op, "wide_conv", weight=weight, bias=bias.astype(np.int64))
        reach = self.reach(op, step)
        if op.head:
            step.shift = max(0, int(np.ceil(np.log2(reach))) - 31)
            return self.head(op, step, unit * 2.0**step.shift)
        out_scale, step.zero = self.plan.quanta[op.output] = self.choose(real)
        scale = unit / out_scale
        scale_b = self.plan.quanta[op.inputs[1]][0] / out_scale if len(op.inputs) > 1 else 0.0
        step.shift = shift_of(op, scale.max(), reach, scale_b)
        step.mult = np.rint(scale * 2.0**step.shift).astype(np.int64)
        step.mult_b = round(scale_b * 2**step.shift)
        if op.act.slope != 1.0:
            step.mult_negative = np.rint(scale * op.act.slope * 2.0**step.shift).astype(np.int64)
        self.clamp(op, step, LOW16, HIGH16)
        return step

    @staticmethod
    def reach(op, step):
        """What |t| may come to; asserts that the three sums it is made of fit into int32."""
        most = np.abs(step.weight.astype(np.int64)).sum((1, 2, 3)) + step.weight[0].size * 256
        if most.max() >= 1 << 30:
            raise Unmappable(op.node, f"it sums {step.weight[0].size} products, too many for 32 bits")
        return float((most * 129 + np.abs(step.bias)).max())

    def add(self, op, real, real_in, codes):
        out_scale, zero = self.plan.quanta[op.output] = self.choose(real)
        a, b = (self.plan.quanta[v][0] / out_scale for v in op.inputs)
        shift = shift_of(op, max(a, b), 1 << 17, max(a, b))
        step = self.step(op, "wide_add", zero=zero, shift=shift, mult_a=round(a * 2**shift),
                         mult_b=round(b * 2**shift))
        self.clamp(op, step, LOW16, HIGH16)
        return step

    def mean(self, op, real, real_in, codes):
        out_scale, zero = self.plan.quanta[op.output] = self.choose(real)
        height, width, _ = self.network.shapes[op.inputs[0]]
        scale = self.plan.quanta[op.inputs[0]][0] / out_scale / (height * width)
        shift = shift_of(op, scale, height * width << 16)
        return self.step(op, "wide_mean", zero=zero, shift=shift, mult=round(scale * 2**shift),
                         low=LOW16, high=HIGH16)

    def choose(self, x):
        """(scale, zero) of a value: its range and some room."""
        low, high = min(0.0, self.room * float(x.min())), max(0.0, self.room * float(x.max()))
        if low == high:
            return 1.0, 0
        levels = HIGH16 - LOW16 - (256 if low < 0 else 0)  # the zero is rounded to a multiple of 256
        scale = (high - low) / levels
        return scale, int(np.ceil((LOW16 - low / scale) / 256)) * 256


def shift_of(op, scale, reach, scale_b=0.0):
    """The largest shift that leaves sums × multipliers exact, and the second input's fits in 32 bits."""
    bits = min(MULT_BITS, EXACT_BITS - int(np.ceil(np.log2(reach))))
    shift = int(np.floor(bits - np.log2(scale)))
    if scale_b:
        shift = min(shift, int(np.floor(np.log2(OPERAND_MULT_MAX / scale_b))))
    if shift < 1:
        raise Unmappable(op.node, f"its output is {scale:.3g} of the unit of its input, which is too coarse")
    return min(shift, SHIFT_MAX)
