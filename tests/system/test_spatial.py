# SPDX-License-Identifier: Apache-2.0
"""The fixed-point pipeline against hls4ml: its recorded answers everywhere, hls4ml itself where it is
installed; and the manifests for kernels that others have built."""

import re
import sys

import numpy as np
import pytest

import fpga
from conftest import ROOT
from test_opencl import opencl, start_worker  # noqa: F401 (a fixture)

sys.path[:0] = [str(ROOT / "models"), str(ROOT / "tests" / "fpga")]
import spatial  # noqa: E402
import vectors  # noqa: E402

MANIFESTS = ROOT / "deploy" / "fpga" / "manifests"
ONE = spatial.ONE
CONFIG = """name: "{name}"
backend: "opencl"
max_batch_size: 16384
input [ {{ name: "channels" data_type: TYPE_FP32 dims: [ 47 ] }} ]
output [ {{ name: "energy" data_type: TYPE_FP32 dims: [ 1 ] }} ]
"""


def recorded():
    """(the network, its stored rows [10000, 47], hls4ml's answers [10000])."""
    weights, biases, answers = vectors.read()
    fixed = spatial.Fixed([w.astype(np.int64) for w in weights], [b.astype(np.int64) for b in biases],
                          np.ones(spatial.NUMBERS, np.float32), np.zeros(spatial.NUMBERS, np.float32))
    return fixed, vectors.rows(), answers


def raw_manifest(fixed, channels=False):
    """Raw rows in, raw answers out."""
    manifest = re.sub(r"scale: [-\d.e+]+ offset: [-\d.e+]+", "scale: 1", spatial.manifest(fixed, channels))
    manifest = manifest.replace(f"scale: {ONE} }}", "scale: 1 }")
    return re.sub(r"scale: [\d.]+ min: [\d.]+ max: [\d.]+", "", manifest)


def raw_rows():
    """The recorded rows as clients send them: the code is one-hot."""
    x = vectors.rows().astype(np.float32)
    x[:, spatial.IETA_AT:] /= ONE
    return x


def write_model(farm, name, manifest, program, extra=""):
    folder = farm.models / name / "1" / "opencl"
    folder.mkdir(parents=True)
    (farm.models / name / "config.pbtxt").write_text(CONFIG.format(name=name) + extra)
    (folder / "bundle.pbtxt").write_text(manifest)
    (folder / "facile.cl").write_text(program)


def answers_of(farm, tmp_path, name, x, *args):
    np.save(tmp_path / "in.npy", x.astype(np.float32))
    done = farm.submit(name, tmp_path / "in.npy", tmp_path / "out.npy", "--force", *args)
    assert done.returncode == 0, done.stderr
    return np.load(tmp_path / "out.npy")[:, 0]


def test_the_numpy_model_equals_hls4ml():
    fixed, rows, answers = recorded()
    np.testing.assert_array_equal(spatial.forward(fixed, rows.astype(np.int64))[:, 0], answers)


def test_the_kernel_equals_hls4ml(opencl, tmp_path):  # noqa: F811
    """Through the executor and whatever device this is."""
    fixed, _, answers = recorded()
    write_model(opencl, "raw", raw_manifest(fixed), spatial.kernel(fixed))
    start_worker(opencl)
    x = raw_rows()
    np.testing.assert_array_equal(answers_of(opencl, tmp_path, "raw", x), answers)
    assert not np.array_equal(answers_of(opencl, tmp_path, "raw", x[::-1]), answers)


def test_hls4ml_gives_again_what_was_recorded():
    fixed, rows, answers = recorded()
    again = vectors.emulate(fixed.weights, fixed.biases, rows, python=fpga.hls4ml_python())
    np.testing.assert_array_equal(again, answers)


def test_a_hidden_unit_with_a_large_weight_still_fits():
    """Training ends elsewhere on other processors: a weight of a rare input once was over the type."""
    sums = np.random.default_rng(1).uniform(-2, 2, (1000, 3))
    weight, bias = np.array([[0.1, 50.0, 0.0], [0.2, 0.3, 0.4]]), np.array([0.0, 1.0, 300.0])
    out = spatial.hidden_scale(sums, weight, bias)
    assert np.abs(spatial.to_fixed(weight * out)).max() < 1 << 15
    assert np.abs(spatial.to_fixed(bias * out)).max() < 1 << 15
    np.testing.assert_allclose(out[0] * np.abs(sums[:, 0]).max(), spatial.HIDDEN_MAX / spatial.HIDDEN_ROOM)


# ---- kernels that others have built -------------------------------------------------------------


# Stand-ins that sum a row.
WRAPPER = """
__kernel void kernel_wrapper(const unsigned batchsize, __global const short *in, __global short *out)
{
    for (unsigned r = 0; r < batchsize; r++) {
        short sum = 0;
        for (int k = 0; k < 47; k++)
            sum += in[r * 47 + k] >> 4;
        out[r] = sum + (batchsize != 8192);
    }
}
"""
ROWS64 = """
__kernel void alveo_hls4ml(__global const short *in, __global short *out)
{
    for (int r = 0; r < 16384; r++) {
        short sum = in[r * 32 + 17];
        for (int k = 0; k < 17; k++)
            sum += in[r * 32 + k] >> 4;
        for (int k = 18; k < 32; k++)
            sum += 10000 * (in[r * 32 + k] != 0);
        out[r] = sum;
    }
}
"""


def foreign(name):
    """A manifest of deploy/fpga, its .xclbin replaced by a stand-in in OpenCL C."""
    text = (MANIFESTS / name).read_text()
    text, n = re.subn(r"program \{.*?\}", 'program { source: "facile.cl" }', text, flags=re.S)
    assert n == 1
    return text


def stored_in(rows):
    """float32 rows whose raw values of ap_fixed<16,6> are these, and that need the rounding down."""
    return rows.astype(np.float64) / ONE + 0.4 / ONE


def check_foreign(farm, tmp_path, name, x, want):
    got = answers_of(farm, tmp_path, name, x, "--batch", 3000)
    energy = np.clip(want.astype(np.float32) / ONE, np.float32(0.01), np.float32(1000))
    np.testing.assert_array_equal(got, energy)


def test_an_hls4ml_kernel_wrapper_is_served_by_a_manifest_alone(opencl, tmp_path):  # noqa: F811
    """Dense int16 rows, a batch size; the stand-in sums a row, and poisons what it is not told of."""
    write_model(opencl, "wrapper", foreign("hls4ml.pbtxt"), WRAPPER)
    start_worker(opencl)
    rows = np.random.default_rng(3).integers(-30000, 30000, (10_000, 47)).astype(np.int16)
    want = (rows >> 4).sum(1, dtype=np.int64).astype(np.int16)
    check_foreign(opencl, tmp_path, "wrapper", stored_in(rows), want)


def test_a_kernel_with_64_byte_rows_is_served_by_a_manifest_alone(opencl, tmp_path):  # noqa: F811
    """No batch size: the kernel computes all 16,384 rows, and what was not asked for never comes back."""
    write_model(opencl, "rows64", foreign("rows64.pbtxt"), ROWS64)
    start_worker(opencl)
    rng = np.random.default_rng(4)
    rows = np.zeros((10_000, 47), np.int16)
    rows[:, :17] = rng.integers(-30000, 30000, (10_000, 17))
    code = rng.integers(0, 31, 10_000)
    x = stored_in(rows)
    x[:, 17:] = 0
    x[np.arange(10_000)[code > 0], 16 + code[code > 0]] = 1
    want = ((rows[:, :17] >> 4).sum(1, dtype=np.int64) + code).astype(np.int16)
    check_foreign(opencl, tmp_path, "rows64", x, want)
