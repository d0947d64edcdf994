"""The noise of a generation: any piece of it can be drawn alone, in any order.

It is keyed by seed, stream, step and block of time, so the noise at a moment depends neither on how long the
clip goes on nor on the windows that cover it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.engines.stages import Geometry

START, STEP = 0, 1
"""Streams of noise: the latents at t = 1, and the steps of the SDE."""
BLOCK = 25
"""Latent frames that are drawn together: a second as published."""


def draw_noise(
    seeds: Sequence[int], stream: int, step: int, start: int, stop: int, geometry: Geometry
) -> Array:
    """Standard normal latents [seeds, channels, stop - start, bins] from latent frame `start` to `stop`."""
    shape = (BLOCK, geometry.latent_channels, geometry.latent_bins)
    made = np.empty((len(seeds), shape[1], stop - start, shape[2]), np.float32)
    for k in range(start // BLOCK, -(-stop // BLOCK)):
        low, high = max(start, k * BLOCK), min(stop, (k + 1) * BLOCK)
        for take, seed in zip(made, seeds, strict=True):
            drawn = np.random.default_rng([seed, stream, step, k]).standard_normal(shape, np.float32)
            part = drawn[low - k * BLOCK : high - k * BLOCK]  # [t, c, f]
            take[:, low - start : high - start] = part.transpose(1, 0, 2)
    return made
