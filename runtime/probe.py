"""What a video is, found out without decoding it: enough to check an output and to plan the work."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from taro_rt.engines.errors import MediaError, UnreadableError
from taro_rt.runtime.playback import SHORTEST_S, Playback, check_clock, check_length
from taro_rt.runtime.seeking import Landing, from_key, go
from taro_rt.runtime.source import WHOLE, Span, codec_name, open_video, quarter_turns, read_packets, tick_of

RATE_TOLERANCE = 0.02
"""By which a header's frame rate may be off the mean of the frames that were seen."""
MISSING_S = 0.5
"""A picture that ends this much before its header's promise is reported as cut off."""


@dataclass(frozen=True)
class VideoInfo:
    """What a pass over a video found out. Trusts no header: rates and lengths come from the PTS."""

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
    """Packets that an edit list hides, or that only lead up to a part of the video."""
    n_untimed_packets: int
    """Packets without a PTS: a raw stream without a container."""
    n_subtitles: int
    span: Span = WHOLE
    """The part of the file that is meant; all else is about this part."""
    origin_s: float = 0.0
    """PTS of the whole video's first displayed frame."""
    landing: Landing = field(default_factory=Landing)
    """Where reading the part begins."""


def probe(path: Path, span: Span = WHOLE) -> VideoInfo:
    """Decode the first frame and count the packets of `path`.

    Length and number of frames are those of the packets: damage may leave less once they are decoded. Raises
    `MediaError`, also for a video that has no frame within `span`.
    """
    with open_video(path) as (container, stream):
        first = Playback(container, stream, path)
        frame = next((frame for _, frame in first), None)
        if frame is None:
            raise no_frame(path, stream, first)
    origin_s = first.start_s
    if not span.is_whole:
        with open_video(path) as (container, stream):
            first = Playback(container, stream, path, span, origin_s)
            frame = next((frame for _, frame in first), None)
            if frame is None:
                raise MediaError(
                    f"{path}: expected a picture from {span.start_s:g} s on, got the end of the video; "
                    "choose an earlier start"
                )
            if span.end_s is not None and first.start_s - origin_s > span.end_s - SHORTEST_S:
                raise MediaError(
                    f"{path}: expected a picture between {span.start_s:g} s and {span.end_s:g} s, got none "
                    "shown there; choose a later end"
                )
    with open_video(path) as (container, stream):
        counted = _Count(path, stream, first)
        counted.scan(container, span, origin_s)
        if not counted.n_untimed:
            latest_s = counted.duration_s - (counted.latest_s - counted.start_s)
            check_clock(path, counted.duration_s, latest_s, counted.n_frames)
            check_length(path, counted.duration_s, counted.n_frames)
            return video_info(path, container, stream, counted, frame, span, origin_s)
    with open_video(path) as (container, stream):  # a raw stream tells its times only while it is decoded
        playback = Playback(container, stream, path, span, origin_s)
        for _, latest in playback:
            frame = latest
        return video_info(path, container, stream, playback, frame, span, origin_s)


class _Count:
    """The counters of a `Playback`, from packets alone."""

    def __init__(self, path: Path, stream: VideoStream, first: Playback) -> None:
        self._path = path
        self._stream = stream
        self._tick = tick_of(stream)
        self._first = first
        self._latest = [(first.start_s, Fraction(0))]
        """Time and stated length of the two latest packets."""
        self.start_s = first.start_s
        self.landing = first.landing
        self.n_frames = self.n_skipped = self.n_hidden = self.n_untimed = 0
        self._end_s: Fraction | None = None

    def scan(self, container: InputContainer, span: Span, origin_s: Fraction) -> None:
        """Read every packet of the part."""
        if span.end_s is not None:
            self._end_s = origin_s + Fraction(span.end_s).limit_denominator(1_000_000)
        if span.start_s:
            go(container, self._stream, self.landing)
        for packet in from_key(read_packets(container, self._stream), self._stream, self.landing):
            if packet is None:
                continue
            if packet.pts is None:
                self.n_untimed += 1
                continue
            time_s = packet.pts * self._tick
            if packet.is_discard or (span.start_s and time_s < self.start_s):
                self.n_hidden += 1
            elif self._end_s is None or time_s < self._end_s:
                self.n_frames += 1
                self._note(time_s, max(0, packet.duration or 0) * self._tick)
            elif packet.dts is not None and packet.dts * self._tick >= self._end_s:
                return

    @property
    def latest_s(self) -> Fraction:
        """PTS of the latest packet."""
        return self._latest[-1][0]

    @property
    def duration_s(self) -> Fraction:
        """As `Playback.duration_s`."""
        (time_s, stated_s), step = self._latest[-1], Fraction(0)
        if len(self._latest) > 1:
            before_s, before_stated_s = self._latest[0]
            step = time_s - before_s
            if abs(before_stated_s - step) > self._tick:
                stated_s = Fraction(0)
        end_s = time_s + (stated_s or step or self._first.nominal_s)
        return (end_s if self._end_s is None else min(end_s, self._end_s)) - self.start_s

    def _note(self, time_s: Fraction, stated_s: Fraction) -> None:
        if time_s <= self.start_s:
            self._latest[0] = max(self._latest[0], (self.start_s, stated_s))
        elif time_s > self._latest[0][0]:
            check_clock(self._path, time_s - self.start_s, time_s - self._latest[-1][0], self.n_frames)
            self._latest = sorted([*self._latest, (time_s, stated_s)])[-2:]


def video_info(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    counted: Playback | _Count,
    frame: VideoFrame,
    span: Span,
    origin_s: Fraction,
) -> VideoInfo:
    """The facts of one pass, and of one of its frames."""
    sides = (frame.width, frame.height)
    width, height = sides[::-1] if quarter_turns(frame) % 2 else sides
    return VideoInfo(
        path=path,
        container=container.format.name,
        codec=codec_name(stream),
        width=width,
        height=height,
        rotation_deg=frame.rotation,
        n_frames=counted.n_frames,
        duration_s=float(counted.duration_s),
        start_s=float(counted.start_s),
        average_fps=float(max(1, counted.n_frames) / counted.duration_s),
        has_audio=container.streams.best("audio") is not None,  # a damaged header may leave none to use
        n_skipped_packets=counted.n_skipped,
        n_hidden_packets=counted.n_hidden,
        n_untimed_packets=counted.n_untimed,
        n_subtitles=len(container.streams.subtitles),
        span=span,
        origin_s=float(origin_s),
        landing=counted.landing,
    )


def average_rate(info: VideoInfo) -> Fraction:
    """Frames per second that were seen."""
    return Fraction(info.average_fps).limit_denominator(1001)


def frame_rate(picture: VideoStream, info: VideoInfo) -> Fraction:
    """Frames per second to count by: the header's, which is exact, unless the frames belie it."""
    stated = Fraction(picture.average_rate or 0)  # may be nonsense: a phone's is 90000
    return stated if abs(stated / Fraction(info.average_fps) - 1) < RATE_TOLERANCE else average_rate(info)


def no_frame(path: Path, stream: VideoStream, playback: Playback) -> UnreadableError:
    """The error for a video that shows nothing."""
    return UnreadableError(
        f"{path}: expected a video, got no decodable frame from {codec_name(stream)} "
        f"({playback.n_skipped} damaged packets); check that it plays"
    )


def warnings_about(info: VideoInfo, promised_s: Fraction | None) -> tuple[str, ...]:
    """What the user should know about the file, a sentence each."""
    warnings = []
    if info.n_skipped_packets:
        warnings.append(f"{info.path}: damaged packets skipped: {info.n_skipped_packets}")
    if info.span.is_whole and promised_s is not None and promised_s - info.duration_s > MISSING_S:
        warnings.append(
            f"{info.path}: ends at {info.duration_s:.2f} s, its header promises {float(promised_s):.2f} s; "
            "the sound covers what could be decoded"
        )
    return tuple(warnings)
