"""Opening a video file and reading its packets, whatever state the file is in.

Nothing that a header declares is trusted beyond the limits below. Knows nothing of models and sizes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from taro_rt.engines.errors import MediaError, NoVideoError, OptionsError, UnreadableError

PICTURE_FORMATS = ("image2", "_pipe", "tty")
"""Demuxers that show a picture or a text as a video of one frame."""
LOCAL_PROTOCOLS = "file,crypto,data"
"""What a file may make libav open: a playlist must not reach the network."""
LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Tags that are no UTF-8 are no errors. From PyAV 19 on they never are, and it is told nothing."""
MAX_PIXELS = 1 << 26
"""Of one picture: 8192 x 8192. Larger ones are refused before they are decoded."""
MAX_STREAMS = 256
MAX_FRAMES = 24 * 3600 * 120
"""Displayed frames of a clip: a day at 120 per second."""
LONGEST_S = 24 * 3600
SLOWEST_FPS, SLOW_S = 0.005, 60
"""Of a clip of more than a minute: a frame every 200 s on average, or its time stamps are broken."""
LONGEST_STEP_S = 600
"""Between two frames; a file that claims more has a broken time stamp."""


@dataclass(frozen=True)
class Span:
    """Part of a video, in seconds from its first displayed frame. Raises `OptionsError`."""

    start_s: float = 0.0
    end_s: float | None = None
    """None: to the end of the video."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_s <= LONGEST_S:
            raise OptionsError(f"start: expected 0 to {LONGEST_S} seconds, got {self.start_s:g}")
        if self.end_s is not None and not self.start_s < self.end_s <= LONGEST_S:
            raise OptionsError(
                f"end: expected more than the start ({self.start_s:g} s) and at most {LONGEST_S} s, "
                f"got {self.end_s:g}"
            )

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the video."""
        return self.start_s == 0 and self.end_s is None


WHOLE = Span()


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened file and its picture. Raises `MediaError`, also for what libav refuses within the block."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a name with a zero byte"
        raise MediaError(f"{path}: expected a video file, got {reason}; check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path}: expected a video file, got a folder or device; check the path")
    if status.st_size == 0:
        raise UnreadableError(f"{path}: expected a video file, got an empty file; copy or download it again")
    options = {
        "protocol_whitelist": LOCAL_PROTOCOLS
    }  # of the container: as `options` of PyAV 16, FLV crashes
    try:
        # the absolute path: in "12:30.mp4" libav would take "12" for a protocol
        with av.open(str(path.absolute()), container_options=options, **LENIENT) as container:
            yield container, _picture(container, path)
    except av.FFmpegError as error:
        raise UnreadableError(
            f"{path}: expected a video file, got something unreadable ({error.strerror}); "
            "it is cut off or no video at all: check that it plays"
        ) from error


def codec_name(stream: VideoStream) -> str:
    """The codec's own name ("av1"), whichever decoder serves it ("libdav1d")."""
    return stream.codec_context.codec.canonical_name


def read_packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Stream] | None]:
    """Packets in the file's order up to its end; None stands for a place that cannot be read, or not wholly.

    MPEG-TS is spared the second: it calls packets corrupt that mostly decode.
    """
    may_be_partial = container.format.name == "mpegts"
    failures = 0
    while failures < 2:  # a second failure in a row: nothing more can be read
        try:
            for packet in container.demux(*streams):
                if packet.size or packet.pts is not None:  # the rest are libav's own flush packets
                    failures = 0
                    yield packet if may_be_partial or not packet.is_corrupt else None
            return
        except av.FFmpegError:
            failures += 1
            yield None


def check_sides(path: Path, width: int, height: int) -> None:
    """Raise `MediaError` for a picture beyond `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{path}: expected pictures of at most {MAX_PIXELS} pixels, got {width} x {height}; "
            "shrink the video first"
        )


def quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise quarter turns that set the picture upright."""
    return round(frame.rotation / 90) % 4


def tick_of(stream: Stream) -> Fraction:
    """Seconds of one tick of the stream's time stamps."""
    return Fraction(stream.time_base or 0)


def _picture(container: InputContainer, path: Path) -> VideoStream:
    """The stream to watch: the best one that is not cover art."""
    if len(container.streams) > MAX_STREAMS:
        raise MediaError(
            f"{path}: expected at most {MAX_STREAMS} streams, got {len(container.streams)}; "
            "remux what is needed of it"
        )
    videos = container.streams.video
    pictures = [s for s in videos if not s.disposition & Disposition.attached_pic]
    if not pictures:
        found = "only cover art" if videos else "no video stream"
        sound = " beside the sound" if container.streams.audio else ""
        raise NoVideoError(
            f"{path}: expected a video stream, got {found}{sound}; choose a file with a picture"
        )
    if any(name in container.format.name for name in PICTURE_FORMATS) or any(
        s.disposition & Disposition.still_image for s in pictures
    ):
        raise NoVideoError(f"{path}: expected a video, got a still image; make a clip of it first")
    best = container.streams.best("video")
    stream = best if best in pictures else pictures[0]
    assert isinstance(stream, VideoStream)
    if stream.codec_context is None:
        raise MediaError(
            f"{path}: expected a known video codec, got one without decoder; convert it to H.264"
        )
    check_sides(path, stream.width, stream.height)
    # a stream may grow beyond what its header said: the decoder itself refuses
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream
