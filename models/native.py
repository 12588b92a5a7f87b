# SPDX-License-Identifier: Apache-2.0
"""The weights of FACILE for the native GPU kernel (worker/kernels/facile.cu).

float32, batch norms folded into the dense layers, in the order of worker/kernels/facile_math.h:
each layer its biases and then its weights [n_in][n_out], outputs padded with zeros to a multiple of
four; the last layer's three weights and its bias. Before them 16 bytes: "SNCF", version, count of
floats, FNV-1a (32 bits) of their bytes; all little-endian.
"""
import struct

import numpy as np

import inputs
from spatial import dense_layers

LAYERS = (47, 31, 11, 3, 1)
MAGIC, VERSION = b"SNCF", 1
CHECK_ROWS = 20_000
# Of the energy, at every row: float32's sums in another order, and folded, differ by 3e-5.
TOLERANCE = 1e-4


def padded(n):
    return -(-n // 4) * 4


def fnv(data):
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def pack(layers):
    """The file's bytes for (weight [n_in, n_out], bias [n_out]) of each layer."""
    assert [w.shape for w, _ in layers] == list(zip(LAYERS, LAYERS[1:])), "not FACILE's layers"
    parts = []
    for weight, bias in layers[:-1]:
        block = np.zeros((1 + len(weight), padded(len(bias))), "<f4")
        block[0, :len(bias)], block[1:, :len(bias)] = bias, weight
        parts.append(block.ravel())
    weight, bias = layers[-1]
    floats = np.concatenate([*parts, weight[:, 0], bias]).astype("<f4").tobytes()
    return struct.pack("<4sIII", MAGIC, VERSION, len(floats) // 4, fnv(floats)) + floats


def unpack(data):
    """(weight, bias) of each layer, float32, from the file's bytes."""
    magic, version, count, check = struct.unpack("<4sIII", data[:16])
    assert (magic, version, count, check) == (MAGIC, VERSION, len(data) // 4 - 4, fnv(data[16:]))
    floats = np.frombuffer(data, "<f4", offset=16)
    layers, at = [], 0
    for n_in, n_out in zip(LAYERS[:-2], LAYERS[1:-1]):
        block = floats[at:at + (1 + n_in) * padded(n_out)].reshape(1 + n_in, padded(n_out))
        at += block.size
        layers.append((block[1:, :n_out], block[0, :n_out]))
    return layers + [(floats[at:-1, None], floats[-1:])]


def evaluate(data, x):
    """The energies float32 [rows] of channels x float32 [rows, 47]; a NaN stays one."""
    layers = unpack(data)
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        x = x if i == len(layers) - 1 else np.where(x < 0, np.float32(0), x)
    return np.clip(x[:, 0], np.float32(inputs.ENERGY_MIN_GEV), np.float32(inputs.ENERGY_MAX_GEV))


def weights(model, seed):
    """The file's bytes for the ONNX model (bytes); asserts that they compute what it does."""
    import onnxruntime

    data = pack(dense_layers(model))
    x, _ = inputs.channels(np.random.default_rng([seed, 23]), CHECK_ROWS)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0][:, 0]
    error = float((np.abs(evaluate(data, x) - expected) / expected).max())
    assert error < TOLERANCE, f"facile: the native kernel's weights are off the model by {error:.2e}"
    return data
