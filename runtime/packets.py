"""Streams of packets for one output file: copied as they are with repaired time stamps, or freshly encoded.

Time 0 is the first displayed frame. Every packet yielded has a DTS and belongs to its output stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from taro_rt.runtime.audio import Audio
from taro_rt.runtime.playback import Playback
from taro_rt.runtime.probe import VideoInfo
from taro_rt.runtime.source import read_packets

TIME_BASE = Fraction(1, 90000)
"""Of pictures that are encoded anew."""


def copied(
    source: InputContainer, streams: Mapping[Stream, Stream], info: VideoInfo
) -> Iterator[Packet[Stream]]:
    """The packets of every input stream in `streams`, for its output stream, moved back by the start.

    The first stream is the picture; the others are subtitles, of which those before time 0 are left out.
    """
    picture = next(iter(streams))
    times = DecodeTimes()
    for packet in read_packets(source, *streams):
        if packet is None:
            continue
        is_picture = packet.stream is picture
        packet.stream = streams[packet.stream]
        _move(packet, -round(info.start_s / packet.time_base))
        if is_picture:
            # without a duration, as in MPEG-TS, the last frame would be lost to players
            packet.duration = packet.duration or round(1 / info.average_fps / packet.time_base)
            yield from times.push(packet)
        elif packet.pts is not None and packet.pts >= 0:
            packet.dts = packet.pts
            yield packet
    yield from times.finish()


class DecodeTimes:
    """Makes a stream's time stamps fit for a muxer: every DTS known, strictly rising, never after its PTS.

    Matroska stores no DTS and libav works it out only after some packets; to drop those would lose the first
    key frame. They are held, and their DTS filled backwards from the first known one.
    """

    def __init__(self) -> None:
        self._waiting: list[Packet[Stream]] = []
        self._lowest: int | None = None

    def push(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """The packets that are ready now, in order."""
        if self._lowest is None and packet.dts is None:
            self._waiting.append(packet)
            return []
        ready = [*self._filled(packet.dts or 0), packet]
        for each in ready:
            self._stamp(each)
        return ready

    def finish(self) -> list[Packet[Stream]]:
        """The packets of a stream whose DTS never became known."""
        return self._filled(min((p.pts for p in self._waiting if p.pts is not None), default=0))

    def _filled(self, next_dts: int) -> list[Packet[Stream]]:
        filled, self._waiting = self._waiting, []
        for packet in reversed(filled):
            next_dts -= packet.duration or 1
            packet.dts = next_dts
        return filled

    def _stamp(self, packet: Packet[Stream]) -> None:
        known = [t for t in (packet.dts, self._lowest) if t is not None]
        packet.dts = max(known)
        packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
        self._lowest = packet.dts + 1


def encoded_sound(stream: AudioStream, audio: Audio) -> Iterator[Packet[Stream]]:
    """`audio` in `stream`'s codec; PyAV resamples and regroups to the codec's frames."""
    start = 0
    for block in audio.blocks():
        frame = AudioFrame.from_ndarray(block[None].clip(-1, 1), format="fltp", layout="mono")  # [1, n]
        frame.sample_rate = audio.rate_hz
        frame.time_base = Fraction(1, audio.rate_hz)
        frame.pts = start
        start += len(block)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def encoded_picture(
    source: InputContainer, picture: VideoStream, stream: VideoStream, info: VideoInfo
) -> Iterator[Packet[Stream]]:
    """The displayed frames in `stream`'s codec and size, at their own times."""
    latest = -1
    playback = Playback(
        source, picture, info.path, info.span, Fraction(info.origin_s).limit_denominator(1_000_000)
    )
    for time_s, frame in playback:
        pts = round(time_s / TIME_BASE)
        if pts <= latest:  # shown for no time at all
            continue
        latest = pts
        made = frame.reformat(stream.width, stream.height, stream.pix_fmt)
        made.time_base, made.pts = TIME_BASE, pts
        made.duration = round(playback.stated_s / TIME_BASE)
        made.pict_type = 0
        yield from stream.encode(made)
    yield from stream.encode(None)


def _move(packet: Packet[Stream], ticks: int) -> None:
    if packet.pts is not None:
        packet.pts += ticks
    if packet.dts is not None:
        packet.dts += ticks
