"""The guided velocity of a whole canvas: cut into windows, evaluated in small batches, merged.

Modulation is made in blocks of times that fit a budget, so memory does not grow with steps x windows.
"""

from __future__ import annotations

import numpy as np

from taro_rt.engines.backends import Engine
from taro_rt.engines.contract import Array
from taro_rt.runtime.sampler import guide
from taro_rt.runtime.timing import Timings
from taro_rt.runtime.windows import Windows, cut, merge

LATENTS_PER_CALL = 4
"""Windows x takes in one call of the denoiser; guidance doubles the rows."""
MODULATION_BYTES = 64 << 20
"""What the modulation vectors kept at one time may take."""


class Conditions:
    """Tokens and modulation vectors of every window at every time of the grid (spec D2, D3)."""

    def __init__(self, conditioner: Engine, times: Array, onset: Array, features: Array) -> None:
        self._conditioner = conditioner
        self._times = times
        self._index = {float(t): i for i, t in enumerate(times)}
        self._onset, self._features = onset, features
        modulation = next(t for t in conditioner.contract.outputs if t.name == "modulation")
        row = 4 * int(np.prod([n for n in modulation.shape if isinstance(n, int)]))
        self._fits = row * len(onset) <= MODULATION_BYTES
        self._per_block = max(1, MODULATION_BYTES // (row * len(onset)))
        self._blocks: dict[int, tuple[int, dict[str, Array]]] = {}

    def at(self, t: float, first: int, last: int) -> tuple[Array, Array, Array]:
        """Of windows first..last-1: tokens [w, n, d], modulation [w, n_t, v, d], null row [1, 1, v, d]."""
        start, i = divmod(self._index[t], self._per_block)
        block, outputs = self._blocks.get(first, (-1, {}))
        if block != start:
            if not self._fits:
                self._blocks.clear()
            times = self._times[start * self._per_block :][: self._per_block]
            rows = slice(first, last)
            outputs = self._conditioner(times=times, onset=self._onset[rows], features=self._features[rows])
            self._blocks[first] = (start, outputs)
        return outputs["tokens"], outputs["modulation"][i], outputs["null_modulation"][i]


class CanvasVelocity:
    """A `sampler.Velocity` over a canvas [takes, channels, time, bins]; all takes share the conditions."""

    def __init__(
        self, denoiser: Engine, conditions: Conditions, windows: Windows, guidance: float, timings: Timings
    ) -> None:
        self._denoiser = denoiser
        self._conditions = conditions
        self._windows = windows
        self._guidance = guidance
        self._timings = timings

    def __call__(self, latents: Array, t: float, guided: bool) -> Array:
        """Velocity of the canvas at time t, each window weighted by its share (see `windows.merge`)."""
        n_takes, length = len(latents), self._windows.geometry.latent_frames
        offsets = self._windows.latent_offsets
        per_call = max(1, LATENTS_PER_CALL // n_takes)
        parts: list[Array] = []
        for first in range(0, len(offsets), per_call):
            chosen = offsets[first : first + per_call]
            with self._timings("conditioner"):
                conditions = self._conditions.at(t, first, first + len(chosen))
            views = np.stack([cut(latents, offset, length, axis=2) for offset in chosen])  # [w, k, c, h, f]
            takes = [
                self._rows(views[:, k : k + LATENTS_PER_CALL], conditions, guided)
                for k in range(0, n_takes, LATENTS_PER_CALL)
            ]
            parts.extend(np.concatenate(takes, axis=1))
        return merge(parts, offsets, axis=2)

    def _rows(self, views: Array, conditions: tuple[Array, Array, Array], guided: bool) -> Array:
        """Velocity of views [w, k, c, h, f]; a guided call holds the conditional rows, then the null rows.

        The embedded conditions of a null row are exactly zero (spec B4).
        """
        tokens, modulation, null_modulation = conditions
        n_takes = views.shape[1]
        latents = views.reshape(-1, *views.shape[2:])
        tokens, modulation = np.repeat(tokens, n_takes, axis=0), np.repeat(modulation, n_takes, axis=0)
        if guided:
            null = np.broadcast_to(null_modulation, modulation.shape)
            latents = np.concatenate([latents, latents])
            tokens = np.concatenate([tokens, np.zeros_like(tokens)])
            modulation = np.concatenate([modulation, null])
        with self._timings("denoiser"):
            v = self._denoiser(latents=latents, tokens=tokens, modulation=modulation)["velocity"]
        if guided:
            half = len(v) // 2
            v = guide(v[:half], v[half:], self._guidance)
        return v.reshape(views.shape)
