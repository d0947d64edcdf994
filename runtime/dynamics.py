"""Gains that follow a sound: the limiter that keeps it from clipping, and ducking. Functions over blocks.

A gain is decided per hop, then held and smoothed over `reach` hops to both sides, so that it is down before
the sound that needs it comes and never higher than that sound allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from taro_rt.engines.contract import Array
from taro_rt.runtime.loudness import CEILING

LIMIT_HOP_S, LIMIT_REACH = 0.001, 5
"""With a longer reach a blow of a few milliseconds would take its own ringing down with it."""
DUCK_HOP_S, DUCK_REACH = 0.01, 20
DUCK_GAIN = 10 ** (-12 / 20)
"""How much of the original stays while the new sound is heard."""
DUCK_THRESHOLD = 10 ** (-40 / 20)
"""Peak from which on the new sound counts as heard."""


def limited(blocks: Iterable[Array], rate_hz: int) -> Iterator[Array]:
    """Blocks [channels, n], all channels turned down together where one would exceed `CEILING`."""

    def allowed(hops: Array) -> Array:
        peaks = np.abs(hops).max(axis=(0, 2))
        gains: Array = np.minimum(1.0, CEILING / np.maximum(peaks, 1e-9))
        return gains

    for block, gain in ridden(blocks, allowed, round(LIMIT_HOP_S * rate_hz), LIMIT_REACH):
        yield block * gain


def ducked(blocks: Iterable[Array], rate_hz: int) -> Iterator[Array]:
    """The original's rows of blocks [channels + 1, n], turned down while the last row, the new sound, sounds.

    Rows stay as they are otherwise, the last one too.
    """

    def lowered(hops: Array) -> Array:
        return np.where(np.abs(hops[-1]).max(axis=1) > DUCK_THRESHOLD, DUCK_GAIN, 1.0)

    for block, gain in ridden(blocks, lowered, round(DUCK_HOP_S * rate_hz), DUCK_REACH):
        yield np.concatenate([block[:-1] * gain, block[-1:]])


def ridden(
    blocks: Iterable[Array], decide: Callable[[Array], Array], hop: int, reach: int
) -> Iterator[tuple[Array, Array]]:
    """Blocks [c, n] with the gain of every sample [n]; `decide` gives one per hop of [c, hops, hop].

    Between two hops the gain is the mean of the lowest decisions around them, so it never exceeds what was
    decided for either.
    """
    before, held = np.ones(2 * reach), None
    for block in chain(blocks, [None]):
        held = block if held is None else held if block is None else np.concatenate([held, block], axis=1)
        if held is None:
            return
        n = held.shape[1]
        missing = -n % hop if block is None else 0
        whole = np.pad(held, ((0, 0), (0, missing)))
        hops = whole[:, : whole.shape[1] // hop * hop].reshape(len(held), -1, hop)
        after = np.ones(2 * reach) if block is None else np.ones(0)
        decided = np.concatenate([before, decide(hops) if hops.size else np.ones(0), after])
        n_ready = len(decided) - 4 * reach
        if n_ready < 1:
            continue
        lowest = sliding_window_view(decided, 2 * reach + 1).min(axis=1)
        edges = sliding_window_view(lowest, 2 * reach).mean(axis=1)
        gain = np.interp(np.arange(n_ready * hop) / hop, np.arange(len(edges)), edges)[:n]
        yield held[:, : len(gain)], gain.astype(np.float32)
        held, before = held[:, len(gain) :], decided[n_ready : n_ready + 2 * reach]
