"""Does every ONNX graph compute what its network does? ONNX Runtime against eager PyTorch, batch 1 and 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from taro_rt.engines.backends import Engine
from taro_rt.engines.bundle import Bundle, Deviation
from taro_rt.engines.contract import Array
from taro_rt.engines.eager import load_eager
from taro_rt.engines.errors import BuildError
from taro_rt.engines.ort import OrtEngine
from taro_rt.engines.stages import GRAPHS, typical_inputs
from taro_rt.export.progress import Tell, silent

BATCHES = (1, 2)
SIZES = {"s": 3, "t": 33, "n": 20}
"""Of the free axes: such as a constant would not fit."""


@dataclass(frozen=True)
class Limit:
    """What an export may deviate by. float32 in another order of summation stays far below."""

    max_abs: float
    """In units of the largest expected value, or of 1 where all are smaller."""
    relative_rms: float


LIMITS = {
    "onset": Limit(1e-4, 2e-5),
    "visual": Limit(1e-5, 2e-5),
    "conditioner": Limit(1e-4, 2e-5),
    "denoiser": Limit(1e-4, 2e-5),
    "decoder": Limit(1e-4, 2e-5),
    "vocoder": Limit(1e-4, 5e-5),
}


def measure(bundle: Bundle, tell: Tell = silent) -> dict[str, Deviation]:
    """The worst deviation of each graph over its outputs and batch sizes.

    Raises `BuildError` naming each graph that is beyond its limit, with what was measured.
    """
    measured, faults = {}, []
    for i, (name, oracle) in enumerate(load_eager(bundle).items()):
        tell("parity", i / len(GRAPHS))
        engine = OrtEngine(
            bundle.graph(name), oracle.contract
        )  # one at a time: large bundles fill the memory
        measured[name], fault = compare(engine, oracle, LIMITS[name])
        faults += fault
        engine.close()
        oracle.close()
    if faults:
        raise BuildError(f"bundle {bundle.manifest.name}: {'; '.join(faults)}; nothing was written")
    return measured


def compare(engine: Engine, oracle: Engine, limit: Limit) -> tuple[Deviation, list[str]]:
    """The worst deviation of `engine` from `oracle`, and what is beyond `limit` in words."""
    worst, faults = Deviation(0.0, 0.0), []
    for batch in BATCHES:
        feed = typical_inputs(engine.contract, seed=batch, b=batch, **SIZES)
        got, want = engine(**feed), oracle(**feed)
        for name in want:
            found, scale = deviation(got[name], want[name]), max(1.0, float(np.abs(want[name]).max()))
            if not (found.max_abs <= limit.max_abs * scale and found.relative_rms <= limit.relative_rms):
                faults.append(
                    f"{engine.contract.graph}: {name} at batch {batch} deviates from eager PyTorch by "
                    f"{found.max_abs:.2e} (limit {limit.max_abs * scale:.2e}), "
                    f"relative rms {found.relative_rms:.2e} (limit {limit.relative_rms:.2e})"
                )
            worst = Deviation(max(worst.max_abs, found.max_abs), max(worst.relative_rms, found.relative_rms))
    return worst, faults


def deviation(got: Array, want: Array) -> Deviation:
    """Largest difference, and rms of the difference over rms of `want`; infinite if they cannot compare."""
    if got.shape != want.shape or not np.isfinite(got).all():
        return Deviation(float("inf"), float("inf"))
    difference = got.astype(np.float64) - want
    rms = float(np.sqrt(np.mean(np.square(want, dtype=np.float64))))
    return Deviation(
        float(np.abs(difference).max()), float(np.sqrt(np.mean(np.square(difference)))) / max(rms, 1e-30)
    )
