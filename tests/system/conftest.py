# SPDX-License-Identifier: Apache-2.0
"""A real farm for the system tests: real processes, real sockets, a real Redis.

Every wait has a deadline, every process that is started is ended, and the logs of a farm whose test
failed are printed. SONIC_BUILD is the meson build folder, SONIC_MODELS_DIR the built models.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SONIC_BUILD", ROOT / "build"))
MODELS = pathlib.Path(os.environ.get("SONIC_MODELS_DIR", BUILD / "models"))
# Sanitizers and a loaded machine slow everything down; no test measures time against this.
PATIENCE_S = float(os.environ.get("SONIC_TEST_PATIENCE", "60"))

BROKER = BUILD / "broker" / "sonic-broker"
WORKER = BUILD / "worker" / "sonic-worker"
SUBMIT = BUILD / "client" / "submit" / "sonic-submit"
FARM = BUILD / "deploy" / "farm" / "sonic-farm"


def wait_until(condition, what, seconds=None):
    """Polls until condition() is truthy and returns it; fails by name at the deadline."""
    deadline = time.monotonic() + (seconds or PATIENCE_S)
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    pytest.fail(f"waited {seconds or PATIENCE_S:.0f} s in vain for: {what}")


class Process:
    """A child with its output in a file; ended at the latest with its farm."""

    def __init__(self, name, args, folder, **kwargs):
        self.name = name
        self.log = folder / f"{name}.log"
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen(
                [str(a) for a in args], stdout=out, stderr=out, stdin=subprocess.DEVNULL, **kwargs
            )

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def wait(self, seconds=None):
        return self.popen.wait(seconds or PATIENCE_S)

    def kill(self, sig=signal.SIGKILL):
        if self.alive():
            self.popen.send_signal(sig)

    def end(self):
        """Asks, waits, insists. Returns the exit status."""
        if self.alive():
            self.popen.terminate()
            try:
                return self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.popen.wait(15)

    def text(self):
        return self.log.read_text(errors="replace")


def toy_config(name, backend, batch_max=64, dims=(16,), extra=""):
    shape = ", ".join(str(d) for d in dims)
    return (
        f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: {batch_max}\n'
        f'input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {shape} ] }} ]\n'
        f'output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {shape} ] }} ]\n{extra}\n'
    )


def write_toy(models, name, backend, **kwargs):
    (models / name / "1").mkdir(parents=True, exist_ok=True)
    (models / name / "config.pbtxt").write_text(toy_config(name, backend, **kwargs))


class FarmUnderTest:
    """Broker and workers started one by one, so that a test can kill any of them."""

    def __init__(self, folder):
        self.folder = folder
        self.models = folder / "models"
        self.models.mkdir()
        self.client = f"ipc://{folder}/client.sock"
        self.worker = f"ipc://{folder}/worker.sock"
        self.processes = []
        self.redis_url = None

    def start(self, name, *args, **kwargs):
        process = Process(name, args, self.folder, **kwargs)
        self.processes.append(process)
        return process

    def start_redis(self):
        path = self.folder / "redis.sock"
        self.redis_url = f"unix://{path}"
        redis = self.start(
            "redis", "redis-server", "--port", "0", "--unixsocket", path, "--save", "",
            "--appendonly", "no", "--dir", self.folder,
        )
        wait_until(path.exists, "redis to listen")
        return redis

    def redis_args(self):
        return ["--redis", self.redis_url] if self.redis_url else []

    def start_broker(self, *args):
        broker = self.start(
            "broker", BROKER, "--client", self.client, "--worker", self.worker, "--models",
            self.models, *self.redis_args(), *args,
        )
        wait_until(lambda: self.ask("status").returncode == 0 or not broker.alive(), "the broker to answer")
        assert broker.alive(), broker.text()
        return broker

    def start_worker(self, name="w0", device="null", *args):
        before = self.workers_seen()
        worker = self.start(
            f"worker-{name}", WORKER, "--broker", self.worker, "--device", device, "--models",
            self.models, "--name", name, *self.redis_args(), *args,
        )
        wait_until(lambda: self.workers_seen() > before or not worker.alive(), f"worker {name} to join")
        assert worker.alive(), worker.text()
        return worker

    def workers_seen(self):
        brokers = [p for p in self.processes if p.name == "broker"]
        return sum(p.text().count("event=worker_joined") for p in brokers[-1:])

    def ask(self, *args, seconds=10):
        """A sonic-submit query; its CompletedProcess."""
        return subprocess.run(
            [str(SUBMIT), *map(str, args), "--broker", self.client, "--timeout", "2"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 20, check=False,
        )

    def submit_args(self, model, source, output, *args):
        return [
            str(SUBMIT), "--model", model, "--input", str(source), "--output", str(output),
            "--broker", self.client, *map(str, args),
        ]

    def submit(self, model, source, output, *args, seconds=None):
        return subprocess.run(
            self.submit_args(model, source, output, *args), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=seconds or 2 * PATIENCE_S, check=False,
        )

    def end(self):
        for process in reversed(self.processes):
            process.end()

    def logs(self):
        return "\n".join(f"--- {p.name} (exit {p.popen.poll()})\n{p.text()[-4000:]}" for p in self.processes)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    farm = item.funcargs.get("farm") if hasattr(item, "funcargs") else None
    if report.when == "call" and report.failed and farm:
        report.sections.append(("the farm's logs", farm.logs()))


@pytest.fixture
def farm():
    # A short path of its own: a unix socket's name has 107 characters at most.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sonic-t-"))
    under_test = FarmUnderTest(folder)
    write_toy(under_test.models, "echo", "null", batch_max=1024)
    write_toy(under_test.models, "slow", "delay", batch_max=4)
    try:
        yield under_test
    finally:
        under_test.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def rows(tmp_path):
    """Makes .npy files of seeded rows: rows(n) -> (path, array)."""

    def make(n, dims=(16,), dtype=np.float32, name="in.npy", seed=1):
        array = np.random.default_rng(seed).normal(size=(n, *dims)).astype(dtype)
        path = tmp_path / name
        np.save(path, array)
        return path, array

    return make


def real_model(farm, name):
    """Links a built model into the farm's repository; skips in words where it is not built."""
    source = MODELS / name
    if not (source / "config.pbtxt").exists():
        pytest.skip(f"{source} is not built (make models)")
    (farm.models / name).symlink_to(source)
    return source


def run_direct(model, array, batch=None):
    """The model in this process, ONNX Runtime alone: list of outputs in declared order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    step = batch or len(array)
    parts = [session.run(None, {name: array[i : i + step]}) for i in range(0, len(array), step)]
    return [np.concatenate(p) for p in zip(*parts)]


if sys.version_info < (3, 9):
    raise RuntimeError("the system tests need Python 3.9 or newer")


def pytest_sessionfinish(session, exitstatus):
    """A file of which everything was skipped counts as skipped with meson, too."""
    stats = session.config.pluginmanager.get_plugin("terminalreporter").stats
    if exitstatus == 0 and stats.get("skipped") and not stats.get("passed"):
        session.exitstatus = 77
