# SPDX-License-Identifier: Apache-2.0
"""The model repository: sizes, determinism, spread of the outputs, generators, the commands.

SONIC_MODELS_DIR names a repository that models/build.py has filled; without it only FACILE is
built, and what asks for the others is skipped.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"
sys.path.insert(0, str(MODELS))

import build  # noqa: E402
import compare  # noqa: E402
import deepcalo  # noqa: E402
import emtrkmichel  # noqa: E402
import facile  # noqa: E402
import inputs  # noqa: E402
import resnet50  # noqa: E402
import run_direct  # noqa: E402

SEED = 77  # for inputs that no build has seen
TIMEOUT_S = 120
MODULES = {m.__name__: m for m in (facile, deepcalo, resnet50, emtrkmichel)}
# From the published table: parameters, then means and variances of the batch norms.
COUNTS = {"facile": 2_058 + 178, "deepcalo": 1_833_745 + 16, "resnet50": 23_512_130 + 53_120,
          "emtrkmichel": 11_900_420}
DIMS = {"facile": (47,), "deepcalo": (56, 11, 4), "resnet50": (224, 224, 3),
        "emtrkmichel": (48, 48, 1)}
ITEMS = {"facile": 4000, "deepcalo": 200, "resnet50": 24, "emtrkmichel": 300}


def command(script, *args):
    return subprocess.run([sys.executable, str(MODELS / script), *map(str, args)],
                          capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """FACILE built once, fresh: its folder."""
    out = tmp_path_factory.mktemp("built")
    result = command("build.py", "--out", out, "--only", "facile")
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="session")
def repository(built):
    given = os.environ.get("SONIC_MODELS_DIR")
    return Path(given) if given else built


@pytest.fixture(params=list(MODULES))
def model(request, repository):
    """(name, path of model.onnx) of each model that the repository has."""
    path = repository / request.param / "1" / "model.onnx"
    if not path.is_file():
        if os.environ.get("SONIC_MODELS_DIR"):
            pytest.fail(f"{path} is missing")
        pytest.skip("SONIC_MODELS_DIR is not set")
    return request.param, path


def infer(path, rows):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})


def sample(name, items):
    return next(inputs.stream(name, items, SEED))


def test_parameter_count_is_the_table_s(model):
    name, path = model
    graph = onnx.load(path).graph
    counted = sum(int(np.prod(i.dims)) for i in graph.initializer
                  if i.name.split("_")[0] in ("weight", "bias", "scale", "shift", "mean", "var"))
    assert counted == COUNTS[name]


def test_declared_shapes_are_the_config_s(model):
    name, path = model
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    config = (path.parents[1] / "config.pbtxt").read_text()
    assert f'name: "{name}"' in config
    assert session.get_inputs()[0].shape == ["batch", *DIMS[name]]
    for tensor in session.get_inputs() + session.get_outputs():
        assert tensor.shape[0] == "batch" and tensor.type == "tensor(float)"
        dims = ", ".join(map(str, tensor.shape[1:]))
        at = config.index(f'name: "{tensor.name}"')
        assert f"dims: [ {dims} ]" in config[at:config.index("}", at)]


def test_outputs_are_well_spread_on_fresh_inputs(model):
    name, path = model
    outputs = infer(path, sample(name, ITEMS[name]))
    if name == "facile":
        x, truth = inputs.channels(np.random.default_rng(SEED), 50_000)
        MODULES[name].check(x, truth, infer(path, x)[0][:, 0])
    elif name == "resnet50":
        MODULES[name].check(outputs[0])
    else:
        MODULES[name].check(*(o if o.shape[1] > 1 else o[:, 0] for o in outputs))


def test_batch_size_does_not_change_results(model):
    name, path = model
    rows = sample(name, 6)
    for whole, first, rest in zip(infer(path, rows), infer(path, rows[:1]), infer(path, rows[1:])):
        np.testing.assert_allclose(whole, np.concatenate([first, rest]), rtol=1e-4, atol=1e-5)


def test_nan_stays_in_its_row(model):
    name, path = model
    rows = sample(name, 4)
    clean = infer(path, rows)
    broken = rows.copy()
    broken[2].flat[:] = np.nan
    for want, got in zip(clean, infer(path, broken)):
        keep = [0, 1, 3]
        np.testing.assert_allclose(got[keep], want[keep], rtol=1e-4, atol=1e-5)


def test_facile_training_depends_on_the_seed_alone(monkeypatch):
    monkeypatch.setattr(facile, "TRAIN_ROWS", 10 * facile.BATCH)
    first, same, other = (b"".join(p.tobytes() for p in facile.train(s).parameters())
                          for s in (1, 1, 2))
    assert first == same
    assert first != other


def test_facile_stays_within_its_clamp(built):
    x = sample("facile", 2000)
    x[:1000, 2:10] *= -1e6
    x[1000:, 2:10] *= 1e6
    energy = infer(built / "facile/1/model.onnx", x)[0]
    assert energy.min() >= np.float32(0.01) and energy.max() <= 1000


def test_build_skips_what_is_there_and_mends_what_is_broken(built):
    path = built / "facile/1/model.onnx"
    whole = path.read_bytes()
    assert "state=current" in command("build.py", "--out", built, "--only", "facile").stdout
    path.write_bytes(whole[:100])
    assert "state=built" in command("build.py", "--out", built, "--only", "facile").stdout
    assert path.read_bytes() == whole, "the same seed gave other bytes"
    assert not list(path.parent.glob(".*")), "a partial file is left"
    record = json.loads((built / "facile/build.json").read_text())
    assert record["parameters"] == 2_058


def test_build_refuses_a_folder_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    result = command("build.py", "--out", tmp_path / "file", "--only", "deepcalo")
    assert result.returncode == 1
    assert "cannot write" in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_run_direct_refuses_a_corrupt_model(tmp_path):
    (tmp_path / "facile/1").mkdir(parents=True)
    (tmp_path / "facile/1/model.onnx").write_bytes(b"no model")
    (tmp_path / "facile/config.pbtxt").write_bytes(build.config_path("facile").read_bytes())
    np.save(tmp_path / "in.npy", sample("facile", 2))
    result = command("run_direct.py", "--model", "facile", "--repository", tmp_path, "--input",
                     tmp_path / "in.npy", "--output-dir", tmp_path / "out")
    assert result.returncode == 1 and "model.onnx" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_each_size_check_can_fail():
    class Wrong:
        TRAINABLE, STATISTICS, MACS_ABOUT = 1, 0, 1.0
        trainable, statistics, macs = 2, 0, 1

    with pytest.raises(AssertionError, match="2 parameters, not 1"):
        build.check_size("wrong", Wrong, Wrong)


@pytest.mark.parametrize("name", list(MODULES))
def test_generator_is_seeded_and_streams_prefixes(name, tmp_path):
    many = inputs.CHUNK[name] + 3
    for file, items, seed in (("a", many, 5), ("b", 3, 5), ("c", 3, 6)):
        result = command("make_inputs.py", "--model", name, "--items", items, "--seed", seed,
                         "--output", tmp_path / f"{file}.npy")
        assert result.returncode == 0, result.stderr
    a, b, c = (np.load(tmp_path / f"{f}.npy", mmap_mode="r") for f in "abc")
    assert a.dtype == np.float32 and a.shape == (many, *DIMS[name])
    assert np.isfinite(a).all()
    assert (a[:3] == b).all() and (b != c).any()
    assert (a[-3:] != b).any(), "each chunk repeats the first"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "b.npy", "c.npy"]


def test_hcal_columns_are_what_facile_documents():
    x = sample("facile", 5000)
    assert set(np.unique(x[:, 0])) == set(range(1, 73))
    assert (x[:, 10:17].sum(1) == 1).all() and (x[:, 17:47].sum(1) == 1).all()
    assert 0.1 < x[:, 1].min() and x[:, 1].max() < 0.3
    assert x[:, 2:10].mean(0).argmax() == inputs.TRIGGER_SLICE


def test_run_direct_gives_one_file_per_output(model, tmp_path):
    name, path = model
    file = tmp_path / "in.npy"
    np.save(file, sample(name, 5))
    result = command("run_direct.py", "--model", name, "--repository", path.parents[2], "--input",
                     file, "--output-dir", tmp_path / "out", "--batch", 2)
    assert result.returncode == 0, result.stderr
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(f"{n}.npy" for n in names)
    for output, want in zip(names, infer(path, np.load(file))):
        np.testing.assert_allclose(np.load(tmp_path / "out" / f"{output}.npy"), want, rtol=1e-4,
                                   atol=1e-5)


@pytest.mark.parametrize("array, words", [
    (np.zeros((2, 46), np.float32), "float32 [2, 46]"),
    (np.zeros((2, 47), np.float64), "float64 [2, 47]"),
    (np.zeros((0, 47), np.float32), "no rows"),
    (b"\x93NUMPY\x01", "not a whole .npy"),
    (None, "No such file"),
])
def test_run_direct_refuses_in_one_line(built, tmp_path, array, words):
    file = tmp_path / "in.npy"
    if isinstance(array, bytes):
        file.write_bytes(array)
    elif array is not None:
        np.save(file, array)
    result = command("run_direct.py", "--model", "facile", "--repository", built, "--input", file,
                     "--output-dir", tmp_path / "out")
    assert result.returncode == 1
    assert words in result.stderr and str(file) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "energy.npy").exists()


def test_default_batch_comes_from_the_config():
    for name, batch in (("facile", 16000), ("resnet50", 10)):
        assert run_direct.default_batch(build.config_path(name)) == batch


@pytest.mark.parametrize("b, status, words", [
    ([1.0, np.nan, 3.0, np.inf], 0, "equal"),
    ([1.0, np.nan, 3.1, np.inf], 1, "first_at=2"),
    ([1.0, 2.0, 3.0, np.inf], 1, "first_at=1"),
    ([1.0, np.nan, 3.0, -np.inf], 1, "first_at=3"),
    ([1.0, np.nan, 3.0], 1, "float32 [3]"),
])
def test_compare_finds_what_differs(tmp_path, monkeypatch, b, status, words):
    np.save(tmp_path / "a.npy", np.array([1.0, np.nan, 3.0, np.inf], np.float32))
    np.save(tmp_path / "b.npy", np.array(b, np.float32))
    result = command("compare.py", tmp_path / "a.npy", tmp_path / "b.npy")
    assert result.returncode == status and words in result.stdout, result.stdout
    monkeypatch.setattr(compare, "BLOCK_ROWS", 1)
    if len(b) == 4:
        worst = compare.compare(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"), 1e-5, 0)
        assert (worst["beyond"] > 0) == (status == 1)


def test_compare_says_what_it_cannot_read(tmp_path):
    result = command("compare.py", tmp_path / "a.npy", tmp_path / "b.npy")
    assert result.returncode == 2 and "a.npy" in result.stderr
