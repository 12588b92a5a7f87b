# SPDX-License-Identifier: Apache-2.0
"""DeepCalo: an electron's energy from its calorimeter image (ATLAS).

Input `cells` FP32 [batch, 56, 11, 4]: cell energies in GeV, eta × phi × sampling layer.
Output `energy` FP32 [batch, 1] in GeV, >= 0.
Architecture: F. Faye's DeepCalo; phi is upsampled 5 × to make the cells near square, a convolutional
block per scale, all "same" padding, LeakyReLU 0.3. Weights are seeded, not trained; the head is
scaled on generated electrons so that energies cover their range.
"""
import numpy as np

import inputs
from graph import Graph

TRAINABLE = 1_833_745 + 2 * 4  # weights and biases + the input batch norm's scale and shift
STATISTICS = 2 * 4
MACS_ABOUT = 43.4e6
LEAK = 0.3
ENERGY_MEAN_GEV, ENERGY_STD_GEV = 75.0, 25.0  # three sigma above the ReLU's zero
CALIBRATE = 192


def build(seed):
    """Returns (graph, notes): the graph with its sample outputs and what the build should print."""
    cells, truth = inputs.calorimeter(np.random.default_rng([seed, 20]), 2 * CALIBRATE)
    g = Graph("deepcalo", np.random.default_rng([seed, 21]), CALIBRATE)
    x = g.transpose(g.input("cells", cells), (0, 3, 1, 2))
    x = g.batch_norm(g.repeat(x, 3, 5))
    x = g.leaky_relu(g.conv(x, 16, 5, pad=2), LEAK)
    for channels in (32, 64, 128, 256):
        x = g.max_pool(x, 2, 2)
        for _ in range(2):
            x = g.leaky_relu(g.conv(x, channels, 3, pad=1), LEAK)
    x = g.flatten(x)
    for _ in range(2):
        x = g.leaky_relu(g.dense(x, 256), LEAK)
    x = g.dense_spread(x, 1, ENERGY_MEAN_GEV, ENERGY_STD_GEV, target=truth)
    g.output("energy", g.relu(x))
    return g, check(g.outputs["energy"][CALIBRATE:, 0])


def check(energy):
    """Asserts on energies [rows] in GeV that they are spread and not stuck at the ReLU's zero."""
    zero = float((energy == 0).mean())
    assert zero < 0.05, f"deepcalo: {zero:.0%} of the energies sit at the ReLU's zero"
    assert energy.std() > 8, f"deepcalo: energies hardly vary (std {energy.std():.2f} GeV)"
    assert 30 < energy.mean() < 150, f"deepcalo: mean energy {energy.mean():.1f} GeV"
    return f"energy_gev={energy.mean():.1f}±{energy.std():.1f} at_zero={zero:.3f}"
