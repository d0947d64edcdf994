"""Opening a video file and walking through what it displays, whatever state the file is in.

Times are exact: fractions of a second from the first displayed frame, taken from the PTS and never from a
frame number. Knows nothing of models and sizes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from taro_rt.engines.errors import MediaError

PICTURE_FORMATS = ("image2", "_pipe", "tty")
"""Demuxers that show a picture or a text as a video of one frame."""
FALLBACK_STEP = Fraction(1, 25)


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened file and its picture. Raises `MediaError`, also for what libav refuses within the block."""
    try:
        status = path.stat()
    except OSError as error:
        raise MediaError(f"{path}: expected a video file, got {error.strerror}; check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path}: expected a video file, got a folder or device; check the path")
    if status.st_size == 0:
        raise MediaError(f"{path}: expected a video file, got an empty file; copy or download it again")
    try:
        # the absolute path: in "12:30.mp4" libav would take "12" for a protocol
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            yield container, _picture(container, path)
    except av.FFmpegError as error:
        raise MediaError(
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


class Playback:
    """One pass over the displayed frames of a video; iterate once. The counters grow on the way.

    Damaged packets are skipped and counted. Frames keep the decoder's order and times never go back, even
    where the file's PTS do.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self._tick = Fraction(stream.time_base or 0)
        self._read = 0
        self._step = Fraction(0)
        self._states_steps = True
        self.n_frames = 0
        self.n_skipped = 0
        """Packets that could not be read or decoded."""
        self.n_hidden = 0
        """Packets that are decoded but not displayed: the file has an edit list."""
        self.n_untimed = 0
        """Packets without a PTS."""
        self.start_s = Fraction(0)
        """PTS of the first displayed frame, in the file's own time line."""
        self.time_s = Fraction(0)
        """Time of the latest frame."""
        self.stated_s = Fraction(0)
        """How long the latest frame lasts by the file; often a guess of libav's, or 0."""

    def __iter__(self) -> Iterator[tuple[Fraction, VideoFrame]]:
        self._stream.thread_type = "AUTO"
        for frame in self._frames():
            self._advance(frame)
            yield self.time_s, frame

    @property
    def progress(self) -> float:
        """Share of the file that was read, 0 to 1."""
        return min(1.0, self._read / max(1, self._container.size))

    @property
    def duration_s(self) -> Fraction:
        """From the first frame's time to the end of the latest one.

        The latest frame lasts as long as the file states if that was true of the frame before, else as long
        as the frame before.
        """
        stated_s = self.stated_s if self._states_steps else Fraction(0)
        return self.time_s + (stated_s or self._step or self._nominal_step())

    def promised_s(self) -> Fraction | None:
        """The picture's length by the file's header, if it says so: a truncated file has less."""
        if self._stream.duration:
            return self._stream.duration * self._tick
        if self._container.duration and not self._container.streams.audio:
            return Fraction(self._container.duration, av.time_base) - self.start_s
        return None

    def _frames(self) -> Iterator[VideoFrame]:
        for packet in read_packets(self._container, self._stream):
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

    def _advance(self, frame: VideoFrame) -> None:
        before = self.time_s
        if frame.pts is not None:  # in ticks of the stream: flushed frames do not know their time base
            if self.n_frames == 0:
                self.start_s = frame.pts * self._tick
            self.time_s = max(before, frame.pts * self._tick - self.start_s)
        elif self.n_frames > 0:
            self.time_s += self.stated_s or self._nominal_step()
        if self.n_frames > 0:
            self._step = self.time_s - before
            self._states_steps = abs(self.stated_s - self._step) <= self._tick
        self.stated_s = max(0, frame.duration or 0) * self._tick
        self.n_frames += 1

    def _nominal_step(self) -> Fraction:
        rate = self._stream.average_rate
        return 1 / Fraction(rate) if rate else FALLBACK_STEP


def _picture(container: InputContainer, path: Path) -> VideoStream:
    """The stream to watch: the best one that is not cover art."""
    videos = container.streams.video
    pictures = [s for s in videos if not s.disposition & Disposition.attached_pic]
    if not pictures:
        found = "only cover art" if videos else "no video stream"
        sound = " beside the sound" if container.streams.audio else ""
        raise MediaError(f"{path}: expected a video stream, got {found}{sound}; choose a file with a picture")
    if any(name in container.format.name for name in PICTURE_FORMATS) or any(
        s.disposition & Disposition.still_image for s in pictures
    ):
        raise MediaError(f"{path}: expected a video, got a still image; make a clip of it first")
    best = container.streams.best("video")
    stream = best if best in pictures else pictures[0]
    assert isinstance(stream, VideoStream)
    if stream.codec_context is None:
        raise MediaError(
            f"{path}: expected a known video codec, got one without decoder; convert it to H.264"
        )
    return stream
