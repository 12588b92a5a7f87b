# SPDX-License-Identifier: Apache-2.0
"""What a Plan's integers cost beside FP32, in the outputs' own terms: GeV, probabilities, choices."""
import numpy as np

from overlay import floats, integers

PART = 32  # rows at a time, to bound memory
AGREE_MIN = 0.9  # of the choices of a class; the rows are few, so one choice is much
ENERGY_OFF_MAX = 0.01  # of the mean energy
PROBABILITY_OFF_MAX = 0.03


def outputs_of(compute, x):
    """{name: [rows, units]} of a function of rows, computed part by part."""
    parts = [compute(x[i:i + PART]) for i in range(0, len(x), PART)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compare(model, plan, network, x):
    """Lines of words, one an output; asserts that the integers are near the floats."""
    got = outputs_of(lambda rows: integers.run(plan, rows), x)
    want = outputs_of(lambda rows: floats.run(network, rows), x)
    heads = {step.output: step.head for step in plan.steps if step.head}
    begin = f"{model} on OpenCL: integers of {plan.bits} bits beside FP32 on {len(x)} generated inputs:"
    return "\n".join(f"{begin} {words(name, heads[value], got[name], want[name])}"
                     for name, value in plan.outputs.items())


def words(name, head, got, want):
    off = got - want
    rms, worst = float(np.sqrt((off**2).mean())), float(np.abs(off).max())
    if head in ("linear", "clip"):
        mean = float(want.mean())
        assert rms < ENERGY_OFF_MAX * abs(mean), f"{name}: integers are {rms:.3g} off floats, mean {mean:.3g}"
        return f"{name} off by {rms:.3f} GeV rms ({rms / mean:.2%} of the mean), at most {worst:.3f} GeV, " \
               f"mean shift {off.mean():+.4f} GeV"
    chosen = got.argmax(1) == want.argmax(1) if got.shape[1] > 1 else (got > 0.5) == (want > 0.5)
    agree = float(chosen.mean())
    assert agree >= AGREE_MIN and rms < PROBABILITY_OFF_MAX, \
        f"{name}: integers choose as floats in {agree:.1%}, probabilities {rms:.3g} off"
    return f"{name} same choice in {agree:.1%}, probabilities off by {rms:.5f} rms, at most {worst:.5f}"
