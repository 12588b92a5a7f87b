# SPDX-License-Identifier: Apache-2.0
"""Xilinx' own XRT without a card. Its noop mode does everything but compute, with an .xclbin that
tests/fpga/xclbin.py writes; tests/fpga/xrt_double.c puts a card under it that computes."""

import os
import re
import sys

import numpy as np
import pytest

import fpga
from conftest import BUILD, ROOT, real_model
from test_broker import status_value
from test_opencl import DEVICE, channels, check, device_of, run_worker, write_bundle
from test_spatial import MANIFESTS, check_foreign, recorded, stored_in, write_model

sys.path[:0] = [str(ROOT / "models"), str(ROOT / "tests" / "fpga")]
import spatial  # noqa: E402
import vectors  # noqa: E402
import xclbin  # noqa: E402

DOUBLE = BUILD / "tests" / "fpga" / "libxrt_double.so"
QUICK = 'parameters { key: "sonic_device_timeout_ms" value { string_value: "2000" } }'
MANIFEST = """
rows: {rows}
program {{ platform: "Xilinx" binary: "toy.xclbin" units: "twice_1" units: "twice_2" }}
buffer {{ name: "x" use: INPUT bytes: {bytes} }}
buffer {{ name: "y" use: OUTPUT bytes: {bytes} }}
input {{ tensor: "x" buffer: "x" type: FP32 }}
output {{ tensor: "y" buffer: "y" type: FP32 }}
launch {{ kernel: "twice" arg {{ buffer: "x" }} arg {{ buffer: "y" }} arg {{ rows: true }} }}
"""
UNCHECKED = MANIFEST.replace('"twice_2" }}', '"twice_2" unchecked: true }}')
ARGS = [("x", "float*"), ("y", "float*"), ("rows", "int")]


def twice(banks=2, args=None, without=(), **units):
    kernels = {"twice": xclbin.Kernel(args or ARGS, units or {"twice_1": 0, "twice_2": 1})}
    return xclbin.xclbin(kernels, banks, without)


def write_toy(farm, name="twice", manifest=MANIFEST, program=None, **kwargs):
    folder = write_bundle(farm, name, "", manifest=manifest, **kwargs)
    (folder / "toy.xclbin").write_bytes(twice() if program is None else program)
    return folder


@pytest.fixture
def xrt(farm, monkeypatch):
    """A farm whose OpenCL is XRT alone, and a card that computes nothing."""
    if not DEVICE.exists():
        pytest.skip("built without OpenCL")
    for name, value in fpga.xrt_env().items():
        monkeypatch.setenv(name, value)
    farm.start_broker()
    return farm


@pytest.fixture
def card(xrt, monkeypatch):
    """The same with a card that computes."""
    if not DOUBLE.exists():
        fpga.missing("a card under XRT (x86-64 only)")
    monkeypatch.setenv("LD_PRELOAD", str(DOUBLE))
    monkeypatch.setenv("SONIC_XRT_NETWORK", str(vectors.VECTORS))
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
    return xrt


def start(farm, slots=4):
    return farm.start_worker("o", f"opencl:Xilinx::{slots}")


# ---- without computing --------------------------------------------------------------------------


def test_two_units_on_two_banks_are_driven_through_all_slots(xrt, rows, tmp_path):
    """3,000 runs through 8 slots; what comes back is not looked at."""
    write_toy(xrt, manifest=UNCHECKED)
    worker = start(xrt, 8)
    device = device_of(worker)
    source, _ = rows(96_000)
    done = xrt.submit("twice", source, tmp_path / "out.npy", "--batch", 32)
    assert done.returncode == 0, done.stderr
    assert len(np.load(tmp_path / "out.npy")) == 96_000
    assert device_of(worker) == device and "device_fault" not in worker.text()
    assert worker.end() == 0


def test_a_card_that_computes_nothing_is_no_source_of_results(xrt, rows, tmp_path):
    """XRT says that all went well; the result is not what the memory held, but an error."""
    write_toy(xrt)
    worker = start(xrt)
    source, _ = rows(1)
    done = xrt.submit("twice", source, tmp_path / "out.npy")
    assert done.returncode != 0 and not (tmp_path / "out.npy").exists()
    assert "POISON" in done.stderr
    assert "output 'y' was not written" in worker.text()


# ---- refusals -----------------------------------------------------------------------------------

WHOLE = twice()


@pytest.mark.parametrize(
    "program, words",
    [
        (b"", "is no .xclbin"),
        (b"xclbin2", "is no .xclbin"),
        (b"\x7fELF" + WHOLE[4:], "is no .xclbin"),
        (WHOLE[:500], f"the file ends early: it has 500 bytes of {len(WHOLE)}"),
        (WHOLE[:-1], "the file ends early"),
        (WHOLE[:448] + b"\xff\xff\0\0" + WHOLE[452:], "65535 sections"),
        (WHOLE[:480] + b"\xff" * 8 + WHOLE[488:], "section 0 reaches beyond"),
        (twice(without=[xclbin.EMBEDDED_METADATA]), "no section EMBEDDED_METADATA"),
        (twice(without=[xclbin.MEM_TOPOLOGY]), "no section MEM_TOPOLOGY"),
        (twice(without=[xclbin.CONNECTIVITY]), "no section CONNECTIVITY"),
        (twice(without=[xclbin.IP_LAYOUT]), "no section IP_LAYOUT"),
        (twice(twice_1=0), 'no compute unit "twice:twice_2"; it has: twice:twice_1'),
        (twice(args=ARGS[:2]), 'launch 1 gives 3 args, kernel "twice:{twice_1}" has 2'),
        (twice(args=[*ARGS[:2], ("rows", "long*")]), "arg 3 does not fit kernel"),
        (WHOLE.replace(b"<kernel ", b"<kornel "), 'no kernel "twice:{twice_1}"'),
    ],
)
def test_a_bad_xclbin_is_refused_in_one_line(xrt, program, words):
    folder = write_toy(xrt, "bad", program=program)
    text = refusal_of(xrt)
    assert words in text and str(folder) in text, text


def refusal_of(farm, name="bad"):
    done = run_worker(farm, "Xilinx", "--model", name)
    assert done.returncode == 5, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('kernel: "twice"', 'kernel: "thrice"', 'no compute unit "thrice:twice_1"; it has: twice:twice_1, twice:twice_2'),
        ('"twice_2"', '"twice_3"', 'no compute unit "twice:twice_3"'),
        ("use: INPUT", "use: INPUT bank: 0", 'buffer "x": bank 0 (bank0) is not wired to arg 1 of compute unit "twice:twice_2"; wired: 1 (bank1)'),
        ("use: OUTPUT", "use: OUTPUT bank: 1 bank: 0", 'buffer "y": bank 1 (bank1) is not wired to arg 2 of compute unit "twice:twice_1"'),
        ("use: INPUT", "use: INPUT bank: 7", "has no memory bank 7"),
        ("use: INPUT", "use: INPUT bank: 0 bank: 1 bank: 0", "3 banks for 2 units"),
    ],
)
def test_a_manifest_that_the_xclbin_does_not_fit_is_refused_in_one_line(xrt, old, new, words):
    assert old in MANIFEST
    write_toy(xrt, "bad", MANIFEST.replace(old, new))
    assert words in refusal_of(xrt)


@pytest.mark.parametrize(
    "old, new",
    [
        ("use: INPUT", "use: INPUT bank: 0 bank: 1"),
        (' units: "twice_1" units: "twice_2"', ""),  # XRT chooses, among those in reach of the buffers
    ],
)
def test_banks_and_units_are_as_the_manifest_says(card, rows, tmp_path, old, new):
    write_toy(card, manifest=MANIFEST.replace(old, new))
    start(card)
    check(card, rows, tmp_path, "twice", 999, lambda x: 2 * x, "--batch", 7)


def test_a_second_xclbin_is_refused_and_the_first_goes_on(card, rows, tmp_path):
    """By content: a copy of the first shares its program, and does not reconfigure the card."""
    first = write_toy(card, "a-first")
    second = write_toy(card, "b-second", program=twice(banks=3))
    write_toy(card, "c-copy")
    worker = start(card)
    loaded = [x for x in worker.text().splitlines() if "event=model_loaded" in x]
    assert ["reconfigures=1" in x for x in loaded] == [True, False], loaded
    failed = [x for x in worker.text().splitlines() if "event=model_failed" in x]
    assert len(failed) == 1 and "model=b-second" in failed[0]
    assert str(first / "toy.xclbin") in failed[0] and str(second / "toy.xclbin") in failed[0]
    for name in ("a-first", "c-copy"):
        check(card, rows, tmp_path, name, 999, lambda x: 2 * x, "--batch", 7)


# ---- computing ----------------------------------------------------------------------------------


def test_two_units_compute_on_two_banks(card, rows, tmp_path):
    write_toy(card)
    worker = start(card, 8)
    check(card, rows, tmp_path, "twice", 96_000, lambda x: 2 * x, "--batch", 32)
    check(card, rows, tmp_path, "twice", 999, lambda x: 2 * x, "--batch", 7)
    check(card, rows, tmp_path, "twice", 999, lambda x: 2 * x, "--batch", 64)  # split: the plan takes 32
    assert "device_fault" not in worker.text()


def test_each_unit_has_weights_and_scratch_in_its_bank(card, rows, tmp_path):
    """Two launches, through a buffer that the host never sees; three units, two of them on one bank."""
    manifest = MANIFEST.replace('"twice_2"', '"twice_2" units: "twice_3"').replace("twice", "add")
    manifest = manifest.replace("input {{", 'weights: "w.bin" buffer {{ name: "w" use: WEIGHTS bytes: 64 offset: 64 }}\n'
                                'buffer {{ name: "t" use: SCRATCH bytes: {bytes} }}\ninput {{')
    launch = 'launch {{ kernel: "add" arg {{ buffer: "FROM" }} arg {{ buffer: "w" }} arg {{ buffer: "TO" }} arg {{ rows: true }} }}\n'
    manifest = manifest[:manifest.index("launch")] + launch.replace("FROM", "x").replace("TO", "t")
    manifest += launch.replace("FROM", "t").replace("TO", "y")
    args = [("x", "float*"), ("w", "float*"), ("y", "float*"), ("rows", "int")]
    kernels = {"add": xclbin.Kernel(args, {"add_1": 1, "add_2": 0, "add_3": 1})}
    folder = write_toy(card, "add", manifest, xclbin.xclbin(kernels, 2))
    w = np.arange(32, dtype=np.float32)
    w.tofile(folder / "w.bin")
    start(card, 6)
    check(card, rows, tmp_path, "add", 2000, lambda x: x + w[16:] + w[16:], "--batch", 32)


@pytest.mark.parametrize("what, faults", [("error@20", 0), ("error@20+", 1), ("abort@20+", 1), ("timeout@20+", 1)])
def test_a_kernel_that_fails_unseen_costs_nobody_a_result(card, rows, tmp_path, monkeypatch, what, faults):
    """XRT reports each end of a kernel as a good one. Where the output was not written, the worker runs
    the plan once more, and takes it for a fault if that does not help."""
    write_toy(card)
    monkeypatch.setenv("SONIC_XRT_FAULT", what)
    worker = start(card)
    check(card, rows, tmp_path, "twice", 1000, lambda x: 2 * x, "--batch", 32)
    assert f"command 20: {what}" in worker.text()
    assert worker.text().count("event=device_fault") == faults
    assert faults == 0 or "the plan of model twice ended without an error, and output 'y' was not written" in worker.text()


@pytest.mark.parametrize("what, words", [("never", "a run has not ended after 2000 ms"), ("exit", "it left with status 1")])
def test_a_card_that_hangs_or_leaves_costs_nobody_a_result(card, rows, tmp_path, monkeypatch, what, words):
    write_toy(card, extra=QUICK)
    monkeypatch.setenv("SONIC_XRT_FAULT", f"{what}@20")
    worker = start(card)
    check(card, rows, tmp_path, "twice", 1000, lambda x: 2 * x, "--batch", 32)
    assert words in worker.text() and status_value(card, "redispatched") > 0


def facile_kernel(**units):
    return xclbin.Kernel([("in", "uint16*"), ("out", "short*"), ("rows", "int")], units)


def write_network(path, fixed):
    """As fixed_reference.h reads it."""
    widths = [len(fixed.weights[0]), *(len(b) for b in fixed.biases)]
    parts = [[len(fixed.weights), *widths]]
    for weight, bias in zip(fixed.weights, fixed.biases):
        parts += [weight.ravel(), bias]
    np.concatenate(parts).astype("<i2").tofile(path)


def test_facile_through_xrt_is_bit_exact(card, tmp_path, monkeypatch):
    """sonic-submit, broker, worker, XRT, the card and back, with FACILE as it is built."""
    source = real_model(card, "facile")
    (card.models / "facile").unlink()
    fixed = spatial.quantise((source / "1" / "model.onnx").read_bytes(), 1)
    write_network(tmp_path / "network", fixed)
    monkeypatch.setenv("SONIC_XRT_NETWORK", str(tmp_path / "network"))
    program = 'program { platform: "Xilinx" binary: "facile.xclbin" units: "facile_1" units: "facile_2" }'
    text, n = re.subn(r"^program .*$", program, spatial.manifest(fixed), flags=re.M)
    assert n == 1
    write_model(card, "facile", text, "")
    (card.models / "facile" / "1" / "opencl" / "facile.xclbin").write_bytes(
        xclbin.xclbin({"facile": facile_kernel(facile_1=0, facile_2=1)}, 2))
    (card.models / "facile" / "config.pbtxt").write_text((source / "config.pbtxt").read_text())
    x = channels(spatial, 40_000)
    np.save(tmp_path / "in.npy", x)
    worker = start(card)
    done = card.submit("facile", tmp_path / "in.npy", tmp_path / "out.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), spatial.reference(fixed, x))
    assert "device_fault" not in worker.text()


def write_foreign(farm, name, manifest, file, kernels):
    write_model(farm, name, (MANIFESTS / manifest).read_text(), "")
    (farm.models / name / "1" / "opencl" / file).write_bytes(xclbin.xclbin(kernels, 2))


def test_an_hls4ml_kernel_wrapper_answers_through_xrt(card, tmp_path):
    """The manifest of deploy/fpga as it is, hls4ml's own recorded answers as the card's."""
    args = [("batchsize", "unsigned"), ("in", "short*"), ("out", "short*")]
    write_foreign(card, "wrapper", "hls4ml.pbtxt", "kernel_wrapper.xclbin",
                  {"kernel_wrapper": xclbin.Kernel(args, {"kernel_wrapper_1": 0, "kernel_wrapper_2": 1})})
    start(card)
    _, stored, answers = recorded()
    check_foreign(card, tmp_path, "wrapper", stored_in(stored), answers)


def test_a_kernel_with_64_byte_rows_answers_through_xrt(card, tmp_path):
    write_foreign(card, "rows64", "rows64.pbtxt", "alveo_hls4ml.xclbin",
                  {"alveo_hls4ml": xclbin.Kernel([("in", "short*"), ("out", "short*")], {"alveo_hls4ml_1": 1})})
    start(card)
    _, stored, answers = recorded()
    x = stored_in(stored)
    x[:, spatial.IETA_AT:] = stored[:, spatial.IETA_AT:] / spatial.ONE
    check_foreign(card, tmp_path, "rows64", x, answers)
