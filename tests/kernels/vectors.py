# SPDX-License-Identifier: Apache-2.0
"""The recorded vectors of FACILE in float: the kernel's weights, channels, ONNX Runtime's answers.

    vectors.py record [MODELS]    writes facile.vectors anew, from the built FACILE (build/models)

The weights are part of the vectors: training need not give the same ones everywhere. Little-endian:
uint32 rows, the whole of facile.bin, float32 channels [rows, 47], float32 energies [rows].
The last rows are the edges: what no detector gives and a client may send."""

import pathlib
import struct
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VECTORS = HERE / "facile.vectors"
ROWS, SEED = 256, 41
sys.path.insert(0, str(ROOT / "models"))

import inputs  # noqa: E402


def edges(channel):
    """Rows around one channel float32 [47]: extremes in a number, in the depth and the |ieta| code."""
    rows = []
    for column in (0, 2, 9, 10, 17, 46):
        # A code beyond 1e30 overflows in the model's own batch norm, which folding avoids.
        top = 3.4e38 if column < 10 else 1e30
        for value in (np.nan, np.inf, -np.inf, top, -top, 1e10, -1e10, 1e-40, -0.0):
            rows.append(channel.copy())
            rows[-1][column] = value
    no_ieta, no_codes = channel.copy(), channel.copy()
    no_ieta[17:] = 0
    no_codes[10:] = 0
    both = channel.copy()
    both[17:] = 1
    fills = [np.full(47, v, np.float32) for v in (0, np.nan, np.inf, -np.inf, 1e30, -1e30)]
    return np.stack([*rows, no_ieta, no_codes, both, *fills])


def record(models):
    import onnxruntime

    folder = models / "facile" / "1"
    x, _ = inputs.channels(np.random.default_rng(SEED), ROWS)
    x = np.concatenate([x, edges(x[0])]).astype("<f4")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    energies = session.run(None, {"channels": x})[0][:, 0].astype("<f4")
    weights = (folder / "cuda" / "facile.bin").read_bytes()
    VECTORS.write_bytes(struct.pack("<I", len(x)) + weights + x.tobytes() + energies.tobytes())
    print(f"{VECTORS.name}: {VECTORS.stat().st_size} bytes, {len(x)} rows, "
          f"{np.isnan(energies).sum()} of them NaN")


if __name__ == "__main__":
    if sys.argv[1:2] != ["record"]:
        sys.exit(__doc__)
    record(pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "build" / "models")
