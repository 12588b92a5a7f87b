# SPDX-License-Identifier: Apache-2.0
"""What a GPU's driver says of it, from the device process to the people: on the tests' own CUDA and
NVML (tests/gpu)."""

import pytest

from conftest import BUILD, wait_until
from gpu import stub_env
from test_cuda import affine

STUB_NVML = BUILD / "tests" / "gpu" / "libstub_nvml.so"


@pytest.fixture
def gpu(farm, monkeypatch):
    for key, value in stub_env().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("SONIC_NVML", str(STUB_NVML))
    affine(farm)
    farm.start_redis()
    farm.start_broker()
    return farm


def table(farm, question, title, name):
    """{column: value} of one line of one of the status's or placement's tables; {}: it is not there."""
    lines = farm.ask(question).stdout.splitlines()
    for i, line in enumerate(lines):
        if line.split()[:1] == [title]:
            for row in lines[i + 1:]:
                if row.split()[:1] == [name]:
                    return dict(zip(line.split()[1:], row.split()[1:]))
                if not row:
                    break
    return {}


def sensors(farm):
    return table(farm, "status", "SENSORS", "g")


def test_status_and_registry_tell_what_the_driver_says(gpu):
    gpu.start_worker("g", "cuda")
    wait_until(lambda: sensors(gpu), "the sensors in the status")
    assert sensors(gpu) == {"busy_%": "87", "used_MiB": "3072", "power_W": "312.5", "temp_C": "61"}
    wait_until(lambda: "temperature_c" in gpu.ask("placement").stdout, "the sensors in the registry")
    text = gpu.ask("placement").stdout
    assert all(word in text for word in ("busy_percent", "power_mw", "memory_used", "312500", "77.0GiB")), text


def test_a_part_of_a_gpu_says_what_it_knows(gpu, monkeypatch):
    monkeypatch.setenv("SONIC_STUB_MIG", "1")
    gpu.start_worker("g", "cuda")
    wait_until(lambda: sensors(gpu), "the sensors in the status")
    assert sensors(gpu) == {"busy_%": "-", "used_MiB": "3072", "power_W": "312.5", "temp_C": "61"}


def test_a_gpu_off_the_bus_loses_its_sensors(gpu, monkeypatch):
    monkeypatch.setenv("SONIC_STUB_FAULTS", "nvmlDeviceGetTemperature@2+=15")
    worker = gpu.start_worker("g", "cuda")
    wait_until(lambda: "event=no_sensors" in worker.text(), "the worker's word")
    assert 'why="GPU is lost"' in worker.text()
    wait_until(lambda: not sensors(gpu), "the sensors to go")
    assert worker.alive()


def test_a_driver_that_hangs_is_no_news(gpu, monkeypatch):
    monkeypatch.setenv("SONIC_STUB_FAULTS", "nvmlDeviceGetTemperature@2=hang")
    worker = gpu.start_worker("g", "cuda")
    wait_until(lambda: sensors(gpu), "the sensors in the status")
    wait_until(lambda: not sensors(gpu), "the sensors to go")
    assert worker.alive()


def test_without_nvml_all_works(gpu, monkeypatch):
    monkeypatch.setenv("SONIC_NVML", "/nonexistent.so")
    worker = gpu.start_worker("g", "cuda")
    wait_until(lambda: "event=no_sensors" in worker.text(), "the worker's word")
    assert "NVML cannot be loaded: /nonexistent.so" in worker.text()
    assert not sensors(gpu)
