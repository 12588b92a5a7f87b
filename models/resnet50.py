# SPDX-License-Identifier: Apache-2.0
"""ResNet-50: top-quark jets against QCD jets (CMS).

Input `image` FP32 [batch, 224, 224, 3]: a jet's transverse momentum per pixel in GeV, eta × phi,
three equal channels. Output `classes` FP32 [batch, 2]: probabilities of (top, QCD).
Architecture: He et al., arXiv:1512.03385, ResNet v1 (activation after the sum), the stride of a
stage on its first 3×3 convolution, which is what makes 4.1 G multiply-accumulates (3.9 G on the 1×1).
Weights are seeded, not trained; batch-norm statistics and the head's scale come from generated jets.
"""
import numpy as np

import inputs
from graph import Graph

TRAINABLE = 23_508_032 + 2_048 * 2 + 2  # the published body + a head of two classes
STATISTICS = 2 * 26_560
MACS_ABOUT = 4.1e9
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride
LOGIT_STD = 1.2
CALIBRATE = 16


def build(seed):
    """Returns (graph, notes): the graph with its sample outputs and what the build should print."""
    images, _ = inputs.jets(np.random.default_rng([seed, 30]), 2 * CALIBRATE)
    g = Graph("resnet50", np.random.default_rng([seed, 31]), CALIBRATE)
    x = g.transpose(g.input("image", images), (0, 3, 1, 2))
    x = g.relu(conv_norm(g, x, 64, 7, stride=2, pad=3))
    x = g.max_pool(x, 3, 2, pad=1)
    for width, blocks, stride in STAGES:
        for block in range(blocks):
            x = bottleneck(g, x, width, stride if block == 0 else 1)
    x = g.dense_spread(g.global_pool(x), 2, 0.0, LOGIT_STD)
    g.output("classes", g.softmax(x))
    return g, check(g.outputs["classes"][CALIBRATE:])


def bottleneck(g, x, width, stride):
    """1×1, 3×3, 1×1 to four times the width, and the sum with x, projected where shapes differ."""
    y = g.relu(conv_norm(g, x, width, 1))
    y = g.relu(conv_norm(g, y, width, 3, stride=stride, pad=1))
    y = conv_norm(g, y, 4 * width, 1, scale=0.5)
    if stride != 1 or x.sample.shape[1] != 4 * width:
        x = conv_norm(g, x, 4 * width, 1, stride=stride)
    return g.relu(g.add(x, y))


def conv_norm(g, x, channels, kernel, stride=1, pad=0, scale=1.0):
    return g.batch_norm(g.conv(x, channels, kernel, stride, pad, bias=False), scale)


def check(classes):
    """Asserts on probabilities [rows, 2] that no class is stuck and that they vary."""
    mean, std = classes.mean(0), classes.std(0)
    assert ((mean > 0.1) & (mean < 0.9)).all(), f"resnet50: a class is stuck, means {mean}"
    assert (std > 0.1).all(), f"resnet50: probabilities hardly vary, std {std}"
    return f"top={mean[0]:.2f}±{std[0]:.2f}"
