"""A video that a caller has in memory: frames and their times, checked and walked through as a file is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.playback import FALLBACK_STEP, check_clock, check_length
from taro_rt.runtime.probe import VideoInfo
from taro_rt.runtime.resize import Frames
from taro_rt.runtime.source import check_sides

NAME = Path("frames")
"""What errors call a video without a file."""
FINEST = 1_000_000
"""Times are taken for the nearest fraction with at most this denominator: 1 / 30 is not a float."""


class FrameRoll:
    """Frames and when they are shown. Time 0 is that of the first."""

    def __init__(self, times_s: Sequence[float] | Array, duration_s: float | None) -> None:
        """Raises `OptionsError` for times that are not finite or go back, `MediaError` as a file does."""
        self.times_s = _times(times_s)
        self.duration_s = _duration(self.times_s, duration_s)
        self._sides = (0, 0)
        steps = [b - a for a, b in pairwise([*self.times_s, self.duration_s])]
        for n, (time_s, step_s) in enumerate(zip(self.times_s, steps, strict=True), 1):
            check_clock(NAME, time_s + step_s, step_s, n)
        check_length(NAME, self.duration_s, len(self.times_s))

    def show(self, frames: Iterable[Frames]) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Every frame with its time. Raises `OptionsError` unless there is one for each, all RGB bytes."""
        left = iter(frames)
        for n, time_s in enumerate(self.times_s):
            pixels = next(left, None)
            if pixels is None:
                raise OptionsError(f"frames: expected one for each of {len(self.times_s)} times, got {n}")
            yield time_s, self._frame(n, pixels)
        if next(left, None) is not None:
            raise OptionsError(f"frames: expected one for each of {len(self.times_s)} times, got more")

    def info(self) -> VideoInfo:
        """What a pass over a file of these frames would find."""
        n, (height, width) = len(self.times_s), self._sides
        return VideoInfo(
            path=NAME,
            container="frames",
            codec="rawvideo",
            width=width,
            height=height,
            rotation_deg=0,
            n_frames=n,
            duration_s=float(self.duration_s),
            start_s=0.0,
            average_fps=float(n / self.duration_s),
            has_audio=False,
            n_skipped_packets=0,
            n_hidden_packets=0,
            n_untimed_packets=0,
            n_subtitles=0,
        )

    def _frame(self, n: int, pixels: Frames) -> VideoFrame:
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3:
            raise _unfit(n, pixels)
        height, width, channels = pixels.shape
        if channels != 3 or not height or not width:
            raise _unfit(n, pixels)
        check_sides(NAME, width, height)
        self._sides = (height, width)
        return VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def _unfit(n: int, pixels: object) -> OptionsError:
    got = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
    return OptionsError(f"frames: expected RGB as uint8 [height, width, 3], got {got} as frame {n}")


def _times(times_s: Sequence[float] | Array) -> list[Fraction]:
    try:
        times = np.asarray(times_s, np.float64)
    except (TypeError, ValueError) as error:
        raise OptionsError(f"times_s: expected seconds, a number for each frame ({error})") from None
    if times.ndim != 1 or not len(times):
        raise OptionsError(f"times_s: expected seconds [n >= 1], one for each frame, got {list(times.shape)}")
    if not np.isfinite(times).all():
        at = int(np.flatnonzero(~np.isfinite(times))[0])
        raise OptionsError(f"times_s: expected finite seconds, got {times[at]} for frame {at}")
    if len(back := np.flatnonzero(np.diff(times) < 0)):
        at = int(back[0])
        raise OptionsError(
            f"times_s: expected times that do not go back, got {times[at + 1]:g} s after {times[at]:g} s "
            f"(frame {at + 1}); sort the frames by time"
        )
    return [Fraction(float(time_s)).limit_denominator(FINEST) for time_s in times - times[0]]


def _duration(times_s: Sequence[Fraction], duration_s: float | None) -> Fraction:
    """From the first frame to the end of the last, which by itself lasts as long as the one before."""
    if duration_s is None:
        step_s = times_s[-1] - times_s[-2] if len(times_s) > 1 else Fraction(0)
        return times_s[-1] + (step_s or FALLBACK_STEP)
    is_number = isinstance(duration_s, (int, float, np.number)) and not isinstance(duration_s, bool)
    if not is_number or not np.isfinite(duration_s) or duration_s <= times_s[-1]:
        raise OptionsError(
            f"duration_s: expected more than the {float(times_s[-1]):g} s from the first frame to the last, "
            f"got {duration_s!r}"
        )
    return Fraction(float(duration_s)).limit_denominator(FINEST)
