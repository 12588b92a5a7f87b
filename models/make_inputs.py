#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes generated inputs of a model as a .npy of any size.

    make_inputs.py --model NAME --items N --output FILE.npy [--seed 1]

Chunk by chunk: memory does not grow with N, and a longer file of the same seed begins with the
shorter one's bytes. FILE appears by rename once it is whole.
"""
import argparse
import os
import sys
from pathlib import Path

import numpy as np

import inputs


def main():
    parser = argparse.ArgumentParser(description="Writes generated inputs of a model as .npy.")
    parser.add_argument("--model", required=True, choices=sorted(inputs.GENERATORS))
    parser.add_argument("--items", required=True, type=int)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.items < 1 or args.seed < 0:
        parser.error("--items must be at least 1 and --seed at least 0")
    try:
        bytes_written = write(args.model, args.items, args.output, args.seed)
    except OSError as error:
        sys.exit(f"make_inputs.py: cannot write {args.output}: {error.strerror}")
    print(f"model={args.model} items={args.items} bytes={bytes_written} file={args.output}")


def write(model, items, path, seed):
    """Streams items inputs to path; returns the file's size in bytes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            for number, chunk in enumerate(inputs.stream(model, items, seed)):
                if number == 0:
                    np.lib.format.write_array_header_1_0(file, {
                        "descr": "<f4", "fortran_order": False, "shape": (items, *chunk.shape[1:])})
                file.write(np.ascontiguousarray(chunk, "<f4").data)
            size = file.tell()
        os.replace(partial, path)
        return size
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    main()
