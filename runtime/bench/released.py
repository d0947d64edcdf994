"""The released script's sampler: state, time grid, step and noise in bfloat16 (spec C3)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from taro_rt.engines.bundle import SamplerDefaults
from taro_rt.engines.contract import Array
from taro_rt.runtime.sampler import Noise, is_guided


def time_grid(steps: int) -> Array:
    """1 .. 1/steps and 0 [steps + 1], as PyTorch's linspace in bfloat16 has them."""
    import torch

    times = torch.linspace(1, 1 / steps, steps, dtype=torch.bfloat16).float().numpy()
    return np.append(times, np.float32(0))


Velocities = Callable[[Array, float, bool], list[Array]]
"""`velocities(x, t, guided)`: that of the condition, and where it is guided that of the null condition."""


def sample(velocities: Velocities, latents: Array, noise: Noise, settings: SamplerDefaults) -> Array:
    """Latents at t = 0, in the script's own order of operations: guidance acts on the drift. Every result is
    rounded."""
    x, r = rounded(latents), rounded
    for i, (t, t_next) in enumerate(pairwise(time_grid(settings.steps).tolist())):
        dt, w = float(r(t_next - t)), float(r(2 * t))
        drifts = []
        for v in map(rounded, velocities(x, t, is_guided(t, settings))):
            score = r(-r(r(r(1 - t) * v) + x) / t)
            drifts.append(r(v - r(r(w / 2) * score)))
        drift = drifts[0]
        if len(drifts) > 1:
            drift = r(drifts[1] + r(settings.guidance * r(drifts[0] - drifts[1])))
        x = r(x + r(drift * dt))
        if i < settings.steps - 1:
            x = r(x + r(r(w**0.5) * r(r(noise(i)) * r((-dt) ** 0.5))))
    return x


def rounded(values: Array | float) -> Array:
    """To the nearest bfloat16, ties to even, kept as float32."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return (bits + 0x7FFF + ((bits >> 16) & 1) & np.uint32(0xFFFF0000)).view(np.float32)
