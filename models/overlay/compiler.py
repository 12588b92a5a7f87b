# SPDX-License-Identifier: Apache-2.0
"""The three models that the overlay runs: how each is compiled, and what its integers cost."""
from dataclasses import dataclass

import numpy as np

import inputs
from overlay import bundle, fold, quantise, reader, report


@dataclass
class Recipe:
    """bits of the values; rows of a run (16 MB a slot or so, no more than config.pbtxt's max_batch_size,
    and far within the device's timeout when all slots share two busy cores); rows of generated inputs
    that ranges are taken from; rows to compare on; a range over that of the rows it is taken from."""

    bits: int
    rows: int
    calibrate: int
    compare: int
    room: float = 1.25


# Why 16 bits, and why DeepCalo, whose energies have a long tail, has more room: docs/decisions/int8-quantisation.md.
RECIPES = {"resnet50": Recipe(16, 1, 24, 24), "deepcalo": Recipe(16, 32, 1536, 512, 2.0),
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
    return quantise.quantise(network_of(model), x, bits or recipe.bits, recipe.room)


def files_of(name, plan):
    return bundle.files(plan, RECIPES[name].rows, name)


def bundle_of(name, model, seed):
    """({file name: bytes}, what the integers cost in words) of a serialized ONNX model. Asserts that
    they are near FP32 on rows that they were not calibrated on."""
    plan = plan_of(name, model, seed)
    x = rows_of(name, seed, SEED_COMPARE, RECIPES[name].compare)
    return files_of(name, plan), report.compare(name, plan, network_of(model), x)
