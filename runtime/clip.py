"""Reading a video: one decode pass gives the frames at both rates and sizes of the model."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from taro_rt.engines.errors import MediaError
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.progress import Progress, report
from taro_rt.runtime.resize import Frames, Pixels, Shrink, onset_shrinker, quarter_turns, visual_shrinker
from taro_rt.runtime.source import Playback, codec_name, open_video

LONGEST_S = {"fast": 3600, "released": 1200}
"""The frames of the published sizes would fill 5 GB (as float32: 4 GB); a file that claims more has mostly a
broken time stamp."""
MISSING_S = 0.5
"""A picture that ends this much before its header's promise is reported as cut off."""


@dataclass(frozen=True)
class VideoInfo:
    """What one pass over a video found out. Trusts no header: rates and lengths come from the PTS."""

    path: Path
    container: str
    """libavformat's name, "mov,mp4,m4a,3gp,3g2,mj2" for instance."""
    codec: str
    width: int
    """As displayed: rotation is applied."""
    height: int
    rotation_deg: int
    """Counter-clockwise turn that the file asks its player for."""
    n_frames: int
    """Displayed frames."""
    duration_s: float
    """From the first displayed frame to the end of the last one."""
    start_s: float
    """PTS of the first displayed frame, in the file's own time line."""
    average_fps: float
    has_audio: bool
    n_skipped_packets: int
    """Damaged packets that gave no picture."""
    n_hidden_packets: int
    """Packets that an edit list hides."""
    n_untimed_packets: int
    """Packets without a PTS: a raw stream without a container."""
    n_subtitles: int


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
    def read(cls, path: Path | str, geometry: Geometry, progress: Progress | None = None) -> Clip:
        """Decode `path` once, keep what the model needs (frame selection of spec B2, without the 10 s limit).

        Memory does not depend on the picture's size or rate. Raises `MediaError`, and `Cancelled` if
        `progress` says so.
        """
        path = Path(path)
        with open_video(path) as (container, stream):
            onset = _Track(geometry.onset_fps, onset_shrinker(geometry))
            visual = _Track(geometry.visual_fps, visual_shrinker(geometry))
            playback = Playback(container, stream)
            frame = None
            for time_s, frame in playback:
                _refuse_endless(path, time_s, LONGEST_S[geometry.resize])
                onset.show(frame, time_s)
                visual.show(frame, time_s)
                report(progress, "read", playback.progress)
            if frame is None:
                raise MediaError(
                    f"{path}: expected a video, got no decodable frame from {codec_name(stream)} "
                    f"({playback.n_skipped} damaged packets); check that it plays"
                )
            duration_s = playback.duration_s
            _refuse_endless(path, duration_s, LONGEST_S[geometry.resize])
            info = _info(path, container, stream, playback, frame)
            warnings = _warnings(info, playback.promised_s())
            visual_frames = visual.frames(duration_s).astype(np.uint8, copy=False)
            clip = cls(info, onset.frames(duration_s), visual_frames, warnings)
        report(progress, "read", 1.0)
        return clip


class FramePicker:
    """Which source frame each slot of a fixed rate shows: the last one before the slot's middle (spec B2).

    Slot k covers the time around k / rate and shows the last frame with t < (k + 1/2) / rate. Frames are
    pushed as they come; a slot is settled as soon as a frame lies behind its middle.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._n_settled = 0

    def push(self, time_s: Fraction) -> int:
        """Slots that the frame *before* this one fills; times must not decrease, the first one is 0."""
        return self._settle(self._slots(time_s))

    def finish(self, duration_s: Fraction) -> int:
        """Slots that the last frame fills; at least one slot exists."""
        return self._settle(max(1, self._slots(duration_s)))

    def _slots(self, time_s: Fraction) -> int:
        return int(time_s * self._rate_hz + Fraction(1, 2))

    def _settle(self, n_slots: int) -> int:
        n_new = max(0, n_slots - self._n_settled)
        self._n_settled += n_new
        return n_new


class _Track:
    """The frames of one rate. Only picked frames are shrunk; they go into one growing buffer."""

    def __init__(self, rate_hz: int, shrink: Shrink) -> None:
        self._picker = FramePicker(rate_hz)
        self._shrink = shrink
        self._shown: VideoFrame | None = None
        self._pixels = bytearray()
        self._like: Pixels | None = None

    def show(self, frame: VideoFrame, time_s: Fraction) -> None:
        self._fill(self._picker.push(time_s))
        self._shown = frame

    def frames(self, duration_s: Fraction) -> Pixels:
        self._fill(self._picker.finish(duration_s))
        self._shown = None
        assert self._like is not None  # at least one slot exists
        pixels: Pixels = np.frombuffer(self._pixels, self._like.dtype).reshape(-1, *self._like.shape)  # type: ignore[assignment]
        return pixels

    def _fill(self, n_slots: int) -> None:
        if n_slots == 0 or self._shown is None:
            return
        self._like = self._shrink(self._shown)
        self._pixels += self._like.tobytes() * n_slots


def _refuse_endless(path: Path, time_s: Fraction, longest_s: int) -> None:
    if time_s > longest_s:
        raise MediaError(
            f"{path}: expected at most {longest_s} s of picture with this bundle, got {float(time_s):.0f} s; "
            "cut the clip, or remux it if its time stamps are broken"
        )


def _info(
    path: Path, container: InputContainer, stream: VideoStream, playback: Playback, frame: VideoFrame
) -> VideoInfo:
    sides = (frame.width, frame.height)
    width, height = sides[::-1] if quarter_turns(frame) % 2 else sides
    return VideoInfo(
        path=path,
        container=container.format.name,
        codec=codec_name(stream),
        width=width,
        height=height,
        rotation_deg=frame.rotation,
        n_frames=playback.n_frames,
        duration_s=float(playback.duration_s),
        start_s=float(playback.start_s),
        average_fps=float(playback.n_frames / playback.duration_s),
        has_audio=bool(container.streams.audio),
        n_skipped_packets=playback.n_skipped,
        n_hidden_packets=playback.n_hidden,
        n_untimed_packets=playback.n_untimed,
        n_subtitles=len(container.streams.subtitles),
    )


def _warnings(info: VideoInfo, promised_s: Fraction | None) -> tuple[str, ...]:
    warnings = []
    if info.n_skipped_packets:
        warnings.append(f"{info.path}: damaged packets skipped: {info.n_skipped_packets}")
    if promised_s is not None and promised_s - info.duration_s > MISSING_S:
        warnings.append(
            f"{info.path}: ends at {info.duration_s:.2f} s, its header promises {float(promised_s):.2f} s; "
            "the sound covers what could be decoded"
        )
    return tuple(warnings)
