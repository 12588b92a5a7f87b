# SPDX-License-Identifier: Apache-2.0
"""The GPU of the tests' own: what a process needs in its environment to find it (tests/gpu)."""

import pytest

from conftest import BUILD

DEVICE = BUILD / "worker" / "sonic-device-cuda"
STUB = BUILD / "tests" / "gpu" / "libstub_cuda.so"
STUB_ORT = BUILD / "tests" / "gpu" / "libstub_ort.so"
GPU = "Stub GPU (GPU 0)"


def stub_env():
    if not DEVICE.exists():
        pytest.skip("built without CUDA (-Dcuda=disabled)")
    return {"SONIC_CUDART": str(STUB), "SONIC_LIBCUDA": str(STUB), "SONIC_ORT_CUDA": str(STUB_ORT)}
