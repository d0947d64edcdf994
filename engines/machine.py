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
    """Its widest arithmetic, which decides how fast networks run on it."""
    flags = set(CPUINFO.read_text().split()) if CPUINFO.exists() else set()
    return next((name for flag, name in VECTORS.items() if flag in flags), "unknown")
