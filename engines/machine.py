"""What this machine is: its cores and its processor."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
VECTORS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 with bfloat16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}

LIMIT = "ONEDNN_MAX_CPU_ISA"
"""Variable by which OpenVINO and PyTorch can be kept from a processor's widest arithmetic."""


def usable_cores() -> int:
    """Physical cores this process may run on; 0 where that cannot be known, a runtime's own choice."""
    if not hasattr(os, "sched_getaffinity"):
        return 0
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.exists() else str(cpu))
    return len(cores)


def processor() -> str:
    """Its name."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def vectors() -> str:
    """Its widest arithmetic, which decides how fast networks run on it, and what it is held to, if it is."""
    flags = _flags()
    widest = next((name for flag, name in VECTORS.items() if flag in flags), "unknown")
    limit = os.environ.get(LIMIT)
    return f"{widest}, held to {limit}" if limit else widest


def adds_bytes_exactly() -> bool:
    """Whether products of 8-bit numbers are summed without overflow (VNNI). AVX2 and AVX-512 alone add pairs
    of them in 16 bits, which overflow."""
    flags = _flags()
    return not flags or bool(flags & {"avx512_vnni", "avx_vnni"}) or "avx2" not in flags


def _flags() -> set[str]:
    return set(CPUINFO.read_text().split()) if CPUINFO.exists() else set()
