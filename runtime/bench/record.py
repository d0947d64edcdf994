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

Record = dict[str, Any]
PACKAGES = ("taro-rt", "numpy", "av", "onnxruntime", "openvino", "torch")
STAGES = ("read", *GRAPHS, "write", "other")
"""`other` is what is left of a run: probing, noise, the sampler's own arithmetic, levelling."""
PERCENTILES = (50, 90, 99)


def summary(
    runs: Sequence[dict[str, float]], gflop: dict[str, float], rates: dict[str, float | None]
) -> Record:
    """Percentiles of whole runs and of every stage, with what was reached of the machine's own rate.

    `rates` are GFLOP/s by stage, of the precision it is computed in; None where that was not measured. The
    rate of products is all of the roofline that matters: no network does fewer than 100 operations a byte.
    """
    stages = {}
    for stage in STAGES:
        row: Record = percentiles([_seconds(run, stage) for run in runs])
        if gflop.get(stage) and row["p50"]:
            row["gflop"] = gflop[stage]
            row |= _reached(gflop[stage], row["p50"], _least_s({stage: gflop[stage]}, rates))
        stages[stage] = row
    whole = percentiles([run["wall"] for run in runs])
    total = round(sum(gflop.values()), 1)
    return {
        "wall_s": whole,
        "stages": stages,
        "gflop": total,
        **_reached(total, whole["p50"], _least_s(gflop, rates)),
    }


def _seconds(run: dict[str, float], stage: str) -> float:
    return run["wall"] - sum(run.get(s, 0.0) for s in STAGES) if stage == "other" else run.get(stage, 0.0)


def _least_s(gflop: dict[str, float], rates: dict[str, float | None]) -> float | None:
    """Seconds at the machine's own rates."""
    parts = [n / rate if (rate := rates.get(stage)) else None for stage, n in gflop.items() if n]
    return None if None in parts else sum(part for part in parts if part is not None)


def _reached(gflop: float, seconds: float, least_s: float | None) -> Record:
    share = {} if least_s is None else {"of_roofline": round(least_s / seconds, 4)}
    return {"gflops": round(gflop / seconds, 2), **share}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99."""
    return {f"p{q}": round(float(np.percentile(seconds, q)), 4) for q in PERCENTILES}


def workload_of(bundle: Bundle, seconds: float, height: int, takes: int, threads: int | None) -> Record:
    """What was computed."""
    from taro_rt.runtime.bench.workload import FPS  # it needs PyAV, and a commit does not

    manifest = bundle.manifest
    return {
        "bundle": manifest.name,
        "transformer_sha256": manifest.files["transformer.safetensors"].sha256,
        "parameters_mb": round(bundle.n_bytes / 1e6),
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
    """Of the checkout this runs from, if it is one; "-dirty" after it if files were changed since."""
    here = Path(__file__).resolve()
    try:
        known = subprocess.run(
            ["git", "-C", str(here.parent), "ls-files", "--error-unmatch", here.name], capture_output=True
        )
        asked = [
            "git",
            "-C",
            str(here.parent),
            "describe",
            "--always",
            "--abbrev=40",
            "--exclude=*",
            "--dirty",
        ]
        done = subprocess.run(asked, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None if known.returncode == 0 else None
