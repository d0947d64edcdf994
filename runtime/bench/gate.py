"""The parity gate: what does not compute the same, within a stated tolerance, is not timed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from taro_rt.engines.contract import Array

TOLERANCES: dict[str, dict[str, float]] = {
    "float32": {
        "onset": 1e-4,
        "visual": 1e-4,
        "velocity": 1e-4,
        "trajectory": 1e-3,
        "decoder": 1e-4,
        "vocoder": 1e-4,
    },
    "bfloat16": {
        "onset": 3e-2,
        "visual": 3e-2,
        "velocity": 3e-2,
        "trajectory": 1e-1,
        "decoder": 3e-2,
        "vocoder": 1e-1,
    },
}
TOLERANCES["fp8"] = {**TOLERANCES["bfloat16"], "velocity": 0.1, "trajectory": 0.1}
TOLERANCES["int8"] = {**TOLERANCES["float32"], "velocity": 0.1, "trajectory": 0.5}
"""Relative rms difference from float32 that a precision may have, by what is compared. Velocity and
trajectory are those of given conditions; only the latter is guided. The trajectory of a backend in bfloat16
is also held to that of the released recipe where the latter was measured. fp8 is 5 % off on the embedded
bundle's trajectory (read off once, on a CPU). 8 bits change the sound: what that
costs is measured by benchmarks/fast.py, here only that nothing else is wrong."""


def deviations(file: Path, reference: Path) -> dict[str, float]:
    """Relative rms difference of every array in `file` from that in `reference`; infinite where none fits."""
    with np.load(file) as got, np.load(reference) as want:
        return {
            name: relative_rms(got[name], want[name]) if name in got.files else float("inf")
            for name in want.files
        }


def relative_rms(got: Array, want: Array) -> float:
    """Rms of the difference over rms of `want`."""
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    scale = np.sqrt(np.mean(np.square(want, dtype=np.float64)))
    return float(np.sqrt(np.mean(np.square(got.astype(np.float64) - want))) / max(scale, 1e-30))


def tolerances(precision: str, released_trajectory: float | None) -> dict[str, float]:
    """What holds for a backend in `precision`; the trajectory's is that of the released recipe."""
    limits = dict(TOLERANCES[precision])
    if precision == "bfloat16" and released_trajectory is not None:
        limits["trajectory"] = released_trajectory
    return limits


def faults(found: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    """What is beyond its tolerance, in words."""
    return [
        f"{name} {found[name]:.1e}, {limit:.1e} allowed"
        for name, limit in limits.items()
        if not found[name] <= limit
    ]
