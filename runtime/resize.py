"""Shrinking frames to what the networks read: fast, or with the released system's own arithmetic (spec B2).

The released one is an antialiased triangle filter on the whole RGB picture. Its visual branch works on bytes
with 22-bit fixed-point weights, rounding after each pass, horizontal first; its onset branch in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from taro_rt.engines.contract import Array
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.source import quarter_turns

Frames = npt.NDArray[np.uint8]
"""RGB, [..., h, w, 3]."""
Pixels = Frames | Array
"""In 0 to 255."""
Shrink = Callable[[VideoFrame], Pixels]
"""A decoded frame to an upright square [size, size, 3]; aspect is not kept."""

FIXED = 22
"""Fractional bits of the integer weights."""
BAND = 4
"""Outputs made by one product: more of them multiply by more zeros, fewer read their inputs more often."""
FULL_CHROMA = 0x2000
"""libswscale's full_chroma_int, by number: not every PyAV names it."""


def onset_shrinker(geometry: Geometry) -> Shrink:
    """How a bundle's onset frames are made: bytes, or float32 with the released arithmetic."""
    size = geometry.onset_resize
    return Fast(size) if geometry.resize == "fast" else Released(size, resize_floats)


def visual_shrinker(geometry: Geometry) -> Shrink:
    """How a bundle's visual frames are made: bytes."""
    size = geometry.visual_size
    return Fast(size) if geometry.resize == "fast" else Released(size, resize_bytes)


class Fast:
    """libswscale converts and shrinks in one step.

    Its BILINEAR widens its triangle with the reduction, as the model's own resize does (spec B2). Its mean
    error against that filter is 0.4 to 1.1 grey levels (AREA: up to 8), but 5 to 15 without full chroma.
    """

    FILTER = int(Interpolation.BILINEAR) | FULL_CHROMA

    def __init__(self, size: int) -> None:
        self._scaler = VideoReformatter()
        self._size = size

    def __call__(self, frame: VideoFrame) -> Frames:
        n = self._size
        small = self._scaler.reformat(frame, n, n, "rgb24", interpolation=self.FILTER)
        return np.rot90(small.to_ndarray(), quarter_turns(frame))


class Released:
    """libswscale only converts the colours; the released arithmetic shrinks the upright picture."""

    def __init__(self, size: int, resize: Callable[[Frames, int, int], Pixels]) -> None:
        self._scaler = VideoReformatter()
        self._size, self._resize = size, resize

    def __call__(self, frame: VideoFrame) -> Pixels:
        whole = self._scaler.reformat(frame, format="rgb24", interpolation=Fast.FILTER)
        return self._resize(np.rot90(whole.to_ndarray(), quarter_turns(frame)), self._size, self._size)


def resize_bytes(frame: Frames, height: int, width: int) -> Frames:
    """`frame` [h, w, 3] as bytes [height, width, 3]; aspect is not kept."""
    rows = frame.reshape(len(frame), -1)  # [h, 3w]
    narrow = _round_pass(rows.T, width, 3).T  # [h, 3 width]
    return np.ascontiguousarray(_round_pass(narrow, height)).reshape(height, width, 3)


def resize_floats(frame: Frames, height: int, width: int) -> Array:
    """`frame` [h, w, 3] as float32 [height, width, 3] in 0 to 255; aspect is not kept."""
    low = _float_pass(frame.reshape(len(frame), -1), height)  # [height, 3w]
    return np.ascontiguousarray(_float_pass(low.T, width, 3).T).reshape(height, width, 3)


def _round_pass(rows: Frames, n: int, channels: int = 1) -> Frames:
    """Weighted sums of the first axis, [n * channels, k], rounded to bytes.

    float64 holds them exactly; weights are not negative and come to 1, so nothing leaves 0 to 255.
    """
    made = np.empty((n * channels, rows.shape[1]), np.uint8)
    for target, source, weights in _bands(len(rows) // channels, n, channels, FIXED):
        made[target] = weights @ rows[source].astype(np.float64) + 0.5
    return made


def _float_pass(rows: Pixels, n: int, channels: int = 1) -> Array:
    """Weighted sums of the first axis, [n * channels, k]."""
    made = np.empty((n * channels, rows.shape[1]), np.float32)
    for target, source, weights in _bands(len(rows) // channels, n, channels):
        made[target] = weights.astype(np.float32) @ rows[source].astype(np.float32)
    return made


@lru_cache(maxsize=16)
def _bands(
    n_in: int, n_out: int, channels: int, fixed: int | None = None
) -> list[tuple[slice, slice, npt.NDArray[np.float64]]]:
    """The matrix that shrinks, without most of its zeros: for every few outputs, which they are, the inputs
    they come from, and the weights in between. Outputs and inputs hold `channels` values side by side.

    With `fixed` the weights are rounded to so many fractional bits.
    """
    places, weights = _taps(n_in, n_out)
    if fixed is not None:
        weights = np.floor(0.5 + weights * (1 << fixed)) / (1 << fixed)
    bands = []
    for first in range(0, n_out, BAND):
        at, values = places[first : first + BAND], weights[first : first + BAND]
        low, high = int(at.min()), int(at.max()) + 1
        band = np.zeros((len(at), high - low))
        np.add.at(band, (np.arange(len(at))[:, None], at - low), values)
        target, source = (
            slice(a * channels, b * channels) for a, b in ((first, first + len(at)), (low, high))
        )
        bands.append((target, source, np.kron(band, np.eye(channels)).astype(np.float64)))
    return bands


def _taps(n_in: int, n_out: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Source places and weights [n_out, taps] of every output; unused taps weigh 0 (spec B2, in double)."""
    scale = n_in / n_out
    reach = max(scale, 1.0)
    centre = (np.arange(n_out) + 0.5) * scale
    low = np.maximum(0, np.trunc(centre - reach + 0.5)).astype(np.intp)
    high = np.minimum(n_in, np.trunc(centre + reach + 0.5)).astype(np.intp)
    places = low[:, None] + np.arange(int((high - low).max()))
    weights = np.maximum(0.0, 1 - np.abs((places + 0.5 - centre[:, None]) / reach))
    weights[places >= high[:, None]] = 0.0
    return np.minimum(places, n_in - 1), weights / weights.sum(1, keepdims=True)
