#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares two .npy files: |a - b| <= atol + rtol × |b| everywhere, NaN equal to NaN.

    compare.py A.npy B.npy [--rtol 1e-5] [--atol 1e-6]

Prints the largest absolute and relative error. Exit status: 0 equal within tolerance, 1 not, 2 a
file that cannot be read. Memory is bounded: the files are mapped and read in blocks.
"""
import argparse
import sys

import numpy as np

BLOCK_ROWS = 1 << 16


def main():
    parser = argparse.ArgumentParser(description="Compares two .npy files.")
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--rtol", type=float, default=1e-5)
    parser.add_argument("--atol", type=float, default=1e-6)
    args = parser.parse_args()
    a, b = load(args.a), load(args.b)
    if a.shape != b.shape or a.dtype != b.dtype:
        sys.exit(fail(f"{args.a} is {a.dtype} {list(a.shape)}, {args.b} is {b.dtype} "
                      f"{list(b.shape)}"))
    worst = compare(a, b, args.rtol, args.atol)
    line = (f"values={a.size} max_abs={worst['abs']:.3g} max_rel={worst['rel']:.3g} "
            f"rtol={args.rtol:g} atol={args.atol:g} beyond={worst['beyond']}")
    if worst["beyond"]:
        sys.exit(fail(f"{line} first_at={worst['first']} {args.a} {args.b}"))
    print(f"equal {line}")


def load(path):
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        print(f"compare.py: cannot read {path}: {error}", file=sys.stderr)
        sys.exit(2)


def fail(line):
    """Says that the files differ; returns the exit status."""
    print(f"different {line}")
    return 1


def compare(a, b, rtol, atol):
    """Largest errors, the number of values beyond tolerance and the row of the first."""
    worst = {"abs": 0.0, "rel": 0.0, "beyond": 0, "first": None}
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    for start in range(0, len(a), BLOCK_ROWS):
        x, y = (v[start:start + BLOCK_ROWS].astype(np.float64) for v in (a, b))
        same = (x == y) | (np.isnan(x) & np.isnan(y))  # equal infinities have no difference
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.where(same, 0.0, np.abs(x - y))
            relative = np.where(same, 0.0, error / np.abs(y))
            bad = ~same & ~((error <= atol + rtol * np.abs(y)) & np.isfinite(error))
        error, relative = (np.where(np.isnan(v), np.inf, v) for v in (error, relative))
        worst["abs"] = max(worst["abs"], error.max(initial=0.0))
        worst["rel"] = max(worst["rel"], relative.max(initial=0.0))
        worst["beyond"] += int(bad.sum())
        if worst["first"] is None and bad.any():
            worst["first"] = start + int(np.argwhere(bad)[0][0])
    return worst


if __name__ == "__main__":
    main()
