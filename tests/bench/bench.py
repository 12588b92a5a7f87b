#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: the farm beside what bounds it, in one run on one machine, as a table of ratios.

    bench.py [--rounds N] [--seconds S] [SECTION...]     sections: core echo models facile gpu fpga idle memory

Both sides of a ratio are measured in turn, N rounds, and the median of the rounds' ratios is
printed with the smallest and the largest: absolute figures of a shared machine mean little. The
yardsticks are a raw libzmq proxy that moves a message a request (bench_proxy), bare ONNX Runtime
(bench_bare) and OpenCL kernels (bench_opencl) in a loop. Nothing here is asserted; the goals are printed beside the figures.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SONIC_BUILD", ROOT / "build")).resolve()
MODELS = pathlib.Path(os.environ.get("SONIC_MODELS_DIR", BUILD / "models"))
BENCH = BUILD / "tests" / "bench"
ECHO = (
    'name: "echo"\nbackend: "null"\nmax_batch_size: 64\n'
    'input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
    'output [ { name: "y" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("sections", nargs="*", default=[])
    options = parser.parse_args()
    sections = {"core": core, "echo": echo, "models": models, "facile": facile, "gpu": gpu, "fpga": fpga, "idle": idle, "memory": memory}
    print(f"{'what':<58} {'ratio':>7} {'smallest':>9} {'largest':>8}  goal", flush=True)
    for name in options.sections or sections:
        sections[name](options)


def row(what, ratios, goal):
    print(f"{what:<58} {statistics.median(ratios):7.2f} {min(ratios):9.2f} {max(ratios):8.2f}  {goal}", flush=True)


def run_lines(*command, seconds=120, env=None):
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=seconds, check=False, env={**os.environ, **(env or {})})
    if done.returncode != 0:
        sys.exit(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.strip().splitlines()]


def run_json(*command, seconds=120):
    return run_lines(*command, seconds=seconds)[-1]


class Farm:
    """A broker and one worker of their own, on ipc and on tcp."""

    def __init__(self, device, models, *broker_args, env=None, only=()):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sonic-b-"))
        self.endpoints = {"ipc": f"ipc://{self.folder}/c", "tcp": f"tcp://127.0.0.1:{free_port()}"}
        worker = {"ipc": f"ipc://{self.folder}/w", "tcp": f"tcp://127.0.0.1:{free_port()}"}
        log = open(self.folder / "log", "wb")
        # The worker's link is of the same kind as the clients': one worker on each.
        self.broker = subprocess.Popen(
            [BUILD / "broker" / "sonic-broker", "--models", models, "--log", "warn", *broker_args]
            + [a for e in self.endpoints.values() for a in ("--client", e)]
            + [a for e in worker.values() for a in ("--worker", e)], stdout=log, stderr=log)
        self.models, self.device, self.links, self.log = models, device, worker, log
        self.env = {**os.environ, **(env or {})}
        self.only = [a for name in only for a in ("--model", name)]  # the models of the worker; none: all
        self.worker = None

    def use(self, kind):
        """Joins a worker over this kind of link."""
        self.end_worker()
        self.worker = subprocess.Popen(
            [BUILD / "worker" / "sonic-worker", "--broker", self.links[kind], "--device", self.device,
             "--models", self.models, "--name", kind, "--log", "warn", *self.only], stdout=self.log, stderr=self.log,
            env=self.env)
        deadline = time.monotonic() + 300  # a GPU's worker runs every model in all sizes first
        while time.monotonic() < deadline and self.worker.poll() is None:
            if "workers 1\n" in self.status(kind):
                return self.endpoints[kind]
            time.sleep(0.1)
        sys.exit("the worker did not join: " + (self.folder / "log").read_text())

    def status(self, kind="ipc"):
        return subprocess.run([BUILD / "client" / "submit" / "sonic-submit", "status", "--timeout", "5",
                               "--broker", self.endpoints[kind]], capture_output=True, text=True,
                              timeout=30, check=False).stdout

    def device_seconds(self):
        """The device's line of the status: seconds that it computed, and that it had nothing to."""
        lines = self.status().splitlines()
        at = next((i for i, line in enumerate(lines) if line.startswith("DEVICE ")), None)
        if at is None or at + 1 == len(lines):
            return 0.0, 0.0
        columns = dict(zip(lines[at].split()[1:], lines[at + 1].split()[1:]))
        return float(columns["kernel_s"]), float(columns["idle_s"])

    def load(self, endpoint, **kwargs):
        args = [a for k, v in kwargs.items() for a in (f"--{k}", v)]
        return run_json(BENCH / "bench_load", "--endpoint", endpoint, *args)

    def end_worker(self):
        if self.worker:
            self.worker.terminate()
            self.worker.wait(30)
        self.worker = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end_worker()
        self.broker.terminate()
        self.broker.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def echo_models(folder):
    (folder / "echo" / "1").mkdir(parents=True)
    (folder / "echo" / "config.pbtxt").write_text(ECHO)
    return folder


def proxy(kind, folder, clients, window, seconds):
    front, back = (
        (f"ipc://{folder}/f", f"ipc://{folder}/b") if kind == "ipc"
        else (f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}")
    )
    return run_json(BENCH / "bench_proxy", front, back, clients, window, 64, seconds)


def echo(options):
    with tempfile.TemporaryDirectory(prefix="sonic-b-") as name:
        folder = pathlib.Path(name)
        with Farm("null", echo_models(folder / "m")) as farm:
            for kind in ("ipc", "tcp"):
                endpoint = farm.use(kind)
                # 4,096 is libsonic's own default; the proxy has the same window.
                for clients, window in ((1, 1024), (4, 1024), (1, 4096), (4, 4096)):
                    ratios, absolute = [], []
                    for _ in range(options.rounds):
                        raw = proxy(kind, folder, clients, window, options.seconds)
                        ours = farm.load(endpoint, clients=clients, window=window, seconds=options.seconds)
                        ratios.append(ours["requests_per_s"] / raw["requests_per_s"])
                        absolute.append(ours["requests_per_s"] / 1e3)
                    row(f"echo 64 B, {kind}, {clients} client(s), window {window:,} ({statistics.median(absolute):.0f} k/s)",
                        ratios, "≥ 1.5 of a raw proxy")
                ratios = []
                for _ in range(options.rounds):
                    raw = proxy(kind, folder, 1, 1, options.seconds)
                    ours = farm.load(endpoint, clients=1, window=1, seconds=options.seconds)
                    ratios.append(ours["p50_us"] / raw["p50_us"])
                row(f"echo 64 B, {kind}, window 1: p50 ({ours['p50_us']:.0f} µs)", ratios, "≤ 1.3 of a raw proxy")


def core(options):
    done = subprocess.run([BENCH / "bench_core", str(options.seconds)], capture_output=True, text=True,
                          timeout=600, check=False)
    print("the core alone, without sockets (goal: ≥ 5 M requests/s on a core):")
    print("  " + done.stdout.strip().replace("\n", "\n  "))


def bare(model, batch, seconds, threads=2):
    return run_json(BENCH / "bench_bare", "--models", MODELS, "--model", model, "--threads", threads,
                    "--seconds", seconds, "--batches", batch)["items_per_s"]


def models(options):
    with Farm("cpu:2", MODELS) as farm:
        endpoint = farm.use("ipc")
        for model, batch, window in (("resnet50", 4, 8), ("deepcalo", 8, 16), ("emtrkmichel", 128, 8)):
            seconds = options.seconds * (4 if model == "resnet50" else 1)
            ratios = []
            for _ in range(options.rounds):
                raw = bare(model, batch, seconds)
                ours = farm.load(endpoint, model=model, rows=batch, window=window, seconds=seconds)
                ratios.append(ours["requests_per_s"] * batch / raw)
            row(f"{model}, {batch} rows a request ({ours['requests_per_s'] * batch:,.0f} items/s)", ratios,
                "≥ 0.9 of bare ONNX Runtime")
        ratios = []
        for _ in range(options.rounds):
            best = max(bare("deepcalo", batch, options.seconds / 2) for batch in (1, 2, 4, 8, 16, 32))
            ours = farm.load(endpoint, model="deepcalo", rows=1, clients=64, window=4, seconds=options.seconds)
            ratios.append(ours["requests_per_s"] / best)
        row(f"deepcalo, 64 clients, 1 row a request ({ours['requests_per_s']:,.0f} items/s)", ratios,
            "≥ 0.8 of its best batch bare")


def facile(options):
    """3 MB a request, by shared memory and through sockets, each beside the same bare run."""
    rows, ratios = 16000, {"": [], ", sockets only": []}
    with Farm("cpu:2", MODELS) as shared, Farm("cpu:2", MODELS, "--slabs", "0") as sockets:
        farms = [(shared, shared.use("ipc")), (sockets, sockets.use("ipc"))]
        # Its rate hangs on the memory that others use, too: more pairs for a steady median.
        for _ in range(options.rounds * 3):
            raw = bare("facile", rows, options.seconds)
            for (farm, endpoint), kind in zip(farms, ratios):
                ours = farm.load(endpoint, model="facile", rows=rows, window=8, seconds=options.seconds)
                ratios[kind].append(ours["requests_per_s"] * rows / raw)
    row("facile, 16,000 rows a request", ratios[""], "≥ 0.45 of bare ONNX Runtime")
    row("facile, 16,000 rows a request, sockets only", ratios[", sockets only"], "(for comparison)")


def gpu(options):
    """The farm beside the device process's own loop, and the native kernel beside ONNX Runtime's."""
    if not pathlib.Path("/proc/driver/nvidia/version").exists() and "SONIC_CUDART" not in os.environ:
        print("gpu: there is no NVIDIA GPU here")
        return
    with Farm("cuda", MODELS) as farm:
        endpoint = farm.use("ipc")
        for model, batch in (("resnet50", 10), ("deepcalo", 32), ("emtrkmichel", 128), ("facile", 16000)):
            ratios, busy = [], []
            for _ in range(options.rounds):
                raw = run_json(BENCH / "bench_gpu", MODELS, model, batch, options.seconds)["rows_per_s"]
                farm.load(endpoint, model=model, rows=batch, clients=8, window=4, seconds=1)
                before = farm.device_seconds()
                ours = farm.load(endpoint, model=model, rows=batch, clients=8, window=4, seconds=options.seconds)
                ratios.append(ours["requests_per_s"] * batch / raw)
                time.sleep(2)  # the worker's next beat tells of all of it
                computed, waited = (b - a for a, b in zip(before, farm.device_seconds()))
                busy.append(computed / max(computed + waited, 1e-9))
            row(f"GPU: {model}, {batch} rows a request, 8 clients", ratios, "≥ 0.95 of the device's own loop")
            row(f"GPU: {model}, part of the time that it computes", busy, "≥ 0.95")
    ratios = []
    for _ in range(options.rounds):
        both = [run_json(BENCH / "bench_gpu", MODELS, "facile", 16000, options.seconds, *kernel) for kernel in ((), ("facile",))]
        ratios.append(both[0]["compute_us"] / both[1]["compute_us"])
    row("GPU: facile computed by the native kernel", ratios, "≥ 3 x ONNX Runtime, rows on the device")


def runtimes():
    """The OpenCL runtimes that are here: name, part of the platform's name, environment."""
    yield "PoCL", "Portable", {}
    intel = ROOT / ".deps" / "fpga" / "intel" / "libintelocl_emu.so"
    if intel.exists():
        yield "Intel's FPGA emulator", "Intel", {"OCL_ICD_VENDORS": str(intel)}
    else:
        print("fpga: Intel's emulator is not installed: deploy/setup.sh --fpga", flush=True)


def device_idle(farm):
    """(when the worker's next word of its device came, how long that had been idle in all), seconds."""
    said, deadline = None, time.monotonic() + 10
    while time.monotonic() < deadline:
        now = [line.split() for line in farm.status().splitlines() if line.startswith("ipc ") and len(line.split()) == 7]
        if said and now and now != said:
            return time.monotonic(), float(now[0][4])
        said = now
        time.sleep(0.05)
    sys.exit("the worker says nothing of its device: " + farm.status())


def idle_under_load(farm, endpoint, seconds, load):
    """The part of the time in which no kernel ran, in percent; by what the worker says, every half second."""
    args = [str(a) for k, v in load.items() for a in (f"--{k}", v)]
    for longer in (1, 3):  # on a machine that is slow to answer the load may have ended before
        with subprocess.Popen([BENCH / "bench_load", "--endpoint", endpoint, "--seconds", str(longer * (seconds + 4)), *args],
                              stdout=subprocess.DEVNULL) as busy:
            time.sleep(1)
            start = device_idle(farm)
            time.sleep(seconds)
            end = device_idle(farm)
            if busy.poll() is None:
                return 100 * (end[1] - start[1]) / (end[0] - start[0])
    sys.exit("the load ended before it was measured")


def fpga(options):
    """FACILE's fixed-point kernel through the farm beside the same kernel in a loop, 4 slots each, and
    how long the device has nothing to compute under load. These devices are the processor that the
    farm runs on: against kernels alone the farm's own work counts as the device's."""
    sys.path.insert(0, str(ROOT / "models"))
    import inputs

    if not (BENCH / "bench_opencl").exists() or not (MODELS / "facile" / "1" / "opencl").exists():
        print("fpga: built without OpenCL, or FACILE has no bundle (make models)")
        return
    rows = 16384
    with tempfile.TemporaryDirectory(prefix="sonic-b-") as folder:
        channels = pathlib.Path(folder) / "channels.f32"
        next(inputs.stream("facile", rows, 1)).tofile(channels)
        for name, platform, env in runtimes():
            fpga_runtime(options, name, platform, env, rows, channels)


def fpga_runtime(options, name, platform, env, rows, channels):
    def loop(*convert):
        done = run_lines(BENCH / "bench_opencl", "--models", MODELS, "--model", "facile", "--platform", platform, "--rows", rows,
                         "--input", channels, "--slots", 4, "--seconds", options.seconds, *convert, env=env)
        return max(kind["items_per_s"] for kind in done)  # of a queue a slot, and one for all

    load = {"model": "facile", "rows": rows, "clients": 2, "window": 8, "input": channels}
    converting, alone, idle_percent = [], [], []
    with Farm(f"opencl:{platform}", MODELS, env=env, only=["facile"]) as farm:
        endpoint = farm.use("ipc")
        for _ in range(options.rounds):
            bare = loop("--convert"), loop()
            ours = farm.load(endpoint, seconds=options.seconds, **load)["requests_per_s"] * rows
            converting.append(ours / bare[0])
            alone.append(ours / bare[1])
            idle_percent.append(idle_under_load(farm, endpoint, options.seconds, load))
    row(f"{name}: facile, {rows:,} rows a request ({ours / 1e6:.1f} M/s)", converting,
        "≥ 0.9 of a bare loop of kernels and conversions from FP32")
    row(f"{name}: facile, the same", alone, "(of a bare loop of kernels alone)")
    row(f"{name}: % of the time without a kernel", idle_percent, "< 3, four slots under load")


def idle(_):
    """What an idle session costs the broker beyond the connection itself."""
    import msgpack
    import zmq

    count = 400
    with tempfile.TemporaryDirectory(prefix="sonic-b-") as name:
        with Farm("null", echo_models(pathlib.Path(name) / "m")) as farm:
            farm.use("ipc")
            costs = []
            for opened in (False, True):
                context = zmq.Context()
                context.max_sockets = 2 * count
                before = rss_kib(farm.broker.pid)
                sockets = [context.socket(zmq.DEALER) for _ in range(count)]
                for i, s in enumerate(sockets):
                    s.linger = 0
                    s.connect(farm.endpoints["ipc"])
                    if opened:
                        s.send(msgpack.packb([1, [1, 1, 1000 + i, "idle", "bench", 1, 1, 0], []]))
                    else:
                        s.send(msgpack.packb([8, [i, 9], []]))  # a question opens no session
                for s in sockets:
                    s.recv_multipart()
                costs.append((rss_kib(farm.broker.pid) - before) / count)
                context.destroy()
                time.sleep(1)
    print(f"{'an idle client: KiB a connection, and with a session':<58} {costs[0]:7.1f} {costs[1]:9.1f}"
          f"           ≤ 4 KiB more", flush=True)


def memory(options):
    """RSS of the broker over ten million echo requests."""
    with tempfile.TemporaryDirectory(prefix="sonic-b-") as name:
        with Farm("null", echo_models(pathlib.Path(name) / "m")) as farm:
            endpoint = farm.use("ipc")
            answers, marks = 0, []
            while answers < 10_000_000:
                answers += farm.load(endpoint, clients=4, window=1024, seconds=options.seconds)["answers"]
                marks.append(rss_kib(farm.broker.pid))
    print(f"{'RSS after ' + format(answers, ',') + ' echo requests, MiB: first, last':<58} {marks[0] / 1024:7.1f}"
          f" {marks[-1] / 1024:9.1f}           flat", flush=True)


if __name__ == "__main__":
    main()
