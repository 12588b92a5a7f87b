# SPDX-License-Identifier: Apache-2.0
"""Things die in the middle of a job; the job completes and the numbers are right."""

import os
import signal
import subprocess

import numpy as np

from conftest import PATIENCE_S, wait_until


def start_job(farm, source, output, *args):
    return subprocess.Popen(
        farm.submit_args("slow", source, output, *args),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def answered(farm):
    """Requests answered so far, from the broker's status."""
    for line in farm.ask("status").stdout.splitlines():
        words = line.replace("=", " ").split()
        if words and words[0] == "answered_ok":
            return int(words[1])
    return 0


def finish(job, output, array):
    _, errors = job.communicate(timeout=2 * PATIENCE_S)
    assert job.returncode == 0, errors
    np.testing.assert_array_equal(np.load(output), array)


def test_worker_killed_in_the_middle(farm, rows, tmp_path):
    farm.start_broker()
    doomed = farm.start_worker("w0", "delay:3000")
    farm.start_worker("w1", "delay:3000")
    source, array = rows(600)
    job = start_job(farm, source, tmp_path / "out.npy", "--batch", 1)
    wait_until(lambda: answered(farm) > 50, "the job to be under way")
    doomed.kill()
    finish(job, tmp_path / "out.npy", array)


def test_only_worker_killed_and_started_again(farm, rows, tmp_path):
    farm.start_broker()
    doomed = farm.start_worker("w0", "delay:3000")
    source, array = rows(400)
    job = start_job(farm, source, tmp_path / "out.npy", "--batch", 1)
    wait_until(lambda: answered(farm) > 50, "the job to be under way")
    doomed.kill()
    doomed.wait()
    farm.start_worker("w0", "delay:3000")
    finish(job, tmp_path / "out.npy", array)


def test_hung_worker_loses_its_leases(farm, rows, tmp_path):
    """SIGSTOP: the link stays up, but no heartbeat and no progress."""
    farm.start_broker()
    hung = farm.start_worker("w0", "delay:3000")
    farm.start_worker("w1", "delay:3000")
    source, array = rows(400)
    job = start_job(farm, source, tmp_path / "out.npy", "--batch", 1)
    wait_until(lambda: answered(farm) > 50, "the job to be under way")
    hung.kill(signal.SIGSTOP)
    try:
        finish(job, tmp_path / "out.npy", array)
    finally:
        hung.kill(signal.SIGCONT)


def test_hung_worker_ends_itself(farm, rows, tmp_path):
    """An execution that is longer than the broker allows: the worker makes room for its restart."""
    farm.start_broker("--lease", "3")
    hung = farm.start_worker("w0", "delay:3600000000")
    source, array = rows(20)
    job = start_job(farm, source, tmp_path / "out.npy", "--batch", 1)
    assert hung.wait() == 5, hung.text()
    assert "event=device_hung" in hung.text()
    farm.start_worker("w0", "delay:3000")
    finish(job, tmp_path / "out.npy", array)


def test_broker_killed_and_started_again(farm, rows, tmp_path):
    broker = farm.start_broker()
    farm.start_worker("w0", "delay:3000")
    source, array = rows(500)
    job = start_job(farm, source, tmp_path / "out.npy", "--batch", 1)
    wait_until(lambda: answered(farm) > 50, "the job to be under way")
    broker.kill()
    broker.wait()
    farm.start_broker()
    finish(job, tmp_path / "out.npy", array)


def test_redis_killed_and_flushed_harms_nobody(farm, rows, tmp_path):
    redis = farm.start_redis()
    farm.start_broker()
    farm.start_worker("w0", "delay:3000")
    source, array = rows(400)
    job = start_job(farm, source, tmp_path / "out.npy", "--batch", 1)
    wait_until(lambda: answered(farm) > 50, "the job to be under way")
    redis.kill()
    redis.wait()
    finish(job, tmp_path / "out.npy", array)
    os.unlink(farm.folder / "redis.sock")
    farm.start_redis()
    wait_until(lambda: "w0" in farm.ask("placement").stdout, "everybody to register again")


def test_submit_killed_resumes_without_computing_again(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker("w0", "delay:3000")
    source, array = rows(2000)
    out = tmp_path / "out.npy"
    job = start_job(farm, source, out, "--batch", 1, "--window", 8)
    wait_until(lambda: answered(farm) > 200, "the job to be under way")
    # A ledger that is committed about once a second holds nearly all of it by now.
    wait_until(lambda: any(p.stat().st_size > 1000 for p in tmp_path.glob(".*ledger*")), "the ledger to be written")
    job.kill()
    job.wait()
    job.communicate()
    assert not out.exists()
    before = answered(farm)
    refused = farm.submit("slow", source, out, "--batch", 1)
    assert refused.returncode != 0 and "--resume" in refused.stderr
    done = farm.submit("slow", source, out, "--batch", 1, "--resume")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(out), array)
    computed = answered(farm) - before
    assert computed < 1990, f"all {computed} chunks were computed again"


def test_interrupt_says_how_to_resume(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker("w0", "delay:3000")
    source, array = rows(600)
    out = tmp_path / "out.npy"
    job = start_job(farm, source, out, "--batch", 1)
    wait_until(lambda: answered(farm) > 50, "the job to be under way")
    job.send_signal(signal.SIGINT)
    _, errors = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 130
    assert "--resume" in errors
    assert not out.exists()
    done = farm.submit("slow", source, out, "--batch", 1, "--resume")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(out), array)


def test_worker_told_to_stop_finishes_what_it_holds(farm, rows, tmp_path):
    farm.start_broker()
    leaving = farm.start_worker("w0", "delay:3000")
    farm.start_worker("w1", "delay:3000")
    source, array = rows(400)
    job = start_job(farm, source, tmp_path / "out.npy", "--batch", 1)
    wait_until(lambda: answered(farm) > 50, "the job to be under way")
    leaving.kill(signal.SIGTERM)
    assert leaving.wait() == 0
    finish(job, tmp_path / "out.npy", array)


def test_dead_client_costs_nothing_for_long(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker("w0", "delay:20000")
    source, _ = rows(5000)
    job = start_job(farm, source, tmp_path / "out.npy", "--batch", 1)
    wait_until(lambda: answered(farm) > 5, "the job to be under way")
    job.kill()
    job.wait()
    job.communicate()

    def drained():
        status = farm.ask("status").stdout.replace("=", " ")
        return any(line.split()[:2] == ["queued", "0"] for line in status.splitlines())

    wait_until(drained, "the dead client's queue to be dropped")


def test_resume_knows_what_came_through_a_pipe(farm, tmp_path):
    """Other rows of the same shape are another job: nothing of the first may be taken for them."""
    farm.start_broker()
    farm.start_worker("w0", "delay:3000")
    arrays = [np.random.default_rng(seed).random((2000, 16), np.float32) for seed in (1, 2)]
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
    out = tmp_path / "out.npy"
    args = farm.submit_args("slow", "-", out, "--batch", 1, "--window", 8)
    with open(tmp_path / "0.npy", "rb") as source:
        job = subprocess.Popen(args, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: any(p.stat().st_size > 1000 for p in tmp_path.glob(".*ledger*")), "the ledger to be written")
    job.kill()
    job.communicate(timeout=PATIENCE_S)
    for i, status in ((1, 2), (0, 0)):
        with open(tmp_path / f"{i}.npy", "rb") as source:
            done = subprocess.run([*args, "--resume"], stdin=source, capture_output=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == status, done.stderr
    np.testing.assert_array_equal(np.load(out), arrays[0])


def test_an_input_that_is_cut_while_it_is_read(farm, rows, tmp_path):
    farm.start_broker()
    farm.start_worker("w0", "delay:3000")
    source, _ = rows(20000)
    job = start_job(farm, source, tmp_path / "out.npy", "--batch", 1, "--window", 8)
    wait_until(lambda: answered(farm) > 50, "the job to be under way")
    os.truncate(source, 4096)
    _, errors = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 3, errors
    assert "became shorter" in errors and not (tmp_path / "out.npy").exists()
