"""Every kernel and tile compiled for NVIDIA GPUs without one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10, 120: 99 << 10}
"""Of a program, by capability."""
Built = list[dict[str, Any]]


def compiled(kind: str, cache: Path) -> Built:
    """In a process of its own: here kernels may be those of the interpreter."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache), "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "taro_rt.kernels.offline", "--json", "--types", kind]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return compiled("bf16", tmp_path_factory.mktemp("triton"))


def faults(built: Built) -> Built:
    """What spills registers, takes scratch memory, or more shared memory than its GPU has."""
    return [
        each
        for each in built
        if each["spilled_bytes"]
        or each["scratch_bytes"]
        or each["registers"] > 255
        or each["shared_bytes"] > SHARED_BYTES[each["capability"]]
    ]


def test_every_kernel_and_tile_fits_the_gpus_it_is_for(
    built: Built, add_to_summary: Callable[[str], None]
) -> None:
    assert faults(built) == []
    counts = [sum(each["capability"] == capability for each in built) for capability in SHARED_BYTES]
    assert 10 < counts[0] < counts[1] == counts[2]
    add_to_summary(
        f"kernels: {len(built)} compiled offline, {counts[0]} for sm_80, "
        f"{counts[1]} each for sm_90 and sm_120"
    )


@pytest.mark.slow
def test_float16_fits_as_well(tmp_path: Path) -> None:
    assert faults(compiled("fp16", tmp_path)) == []


@pytest.mark.slow
def test_float32_which_is_for_comparing_runs_though_it_spills(tmp_path: Path) -> None:
    built = [{**each, "spilled_bytes": 0} for each in compiled("fp32", tmp_path)]
    assert faults(built) == []


def test_memory_is_read_16_bytes_at_a_time(built: Built) -> None:
    """But for what the copy engine reads: its loads are not among those of threads."""
    by_threads = [each for each in built if "copied" not in each["name"]]
    assert [each for each in by_threads if each["widest_load"] != 16] == []


def test_products_are_made_on_tensor_cores(built: Built) -> None:
    assert [each for each in built if each["tensor_cores"] == is_elementwise(each["name"])] == []


def test_where_launches_overlap_every_kernel_waits_for_those_before_it(built: Built) -> None:
    assert [each for each in built if each["waits"] != (each["capability"] >= 90)] == []


def is_elementwise(name: str) -> bool:
    """Whether there is nothing to multiply."""
    return any(part in name for part in ("modulate", "group_", "finish_conv"))


def test_row_kernels_need_next_to_no_shared_memory(built: Built) -> None:
    """They must fit a TensorRT plugin, which has 48 KiB."""
    rows = [each for each in built if "modulate" in each["name"]]
    assert rows and all(each["shared_bytes"] <= 1024 for each in rows)
