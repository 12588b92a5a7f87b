# SPDX-License-Identifier: Apache-2.0
"""The three models that the overlay runs: how each is compiled, and what its integers cost."""
from dataclasses import dataclass

import numpy as np

import inputs
from overlay import bundle, fold, quantise, reader


@dataclass
class Recipe:
    """bits of the values; rows of a run (16 MB a slot or so, and no more than config.pbtxt's
    max_batch_size); rows of generated inputs that ranges are taken from; rows to compare on."""

    bits: int
    rows: int
    calibrate: int
    compare: int


RECIPES = {"resnet50": Recipe(16, 4, 24, 24), "deepcalo": Recipe(16, 32, 768, 512),
           "emtrkmichel": Recipe(16, 32, 768, 512)}
SEED_CALIBRATE, SEED_COMPARE = 50, 51  # streams of their own beside those that made the weights


def rows_of(name, seed, stream, rows):
    """Generated inputs float32 [rows, ...] that no other use of a model sees."""
    return inputs.GENERATORS[name](np.random.default_rng([seed, stream]), rows)[0]


def network_of(model):
    return fold.fold(reader.read(model))


def plan_of(name, model, seed, bits=None):
    """The Plan of a model by its recipe: what the bundle that build.py writes computes."""
    recipe = RECIPES[name]
    x = rows_of(name, seed, SEED_CALIBRATE, recipe.calibrate)
    return quantise.quantise(network_of(model), x, bits or recipe.bits)


def files_of(name, plan):
    return bundle.files(plan, RECIPES[name].rows, name)
