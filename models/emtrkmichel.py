# SPDX-License-Identifier: Apache-2.0
"""EmTrkMichelId: what made a hit in a liquid-argon wire chamber (ProtoDUNE-SP).

Input `patch` FP32 [batch, 48, 48, 1]: charge around the hit in ADC counts, wire × time.
Outputs `em_trk_none` FP32 [batch, 3]: probabilities of (track, em, none), and `michel`
FP32 [batch, 1]: probability of a Michel electron.
Architecture: the "EmTrkMichel" network of LArSoft's hit tagger: one 5×5 convolution, then dense
128 and 32; 99.9 % of the weights are the one 92,928 × 128 matrix. Features are flattened channels
last, as in the published network; ONNX Runtime does that while it leaves its blocked layout, 10 to
25 % faster than channels first. Weights are seeded, not trained.
"""
import numpy as np

import inputs
from graph import Graph

TRAINABLE = 11_900_420
STATISTICS = 0
MACS_ABOUT = 14.2e6
LOGIT_STD = 1.5
CALIBRATE = 384


def build(seed):
    """Returns (graph, notes): the graph with its sample outputs and what the build should print."""
    patches, _ = inputs.patches(np.random.default_rng([seed, 40]), 2 * CALIBRATE)
    g = Graph("emtrkmichel", np.random.default_rng([seed, 41]), CALIBRATE)
    x = g.reshape(g.input("patch", patches), (1, 48, 48))  # one channel: NHWC is NCHW
    x = g.relu(g.conv(x, 48, 5))
    x = g.flatten(g.transpose(x, (0, 2, 3, 1)))
    x = g.relu(g.dense(x, 128))
    x = g.relu(g.dense(x, 32))
    g.output("em_trk_none", g.softmax(g.dense_spread(x, 3, 0.0, LOGIT_STD)))
    g.output("michel", g.sigmoid(g.dense_spread(x, 1, 0.0, LOGIT_STD)))
    return g, check(g.outputs["em_trk_none"][CALIBRATE:], g.outputs["michel"][CALIBRATE:, 0])


def check(classes, michel):
    """Asserts on probabilities [rows, 3] and [rows] that no class is stuck and that they vary."""
    both = np.column_stack([classes, michel])
    mean, std = both.mean(0), both.std(0)
    assert ((mean > 0.1) & (mean < 0.9)).all(), f"emtrkmichel: a class is stuck, means {mean}"
    assert (std > 0.1).all(), f"emtrkmichel: probabilities hardly vary, std {std}"
    return " ".join(f"{name}={m:.2f}±{s:.2f}" for name, m, s in
                    zip(("track", "em", "none", "michel"), mean, std))
