"""From frames to what the networks read: pixel arithmetic, segments, and the conditions of every window.

Beyond its ends a clip stands still: its first and its last frame are repeated (spec C1 asks for a rule).
"""

from __future__ import annotations

import numpy as np

from taro_rt.engines.backends import Engine
from taro_rt.engines.contract import Array
from taro_rt.engines.errors import OptionsError
from taro_rt.engines.stages import FULL, IMAGENET_MEAN, IMAGENET_STD, Geometry
from taro_rt.runtime.clip import Pictures
from taro_rt.runtime.resize import Frames, Pixels
from taro_rt.runtime.timing import Timings


def check_frames(onset_frames: Pixels, visual_frames: Frames, geometry: Geometry) -> None:
    """Raise `OptionsError` unless there are RGB frames of the sizes and kinds this bundle reads."""
    kind = "float32" if geometry.resize == "released" else "uint8"
    expected = (
        ("onset_frames", onset_frames, geometry.onset_resize, kind),
        ("visual_frames", visual_frames, geometry.visual_size, "uint8"),
    )
    for name, frames, side, dtype in expected:
        if frames.dtype != dtype or frames.shape[1:] != (side, side, 3) or not len(frames):
            raise OptionsError(
                f"clip: expected {name} as {dtype} [n >= 1, {side}, {side}, 3], got {frames.dtype} "
                f"{list(frames.shape)}; read the clip with this bundle's geometry"
            )


def onset_input(frames: Pixels, offset: int, geometry: Geometry) -> Array:
    """The segment that begins at frame `offset` of [n, resize, resize, 3], as the onset network sees it:
    [1, 3, seen, crop, crop], its margins with it.

    Centre crop, / 255, ImageNet mean and deviation (spec B2).
    """
    pixels = onset_pixels(frames, offset, geometry).astype(np.float32) / FULL
    return _channels_first((pixels - IMAGENET_MEAN) / IMAGENET_STD)


def onset_pixels(frames: Pixels, offset: int, geometry: Geometry) -> Pixels:
    """The same as they are, [seen, crop, crop, 3] in 0 .. 255."""
    edge = (geometry.onset_resize - geometry.onset_crop) // 2
    inner = slice(edge, edge + geometry.onset_crop)
    return with_margins(frames, offset, geometry)[:, inner, inner]


def with_margins(frames: Pixels, offset: int, geometry: Geometry) -> Pixels:
    """The segment that begins at frame `offset` of [n, h, w, 3] and its margins [seen, h, w, 3]."""
    return _still(frames, offset - geometry.onset_margin, geometry.onset_seen)


def visual_input(frames: Frames, offset: int, geometry: Geometry) -> Array:
    """The frames from `offset` on, [1, 3, t, size, size]: / 255 and nothing else (spec B2).

    As many frames as there are, up to `visual_encode`: the network sees some ahead of the `visual_frames`
    whose features are kept. Fewer than those are filled up.
    """
    return _channels_first(visual_pixels(frames, offset, geometry).astype(np.float32) / FULL)


def visual_pixels(frames: Pixels, offset: int, geometry: Geometry) -> Pixels:
    """The same as bytes [t, size, size, 3]."""
    t = min(max(len(frames) - offset, geometry.visual_frames), geometry.visual_encode)
    return _still(frames, offset, t)


class OnsetLogits:
    """Logits of the onset network along a clip, made segment by segment as far as they are asked for.

    Segments are independent and shared by windows. All of them are kept: a curve is small.
    """

    def __init__(self, engine: Engine, pictures: Pictures, geometry: Geometry, timings: Timings) -> None:
        self._engine = engine
        self._timings = timings
        self._pictures = pictures
        self._geometry = geometry
        self._made: Array = np.zeros(1 << 12, np.float32)
        self._n_made = 0

    def until(self, n_values: int) -> Array:
        """The first `n_values` logits."""
        while self._n_made < n_values:
            with self._timings("read"):
                frames, offset = self._part(self._n_made)
            with self._timings("onset"):
                logits = self._engine(frames=onset_input(frames, offset, self._geometry))["logits"][0]
            self.add(logits)
        return self._made[:n_values]

    def pixels_until(self, n_values: int) -> Pixels:
        """What the network sees of the next segments [segments, seen, crop, crop, 3], up to logit `n_values`;
        `add` those.

        For who makes them otherwise than with the engine."""
        segment = self._geometry.onset_segment
        parts = []
        with self._timings("read"):
            for first in range(self._n_made, n_values, segment):
                parts.append(onset_pixels(*self._part(first), self._geometry))
        return np.stack(parts)  # type: ignore[return-value]  # all are of one type

    def _part(self, first: int) -> tuple[Pixels, int]:
        """Frames around the segment that begins at frame `first`, and where among them it begins."""
        start = max(0, first - self._geometry.onset_margin)
        end = first + self._geometry.onset_segment + self._geometry.onset_margin
        return self._pictures.onset_part(start, end - start), first - start

    def add(self, logits: Array) -> None:
        """Go on with `logits` [n] that were made elsewhere."""
        n_after = self._n_made + len(logits)
        if n_after > len(self._made):
            self._made = np.concatenate([self._made, np.zeros_like(self._made)])
        self._made[self._n_made : n_after] = logits
        self._n_made = n_after


def visual_features(
    engine: Engine, pictures: Pictures, offset: int, geometry: Geometry, timings: Timings
) -> Array:
    """The visual features [1, visual_frames, visual_dim] of the window whose first frame is `offset`."""
    with timings("read"):
        frames = pictures.visual_part(offset, geometry.visual_encode)
    with timings("visual"):
        features = engine(frames=visual_input(frames, 0, geometry))["features"]
    return features[:, : geometry.visual_frames]


def _still(frames: Pixels, offset: int, count: int) -> Pixels:
    return frames[np.clip(np.arange(offset, offset + count), 0, len(frames) - 1)]


def _channels_first(pixels: Array) -> Array:
    return np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))[None]  # [n, h, w, c] -> [1, c, n, h, w]
