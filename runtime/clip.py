"""Reading a video: one decode pass gives the frames at both rates and sizes of the model."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from taro_rt.engines.errors import MediaError
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.prepare import Frames
from taro_rt.runtime.progress import Progress, report
from taro_rt.runtime.source import Playback, codec_name, open_video

LONGEST_S = 3600
"""The model's frames of an hour fill 5 GB; a file that claims more has mostly a broken time stamp."""
MISSING_S = 0.5
"""A picture that ends this much before its header's promise is reported as cut off."""
FULL_CHROMA = 0x2000
"""libswscale's full_chroma_int, by number: not every PyAV names it."""


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
    onset_frames: Frames
    """uint8 [n, onset_resize, onset_resize, 3] at onset_fps, RGB, upright."""
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
            onset = _Track(geometry.onset_fps, geometry.onset_resize)
            visual = _Track(geometry.visual_fps, geometry.visual_size)
            playback = Playback(container, stream)
            frame = None
            for time_s, frame in playback:
                _refuse_endless(path, time_s)
                onset.show(frame, time_s)
                visual.show(frame, time_s)
                report(progress, "read", playback.progress)
            if frame is None:
                raise MediaError(
                    f"{path}: expected a video, got no decodable frame from {codec_name(stream)} "
                    f"({playback.n_skipped} damaged packets); check that it plays"
                )
            duration_s = playback.duration_s
            _refuse_endless(path, duration_s)
            info = _info(path, container, stream, playback, frame)
            warnings = _warnings(info, playback.promised_s())
            clip = cls(info, onset.frames(duration_s), visual.frames(duration_s), warnings)
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
    """The frames of one rate and size. Only picked frames are converted; they go into one growing buffer.

    libswscale's BILINEAR widens its triangle with the reduction, as the model's own resize does (spec B2).
    Its mean error against that filter is 0.4 to 1.1 grey levels (AREA: up to 8), but 5 to 15 without full
    chroma.
    """

    FILTER = int(Interpolation.BILINEAR) | FULL_CHROMA

    def __init__(self, rate_hz: int, size: int) -> None:
        self._picker = FramePicker(rate_hz)
        self._scaler = VideoReformatter()
        self._size = size
        self._shown: VideoFrame | None = None
        self._pixels = bytearray()

    def show(self, frame: VideoFrame, time_s: Fraction) -> None:
        self._fill(self._picker.push(time_s))
        self._shown = frame

    def frames(self, duration_s: Fraction) -> Frames:
        self._fill(self._picker.finish(duration_s))
        self._shown = None
        return np.frombuffer(self._pixels, np.uint8).reshape(-1, self._size, self._size, 3)

    def _fill(self, n_slots: int) -> None:
        if n_slots == 0 or self._shown is None:
            return
        small = self._scaler.reformat(self._shown, self._size, self._size, "rgb24", interpolation=self.FILTER)
        upright = np.rot90(small.to_ndarray(), _quarter_turns(self._shown))
        self._pixels += upright.tobytes() * n_slots


def _quarter_turns(frame: VideoFrame) -> int:
    return round(frame.rotation / 90) % 4


def _refuse_endless(path: Path, time_s: Fraction) -> None:
    if time_s > LONGEST_S:
        raise MediaError(
            f"{path}: expected at most {LONGEST_S} s of picture, got {float(time_s):.0f} s; "
            "cut the clip, or remux it if its time stamps are broken"
        )


def _info(
    path: Path, container: InputContainer, stream: VideoStream, playback: Playback, frame: VideoFrame
) -> VideoInfo:
    sides = (frame.width, frame.height)
    width, height = sides[::-1] if _quarter_turns(frame) % 2 else sides
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
