"""Every kernel and tile compiled for NVIDIA GPUs without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("triton")
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10, 120: 99 << 10}
"""Of a program, by capability."""


@pytest.fixture(scope="module")
def built() -> list[dict[str, Any]]:
    """In a process of its own: here kernels may be those of the interpreter."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    ran = subprocess.run(
        [sys.executable, "-m", "taro_rt.kernels.offline", "--json"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return list(json.loads(ran.stdout.splitlines()[-1]))


@pytest.mark.parametrize("capability", SHARED_BYTES)
def test_every_case_compiles_within_what_a_gpu_has(built: list[dict[str, Any]], capability: int) -> None:
    found = [each for each in built if each["capability"] == capability]
    assert len(found) == 24
    for each in found:
        assert each["shared_bytes"] <= SHARED_BYTES[capability], each
        assert each["scratch_bytes"] == 0, each
        assert each["registers"] <= 255, each


def test_no_kernel_spills_but_the_attention_tiles_known_to(built: list[dict[str, Any]]) -> None:
    spilling = {(e["name"].split(",")[0], e["capability"]) for e in built if e["spilled_bytes"]}
    assert all(name.startswith("joint_attention") and " 128x64 w4" in name for name, _ in spilling), spilling


def test_row_kernels_need_next_to_no_shared_memory(built: list[dict[str, Any]]) -> None:
    rows = [each for each in built if "modulate" in each["name"]]
    assert rows and all(each["shared_bytes"] <= 1024 for each in rows)
