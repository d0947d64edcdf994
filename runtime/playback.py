"""Walking through what a video displays.

Times are exact: fractions of a second from the first displayed frame of the part that is watched, taken from
the PTS and never from a frame number.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from taro_rt.engines.errors import MediaError
from taro_rt.runtime.seeking import Landing, from_key, land
from taro_rt.runtime.source import (
    LONGEST_S,
    LONGEST_STEP_S,
    MAX_FRAMES,
    SLOW_S,
    SLOWEST_FPS,
    WHOLE,
    Span,
    check_sides,
    read_packets,
    tick_of,
)

FALLBACK_STEP = Fraction(1, 25)
SHORTEST_S = Fraction(1, 1000)
"""A clip that lasts less has broken time stamps."""


class Playback:
    """One pass over the displayed frames of a video; iterate once. The counters grow on the way.

    Damaged packets are skipped and counted. Frames keep the decoder's order and times never go back, even
    where the file's PTS do. Raises `MediaError` for more frames, pixels or seconds than the limits allow.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        path: Path,
        span: Span = WHOLE,
        origin_s: Fraction | None = None,
    ) -> None:
        """`origin_s` is the PTS of the video's first displayed frame; needed for a part that starts later."""
        self._container = container
        self._stream = stream
        self._path = path
        self._tick = tick_of(stream)
        rate = stream.average_rate  # read now: it is needed after the file was closed, too
        self.nominal_s = 1 / Fraction(rate) if rate else FALLBACK_STEP
        """How long a frame lasts by the header, where nothing better is known."""
        self._low = None
        if origin_s is not None and span.start_s:
            self._low = origin_s + Fraction(span.start_s).limit_denominator(1_000_000)
        self._end_s = None if span.end_s is None else Fraction(span.end_s).limit_denominator(1_000_000)
        self._origin_s = origin_s
        self._read = 0
        self._step = Fraction(0)
        self._states_steps = True
        self._is_cut = False
        self.n_frames = 0
        self.n_skipped = 0
        """Packets that could not be read or decoded."""
        self.n_hidden = 0
        """Packets that are decoded but not displayed: by an edit list, or before the part."""
        self.n_untimed = 0
        """Packets without a PTS."""
        self.landing = Landing()
        """Where a part was begun to be read."""
        self.start_s = Fraction(0)
        """PTS of the first displayed frame, in the file's own time line."""
        self.time_s = Fraction(0)
        """Time of the latest frame."""
        self.stated_s = Fraction(0)
        """How long the latest frame lasts by the file; often a guess of libav's, or 0."""

    def __iter__(self) -> Iterator[tuple[Fraction, VideoFrame]]:
        self._stream.thread_type = "AUTO"
        if self._low is not None and self._tick:
            self.landing = land(self._container, self._stream, self._low)
        for frame in self._frames():
            check_sides(self._path, frame.width, frame.height)
            if self._is_before(frame):
                continue
            if self._is_behind(frame):
                self._is_cut = True
                return
            self._advance(frame)
            yield self.time_s, frame
        if self.n_frames:
            check_clock(self._path, self.duration_s, self.duration_s - self.time_s, self.n_frames)
            check_length(self._path, self.duration_s, self.n_frames)

    @property
    def progress(self) -> float:
        """Share of the file that was read, 0 to 1."""
        return min(1.0, self._read / max(1, self._container.size))

    @property
    def duration_s(self) -> Fraction:
        """From the first frame's time to the end of the latest one, or to the end of the part.

        The latest frame lasts as long as the file states if that was true of the frame before, else as long
        as the frame before.
        """
        stated_s = self.stated_s if self._states_steps else Fraction(0)
        end_s = self.time_s + (stated_s or self._step or self.nominal_s)
        limit_s = self._limit_s()
        return end_s if limit_s is None else limit_s if self._is_cut else min(end_s, limit_s)

    def promised_s(self) -> Fraction | None:
        """The picture's length by the file's header, if it says so: a truncated file has less."""
        if self._stream.duration:
            return self._stream.duration * self._tick
        if self._container.duration and len(self._container.streams) == 1:  # others may outlast the picture
            return Fraction(self._container.duration, av.time_base) - self.start_s
        return None

    def _limit_s(self) -> Fraction | None:
        """End of the part on the clip's own time line."""
        if self._end_s is None:
            return None
        return self._end_s + (self.start_s if self._origin_s is None else self._origin_s) - self.start_s

    def _frames(self) -> Iterator[VideoFrame]:
        for packet in from_key(read_packets(self._container, self._stream), self._stream, self.landing):
            if packet is None:
                self.n_skipped += 1
                continue
            self._read = max(self._read, packet.pos or 0)
            self.n_hidden += packet.is_discard
            self.n_untimed += packet.pts is None
            yield from self._decode(packet)
        yield from self._decode(None)  # what the decoder still holds

    def _decode(self, packet: Packet[Stream] | None) -> list[VideoFrame]:
        try:
            return self._stream.decode(packet)
        except av.FFmpegError:
            self.n_skipped += 1
            return []

    def _is_before(self, frame: VideoFrame) -> bool:
        if self._low is None or self.n_frames or frame.pts is None or frame.pts * self._tick >= self._low:
            return False
        self.n_hidden += 1
        return True

    def _is_behind(self, frame: VideoFrame) -> bool:
        limit_s = self._limit_s() if self.n_frames else None
        return (
            limit_s is not None and frame.pts is not None and frame.pts * self._tick - self.start_s >= limit_s
        )

    def _advance(self, frame: VideoFrame) -> None:
        before = self.time_s
        if frame.pts is not None:  # in ticks of the stream: flushed frames do not know their time base
            if self.n_frames == 0:
                self.start_s = frame.pts * self._tick
            self.time_s = max(before, frame.pts * self._tick - self.start_s)
        elif self.n_frames > 0:
            self.time_s += self.stated_s or self.nominal_s
        if self.n_frames > 0:
            self._step = self.time_s - before
            self._states_steps = abs(self.stated_s - self._step) <= self._tick
        self.stated_s = max(0, frame.duration or 0) * self._tick
        self.n_frames += 1
        check_clock(self._path, self.time_s, self._step, self.n_frames)


def check_clock(path: Path, time_s: Fraction, step_s: Fraction, n_frames: int) -> None:
    """Raise `MediaError` for times and counts that only a broken or hostile file has."""
    if time_s > LONGEST_S:
        claim = f"at most {LONGEST_S} s of picture, got {float(time_s):.0f} s"
    elif step_s > LONGEST_STEP_S:
        claim = f"at most {LONGEST_STEP_S} s between two frames, got {float(step_s):.0f} s"
    elif n_frames > MAX_FRAMES:
        claim = f"at most {MAX_FRAMES} frames, got more"
    else:
        return
    raise MediaError(f"{path}: expected {claim}; cut the clip, or remux it if its time stamps are broken")


def check_length(path: Path, duration_s: Fraction, n_frames: int) -> None:
    """Raise `MediaError` for a clip that is shown for next to no time, or has too few frames for its time."""
    if duration_s > SLOW_S and n_frames < SLOWEST_FPS * duration_s:
        raise MediaError(
            f"{path}: expected at least {SLOWEST_FPS:g} frames per second on average, got {n_frames} in "
            f"{float(duration_s):.0f} s; cut the clip, or remux it if its time stamps are broken"
        )
    if duration_s < SHORTEST_S:
        raise MediaError(
            f"{path}: expected at least {float(SHORTEST_S):g} s of picture, got {float(duration_s):.2g} s; "
            "remux it if its time stamps are broken"
        )
