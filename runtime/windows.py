"""Overlapping windows over a clip of any length, and their merging without a seam.

The networks see one window of sound at a time. Windows start where all frame grids (onset segments, visual
frames, latents) have a frame, so that neighbours share their inputs exactly; what they give is averaged with
a raised-cosine weight. A clip that fits one window has exactly one, and merging it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, lcm

import numpy as np

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
    window_s = Fraction(geometry.mel_frames * geometry.hop, geometry.rate_hz)
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


def merge(parts: Sequence[Array], offsets: Sequence[int], axis: int) -> Array:
    """Weighted mean of equally long, overlapping parts; `axis` is time. Weights sum to one everywhere."""
    length = parts[0].shape[axis]
    bump = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2
    total = np.zeros(offsets[-1] + length)
    for offset in offsets:
        total[offset : offset + length] += bump
    shape = list(parts[0].shape)
    shape[axis] = len(total)
    merged = np.zeros(shape, np.float32)
    column = (-1,) + (1,) * (len(shape) - axis - 1)
    for part, offset in zip(parts, offsets, strict=True):
        share = (bump / total[offset : offset + length]).astype(np.float32).reshape(column)
        view = cut(merged, offset, length, axis)
        view += part * share
    return merged


def _latent_rate(geometry: Geometry) -> Fraction:
    return Fraction(geometry.rate_hz, geometry.hop * geometry.latent_stride)
