# SPDX-License-Identifier: Apache-2.0
"""FACILE's kernel and the tests' own, work item by work item, under Oclgrind: no access outside a
buffer, no race, no wrong call of the executor's. (Oclgrind's look for values that nobody wrote
crashes in a program of several threads.)"""

import numpy as np
import pytest

import fpga
from conftest import WORKER, wait_until
from test_opencl import DEVICE, check, write_bundle
from test_spatial import ROWS64, WRAPPER, answers_of, foreign, raw_manifest, raw_rows, recorded, spatial, write_model


@pytest.fixture
def grind(farm, monkeypatch):
    """Starts a worker under Oclgrind; what it has found is in the file that comes back."""
    program = fpga.oclgrind()
    if not DEVICE.exists():
        pytest.skip("built without OpenCL (deploy/setup.sh installs its headers and loader)")
    monkeypatch.setenv("XDG_CACHE_HOME", str(farm.folder))

    def start():
        found = farm.folder / "oclgrind.log"
        farm.start_broker()
        worker = farm.start(
            "worker-o", program, "--data-races", "--check-api", "--log", found, WORKER,
            "--broker", farm.worker, "--device", "opencl:Oclgrind::1", "--models", farm.models, "--name", "o",
        )
        wait_until(lambda: farm.workers_seen() > 0 or not worker.alive(), "the worker to join")
        assert worker.alive(), worker.text()
        return found

    return start


def test_oclgrind_finds_what_there_is(farm, grind, rows, tmp_path):
    """A row too far, and two work items that write one place: else silence would say nothing."""
    body = "y[i] = x[i]; if (i == 5) y[get_global_size(0) + 1024] = 1; if (i > 0) y[0] = x[i];"
    write_bundle(farm, "bad", body)
    found = grind()
    source, _ = rows(32)
    farm.submit("bad", source, tmp_path / "out.npy", "--batch", 32)
    text = found.read_text()
    assert "Invalid write" in text and "data race" in text, text


def test_the_toy_kernel(farm, grind, rows, tmp_path):
    write_bundle(farm, "twice", "y[i] = 2 * x[i];")
    found = grind()
    check(farm, rows, tmp_path, "twice", 100, lambda x: 2 * x, "--batch", 7)
    assert found.read_text() == ""


def test_the_spatial_kernel(farm, grind, tmp_path):
    """The first and the last of the recorded rows, with the codes at the edges of the table."""
    fixed, _, answers = recorded()
    write_model(farm, "raw", raw_manifest(fixed), spatial.kernel(fixed))
    found = grind()
    x = raw_rows()
    some = np.r_[:40, len(x) - 40 : len(x)]
    np.testing.assert_array_equal(answers_of(farm, tmp_path, "raw", x[some], "--batch", 33), answers[some])
    assert found.read_text() == ""


@pytest.mark.parametrize("name, manifest, program", [("wrapper", "hls4ml.pbtxt", WRAPPER), ("rows64", "rows64.pbtxt", ROWS64)])
def test_the_stand_ins_for_others_kernels(farm, grind, tmp_path, name, manifest, program):
    write_model(farm, name, foreign(manifest), program)
    found = grind()
    answers_of(farm, tmp_path, name, np.zeros((100, 47), np.float32))
    assert found.read_text() == ""
