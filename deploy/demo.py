#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make demo: a farm on this machine runs the main job, a real file of each of the four models.

    demo.py --build DIR

Every output is then compared with what ONNX Runtime gives in one process on the same file. The same
files then go to a farm whose one device is OpenCL's (PoCL on a machine without a board), which
computes in fixed point: its outputs are held against the same direct run in the models' own terms.
Inputs stay in DIR/demo; whatever was started is stopped, whichever way this ends. Exit status 0: all
equal, and the OpenCL device close enough.
"""
import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# About as long for each on two cores; FACILE: 100 events of 16,000 channels.
JOBS = (("facile", 1_600_000), ("deepcalo", 4_000), ("emtrkmichel", 8_000), ("resnet50", 60))
# The farm batches otherwise than the direct run, and sums of floats depend on the batch.
RTOL, ATOL = 1e-4, 1e-5
# In fixed point: the mean difference of an energy, of its mean; the share of other choices of a class.
ENERGY_OFF, CLASSES_OFF = 0.02, 0.03
START_S, STOP_S = 120, 20


def main():
    parser = argparse.ArgumentParser(description="Runs the main job on a farm of this machine.")
    parser.add_argument("--build", required=True, type=Path, help="meson's build folder")
    build = parser.parse_args().build.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    inputs = make_inputs(build)
    # A unix socket's path has 107 characters at most, so not under the build folder.
    with tempfile.TemporaryDirectory(prefix="sonic-demo-") as folder:
        run = Path(folder)
        figures = run_farm(build, run / "cpu", inputs)
        rows = [check(build, run, model, inputs[model], figures[model]) for model, _ in JOBS]
        status = report(rows)
        bundled = [m for m, _ in JOBS if (build / "models" / m / "1" / "opencl" / "bundle.pbtxt").exists()]
        if not (build / "worker" / "sonic-device-opencl").exists():
            say("built without OpenCL: no farm with an OpenCL device")
            return status
        figures = run_farm(build, run / "opencl", {m: inputs[m] for m in bundled}, "--device", "opencl")
        return report_opencl([agreement(run, m, figures[m]) for m in bundled]) or status


def make_inputs(build):
    """The .npy of each model, made once: {model: path}."""
    folder = build / "demo"
    folder.mkdir(exist_ok=True)
    paths = {model: folder / f"{model}-{items}.npy" for model, items in JOBS}
    for model, items in JOBS:
        if not paths[model].exists():
            say(f"making {items:,} inputs of {model}")
            python("make_inputs.py", "--model", model, "--items", items, "--output", paths[model])
    return paths


def run_farm(build, run, inputs, *args):
    """Starts a farm in the folder run, submits every file, stops it: {model: sonic-submit's figures}."""
    run.mkdir(mode=0o700)
    endpoint = f"ipc://{run}/client.sock"
    submit = build / "client" / "submit" / "sonic-submit"
    command = [build / "deploy" / "farm" / "sonic-farm", "--models", build / "models", "--dir", run, *args]
    with open(run / "farm.log", "wb") as log:
        farm = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        say(f"starting a farm: {' '.join(map(str, command))}")
        await_farm(farm, run)
        figures = {}
        for model in inputs:
            job = [submit, "--model", model, "--input", inputs[model], "--output", run / f"{model}.npy"]
            say(" ".join(map(str, job)))
            done = subprocess.run([*job, "--broker", endpoint, "--json"], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode != 0:
                fail(f"sonic-submit of {model} ended with status {done.returncode}", run)
            figures[model] = json.loads(done.stdout)
        return figures
    finally:
        stop(farm)


def await_farm(farm, run):
    """Until sonic-farm says that its workers have joined: a job would wait for them, too."""
    deadline = time.monotonic() + START_S
    while "ready at" not in (run / "farm.log").read_text(errors="replace"):
        if farm.poll() is not None:
            fail(f"sonic-farm ended with status {farm.returncode}", run)
        if time.monotonic() > deadline:
            fail(f"the farm did not get ready within {START_S} s", run)
        time.sleep(0.1)


def stop(farm):
    farm.terminate()
    try:
        status = farm.wait(STOP_S)
    except subprocess.TimeoutExpired:
        farm.kill()
        status = farm.wait()
    say(f"the farm is stopped (status {status})")


def check(build, run, model, source, figures):
    """Runs the model directly and compares each output: the model's row of the table."""
    say(f"running {model} directly on the same file")
    direct = run / "direct" / model
    line = python("run_direct.py", "--model", model, "--repository", build / "models",
                  "--input", source, "--output-dir", direct)
    figures["direct_items_per_s"] = float(re.search(r"items_per_s=(\S+)", line)[1])
    figures["model"] = model
    figures["verdicts"] = []
    wanted = sorted(direct.glob("*.npy"))
    for want in wanted:
        got = output_file(run / "cpu", model, want, len(wanted))
        done = subprocess.run([sys.executable, ROOT / "models" / "compare.py", got, want, "--rtol",
                               str(RTOL), "--atol", str(ATOL)], stdout=subprocess.PIPE, text=True, check=False)
        figures["verdicts"].append((want.stem, done.returncode == 0, done.stdout.strip()))
    return figures


def output_file(farm, model, want, count):
    """What sonic-submit named the output that the direct run has in the file want, one of count."""
    names = [farm / f"{model}.npy"] if count == 1 else list(farm.glob(f"{model}?{want.name}"))
    if len(names) != 1 or not names[0].exists():
        fail(f"sonic-submit wrote no file for output {want.stem} of {model}", farm)
    return names[0]


def agreement(run, model, figures):
    """How far fixed point is from the direct run of check(): the model's row of the second table."""
    figures["model"] = model
    figures["verdicts"] = []
    wanted = sorted((run / "direct" / model).glob("*.npy"))
    for want in wanted:
        got, direct = np.load(output_file(run / "opencl", model, want, len(wanted))), np.load(want)
        if got.shape != direct.shape:
            fail(f"{model}: output {want.stem} is {got.shape}, not {direct.shape}", run / "opencl")
        if direct.shape[1] == 1:
            off, limit = np.abs(got - direct).mean() / np.abs(direct).mean(), ENERGY_OFF
            words = f"{want.stem} {off:.2%} off in the mean"
        else:
            off, limit = (got.argmax(1) != direct.argmax(1)).mean(), CLASSES_OFF
            words = f"{want.stem} same class in {1 - off:.1%}"
        figures["verdicts"].append((words, bool(off < limit)))
    return figures


def report_opencl(rows):
    """Prints the second table; returns the exit status."""
    print(f"\n{'on OpenCL':<12} {'items':>10} {'items/s':>12} {'mean batch':>11} {'p50 ms':>8} {'p99 ms':>8}  "
          "against the direct run")
    close = True
    for row in rows:
        close = close and all(ok for _, ok in row["verdicts"])
        print(f"{row['model']:<12} {row['items']:>10,} {row['items_per_s']:>12,.0f} {row['mean_batch']:>11,.1f} "
              f"{row['p50_ms']:>8.2f} {row['p99_ms']:>8.2f}  "
              + ", ".join(words + ("" if ok else " TOO FAR") for words, ok in row["verdicts"]))
    print(f"\nfixed point {'stays' if close else 'DOES NOT STAY'} within {ENERGY_OFF:.0%} of the mean, and "
          f"{CLASSES_OFF:.0%} of the classes")
    return 0 if close else 1


def report(rows):
    """Prints the table; returns the exit status."""
    print(f"\n{'model':<12} {'items':>10} {'items/s':>12} {'mean batch':>11} {'p50 ms':>8} "
          f"{'p99 ms':>8} {'direct items/s':>15}  outputs")
    equal = True
    for row in rows:
        verdicts = ", ".join(f"{name} {'equal' if ok else 'DIFFERENT'}" for name, ok, _ in row["verdicts"])
        equal = equal and all(ok for _, ok, _ in row["verdicts"])
        print(f"{row['model']:<12} {row['items']:>10,} {row['items_per_s']:>12,.0f} "
              f"{row['mean_batch']:>11,.1f} {row['p50_ms']:>8.2f} {row['p99_ms']:>8.2f} "
              f"{row['direct_items_per_s']:>15,.0f}  {verdicts}")
    for row in rows:
        for name, ok, line in row["verdicts"]:
            if not ok:
                print(f"{row['model']} {name}: {line}")
    print(f"\nevery output {'equals' if equal else 'DOES NOT EQUAL'} the direct run's within "
          f"|a - b| <= {ATOL:g} + {RTOL:g} |b|")
    return 0 if equal else 1


def python(script, *args):
    """Runs a command of models/; its output."""
    done = subprocess.run([sys.executable, ROOT / "models" / script, *map(str, args)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"demo: models/{script} ended with status {done.returncode}")
    return done.stdout


def fail(what, run):
    log = run / "farm.log"
    if log.exists():
        print("".join(log.read_text(errors="replace").splitlines(True)[-20:]), file=sys.stderr)
    sys.exit(f"demo: {what}; the farm's last words are above")


def say(line):
    print(f"demo: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
