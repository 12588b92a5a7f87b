# SPDX-License-Identifier: Apache-2.0
"""Each bad input gets one clear line that names the thing and the way out, and its own exit code."""

import os
import subprocess

import numpy as np
import pytest

from conftest import BROKER, WORKER, toy_config, write_toy
from peer import Client

USAGE, BAD_INPUT, NOT_REACHED, MODEL, FAILED, OUTPUT = 2, 3, 4, 5, 6, 7


def one_line(text, *names):
    """The complaint, which must be one line and name these things."""
    lines = [line for line in text.strip().splitlines() if line]
    assert len(lines) == 1, text
    for name in names:
        assert name in lines[0], f"{name!r} is not in: {lines[0]}"


@pytest.fixture
def running(farm):
    farm.start_broker()
    farm.start_worker()
    return farm


def refused(farm, model, source, output, code, *names, args=()):
    done = farm.submit(model, source, output, "--quiet", *args)
    assert done.returncode == code, done.stderr
    one_line(done.stderr, *names)
    assert not os.path.exists(output)


def test_missing_file(running, tmp_path):
    refused(running, "echo", tmp_path / "nothere.npy", tmp_path / "o.npy", BAD_INPUT, "nothere.npy")


def test_not_an_npy_file(running, tmp_path):
    (tmp_path / "text.npy").write_text("1 2 3\n" * 100)
    refused(running, "echo", tmp_path / "text.npy", tmp_path / "o.npy", BAD_INPUT, "text.npy")


def test_truncated_npy(running, rows, tmp_path):
    source, _ = rows(100, name="cut.npy")
    os.truncate(source, os.path.getsize(source) - 10)
    refused(running, "echo", source, tmp_path / "o.npy", BAD_INPUT, "cut.npy", "truncated")


def test_truncated_npy_header(running, tmp_path):
    (tmp_path / "head.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\xff{'descr'")
    refused(running, "echo", tmp_path / "head.npy", tmp_path / "o.npy", BAD_INPUT, "head.npy")


def test_wrong_dtype(running, tmp_path):
    np.save(tmp_path / "c.npy", np.zeros((3, 16), np.complex64))
    refused(running, "echo", tmp_path / "c.npy", tmp_path / "o.npy", BAD_INPUT, "c.npy", "c8")


def test_wrong_shape(running, rows, tmp_path):
    source, _ = rows(10, dims=(17,), name="wide.npy")
    refused(running, "echo", source, tmp_path / "o.npy", BAD_INPUT, "wide.npy", "17", "16")


def test_fortran_order(running, tmp_path):
    np.save(tmp_path / "f.npy", np.asfortranarray(np.zeros((8, 16), np.float32)))
    refused(running, "echo", tmp_path / "f.npy", tmp_path / "o.npy", BAD_INPUT, "f.npy", "ascontiguousarray")


def test_unknown_model(running, rows, tmp_path):
    source, _ = rows(10)
    refused(running, "ecko", source, tmp_path / "o.npy", MODEL, "ecko", "echo")


def test_request_that_no_broker_memory_could_hold(farm, rows, tmp_path):
    write_toy(farm.models, "wide", "null", dims=(65536,))
    farm.start_broker("--memory", "8M")
    farm.start_worker()
    source, array = rows(64, dims=(65536,), name="wide.npy")
    done = farm.submit("wide", source, tmp_path / "o.npy", "--batch", "64")
    assert done.returncode == FAILED, done.stderr
    assert "a request of 16777216 bytes is more than the 4194304" in done.stderr
    assert not os.path.exists(tmp_path / "o.npy")
    done = farm.submit("wide", source, tmp_path / "o.npy", "--batch", "16")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), array)


def test_output_that_is_the_input(running, rows, tmp_path):
    source, array = rows(10)
    os.symlink(source, tmp_path / "alias.npy")
    done = running.submit("echo", source, tmp_path / "alias.npy", "--quiet", "--force")
    assert done.returncode == USAGE, done.stderr
    one_line(done.stderr, "would replace the input")
    np.testing.assert_array_equal(np.load(source), array)


def test_tensor_names_that_the_model_lacks(running, rows, tmp_path):
    source, _ = rows(10)
    refused(running, "echo", f"xx={source}", tmp_path / "o.npy", USAGE, "xx", "this model has no input", "./xx=")
    refused(running, "echo", source, f"yy={tmp_path / 'o.npy'}", USAGE, "yy", "this model has no output")


def test_output_folder_not_there(running, rows, tmp_path):
    source, _ = rows(10)
    refused(running, "echo", source, tmp_path / "no" / "o.npy", OUTPUT, "o.npy")


def test_disk_full(running, rows, tmp_path):
    source, _ = rows(200_000)
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=False,
                      capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        refused(running, "echo", source, small / "o.npy", OUTPUT, "o.npy", "space")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_output_exists(running, rows, tmp_path):
    source, _ = rows(10)
    (tmp_path / "o.npy").write_text("precious")
    done = running.submit("echo", source, tmp_path / "o.npy", "--quiet")
    assert done.returncode == OUTPUT
    one_line(done.stderr, "o.npy", "--force")
    assert (tmp_path / "o.npy").read_text() == "precious"


def test_no_broker(farm, rows, tmp_path):
    source, _ = rows(10)
    done = farm.submit("echo", source, tmp_path / "o.npy", "--quiet", "--timeout", 1)
    assert done.returncode == NOT_REACHED, done.stderr
    one_line(done.stderr, farm.client)


def test_usage(running):
    done = running.ask("--no-such-option")
    assert done.returncode == USAGE
    assert "--no-such-option" in done.stderr


def run_worker(farm, *args):
    return subprocess.run([str(WORKER), "--broker", farm.worker, "--models", str(farm.models), *args],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def test_config_with_a_typo(farm):
    (farm.models / "typo" / "1").mkdir(parents=True)
    text = toy_config("typo", "null").replace("max_batch_size", "max_bach_size")
    (farm.models / "typo" / "config.pbtxt").write_text(text)
    done = run_worker(farm, "--device", "null", "--model", "typo")
    assert done.returncode == MODEL
    assert "typo/config.pbtxt:3:1" in done.stderr and "max_batch_size" in done.stderr


def test_broken_config(farm):
    (farm.models / "echo" / "config.pbtxt").write_text('name: "echo"\ninput [ { name: "x"\n')
    done = run_worker(farm, "--device", "null", "--model", "echo")
    assert done.returncode == MODEL
    assert "echo/config.pbtxt:" in done.stderr


def test_corrupt_onnx(farm):
    (farm.models / "bad" / "1").mkdir(parents=True)
    (farm.models / "bad" / "config.pbtxt").write_text(toy_config("bad", "onnxruntime"))
    (farm.models / "bad" / "1" / "model.onnx").write_bytes(os.urandom(2000))
    done = run_worker(farm, "--device", "cpu:1", "--model", "bad")
    assert done.returncode == MODEL
    assert "bad/1/model.onnx" in done.stderr


def test_unknown_device(farm):
    done = run_worker(farm, "--device", "abacus")
    assert done.returncode in (USAGE, MODEL)
    assert "abacus" in done.stderr and "cpu" in done.stderr


def test_broker_binds_no_open_address_by_itself(farm):
    done = subprocess.run([str(BROKER), "--client", "tcp://0.0.0.0:0", "--worker", farm.worker],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == USAGE
    assert "--insecure" in done.stderr


def test_broker_endpoint_taken(farm):
    farm.start_broker()
    done = subprocess.run([str(BROKER), "--client", "tcp://127.0.0.1:1", "--worker", farm.worker],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "127.0.0.1:1" in done.stderr or farm.worker in done.stderr


def test_old_protocol_version_is_said_in_words(running):
    with Client(running.client) as client:
        _, fields = client.hello(versions=(0, 0))
        assert "version" in fields[3]


def test_an_output_that_is_no_file_is_not_replaced(running, rows, tmp_path):
    source, _ = rows(3)
    os.mkfifo(tmp_path / "pipe.npy")
    done = running.submit("echo", source, tmp_path / "pipe.npy", "--quiet", "--force")
    assert done.returncode == OUTPUT
    one_line(done.stderr, "pipe.npy", "not a regular file")
    assert (tmp_path / "pipe.npy").is_fifo()
