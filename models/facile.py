# SPDX-License-Identifier: Apache-2.0
"""FACILE: the energy of a hadron calorimeter channel (CMS HCAL), trained here.

Input `channels` FP32 [batch, 47], the raw columns of inputs.channels. Output `energy` FP32
[batch, 1] in GeV, clamped to [0.01, 1000]. One event is 16,000 channels.
Architecture: batch norm, then dense 31, 11, 3, 1 with ReLU, and a batch norm after 31 and 11. Every
number is in raw units: no scaling is asked of the client. The norms stay nodes, as published;
folded into the dense layers the model would run a third faster and have 1,880 parameters.
Training: Adam on generated channels, a robust loss in units of the expected resolution. First
with batch statistics in the hidden norms, then with these frozen, as they are served.
"""
import numpy as np

import inputs
from graph import BN_EPSILON, Graph

LAYERS = (47, 31, 11, 3, 1)
NORMED = 3  # a batch norm stands before each of the first three dense layers
TRAINABLE = sum(a * b + b for a, b in zip(LAYERS, LAYERS[1:])) + 2 * sum(LAYERS[:NORMED])  # 2,058
STATISTICS = 2 * sum(LAYERS[:NORMED])
MACS_ABOUT = 1.9e3

TRAIN_ROWS, TEST_ROWS, BATCH = 200_000, 100_000, 1_000
EPOCHS, EPOCHS_FROZEN = 4, 16
RATE, RATE_END = 1e-2, 2e-5
OUTPUT_UNIT_GEV = 10.0  # the network learns in this unit, so that its last weights are of order one
BINS_GEV = (1, 3, 10, 30, 100, 500)


def build(seed):
    """Returns (graph, notes); notes is the resolution, a table of text."""
    net = train(seed)
    x, truth = inputs.channels(np.random.default_rng([seed, 11]), TEST_ROWS)
    g = Graph("facile", None, TEST_ROWS)
    v = g.input("channels", x)
    for i, (weight, bias) in enumerate(net.dense):
        if i < NORMED:
            v = g.batch_norm_with(v, *net.norm[i], *net.moments[i])
        last = i == len(net.dense) - 1
        unit = np.float32(OUTPUT_UNIT_GEV if last else 1)
        v = g.dense_with(v, weight * unit, bias * unit)
        v = v if last else g.relu(v)
    g.output("energy", g.clip(v, inputs.ENERGY_MIN_GEV, inputs.ENERGY_MAX_GEV))
    return g, check(x, truth, g.outputs["energy"][:, 0])


class Network:
    """Weights, and the forward and backward passes over them; all float32."""

    def __init__(self, rng, x):
        self.dense = [(rng.standard_normal((a, b), np.float32) * np.float32(np.sqrt(2 / a)),
                       np.zeros(b, np.float32)) for a, b in zip(LAYERS, LAYERS[1:])]
        self.norm = [(np.ones(n, np.float32), np.zeros(n, np.float32)) for n in LAYERS[:NORMED]]
        self.moments = [(x.mean(0), x.var(0))] + [None] * (NORMED - 1)

    def parameters(self):
        return [p for pair in self.dense + self.norm for p in pair]

    def forward(self, x):
        """Returns the output [rows] and what backward needs; the moments that are None are x's."""
        tape = []
        for i, (weight, bias) in enumerate(self.dense):
            normed = None
            if i < NORMED:
                fixed = self.moments[i]
                mean, var = fixed if fixed else (x.mean(0), x.var(0))
                inverse = 1 / np.sqrt(var + np.float32(BN_EPSILON))
                normed = (x - mean) * inverse
                x = normed * self.norm[i][0] + self.norm[i][1]
            out = x @ weight + bias
            tape.append((x, normed, inverse, out))
            x = out if i == len(self.dense) - 1 else np.maximum(out, 0)
        return x[:, 0], tape

    def backward(self, tape, slope):
        """Gradients of parameters(), given the loss's slope [rows] in the output."""
        dense, norm = [None] * len(self.dense), [None] * NORMED
        d = slope[:, None]
        for i in reversed(range(len(self.dense))):
            x, normed, inverse, out = tape[i]
            if i < len(self.dense) - 1:
                d = d * (out > 0)
            dense[i] = (x.T @ d, d.sum(0))
            d = d @ self.dense[i][0].T
            if i < NORMED:
                norm[i] = ((d * normed).sum(0), d.sum(0))
                d = d * self.norm[i][0]
                if not self.moments[i]:
                    d = d - d.mean(0) - normed * (d * normed).mean(0)
                d = d * inverse
        return [p for pair in dense + norm for p in pair]

    def freeze(self, x):
        """Fixes the hidden norms' moments to those of x [rows, 47]."""
        for i, (weight, bias) in enumerate(self.dense[:NORMED]):
            mean, var = self.moments[i] = self.moments[i] or (x.mean(0), x.var(0))
            x = (x - mean) / np.sqrt(var + np.float32(BN_EPSILON)) * self.norm[i][0]
            x = np.maximum((x + self.norm[i][1]) @ weight + bias, 0)


def train(seed):
    """A trained Network; the same seed gives the same bytes on one machine."""
    x, energy = inputs.channels(np.random.default_rng([seed, 10]), TRAIN_ROWS)
    target = (energy / OUTPUT_UNIT_GEV).astype(np.float32)
    width = (np.sqrt(0.3**2 + 0.15 * energy + (0.04 * energy)**2) / OUTPUT_UNIT_GEV).astype(
        np.float32)
    rng = np.random.default_rng([seed, 12])
    net = Network(rng, x)
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in net.parameters()]
    steps, step = (EPOCHS + EPOCHS_FROZEN) * (TRAIN_ROWS // BATCH), 0
    for epoch in range(EPOCHS + EPOCHS_FROZEN):
        if epoch == EPOCHS:
            net.freeze(x)
        order = rng.permutation(TRAIN_ROWS).reshape(-1, BATCH)
        for rows in order:
            step += 1
            out, tape = net.forward(x[rows])
            pull = (out - target[rows]) / width[rows]
            slope = pull / np.sqrt(1 + pull * pull) / width[rows] / np.float32(BATCH)
            rate = RATE_END + (RATE - RATE_END) * 0.5 * (1 + np.cos(np.pi * step / steps))
            adam(net.parameters(), net.backward(tape, slope), moments, rate, step)
    return net


def adam(parameters, gradients, moments, rate, step):
    """One step of Adam (Kingma & Ba, 2015) in place, with its usual constants."""
    rate = np.float32(rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step))
    for p, g, (first, second) in zip(parameters, gradients, moments):
        first += np.float32(0.1) * (g - first)
        second += np.float32(0.001) * (g * g - second)
        p -= rate * first / (np.sqrt(second) + np.float32(1e-8))


def charge_sum(x):
    """The simple method: slices 3–6 less pedestal, times gain, for the mean response."""
    summed = x[:, 2 + 3:2 + 7].sum(1) - 4 * inputs.PEDESTAL_FC
    ieta, depth = np.meshgrid(np.arange(1, 31), np.arange(1, 8))
    return summed * x[:, 1] / inputs.response(ieta, depth).mean()


def check(x, truth, energy):
    """The resolution table; asserts that the network beats the charge sum in every bin."""
    lines = ["# (predicted - true) / true of FACILE and of a plain charge sum, on "
             f"{len(truth)} generated channels it was not trained on",
             "# GeV        channels   FACILE rms    bias   charge sum rms    bias"]
    simple = charge_sum(x)
    for low, high in zip(BINS_GEV, BINS_GEV[1:]):
        rows = (truth >= low) & (truth < high)
        net, base = ((p[rows] - truth[rows]) / truth[rows] for p in (energy, simple))
        rms, base_rms = (np.sqrt((r**2).mean()) for r in (net, base))
        lines.append(f"{low:4d} - {high:4d}  {rows.sum():8d}   {rms:10.3f} {net.mean():+7.3f}   "
                     f"{base_rms:14.3f} {base.mean():+7.3f}")
        assert rms < base_rms, f"facile: worse than a charge sum at {low}-{high} GeV\n{lines[-1]}"
    return "\n".join(lines)
