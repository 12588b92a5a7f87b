# SPDX-License-Identifier: Apache-2.0
"""A Plan as a bundle's files (docs/bundle.md): bundle.pbtxt, overlay.cl, weights.bin."""
from pathlib import Path

import numpy as np

from overlay import memory
from overlay.launches import INPUT_BUFFER, ROWS, Lowering
from overlay.network import Unmappable

KERNELS = Path(__file__).resolve().parents[2] / "worker" / "kernels"
SOURCES = (KERNELS / "overlay.cl", KERNELS / "overlay_wide.cl")  # the second needs the first
ALIGN = 64
GROUPS = 64  # every kernel shares its work among any number of groups
COLUMNS_MAX = 4096  # of an input, as the manifest's reader has it
# Tile sizes as docs/decisions/int8-kernels.md has measured them.
PROGRAMS = (("Portable Computing Language", "-DTILE_K=4608"),
            ("Intel(R)", "-DPAIRS -DTILE_PIXELS=3 -DTILE_K=2304"), ("", ""))


def files(plan, rows, name):
    """{file name: bytes} for a Plan in runs of `rows`."""
    lowering = Lowering(plan)
    return {"bundle.pbtxt": manifest(plan, lowering, rows, name).encode(), "overlay.cl": program(plan),
            "weights.bin": b"".join(data + bytes(-len(data) % ALIGN)
                                    for data in lowering.weights.values())}


def program(plan):
    """The kernels' source: those of 16 bits follow those of 8."""
    return b"\n".join(source.read_bytes() for source in (SOURCES if plan.bits == 16 else SOURCES[:1]))


def manifest(plan, lowering, rows, name):
    uses = [(launch.reads(), launch.writes) for launch in lowering.launches]
    at, sizes = memory.assign(uses, {k: v * rows for k, v in lowering.scratch.items()})
    where = {value: f"s{number}" for value, number in at.items()}
    values, together = sum(lowering.scratch.values()) * rows, sum(sizes)
    lines = [f"# {name} in integers of {plan.bits} bits, compiled by models/overlay; do not edit.",
             f"# {len(lowering.launches)} launches; values of {values} bytes in buffers of {together}.",
             f"rows: {rows}",
             *(program_entry(*entry) for entry in PROGRAMS), 'weights: "weights.bin"']
    elements = plan.place.size
    lines.append(buffer(INPUT_BUFFER, "INPUT", elements * plan.bits // 8 * rows))
    offset = 0
    for key, data in lowering.weights.items():
        lines.append(buffer(key, "WEIGHTS", len(data), f" offset: {offset}"))
        offset += len(data) + -len(data) % ALIGN
    for tensor, (out, n) in lowering.outputs.items():
        lines.append(buffer(out, "OUTPUT", 4 * n * rows))
    lines += [buffer(f"s{i}", "SCRATCH", size) for i, size in enumerate(sizes)]
    lines += conversion(plan, lowering)
    lines += [f'output {{ tensor: "{tensor}" buffer: "{out}" type: FP32 }}'
              for tensor, (out, _) in lowering.outputs.items()]
    for launch in lowering.launches:
        args = " ".join(argument(a, where) for a in launch.args)
        lines.append(f'launch {{ kernel: "{launch.kernel}" {args} global {{ size: {GROUPS} }} local: 1 }}')
    return "\n".join([*lines, ""])


def program_entry(platform, tiles):
    where = f'platform: "{platform}" ' if platform else ""
    return f'program {{ {where}source: "overlay.cl" options: "{" ".join(["-cl-std=CL1.2", tiles]).strip()}" }}'


def buffer(name, use, size, rest=""):
    return f'buffer {{ name: "{name}" use: {use} bytes: {size}{rest} }}'


def argument(arg, where):
    if arg == ROWS:
        return "arg { rows: true }"
    if isinstance(arg, str):
        return f'arg {{ buffer: "{where.get(arg, arg)}" }}'
    return f"arg {{ float: {arg!r} }}" if isinstance(arg, float) else f"arg {{ int: {arg} }}"


def conversion(plan, lowering):
    """The input: one scale for all elements, or a column each."""
    begin = f'input {{ tensor: "{plan.input_name}" buffer: "{INPUT_BUFFER}" type: INT{plan.bits}'
    scale, offset = plan.in_scale, plan.in_offset
    if lowering.strides() and len(set(scale)) == 1 and len(set(offset)) == 1:
        return [f"{begin} scale: {scale[0]:.9g} offset: {offset[0]:.9g} }}"]
    if plan.place.size > COLUMNS_MAX:
        raise Unmappable(plan.input_name, f"its {plan.place.size} elements (over {COLUMNS_MAX}) need a "
                         "conversion each", "put channels first or last, and no batch norm before all layers")
    # With strides the order is the client's; without, the columns bring it into the kernels'.
    place = plan.place.reshape(-1)
    to = place if lowering.strides() else np.arange(len(place))
    channel = np.arange(len(place)) % len(scale)
    return [begin, *(f"  column {{ from: {p} to: {t} scale: {scale[c]:.9g} offset: {offset[c]:.9g} }}"
                     for p, t, c in zip(place, to, channel)), "}"]
