#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a model directly with ONNX Runtime, in this one process: what the farm is compared with.

    run_direct.py --model NAME --repository DIR --input FILE.npy --output-dir D
                  [--batch N] [--threads N]

Writes D/<output name>.npy per output, by rename, and prints the rate of the runs alone.
"""
import argparse
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime


def main():
    parser = argparse.ArgumentParser(description="Runs a model directly with ONNX Runtime.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--repository", required=True, type=Path)
    parser.add_argument("--input", required=True, type=Path)
    parser.add_argument("--output-dir", required=True, type=Path)
    parser.add_argument("--batch", type=int, help="rows a run (default: the model's)")
    parser.add_argument("--threads", type=int, default=0, help="0: one per core")
    args = parser.parse_args()
    folder = args.repository / args.model
    try:
        batch = args.batch or default_batch(folder / "config.pbtxt")
        if batch < 1 or args.threads < 0:
            parser.error("--batch must be at least 1 and --threads at least 0")
        session = open_session(folder / "1" / "model.onnx", args.threads)
        data = open_input(args.input, session.get_inputs()[0])
        args.output_dir.mkdir(parents=True, exist_ok=True)
        seconds = run(session, data, batch, args.output_dir)
    except OSError as error:
        sys.exit(f"run_direct.py: {error.filename or args.output_dir}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"run_direct.py: {error}")
    print(f"model={args.model} items={len(data)} batch={batch} seconds={seconds:.3f} "
          f"items_per_s={len(data) / seconds:.1f}")


def default_batch(path):
    """sonic_default_batch in a config.pbtxt, else 1."""
    found = re.search(r'"sonic_default_batch"\s*value\s*:?\s*{\s*string_value\s*:\s*"(\d+)"',
                      path.read_text())
    return int(found[1]) if found else 1


def open_session(path, threads):
    if not path.is_file():
        raise ValueError(f"no model at {path}; build it with build.py")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's have no common type short of this
        words = " ".join(str(error).split())
        raise ValueError(f"{path} is not a model that loads: {words}; build it again") from error


def open_input(path, declared):
    """The .npy at path, memory-mapped; a ValueError where it is not what the model declares."""
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a whole .npy file: {error}") from error
    dims = tuple(declared.shape[1:])
    if data.dtype != np.float32 or data.shape[1:] != dims:
        raise ValueError(f"{path} holds {data.dtype} {list(data.shape)}, the model wants float32 "
                         f"[rows, {', '.join(map(str, dims))}]")
    if len(data) == 0:
        raise ValueError(f"{path} holds no rows")
    return data


def run(session, data, batch, folder):
    """Writes folder/<output>.npy for all outputs; returns the seconds spent in the runtime."""
    names = [output.name for output in session.get_outputs()]
    files = {name: folder / f".{name}.npy.{os.getpid()}" for name in names}
    try:
        maps, seconds = None, 0.0
        for start in range(0, len(data), batch):
            rows = np.ascontiguousarray(data[start:start + batch])
            begun = time.perf_counter()
            results = session.run(names, {session.get_inputs()[0].name: rows})
            seconds += time.perf_counter() - begun
            if maps is None:
                maps = [np.lib.format.open_memmap(files[name], "w+", r.dtype,
                                                  (len(data), *r.shape[1:]))
                        for name, r in zip(names, results)]
            for target, result in zip(maps, results):
                target[start:start + len(result)] = result
        for target in maps:
            target.flush()
        for name, file in files.items():
            os.replace(file, folder / f"{name}.npy")
        return seconds
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
