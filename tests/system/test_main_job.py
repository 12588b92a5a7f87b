# SPDX-License-Identifier: Apache-2.0
"""The main job, as a user runs it: files in, files out, the numbers right."""

import json
import os
import pty
import select
import subprocess
import time

import numpy as np
import pytest

from conftest import PATIENCE_S, real_model, run_direct


def test_echo_file_comes_back_as_it_went(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker()
    source, array = rows(10_000)
    out = tmp_path / "out.npy"
    done = farm.submit("echo", source, out, "--batch", 7)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(out), array)
    assert [p.name for p in tmp_path.iterdir() if "sonic" in p.name] == []  # no part, no ledger left


@pytest.mark.parametrize("name, items, batch", [("facile", 40_000, 16_000), ("deepcalo", 100, 8), ("emtrkmichel", 300, 64)])
def test_real_models_give_what_they_give_directly(farm, tmp_path, name, items, batch):
    model = real_model(farm, name)
    make_inputs(name, items, tmp_path / "in.npy")
    farm.start_broker()
    farm.start_worker("cpu0", "cpu:2", "--model", name)
    done = farm.submit(name, tmp_path / "in.npy", tmp_path / "out.npy", "--batch", batch)
    assert done.returncode == 0, done.stderr
    want = run_direct(model, np.load(tmp_path / "in.npy"), batch)
    got = sorted(tmp_path.glob("out*.npy"))
    assert len(got) == len(want)
    outputs = [np.load(p) for p in got]
    for array in want:
        assert any(
            o.shape == array.shape and np.allclose(o, array, rtol=1e-4, atol=1e-5) for o in outputs
        ), f"no output file equals what {name} gives directly"


def make_inputs(name, items, path):
    import sys

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    subprocess.run(
        [sys.executable, f"{root}/models/make_inputs.py", "--model", name, "--items", str(items), "--output", str(path)],
        check=True, timeout=PATIENCE_S,
    )


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", "int32", "uint8"])
def test_other_dtypes_are_converted(farm, tmp_path, dtype):
    farm.start_broker()
    farm.start_worker()
    array = np.arange(160, dtype=dtype).reshape(10, 16)
    np.save(tmp_path / "in.npy", array)
    done = farm.submit("echo", tmp_path / "in.npy", tmp_path / "out.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), array.astype("<f4"))


def test_nan_passes_through(farm, tmp_path):
    farm.start_broker()
    farm.start_worker()
    array = np.full((5, 16), np.nan, np.float32)
    np.save(tmp_path / "in.npy", array)
    assert farm.submit("echo", tmp_path / "in.npy", tmp_path / "out.npy").returncode == 0
    assert np.isnan(np.load(tmp_path / "out.npy")).all()


def test_zero_items_give_an_empty_file(farm, tmp_path):
    farm.start_broker()
    farm.start_worker()
    np.save(tmp_path / "in.npy", np.zeros((0, 16), np.float32))
    done = farm.submit("echo", tmp_path / "in.npy", tmp_path / "out.npy")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "out.npy").shape == (0, 16)
    assert "in.npy: zero items" in done.stderr


def test_json_is_one_line_with_the_figures(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker()
    source, _ = rows(1000)
    done = farm.submit("echo", source, tmp_path / "out.npy", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 1
    figures = json.loads(lines[0])
    assert figures["items"] == 1000
    assert figures["failed"] == 0
    for key in ("items_per_s", "mean_batch", "p50_ms", "p99_ms"):
        assert figures[key] > 0, key


def test_stdin_to_stdout(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker()
    source, array = rows(500)
    with open(source, "rb") as stdin, open(tmp_path / "out.npy", "wb") as stdout:
        done = subprocess.run(farm.submit_args("echo", "-", "-"), stdin=stdin, stdout=stdout,
                              stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), array)


def test_shards_cover_the_file(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker()
    source, array = rows(1003)
    parts = []
    for i in range(3):
        done = farm.submit("echo", source, tmp_path / "out.npy", "--shard", f"{i}/3", "--batch", 10)
        assert done.returncode == 0, done.stderr
    parts = sorted(tmp_path.glob("out*shard*.npy"))
    assert len(parts) == 3
    np.testing.assert_array_equal(np.concatenate([np.load(p) for p in parts]), array)


def test_several_workers_share_one_queue(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker("w0", "delay:2000")
    farm.start_worker("w1", "delay:2000")
    source, array = rows(400)
    done = farm.submit("slow", source, tmp_path / "out.npy", "--batch", 1)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), array)
    placement = [line for line in farm.ask("status").stdout.splitlines() if "w0" in line or "w1" in line]
    assert len(placement) >= 2
    for line in placement[:2]:
        assert any(int(word) > 50 for word in line.split() if word.isdigit()), line


def test_models_and_status_and_placement(farm):
    farm.start_redis()
    farm.start_broker()
    farm.start_worker("w0")
    models = farm.ask("models")
    assert models.returncode == 0
    assert "echo" in models.stdout
    assert "16" in models.stdout
    status = farm.ask("status")
    assert "w0" in status.stdout
    deadline = time.monotonic() + PATIENCE_S
    while "w0" not in farm.ask("placement").stdout:
        assert time.monotonic() < deadline, farm.ask("placement").stdout
        time.sleep(0.2)
    assert "echo" in farm.ask("placement").stdout


def test_progress_bar_on_a_terminal(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker("w0", "delay:5000")
    source, _ = rows(400)
    leader, follower = pty.openpty()
    job = subprocess.Popen(farm.submit_args("slow", source, tmp_path / "out.npy", "--batch", 1),
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    shown = b""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 0.2)[0]:
            try:
                chunk = os.read(leader, 65536)
            except OSError:
                break
            if not chunk:
                break
            shown += chunk
    assert job.wait(PATIENCE_S) == 0
    os.close(leader)
    assert b"\r" in shown and b"ETA" in shown.upper()
