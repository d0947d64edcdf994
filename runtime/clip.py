"""The frames of a video that the model sees: all at once (`Clip`), or as far as they are needed (`Reel`)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import MediaError
from taro_rt.engines.stages import Geometry
from taro_rt.engines.watch import PERIOD_S
from taro_rt.runtime.frames import FrameRoll
from taro_rt.runtime.playback import Playback
from taro_rt.runtime.probe import VideoInfo, no_frame, probe, video_info, warnings_about
from taro_rt.runtime.progress import Progress, report
from taro_rt.runtime.resize import Frames, Pixels, onset_shrinker, visual_shrinker
from taro_rt.runtime.source import WHOLE, Span, open_video
from taro_rt.runtime.spooled import Source, on_disk
from taro_rt.runtime.track import Track

LONGEST_S = {"fast": 3600, "released": 1200}
"""Of a clip in memory: the frames of the published sizes would fill 5 GB (as float32: 4 GB)."""


@runtime_checkable
class Pictures(Protocol):
    """Where a generation gets its frames from: each part begins where the one before did, or
    later; parts may overlap."""

    @property
    def duration_s(self) -> float:
        """Length of the picture; of a `Reel` it is exact only once everything was read."""
        ...

    def onset_part(self, offset: int, count: int) -> Pixels:
        """At most `count` onset frames from `offset` on, fewer at the end, beyond it the last one."""
        ...

    def visual_part(self, offset: int, count: int) -> Frames:
        """The same of the visual frames."""
        ...

    def n_onset_frames(self) -> int:
        """How many onset frames there are; reads to the end."""
        ...


@dataclass(frozen=True)
class Clip:
    """A video as the model sees it; time runs from the first displayed frame."""

    info: VideoInfo
    onset_frames: Pixels
    """[n, onset_resize, onset_resize, 3] at onset_fps, RGB, upright, in 0 to 255: uint8, or float32 where the
    geometry asks for the released resize."""
    visual_frames: Frames
    """uint8 [m, visual_size, visual_size, 3] at visual_fps, RGB, upright."""
    warnings: tuple[str, ...] = ()
    """What the user should know about the file, a sentence each."""

    @property
    def duration_s(self) -> float:
        """Length of the picture, and of the sound to make."""
        return self.info.duration_s

    @classmethod
    def read(
        cls, source: Source, geometry: Geometry, progress: Progress | None = None, span: Span = WHOLE
    ) -> Clip:
        """Decode a path or an open file once, keep what the model needs (frame selection of spec B2, without
        the 10 s limit).

        Memory does not depend on the picture's size or rate. Raises `MediaError`, and `Cancelled` if
        `progress` says so. Of an open file `info.path` is gone afterwards: to write a sound beside its
        picture, give a path.
        """
        with on_disk(source, progress) as path:
            return cls._decoded(path, geometry, progress, span)

    @classmethod
    def from_frames(
        cls,
        frames: Iterable[Frames],
        times_s: Sequence[float] | Array,
        geometry: Geometry,
        duration_s: float | None = None,
        progress: Progress | None = None,
    ) -> Clip:
        """A clip of pictures in memory: RGB as uint8 [n, height, width, 3], or one [height, width, 3] after
        the other from a generator.

        `times_s` [n] says from when on each is shown, in seconds of any clock, never going back; the first is
        time 0 of the clip, and `duration_s` is measured from there to the end of the last (None: it lasts as
        long as the one before, 1/25 s if it is alone). Frames are picked and shrunk as a file's are. Raises
        `OptionsError` for shapes, types and times that do not fit, `MediaError` for what no file may have
        either, `Cancelled`.
        """
        roll = FrameRoll(times_s, duration_s)
        longest_s = LONGEST_S[geometry.resize]
        _refuse_long(roll.info().path, roll.duration_s, longest_s)
        onset = Track(geometry.onset_fps, onset_shrinker(geometry))
        visual = Track(geometry.visual_fps, visual_shrinker(geometry))
        for time_s, frame in roll.show(frames):
            report(progress, "read", float(time_s / roll.duration_s))
            onset.show(frame, time_s)
            visual.show(frame, time_s)
        for track in (onset, visual):
            track.end(roll.duration_s)
        report(progress, "read", 1.0)
        seen = visual.part(0, visual.n_settled).astype(np.uint8, copy=False)
        return cls(roll.info(), onset.part(0, onset.n_settled), seen)

    @classmethod
    def _decoded(cls, path: Path, geometry: Geometry, progress: Progress | None, span: Span) -> Clip:
        longest_s = LONGEST_S[geometry.resize]
        origin_s = Fraction(probe(path).start_s).limit_denominator(10**6) if span.start_s else None
        with Reel(path, geometry, span, origin_s) as reel:
            for time_s in reel.read():
                _refuse_long(reel.path, time_s, longest_s)
                report(progress, "read", reel.progress)
            info, warnings = reel.finish()
            _refuse_long(reel.path, Fraction(info.duration_s), longest_s)
            onset = reel.onset_part(0, reel.n_onset_frames())
            visual = reel.visual_part(0, reel.n_visual_frames())
        report(progress, "read", 1.0)
        return cls(info, onset, visual, warnings)

    def onset_part(self, offset: int, count: int) -> Pixels:
        """See `Pictures`."""
        return _part(self.onset_frames, offset, count)

    def visual_part(self, offset: int, count: int) -> Frames:
        """See `Pictures`."""
        return _part(self.visual_frames, offset, count).astype(np.uint8, copy=False)

    def n_onset_frames(self) -> int:
        """See `Pictures`."""
        return len(self.onset_frames)


class Reel:
    """A video that is decoded as far as it is asked for; frames behind are forgotten. A context manager."""

    def __init__(
        self,
        path: Path,
        geometry: Geometry,
        span: Span = WHOLE,
        origin_s: Fraction | None = None,
        duration_s: float = 0.0,
    ) -> None:
        """`duration_s` is what `probe` found, until everything was read. Raises `MediaError`."""
        self.path = path
        self._opened = open_video(path)
        self._span, self._origin_s = span, origin_s
        self._duration_s = duration_s
        self._onset = Track(geometry.onset_fps, onset_shrinker(geometry))
        self._visual = Track(geometry.visual_fps, visual_shrinker(geometry))
        self._found: tuple[VideoInfo, tuple[str, ...]] | None = None
        self.ask: Callable[[], None] | None = None
        """Called several times a second while frames are decoded; what it raises ends that."""

    def __enter__(self) -> Reel:
        self._container, self._stream = self._opened.__enter__()
        self._playback = Playback(self._container, self._stream, self.path, self._span, self._origin_s)
        self._frames = self._decode()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # who keeps the reel, a cycle of references for instance, must not keep the decoder and its pictures
        self._frames.close()
        del self._container, self._stream, self._playback
        self._opened.__exit__(kind, error, trace)

    @property
    def progress(self) -> float:
        """Share of the file that was read, 0 to 1."""
        return self._playback.progress

    @property
    def duration_s(self) -> float:
        """See `Pictures`."""
        return self._found[0].duration_s if self._found else self._duration_s

    def onset_part(self, offset: int, count: int) -> Pixels:
        """See `Pictures`."""
        self._read_until(self._onset, offset + count)
        return self._onset.part(offset, count)

    def visual_part(self, offset: int, count: int) -> Frames:
        """See `Pictures`."""
        self._read_until(self._visual, offset + count)
        return self._visual.part(offset, count).astype(np.uint8, copy=False)

    def n_onset_frames(self) -> int:
        """See `Pictures`."""
        self.finish()
        return self._onset.n_settled

    def n_visual_frames(self) -> int:
        """How many visual frames there are; reads to the end."""
        self.finish()
        return self._visual.n_settled

    def finish(self) -> tuple[VideoInfo, tuple[str, ...]]:
        """What the video turned out to be, and what the user should know about it; reads to the end."""
        for _ in self._frames:
            pass
        assert self._found is not None
        return self._found

    def read(self) -> Iterator[Fraction]:
        """Decode what is left, frame by frame; the time of each."""
        return self._frames

    def _decode(self) -> Generator[Fraction, None, None]:
        frame, playback, asked_s = None, self._playback, monotonic()
        for time_s, frame in playback:
            if self.ask and monotonic() - asked_s > PERIOD_S:
                asked_s = monotonic()
                self.ask()
            self._onset.show(frame, time_s)
            self._visual.show(frame, time_s)
            yield time_s
        if frame is None:
            raise no_frame(self.path, self._stream, playback)
        self._onset.end(playback.duration_s)
        self._visual.end(playback.duration_s)
        origin_s = playback.start_s if self._origin_s is None else self._origin_s
        info = video_info(self.path, self._container, self._stream, playback, frame, self._span, origin_s)
        self._found = (info, warnings_about(info, playback.promised_s()))

    def _read_until(self, track: Track, n_slots: int) -> None:
        while track.n_settled < n_slots and self._found is None:
            next(self._frames, None)


def open_reel(info: VideoInfo, geometry: Geometry) -> Reel:
    """A `Reel` of what `probe` found."""
    origin_s = Fraction(info.origin_s).limit_denominator(1_000_000)
    return Reel(info.path, geometry, info.span, origin_s if info.span.start_s else None, info.duration_s)


@contextmanager
def asking(pictures: Pictures, ask: Callable[[], None]) -> Iterator[None]:
    """Within the block `ask` is called several times a second of decoding; what it raises ends that."""
    if not isinstance(pictures, Reel):
        yield
        return
    pictures.ask = ask
    try:
        yield
    finally:
        pictures.ask = None


def _part(frames: Pixels, offset: int, count: int) -> Pixels:
    return frames[min(offset, len(frames) - 1) :][:count]


def _refuse_long(path: Path, time_s: Fraction, longest_s: int) -> None:
    if time_s > longest_s:
        raise MediaError(
            f"{path}: expected at most {longest_s} s of picture in memory, got {float(time_s):.0f} s; "
            "read a part of it, or generate from the file, which has no such limit"
        )
