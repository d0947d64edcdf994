"""Overlapping windows over a clip of any length, and their merging without a seam.

The networks see one window of sound at a time. Windows start where all frame grids (onset segments, visual
frames, latents) have a frame, so that neighbours share their inputs exactly; what they give is averaged with
a raised-cosine weight. A clip that fits one window has exactly one, and merging it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, lcm

import numpy as np
import numpy.typing as npt

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import BundleError, MediaError
from taro_rt.engines.stages import Geometry

HOP_SHARE = Fraction(3, 4)
"""Windows start at most this share of a window apart (6 s of 8.16 s)."""


@dataclass(frozen=True)
class Windows:
    """Where the windows of a clip start, in seconds from the first displayed frame."""

    starts_s: tuple[Fraction, ...]
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.starts_s)

    def offsets(self, rate: int | Fraction) -> list[int]:
        """First index of every window on a grid of `rate` values per second; exact for the bundle's grids."""
        return [int(start * rate) for start in self.starts_s]

    def over(self, start_s: float, end_s: float) -> Windows:
        """Those that cover any of the time from `start_s` to `end_s`, at the places they have."""
        return Windows(
            tuple(s for s in self.starts_s if s < end_s and s + _window_s(self.geometry) > start_s),
            self.geometry,
        )

    @property
    def onset_offsets(self) -> list[int]:
        """First onset value of every window."""
        return self.offsets(self.geometry.onset_fps)

    @property
    def visual_offsets(self) -> list[int]:
        """First visual frame of every window."""
        return self.offsets(self.geometry.visual_fps)

    @property
    def latent_offsets(self) -> list[int]:
        """First latent frame of every window on the canvas."""
        return self.offsets(_latent_rate(self.geometry))

    @property
    def mel_offsets(self) -> list[int]:
        """First mel frame of every window."""
        return self.offsets(Fraction(self.geometry.rate_hz, self.geometry.hop))

    @property
    def sample_offsets(self) -> list[int]:
        """First sample of every window."""
        return self.offsets(self.geometry.rate_hz)

    @property
    def onset_length(self) -> int:
        """Onset values from the start of the clip to the end of the last window."""
        return self.onset_offsets[-1] + self.geometry.onset_values

    @property
    def latent_length(self) -> int:
        """Latent frames of the canvas."""
        return self.latent_offsets[-1] + self.geometry.latent_frames


def plan(duration_s: float, geometry: Geometry) -> Windows:
    """The fewest windows that cover `duration_s`, spread evenly at aligned starts.

    The last one sits at the smallest aligned start that covers the end. Raises `MediaError` for a clip
    without duration and `BundleError` for a geometry whose windows cannot overlap at aligned starts.
    """
    n_samples = round(duration_s * geometry.rate_hz)
    if n_samples < 1:
        raise MediaError(f"the clip lasts {duration_s} s: expected at least one sample of sound")
    step = alignment_s(geometry)
    window_s = _window_s(geometry)
    beyond_s = max(Fraction(0), Fraction(n_samples, geometry.rate_hz) - window_s)
    last = ceil(beyond_s / step)
    hop = floor(HOP_SHARE * window_s / step)
    if last and not hop:
        raise BundleError(
            f"windows of {float(window_s)} s cannot overlap at starts {float(step)} s apart: "
            f"this bundle takes clips up to {float(window_s)} s"
        )
    n_hops = ceil(Fraction(last, hop)) if last else 0
    units = [last * k // n_hops for k in range(n_hops + 1)] if n_hops else [0]
    return Windows(tuple(unit * step for unit in units), geometry)


def alignment_s(geometry: Geometry) -> Fraction:
    """Smallest time, in seconds, that is whole onset segments, visual frames and latent frames at once."""
    periods = (
        Fraction(geometry.onset_segment, geometry.onset_fps),
        Fraction(1, geometry.visual_fps),
        1 / _latent_rate(geometry),
    )
    denominator = lcm(*(period.denominator for period in periods))
    return Fraction(lcm(*(int(period * denominator) for period in periods)), denominator)


def cut(canvas: Array, offset: int, length: int, axis: int) -> Array:
    """The part of `canvas` that one window sees (a view)."""
    return canvas[(slice(None),) * axis + (slice(offset, offset + length),)]


def bump(length: int) -> npt.NDArray[np.float64]:
    """The weight of a window along its time [length], before it is divided by that of all windows."""
    weight: npt.NDArray[np.float64] = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2
    return weight


def merge(parts: Iterable[Array], offsets: Sequence[int], axis: int) -> Iterator[Array]:
    """Weighted mean of equally long, overlapping parts, given piece by piece; `axis` is time.

    Piece k reaches from offset k to offset k + 1, the last one to the end of the last part: it is given as
    soon as no later part touches it. Weights sum to one everywhere. Holds no more than one part and a bit.
    """
    held: Array | None = None
    for k, part in enumerate(parts):
        length = part.shape[axis]
        weight, total = bump(length), np.zeros(length)
        for other in offsets:
            low, high = max(0, other - offsets[k]), min(length, other - offsets[k] + length)
            if low < high:
                total[low:high] += weight[low + offsets[k] - other : high + offsets[k] - other]
        column = (-1,) + (1,) * (part.ndim - axis - 1)
        shared = part * (weight / total).astype(np.float32).reshape(column)
        if held is not None:
            n_old = held.shape[axis]
            overlap = cut(shared, 0, n_old, axis)
            overlap += held
        step = offsets[k + 1] - offsets[k] if k + 1 < len(offsets) else length
        yield cut(shared, 0, step, axis)
        held = cut(shared, step, length - step, axis)


def regroup(pieces: Iterable[Array], offsets: Sequence[int], length: int, axis: int) -> Iterator[Array]:
    """Windows of a canvas that comes piece by piece in order, each as soon as its last piece is there."""
    held, start, starts = None, offsets[0], list(offsets)
    for piece in pieces:
        held = piece if held is None else np.concatenate([held, piece], axis)
        while starts and start + held.shape[axis] >= starts[0] + length:
            yield cut(held, starts[0] - start, length, axis)
            starts.pop(0)
            if starts:
                held = cut(held, starts[0] - start, held.shape[axis], axis)
                start = starts[0]


def _window_s(geometry: Geometry) -> Fraction:
    return Fraction(geometry.mel_frames * geometry.hop, geometry.rate_hz)


def _latent_rate(geometry: Geometry) -> Fraction:
    return Fraction(geometry.rate_hz, geometry.hop * geometry.latent_stride)
