"""Sampling a canvas of any length window by window, exactly as if all of it were sampled at once.

At every evaluation the velocity of the canvas is the weighted mean of what the windows over a place say. The
canvas is cut into cells where windows start and end, and every cell has a run of the sampler of its own: it
needs, for its next evaluation, only the windows that cover it. So a window may be one evaluation ahead of its
neighbour, the next of that one, and so on: a slope runs through the clip, and only the windows on it, a few
times the number of evaluations, are held.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise

import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.runtime.sampler import Request
from taro_rt.runtime.velocity import Asked, Conditions
from taro_rt.runtime.windows import bump

Run = Generator[Request, Array, Array]


@dataclass
class _Cell:
    """A piece of the canvas that the same windows cover all along."""

    run: Run
    request: Request
    n_covering: int
    shares: dict[int, Array]
    """By window: its weight along time, [1, 1, time, 1]."""
    sums: list[Array] = field(default_factory=list)
    final: Array | None = None

    def add(self, window: int, velocity: Array) -> None:
        """Take in what one window says; the last of them moves the sampler on."""
        self.sums.append(velocity * self.shares[window])
        if len(self.sums) < self.n_covering:
            return
        total = self.sums[0]
        for part in self.sums[1:]:
            total = total + part
        self.sums.clear()
        try:
            self.request = self.run.send(total)
        except StopIteration as stop:
            self.final = stop.value


class Wavefront:
    """Windows that start at `offsets` of a canvas, each `length` latent frames long, on their way through.

    `start(first, stop)` begins a run of the sampler for a piece of the canvas; `enter(i)` makes the
    conditions of window i, in order and as late as possible; `evaluate` gives the velocities
    of a few windows.
    """

    def __init__(
        self,
        offsets: Sequence[int],
        length: int,
        start: Callable[[int, int], Run],
        enter: Callable[[int], Conditions],
        evaluate: Callable[[list[Asked]], list[Array]],
        per_call: int,
    ) -> None:
        self._offsets = list(offsets)
        self._length = length
        self._start, self._enter, self._evaluate = start, enter, evaluate
        self._per_call = per_call
        self._edges = sorted({*offsets, *(offset + length for offset in offsets)})
        self._cells: dict[int, _Cell] = {}
        self._conditions: dict[int, Conditions] = {}
        self._n_done = [0] * len(self._offsets)

    def pieces(self) -> Iterator[Array]:
        """The finished latents [takes, channels, time, bins], piece by piece from the start of the canvas."""
        first_window, next_piece = 0, 0
        while first_window < len(self._offsets):
            ready = list(islice(self._ready(first_window), self._per_call))
            asked = [self._ask(window) for window in ready]
            for window, velocity in zip(ready, self._evaluate(asked), strict=True):
                self._spread(window, velocity)
            while next_piece in self._cells and (final := self._cells[next_piece].final) is not None:
                del self._cells[next_piece]
                next_piece += 1
                yield final
            while first_window < len(self._offsets) and self._is_over(first_window, next_piece):
                del self._conditions[first_window]
                first_window += 1

    def _ready(self, first: int) -> Iterator[int]:
        """Unfinished windows whose neighbours are as far as they are, in order."""
        for window in range(first, len(self._offsets)):
            done = self._n_done[window]
            if all(self._n_done[other] >= done for other in self._overlapping(window)):
                yield window

    def _overlapping(self, window: int) -> range:
        offset = self._offsets[window]
        low = bisect_right(self._offsets, offset - self._length)
        return range(low, bisect_left(self._offsets, offset + self._length))

    def _ask(self, window: int) -> Asked:
        if window not in self._conditions:
            self._conditions[window] = self._enter(window)
        requests = [cell.request for cell in self._cells_of(window)]
        latents = [request.latents for request in requests]
        whole = latents[0] if len(latents) == 1 else np.concatenate(latents, axis=2)
        return Asked(whole, self._conditions[window], requests[0].t, requests[0].guided)

    def _spread(self, window: int, velocity: Array) -> None:
        self._n_done[window] += 1
        places = np.cumsum([0, *(cell.request.latents.shape[2] for cell in self._cells_of(window))])
        for cell, (low, high) in zip(self._cells_of(window), pairwise(places), strict=True):
            cell.add(window, velocity[:, :, low:high])

    def _is_over(self, window: int, n_pieces: int) -> bool:
        return self._edges[n_pieces] >= self._offsets[window] + self._length

    def _cells_of(self, window: int) -> list[_Cell]:
        low = bisect_left(self._edges, self._offsets[window])
        high = bisect_left(self._edges, self._offsets[window] + self._length)
        return [self._cell(k) for k in range(low, high)]

    def _cell(self, k: int) -> _Cell:
        if k not in self._cells:
            low, high = self._edges[k], self._edges[k + 1]
            run = self._start(low, high)
            shares = self._shares(low, high)
            self._cells[k] = _Cell(run, next(run), len(shares), shares)
        return self._cells[k]

    def _shares(self, low: int, high: int) -> dict[int, Array]:
        """Weights of the windows over a piece of the canvas, as `windows.merge` has them."""
        weight = bump(self._length)
        covering = range(bisect_right(self._offsets, low - self._length), bisect_right(self._offsets, low))
        bumps = {w: weight[low - self._offsets[w] : high - self._offsets[w]] for w in covering}
        total = np.zeros(high - low)
        for part in bumps.values():
            total += part
        return {w: (part / total).astype(np.float32)[:, None] for w, part in bumps.items()}
