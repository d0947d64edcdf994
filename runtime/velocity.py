"""The guided velocity of windows, evaluated in small batches, and the conditions it needs.

The windows of a batch may be at different times of the sampler: a network is told the time only through its
modulation vectors, and those are given row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taro_rt.engines.backends import Engine
from taro_rt.engines.contract import Array
from taro_rt.runtime.sampler import guide
from taro_rt.runtime.timing import Timings

LATENTS_PER_CALL = 4
"""Windows x takes in one call of the denoiser; guidance doubles the rows."""
MODULATION_BYTES = 64 << 20
"""What the modulation vectors of all windows that are under way may take together."""


class Conditions:
    """Tokens and modulation vectors of one window at every time of the grid (spec D2, D3).

    Vectors are made for a block of times at once and kept until another block is asked for; `n_sharing` is
    how many windows share the budget for them. Usually one window does, and one block holds all times.
    """

    def __init__(
        self, conditioner: Engine, times: Array, onset: Array, features: Array, n_sharing: int = 1
    ) -> None:
        """`onset` [1, onset_values] and `features` [1, n, visual_dim] of the window."""
        self._conditioner = conditioner
        self._times = times
        self._index = {float(t): i for i, t in enumerate(times)}
        self._inputs = {"onset": onset, "features": features}
        modulation = next(t for t in conditioner.contract.outputs if t.name == "modulation")
        row = 4 * int(np.prod([n for n in modulation.shape if isinstance(n, int)]))
        self._per_block = max(1, MODULATION_BYTES // (row * n_sharing))
        self._block = -1
        self._made: dict[str, Array] = {}
        self._n_guided = 0
        self.push: Array | None = None
        """Conditional less null velocity [takes, ...] where both were evaluated last, if it is used again."""

    def at(self, t: float) -> tuple[Array, Array, Array]:
        """Tokens [1, n, d], modulation [1, n_t, v, d] and the null row's modulation [1, 1, v, d]."""
        block, i = divmod(self._index[t], self._per_block)
        if block != self._block:
            times = self._times[block * self._per_block :][: self._per_block]
            self._made = self._conditioner(times=times, **self._inputs)
            self._block = block
        return self._made["tokens"], self._made["modulation"][i], self._made["null_modulation"][i]

    def is_due(self, every: int) -> bool:
        """Whether this guided evaluation is one of every `every` that need the null condition; counts it."""
        self._n_guided += 1
        return (self._n_guided - 1) % every == 0


@dataclass(frozen=True)
class Asked:
    """One window that waits for its velocity at time t."""

    latents: Array
    """[takes, channels, time, bins]; the takes share the conditions."""
    conditions: Conditions
    t: float
    guided: bool


class Feed:
    """What the denoiser is given, in memory that the next call of as many rows uses again.

    A new piece of tens of MB at every step costs more than what is written to it.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Array] = {}

    def filled(
        self,
        fresh: Sequence[bool],
        views: Sequence[Array],
        rows: Sequence[tuple[Array, Array, Array]],
    ) -> dict[str, Array]:
        """The conditional rows of all windows, then the null rows of the `fresh`.

        The embedded conditions of a null row are exactly zero (spec B4).
        """
        n_takes, n_windows = len(views[0]), len(views)
        windows = [*range(n_windows), *(i for i, needs_null in enumerate(fresh) if needs_null)]
        shapes = {"latents": views[0].shape, "tokens": rows[0][0].shape, "modulation": rows[0][1].shape}
        for name, shape in shapes.items():
            whole = (n_takes * len(windows), *shape[1:])
            if name not in self._kept or self._kept[name].shape != whole:
                self._kept[name] = np.empty(whole, np.float32)
        latents, tokens, modulation = self._kept.values()
        for k, i in enumerate(windows):
            part = slice(k * n_takes, (k + 1) * n_takes)
            latents[part] = views[i]
            if k < n_windows:
                tokens[part], modulation[part] = rows[i][:2]
            else:
                tokens[part], modulation[part] = 0.0, rows[i][2]
        return dict(self._kept)


def velocities(
    denoiser: Engine,
    asked: Sequence[Asked],
    guidance: float,
    timings: Timings,
    every: int = 1,
    feed: Feed | None = None,
) -> list[Array]:
    """The velocity of every window, shaped like its latents, in one call of the denoiser per few takes.

    `feed` is what was used for the last call, if there was one. With `every` above 1 guidance is exact on
    every such evaluation of a window only; between them it pushes as far as the last time.
    """
    fresh = [one.guided and one.conditions.is_due(every) for one in asked]
    with timings("conditioner"):
        rows = [one.conditions.at(one.t) for one in asked]
    feed = feed or Feed()
    parts: list[list[Array]] = [[] for _ in asked]
    pushes: list[list[Array]] = [[] for _ in asked]
    for first in range(0, len(asked[0].latents), LATENTS_PER_CALL):
        views = [one.latents[first : first + LATENTS_PER_CALL] for one in asked]
        inputs = feed.filled(fresh, views, rows)
        with timings("denoiser"):
            v = denoiser(**inputs)["velocity"]
        n_takes, null = len(views[0]), len(asked) * len(views[0])
        for i, one in enumerate(asked):
            part = v[i * n_takes : (i + 1) * n_takes]
            if fresh[i]:
                pushes[i].append(part - v[null : null + n_takes])
                part = guide(part, v[null : null + n_takes], guidance)
                null += n_takes
            elif one.guided and one.conditions.push is not None:
                part = part + (guidance - 1) * one.conditions.push[first : first + n_takes]
            parts[i].append(part)
    for one, made in zip(asked, pushes, strict=True):
        if made and every > 1:
            one.conditions.push = np.concatenate(made)
    return [takes[0] if len(takes) == 1 else np.concatenate(takes) for takes in parts]
