# SPDX-License-Identifier: Apache-2.0
"""The spatial bundle of FACILE: the trained network as one fixed-point pipeline (hls4ml's way).

From the ONNX model to an OpenCL C kernel with the weights as constants and its manifest
(docs/bundle.md). Arithmetic is hls4ml's ap_fixed<16,6> with TRN and WRAP: every product is floored to
10 fraction bits and wrapped to 16 bits before it is added, sums wrap. Batch norms are folded into
the dense layers; each hidden unit is rescaled (ReLU is homogeneous) so that what it sums stays
inside the type on generated channels, and so do its weights; the output is in units of 32 GeV, so that 1,000 GeV fit.

A row is 32 int16 (64 B): ten numbers, scaled each by its own factor, seven of the depth code, and
the |ieta| code as one number, by which the kernel looks its column of weights up.
"""
from dataclasses import dataclass

import numpy as np

import inputs

ROWS = 16_384  # of one call: 1 MiB in, 32 KiB out
ROW = 32  # int16 of a stored row
FRACTION = 10  # bits of ap_fixed<16,6>
ONE = 1 << FRACTION
NUMBERS, DEPTHS, IETAS = 10, 7, 30  # of a channel's 47 inputs (inputs.channels)
IETA_AT = NUMBERS + DEPTHS  # in a stored row, and where the code begins in the input
OUTPUT_UNIT_GEV = 32.0
INPUT_MAX, HIDDEN_MAX = 24.0, 24.0  # of 32; what generated channels reach, with the room below
INPUT_ROOM, HIDDEN_ROOM = 1.5, 1.25
WEIGHT_MAX = 31.9  # of 32
CHANNEL_DEPTH = 256  # rows: what memory may be late by
SAMPLE_ROWS = 100_000
BINS_GEV = (1, 3, 10, 30, 100, 500)


@dataclass
class Fixed:
    """The network in integers of 2**-FRACTION: weights [n_in, n_out], biases [n_out] for each dense
    layer; float32 scale and offset [NUMBERS] of the numeric inputs."""

    weights: list
    biases: list
    scale: np.ndarray
    offset: np.ndarray


def dense_layers(model):
    """(weight [n_in, n_out], bias [n_out]) in float64 for each Gemm of the ONNX model (bytes), with
    the batch norm before it folded in."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(model).graph
    values = {i.name: numpy_helper.to_array(i).astype(np.float64) for i in graph.initializer}
    layers, factor, shift = [], None, None
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            scale, bias, mean, variance = (values[n] for n in node.input[1:])
            epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
            factor = scale / np.sqrt(variance + epsilon)
            shift = bias - mean * factor
        elif node.op_type == "Gemm":
            weight, bias = (values[n] for n in node.input[1:])
            if factor is not None:
                weight, bias = factor[:, None] * weight, bias + shift @ weight
            layers.append((weight, bias))
            factor = None
        elif node.op_type not in ("Relu", "Clip", "Identity"):
            raise ValueError(f"spatial.py cannot map operator {node.op_type} of node {node.output[0]}")
    return layers


def quantise(model, seed):
    """The ONNX model (bytes) as a Fixed; asserts that nothing of it overflows."""
    x, _ = inputs.channels(np.random.default_rng([seed, 21]), SAMPLE_ROWS)
    layers = dense_layers(model)
    mean = x[:, :NUMBERS].mean(0, dtype=np.float64)
    reach = np.maximum(x[:, :NUMBERS].max(0) * INPUT_ROOM - mean, mean - x[:, :NUMBERS].min(0))
    scale = INPUT_MAX / reach
    offset = -mean * scale
    activation = x.astype(np.float64)
    undo, add = np.ones(x.shape[1]), np.zeros(x.shape[1])
    undo[:NUMBERS], add[:NUMBERS] = 1 / scale, mean
    weights, biases = [], []
    for i, (weight, bias) in enumerate(layers):
        before = activation @ weight + bias
        last = i == len(layers) - 1
        out = 1 / OUTPUT_UNIT_GEV if last else hidden_scale(before, undo[:, None] * weight, bias + add @ weight)
        weights.append(to_fixed(undo[:, None] * weight * out))
        biases.append(to_fixed((bias + add @ weight) * out))
        activation = before if last else np.maximum(before, 0)
        undo, add = 1 / np.atleast_1d(out), np.zeros(len(np.atleast_1d(out)))
    stored = (scale * ONE).astype(np.float32), (offset * ONE).astype(np.float32)
    return Fixed(weights, biases, *stored)


def hidden_scale(sums, weight, bias):
    """By what to multiply each unit: what it sums fills the type, and its weights fit into it too."""
    reach = np.maximum(np.abs(sums).max(0) * HIDDEN_ROOM / HIDDEN_MAX, np.abs(bias) / WEIGHT_MAX)
    return 1 / np.maximum(reach, np.abs(weight).max(0) / WEIGHT_MAX)


def to_fixed(values):
    fixed = np.floor(values * ONE + 0.5).astype(np.int64)
    assert np.abs(fixed).max() < 1 << 15, "a weight does not fit into ap_fixed<16,6>"
    return fixed


def wrap(values):
    return ((values + (1 << 15)) & 0xFFFF) - (1 << 15)


def store(fixed, x):
    """What the worker's conversion makes of channels x float32 [rows, 47]: int64 [rows, 47]."""
    numbers = np.floor(x[:, :NUMBERS] * fixed.scale + fixed.offset)
    codes = x[:, NUMBERS:] * ONE
    return np.concatenate([np.clip(numbers, -(1 << 15), (1 << 15) - 1), codes], 1).astype(np.int64)


def forward(fixed, z):
    """What the layers make of stored inputs z int64 [rows, 47]: int64 [rows, 1], in 2^-10."""
    for i, (weight, bias) in enumerate(zip(fixed.weights, fixed.biases)):
        total = np.broadcast_to(bias, (len(z), len(bias)))
        for k, row in enumerate(weight):
            total = wrap(total + wrap(z[:, k:k + 1] * row >> FRACTION))
        z = total if i == len(fixed.weights) - 1 else np.maximum(total, 0)
    return z


def reference(fixed, x):
    """The energies float32 [rows, 1] of channels x float32 [rows, 47], as the device computes them.

    Dense layers over all 47 inputs, one product after another: the kernel's looking up of |ieta| is
    the same because 1.0 × w is w."""
    energy = forward(fixed, store(fixed, x)).astype(np.float32) * np.float32(OUTPUT_UNIT_GEV / ONE)
    return np.clip(energy, np.float32(inputs.ENERGY_MIN_GEV), np.float32(inputs.ENERGY_MAX_GEV))


# ---- the bundle ---------------------------------------------------------------------------------

KERNEL = """// SPDX-License-Identifier: Apache-2.0
// FACILE as one fixed-point pipeline, ap_fixed<16,6>; written by models/spatial.py: do not edit.
// A row is one word of 512 bits, read at once; every loop inside a row is unrolled, the loop over rows
// is the pipeline, a row a cycle.
#if defined(__xilinx__) || defined(__VITIS_HLS__)
#define PIPELINE __attribute__((xcl_pipeline_loop(1)))
#define UNROLL __attribute__((opencl_unroll_hint))
#elif defined(INTELFPGA_CL)
#define PIPELINE _Pragma("ii 1") _Pragma("ivdep")
#define UNROLL _Pragma("unroll")
#else
#define PIPELINE
#define UNROLL
#endif

{tables}
// Floored to the fraction bits and wrapped: the low 16 bits of the shifted product.
#define TIMES(a, b) ((short)(((int)(a) * (int)(b)) >> {fraction}))

{layers}
{kernels}"""

ONE_KERNEL = """__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void facile(
    __global const uint16 *restrict in, __global short *restrict out, int rows)
{{
    PIPELINE
    for (int r = 0; r < rows; r++) {{
        const uint16 row = in[r];
        {compute}
        out[r] = fourth(a3);
    }}
}}
"""

# Intel's idiom: memory on both ends, and between them a pipeline that never waits for it.
CHANNELS = """#pragma OPENCL EXTENSION cl_intel_channels : enable
channel uint16 ROWS __attribute__((depth({depth})));
channel short ENERGIES __attribute__((depth({depth})));
#define TASK __kernel __attribute__((max_global_work_dim(0))) void

TASK reader(__global const uint16 *restrict in, int rows)
{{
    for (int r = 0; r < rows; r++)
        write_channel_intel(ROWS, in[r]);
}}

TASK facile(int rows)
{{
    PIPELINE
    for (int r = 0; r < rows; r++) {{
        const uint16 row = read_channel_intel(ROWS);
        {compute}
        write_channel_intel(ENERGIES, fourth(a3));
    }}
}}

TASK writer(__global short *restrict out, int rows)
{{
    for (int r = 0; r < rows; r++)
        out[r] = read_channel_intel(ENERGIES);
}}
"""

COMPUTE = """const short x[{row}] = {{ {unpack} }};
        short a1[{n1}], a2[{n2}], a3[{n3}];
        first(x, a1);
        second(a1, a2);
        third(a2, a3);"""

FIRST = """static void first(const short *x, short *out)
{{
    const int ieta = clamp((int)x[{at}], 0, {ietas});
    UNROLL
    for (int j = 0; j < {n}; j++)
        out[j] = B1[j] + IETA[ieta][j];
    UNROLL
    for (int k = 0; k < {at}; k++) {{
        const short v = x[k];
        UNROLL
        for (int j = 0; j < {n}; j++)
            out[j] += TIMES(v, W1[k][j]);
    }}
    UNROLL
    for (int j = 0; j < {n}; j++)
        out[j] = max(out[j], (short)0);
}}
"""

NEXT = """static void {name}(const short *x, short *out)
{{
    UNROLL
    for (int j = 0; j < {n}; j++)
        out[j] = B{i}[j];
    UNROLL
    for (int k = 0; k < {before}; k++) {{
        UNROLL
        for (int j = 0; j < {n}; j++)
            out[j] += TIMES(x[k], W{i}[k][j]);
    }}
    UNROLL
    for (int j = 0; j < {n}; j++)
        out[j] = max(out[j], (short)0);
}}
"""

LAST = """static short fourth(const short *x)
{{
    short sum = B4[0];
    UNROLL
    for (int k = 0; k < {before}; k++)
        sum += TIMES(x[k], W4[k][0]);
    return sum;
}}
"""


UNPACK = ", ".join(f"(short)(row.s{k // 2:x} >> 16)" if k % 2 else f"(short)row.s{k // 2:x}" for k in range(ROW))


def padded(n):
    """Units of a layer as the kernel has them: a power of two, the rest with weights 0."""
    return 1 << (n - 1).bit_length()


def table(name, values):
    """A constant of int16, the last dimension padded."""
    values = np.atleast_2d(values)
    width = padded(values.shape[1])
    rows = [", ".join(str(v) for v in [*row, *[0] * (width - len(row))]) for row in values.tolist()]
    if name.startswith("B"):
        return f"__constant short {name}[{width}] = {{{rows[0]}}};\n"
    body = ",\n    ".join(f"{{{row}}}" for row in rows)
    return f"__constant short {name}[{len(rows)}][{width}] = {{\n    {body}}};\n"


def kernel(fixed, channels=False):
    """The program's text: one kernel, or three that talk through Intel's channels."""
    first = fixed.weights[0]
    column = np.concatenate([np.zeros((1, first.shape[1]), np.int64), first[IETA_AT:]])
    tables = [table("W1", first[:IETA_AT]), table("IETA", column), table("B1", fixed.biases[0])]
    for i in (1, 2, 3):
        tables += [table(f"W{i + 1}", fixed.weights[i]), table(f"B{i + 1}", fixed.biases[i])]
    n = [padded(w.shape[1]) for w in fixed.weights]
    units = [w.shape[1] for w in fixed.weights]
    layers = [FIRST.format(at=IETA_AT, ietas=IETAS, n=n[0]),
              NEXT.format(name="second", i=2, before=units[0], n=n[1]),
              NEXT.format(name="third", i=3, before=units[1], n=n[2]),
              LAST.format(before=units[2])]
    compute = COMPUTE.format(row=ROW, unpack=UNPACK, n1=n[0], n2=n[1], n3=n[2])
    kernels = (CHANNELS if channels else ONE_KERNEL).format(compute=compute, depth=CHANNEL_DEPTH)
    return KERNEL.format(tables="".join(tables), layers="\n".join(layers), fraction=FRACTION,
                         kernels=kernels)


LAUNCH = ['launch { kernel: "facile" arg { buffer: "rows" } arg { buffer: "energy" } arg { rows: true } }']
LAUNCHES = ['launch { kernel: "reader" arg { buffer: "rows" } arg { rows: true } }',
            'launch { kernel: "facile" arg { rows: true } concurrent: true }',
            'launch { kernel: "writer" arg { buffer: "energy" } arg { rows: true } concurrent: true }']


def manifest(fixed, channels=False):
    """bundle.pbtxt's text for the program that kernel gives."""
    columns = [f"  column {{ from: {k} to: {k} scale: {s:.9g} offset: {o:.9g} }}"
               for k, (s, o) in enumerate(zip(fixed.scale, fixed.offset))]
    columns += [f"  column {{ from: {k} to: {k} scale: {ONE} }}" for k in range(NUMBERS, IETA_AT)]
    return "\n".join([
        "# FACILE as a fixed-point pipeline; written by models/spatial.py.",
        f"rows: {ROWS}",
        'program { source: "facile.cl" }',
        f'buffer {{ name: "rows" use: INPUT bytes: {ROWS * ROW * 2} }}',
        f'buffer {{ name: "energy" use: OUTPUT bytes: {ROWS * 2} }}',
        f'input {{\n  tensor: "channels" buffer: "rows" type: INT16 stride: {ROW * 2} rounding: FLOOR',
        *columns,
        f"  index {{ from: {IETA_AT} count: {IETAS} to: {IETA_AT} }}\n}}",
        'output {\n  tensor: "energy" buffer: "energy" type: INT16',
        f"  scale: {OUTPUT_UNIT_GEV / ONE} min: {inputs.ENERGY_MIN_GEV} max: {inputs.ENERGY_MAX_GEV}\n}}",
        *(LAUNCHES if channels else LAUNCH),
        ""])


def resolution(fixed, layers, seed):
    """Float and fixed point side by side on channels that neither has seen; a table of text."""
    x, truth = inputs.channels(np.random.default_rng([seed, 22]), SAMPLE_ROWS)
    z = x.astype(np.float64)
    for i, (weight, bias) in enumerate(layers):
        z = z @ weight + bias
        z = z if i == len(layers) - 1 else np.maximum(z, 0)
    floating = np.clip(z[:, 0], inputs.ENERGY_MIN_GEV, inputs.ENERGY_MAX_GEV)
    lines = ["# (predicted - true) / true: float, and ap_fixed<16,6> as an FPGA computes it",
             "# GeV        channels    float rms    bias    fixed rms    bias"]
    for low, high in zip(BINS_GEV, BINS_GEV[1:]):
        rows = (truth >= low) & (truth < high)
        a, b = ((p[rows] - truth[rows]) / truth[rows]
                for p in (floating, reference(fixed, x)[:, 0]))
        rms = [np.sqrt((r**2).mean()) for r in (a, b)]
        lines.append(f"{low:4d} - {high:4d}  {rows.sum():8d}   {rms[0]:10.3f} {a.mean():+7.3f}   "
                     f"{rms[1]:10.3f} {b.mean():+7.3f}")
        assert rms[1] < 1.1 * rms[0] + 0.005, f"facile: fixed point is worse: {lines[-1]}"
    return "\n".join(lines)


def bundle(model, seed):
    """The bundle's files {name: bytes} for the ONNX model (bytes), and its notes."""
    fixed = quantise(model, seed)
    files = {"bundle.pbtxt": manifest(fixed).encode(), "facile.cl": kernel(fixed).encode()}
    return files, resolution(fixed, dense_layers(model), seed)
