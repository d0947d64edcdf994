"""What this machine is, as far as training cares."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
FAST_BF16 = {"avx512_bf16", "amx_bf16"}
"""Instructions that make bfloat16 products worth it on a CPU."""

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Of malloc.h."""


def keep_freed_memory() -> None:
    """Let what is freed stay with this process, where glibc's allocator does as it is told.

    It gives large tensors back to the system at once, and every page of the next one is a fault: with the
    memory kept a step of the visual encoder takes 0.89 s instead of 1.11 (one core).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TOP_PAD, 64 * 2**20)


def bf16_is_fast(device: str = "cpu") -> bool:
    """Whether products in bfloat16 beat float32 on `device`: a GPU, or a CPU with instructions for them."""
    return not device.startswith("cpu") or bool(FAST_BF16 & _cpu_flags())


def describe() -> str:
    """One line for a manifest."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    bf16 = ", bfloat16 products" if any(map(bf16_is_fast, devices)) else ""
    return f"{os.cpu_count()} CPU cores, {platform.machine()}{gpu}{bf16}, torch {torch.__version__}"


def _cpu_flags() -> set[str]:
    return set(CPUINFO.read_text().split()) if CPUINFO.exists() else set()
