# SPDX-License-Identifier: Apache-2.0
"""Models on a GPU, through a whole farm. The GPU, CUDA and the runtime's CUDA provider are the tests'
own (tests/gpu/stub_cuda.h): what is queued happens later, and a use of memory before that ends the
device process.
"""

import pathlib
import shutil

import numpy as np
import pytest

from conftest import real_model, run_direct
from gpu import stub_env

UNIT_MODELS = pathlib.Path(__file__).resolve().parents[1] / "unit" / "models"


@pytest.fixture
def stub(farm, monkeypatch):
    """A farm on a machine with the stub GPU."""
    for key, value in stub_env().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("SONIC_STUB_REPORT", str(farm.folder / "report"))
    farm.start_broker()
    return farm


def copy_model(farm, source, name, extra="", edit=lambda text: text):
    """A model of the repository under another name, with more in its config."""
    folder = farm.models / name
    folder.mkdir()
    for entry in source.iterdir():
        if entry.name != "config.pbtxt":
            (folder / entry.name).symlink_to(entry)
    text = (source / "config.pbtxt").read_text().replace(f'name: "{source.name}"', f'name: "{name}"', 1)
    (folder / "config.pbtxt").write_text(edit(text) + extra)
    return folder


def parameter(key, value):
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def slow_calls(farm):
    path = farm.folder / "report"
    lines = path.read_text().splitlines() if path.exists() else []
    return [x for x in lines if not x.startswith("option ")]


def result(farm, model, source, tmp_path, *args):
    out = tmp_path / "out.npy"
    done = farm.submit(model, source, out, "--force", *args)
    assert done.returncode == 0, done.stderr + farm.logs()
    return np.load(out)


def test_facile_by_the_runtime(stub, rows, tmp_path):
    """Equal to the CPU's, whole batches and padded ones, and nothing is allocated after the load."""
    source = real_model(stub, "facile")
    worker = stub.start_worker("g", "cuda", "--model", "facile")
    path, array = rows(20000, dims=(47,))
    wanted = run_direct(source, array)[0]
    before = slow_calls(stub)
    assert before
    for batch in (16000, 1000, 37):
        got = result(stub, "facile", path, tmp_path, "--batch", batch)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert slow_calls(stub) == before
    assert worker.alive() and "event=device_fault" not in worker.text()
