# SPDX-License-Identifier: Apache-2.0
"""Small networks that have every operator of the overlay between them, as graphs of models/graph.py."""
import sys

import numpy as np

from conftest import ROOT

sys.path.insert(0, str(ROOT / "models"))
import graph  # noqa: E402


def residual(x):
    """Strides, padding, a projection, both kinds of sum, pooling, a mean, softmax."""
    g = graph.Graph("residual", np.random.default_rng(1), len(x) // 2)
    y = g.transpose(g.input("x", x), (0, 3, 1, 2))
    y = g.relu(g.batch_norm(g.conv(y, 13, 7, stride=2, pad=3, bias=False)))
    y = g.max_pool(y, 3, 2, pad=1)
    z = g.batch_norm(g.conv(g.relu(g.conv(y, 6, 1)), 13, 3, pad=1))
    y = g.relu(g.add(z, y))
    y = g.add(g.relu(g.conv(y, 9, 1)), g.relu(g.conv(y, 9, 3, pad=1)))  # no convolution can take this sum
    y = g.global_pool(g.clip(g.batch_norm(y), 0.0, 6.0))
    g.output("y", g.softmax(g.dense_spread(y, 3, 0.0, 1.0)))
    return g


def leaky(x):
    """A batch norm before padding, upsampling, LeakyReLU, dense layers behind an image, two outputs."""
    g = graph.Graph("leaky", np.random.default_rng(2), len(x) // 2)
    y = g.transpose(g.input("x", x), (0, 3, 1, 2))
    y = g.batch_norm(g.repeat(g.repeat(y, 3, 3), 2, 2))
    y = g.leaky_relu(g.conv(y, 7, 5, pad=2), 0.3)
    y = g.batch_norm(g.max_pool(y, 2, 2))
    y = g.leaky_relu(g.conv(y, 10, 3, pad=1), 0.1)
    y = g.relu(g.dense(g.flatten(y), 20))
    g.output("y", g.clip(g.dense_spread(y, 2, 0.5, 1.0), 0.0, 1.5))
    g.output("z", g.sigmoid(g.dense(g.batch_norm(y), 1)))
    return g


def first_channels(x):
    """The client's rows have channels first."""
    g = graph.Graph("first", np.random.default_rng(3), len(x) // 2)
    y = g.relu(g.conv(g.input("x", x), 8, 3, stride=2))
    g.output("y", g.dense(g.flatten(y), 5))
    return g


def odd_axes(x):
    """Channels in the middle: the conversion permutes."""
    g = graph.Graph("odd", np.random.default_rng(4), len(x) // 2)
    y = g.relu(g.conv(g.transpose(g.input("x", x), (0, 2, 3, 1)), 8, 3))
    g.output("y", g.relu(g.dense(g.flatten(y), 5)))
    return g


SMALL = {"residual": (residual, (29, 37, 3)), "leaky": (leaky, (8, 7, 5)), "first": (first_channels, (3, 11, 9)),
         "odd_axes": (odd_axes, (11, 3, 9))}
