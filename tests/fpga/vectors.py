# SPDX-License-Identifier: Apache-2.0
"""The recorded vectors of FACILE in fixed point: a network and what hls4ml makes of 10,000 rows.

    vectors.py record [MODELS]    writes facile.vectors anew, from the built FACILE (build/models)

deploy/setup.sh --fpga installs hls4ml. The network is part of the vectors: training need not give the
same weights everywhere. Every implementation is held against them: the C reference, the numpy model
of models/spatial.py, the OpenCL kernel, and hls4ml again where it is installed."""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VECTORS = HERE / "facile.vectors"
HLS4ML = ROOT / ".deps" / "fpga" / "hls4ml" / "bin" / "python"
ROWS, ROW, NUMBERS, CODES, ONE = 10000, 47, 17, 30, 1 << 10
EDGES = (-32768, -32767, -1025, -1024, -1, 0, 1, 1023, 1024, 32767)
MASK = (1 << 64) - 1


def numbers():
    """xorshift64*, 16 bits at a time, as fixed_reference.c has it."""
    state = 1
    while True:
        state ^= state >> 12
        state = state ^ state << 25 & MASK
        state ^= state >> 27
        yield (state * 0x2545F4914F6CDD1D & MASK) >> 48


def rows():
    """int16 [ROWS, 47]: see fixed_row() in fixed_reference.h."""
    stream = numbers()
    out = np.zeros((ROWS, ROW), np.int16)
    for i in range(ROWS):
        for k in range(NUMBERS):
            x = next(stream)
            out[i, k] = (x - 0x10000 * (x >> 15), EDGES[x % len(EDGES)], (x >> 4) - 2048)[i % 3]
        code = next(stream) % (CODES + 1)
        if code < CODES:
            out[i, NUMBERS + code] = ONE
    return out


def read():
    """(weights, biases, recorded): int16 arrays, the recorded answers [ROWS]."""
    words = np.fromfile(VECTORS, "<i2")
    nlayers, at = int(words[0]), 2 + int(words[0])
    widths = words[1:at].astype(int)
    weights, biases = [], []
    for ins, outs in zip(widths, widths[1:]):
        weights.append(words[at:at + ins * outs].reshape(ins, outs))
        biases.append(words[at + ins * outs:at + (ins + 1) * outs])
        at += (ins + 1) * outs
    assert len(weights) == nlayers and len(words) - at == ROWS
    return weights, biases, words[at:]


def emulate(weights, biases, inputs, python=HLS4ML, seconds=600):
    """hls4ml's answers, int16 [rows]."""
    with tempfile.TemporaryDirectory(prefix="sonic-vectors-") as name:
        folder = pathlib.Path(name)
        np.savez(folder / "network.npz", **{f"w{i}": w for i, w in enumerate(weights)},
                 **{f"b{i}": b for i, b in enumerate(biases)})
        np.save(folder / "rows.npy", inputs)
        done = subprocess.run(
            [python, HERE / "hls4ml_emulate.py", folder / "network.npz", folder / "rows.npy", folder / "out.npy"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"hls4ml: {done.stderr[-2000:]}")
        return np.load(folder / "out.npy")


def record(models):
    sys.path.insert(0, str(ROOT / "models"))
    import spatial

    fixed = spatial.quantise((models / "facile" / "1" / "model.onnx").read_bytes(), 1)
    weights = [w.astype("<i2") for w in fixed.weights]
    biases = [b.astype("<i2") for b in fixed.biases]
    widths = [len(weights[0]), *(len(b) for b in biases)]
    answers = emulate(weights, biases, rows()).astype("<i2")
    parts = [np.array([len(weights), *widths], "<i2")]
    for weight, bias in zip(weights, biases):
        parts += [weight.ravel(), bias]
    np.concatenate([*parts, answers]).tofile(VECTORS)
    print(f"{VECTORS.name}: {VECTORS.stat().st_size} bytes, {ROWS} rows")


if __name__ == "__main__":
    if sys.argv[1:2] != ["record"]:
        sys.exit(__doc__)
    record(pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "build" / "models")
