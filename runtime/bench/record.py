"""What a benchmark's record says: the machine, the work, and what its times come to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.machine import processor, usable_cores, vectors
from taro_rt.engines.stages import GRAPHS
from taro_rt.runtime.bench.workload import FPS

Record = dict[str, Any]
PACKAGES = ("taro-rt", "numpy", "av", "onnxruntime", "openvino", "torch")
STAGES = ("read", *GRAPHS, "write")
PERCENTILES = (50, 90, 99)


def summary(
    runs: Sequence[dict[str, float]], gflop: dict[str, float], rates: dict[str, float], precision: str
) -> Record:
    """Percentiles of whole runs and of every stage, with what was reached of the machine's own rate."""
    stages = {}
    for stage in STAGES:
        row: Record = percentiles([run.get(stage, 0.0) for run in runs])
        if gflop.get(stage) and row["p50"]:
            row["gflop"] = gflop[stage]
            row |= _reached(gflop[stage], row["p50"], rates.get(precision))
        stages[stage] = row
    whole = percentiles([run["wall"] for run in runs])
    total = round(sum(gflop.values()), 1)
    return {
        "wall_s": whole,
        "stages": stages,
        "gflop": total,
        **_reached(total, whole["p50"], rates.get(precision)),
    }


def _reached(gflop: float, seconds: float, rate: float | None) -> Record:
    achieved = gflop / seconds
    return {"gflops": round(achieved, 2), **({"of_roofline": round(achieved / rate, 4)} if rate else {})}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99."""
    return {f"p{q}": round(float(np.percentile(seconds, q)), 4) for q in PERCENTILES}


def workload_of(bundle: Bundle, seconds: float, height: int, takes: int, threads: int | None) -> Record:
    """What was computed."""
    manifest = bundle.manifest
    return {
        "bundle": manifest.name,
        "transformer_sha256": manifest.files["transformer.safetensors"].sha256,
        "parameters_mb": round(sum(e.bytes for e in manifest.files.values()) / 1e6),
        "seconds": seconds,
        "height": height,
        "fps": FPS,
        "codec": "h264 in, picture copied, AAC out",
        "takes": takes,
        "sampler": asdict(manifest.sampler),
        "threads": threads or usable_cores(),
    }


def device() -> Record:
    """What it was computed on."""
    return {
        "processor": processor(),
        "vectors": vectors(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
    }


def versions() -> Record:
    """Of the packages that matter, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Of the checkout this runs from, if it is one."""
    asked = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None
