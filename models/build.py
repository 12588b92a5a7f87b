#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the model repository: DIR/<name>/config.pbtxt, DIR/<name>/1/model.onnx, and bundles.

    build.py --out DIR [--seed 1] [--only NAME]

Same sources, same seed: same weights. A model that DIR holds already, from these sources and this
seed and unharmed, is left alone. Files appear by rename, the record (build.json) last, so an
interrupted build is simply built again. Each build asserts the model's size, that its outputs are
well spread, and that ONNX Runtime agrees with the numpy pass that made the weights.
"""
import argparse
import concurrent.futures
import hashlib
import importlib
import json
import os
import sys
import time
from pathlib import Path

# One thread of linear algebra per model, models side by side: sums do not depend on the number of
# cores, and FACILE's small products lose more to threads than they gain. Must precede numpy.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402

import native  # noqa: E402
import spatial  # noqa: E402
from overlay import bundle, compiler  # noqa: E402

HERE = Path(__file__).resolve().parent
NAMES = ("resnet50", "facile", "deepcalo", "emtrkmichel")  # the longest first
VERIFY_ROWS = 16
# numpy and ONNX Runtime sum in different orders; relative to the output's largest value.
VERIFY_TOLERANCE = 1e-4
MACS_TOLERANCE = 0.05  # the published figures are rounded


def main():
    parser = argparse.ArgumentParser(description="Builds the model repository.")
    parser.add_argument("--out", required=True, type=Path, help="repository folder to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=NAMES, help="build this model alone")
    args = parser.parse_args()
    if args.seed < 0:
        parser.error("--seed must not be negative")
    try:
        build_all([args.only] if args.only else NAMES, args.out, args.seed)
    except OSError as error:
        sys.exit(f"build.py: cannot write {error.filename or args.out}: {error.strerror}; "
                 "choose another --out")


def build_all(names, out, seed):
    """Builds the models, a process for each core, and prints what each says."""
    workers = min(len(names), len(os.sched_getaffinity(0)))
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        tasks = [pool.submit(build, name, out / name, seed) for name in names]
        for task in concurrent.futures.as_completed(tasks):
            print(task.result(), flush=True)


def build(name, folder, seed):
    """Builds one model into folder unless it is there; returns what to tell the user."""
    sources = source_hash(name)
    if is_current(folder, sources, seed):
        return f"model={name} state=current folder={folder}"
    started = time.monotonic()
    module = importlib.import_module(name)
    graph, notes = module.build(seed)
    check_size(name, graph, module)
    model = graph.model().SerializeToString()
    verify(name, graph, model)

    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "build.json").unlink(missing_ok=True)
    write(folder / "1" / "model.onnx", model)
    write(folder / "config.pbtxt", config_path(name).read_bytes())
    files, more = bundles(name, model, seed)
    for path, data in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        write(folder / path, data)
    paths = ["1/model.onnx", "config.pbtxt", *files]
    notes += "\n" + more
    write(folder / "resolution.txt", (notes + "\n").encode())
    record = {"model": name, "seed": seed, "sources": sources,
              "files": {path: file_hash(folder / path) for path in paths},
              "parameters": graph.trainable, "statistics": graph.statistics, "macs": graph.macs}
    write(folder / "build.json", (json.dumps(record, indent=2) + "\n").encode())
    line = (f"model={name} state=built parameters={graph.trainable} statistics={graph.statistics} "
            f"macs={graph.macs} bytes={len(model)} seconds={time.monotonic() - started:.1f}")
    return "\n  ".join([line, *notes.splitlines()])


def bundles(name, model, seed):
    """What devices other than CPUs execute: {path in the model's folder: bytes}, and what it costs."""
    if name == "facile":
        files, notes = spatial.bundle(model, seed)
        more = {"1/cuda/facile.bin": native.weights(model, seed)}
    else:
        files, notes = compiler.bundle_of(name, model, seed)
        more = {}
    return {f"1/opencl/{file}": data for file, data in files.items()} | more, notes


def config_path(name):
    return HERE / "configs" / f"{name}.pbtxt"


def source_hash(name):
    """The hash of all that decides a model's bytes, but for the seed."""
    paths = [HERE / f for f in ("build.py", "graph.py", "inputs.py", f"{name}.py",
                                "requirements.txt")] + [config_path(name)]
    if name == "facile":
        paths += [HERE / "native.py", HERE / "spatial.py"]
    else:
        paths += [*sorted((HERE / "overlay").glob("*.py")), *bundle.SOURCES]
    whole = hashlib.sha256()
    for path in paths:
        whole.update(f"{path.name} {file_hash(path)}\n".encode())
    return whole.hexdigest()


def file_hash(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_current(folder, sources, seed):
    """Whether folder holds, unharmed, what a build from these sources and seed would write."""
    try:
        record = json.loads((folder / "build.json").read_text())
        return (record["sources"] == sources and record["seed"] == seed and
                all(file_hash(folder / path) == h for path, h in record["files"].items()))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return False


def write(path, data):
    """Writes path whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def check_size(name, graph, module):
    """Asserts the counts that the module states, exactly, and its work, to the published digits."""
    assert graph.trainable == module.TRAINABLE, \
        f"{name}: {graph.trainable} parameters, not {module.TRAINABLE}"
    assert graph.statistics == module.STATISTICS, \
        f"{name}: {graph.statistics} batch-norm statistics, not {module.STATISTICS}"
    assert abs(graph.macs / module.MACS_ABOUT - 1) < MACS_TOLERANCE, \
        f"{name}: {graph.macs} multiply-accumulates, not about {module.MACS_ABOUT:.3g}"


def verify(name, graph, model):
    """Asserts that ONNX Runtime computes what the graph's numpy pass did, on rows of its sample."""
    import onnxruntime
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    results = session.run(list(graph.outputs), graph.sample_feed(VERIFY_ROWS))
    for (output, expected), got in zip(graph.outputs.items(), results):
        expected = expected[-VERIFY_ROWS:]
        error = float(np.abs(got - expected).max() / np.abs(expected).max())
        assert error < VERIFY_TOLERANCE, \
            f"{name}: ONNX Runtime's {output} is off the numpy pass by {error:.2e}"


if __name__ == "__main__":
    main()
