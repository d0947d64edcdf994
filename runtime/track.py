"""The frames of one rate, picked from a video of any rate while it is decoded."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame

from taro_rt.runtime.resize import Pixels, Shrink


class FramePicker:
    """Which source frame each slot of a fixed rate shows: the last one before the slot's middle (spec B2).

    Slot k covers the time around k / rate and shows the last frame with t < (k + 1/2) / rate. Frames are
    pushed as they come; a slot is settled as soon as a frame lies behind its middle.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self.n_settled = 0

    def push(self, time_s: Fraction) -> int:
        """Slots that the frame *before* this one fills; times must not decrease, the first one is 0."""
        return self._settle(self._slots(time_s))

    def finish(self, duration_s: Fraction) -> int:
        """Slots that the last frame fills; at least one slot exists."""
        return self._settle(max(1, self._slots(duration_s)))

    def _slots(self, time_s: Fraction) -> int:
        return int(time_s * self._rate_hz + Fraction(1, 2))

    def _settle(self, n_slots: int) -> int:
        n_new = max(0, n_slots - self.n_settled)
        self.n_settled += n_new
        return n_new


class Track:
    """The frames of one rate. Only picked frames are shrunk, and one that fills many slots is held once."""

    def __init__(self, rate_hz: int, shrink: Shrink) -> None:
        self._picker = FramePicker(rate_hz)
        self._shrink = shrink
        self._shown: VideoFrame | None = None
        self._slots: deque[Pixels] = deque()
        self._n_forgotten = 0

    @property
    def n_settled(self) -> int:
        return self._picker.n_settled

    def show(self, frame: VideoFrame, time_s: Fraction) -> None:
        self._fill(self._picker.push(time_s))
        self._shown = frame

    def end(self, duration_s: Fraction) -> None:
        self._fill(self._picker.finish(duration_s))
        self._shown = None

    def part(self, offset: int, count: int) -> Pixels:
        """At most `count` frames from `offset` on, beyond the end the last one; forgets what lies before."""
        assert offset >= self._n_forgotten, f"frame {offset} was let go of"
        while self._n_forgotten < offset and len(self._slots) > 1:
            self._slots.popleft()
            self._n_forgotten += 1
        first = offset - self._n_forgotten
        chosen = [self._slots[k] for k in range(first, min(first + count, len(self._slots)))]
        stacked: Pixels = np.stack(chosen or [self._slots[-1]])  # type: ignore[assignment]
        return stacked

    def _fill(self, n_slots: int) -> None:
        if n_slots and self._shown is not None:
            small: Pixels = np.ascontiguousarray(self._shrink(self._shown))  # type: ignore[assignment]
            self._slots.extend([small] * n_slots)
