"""Streams of packets for one output file: copied as they are with repaired time stamps, or freshly encoded.

Time 0 is the first displayed frame. Every packet yielded has a DTS and belongs to its output stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from taro_rt.engines.contract import Array
from taro_rt.runtime.playback import Playback
from taro_rt.runtime.probe import VideoInfo
from taro_rt.runtime.seeking import from_key, go
from taro_rt.runtime.source import read_packets

TIME_BASE = Fraction(1, 90000)
"""Of pictures that are encoded anew."""
LONGEST_LEAD_S = 10
"""By which a packet may come before it is shown."""
LATEST_S = 1
"""By which subtitles and data may lie behind their picture in the file."""


def copied(
    source: InputContainer, streams: Mapping[Stream, Stream], info: VideoInfo
) -> Iterator[Packet[Stream]]:
    """The packets of every input stream in `streams`, for its output stream, moved back by the start.

    The first stream is the picture; the others are subtitles and data, see `Extras`. A part of a video begins
    with the key frame before it.
    """
    picture = next(iter(streams))
    start_s = Fraction(info.start_s).limit_denominator(1_000_000)
    if info.span.start_s:
        go(source, picture, info.landing)
    # of a damaged picture, what could not be decoded behind its last frame would only freeze players
    has_end = info.span.end_s is not None or info.n_skipped_packets > 0
    end_s = info.duration_s if has_end else None
    ending, times, extras = Ending(end_s), DecodeTimes(), Extras(end_s)
    for packet in from_key(read_packets(source, *streams), picture, info.landing):
        if packet is None:
            continue
        is_picture = packet.stream is picture
        packet.stream = streams[packet.stream]
        _move(packet, -round(start_s / packet.time_base))
        if is_picture and ending.is_over:
            if end_s is not None and (packet.dts or 0) * packet.time_base > end_s + LATEST_S:
                break
        elif is_picture:
            # without a duration, as in MPEG-TS, the last frame would be lost to players
            packet.duration = packet.duration or round(1 / info.average_fps / packet.time_base)
            for each in ending.push(packet):
                yield from times.push(each)
        elif extras.fits(packet):
            yield packet
    yield from times.finish()


class Extras:
    """Time stamps of subtitles and data: those that begin before time 0 or behind the end are left out.

    Of data, what is in force at time 0 begins there.
    """

    def __init__(self, end_s: float | None) -> None:
        self._end_s = end_s
        self._latest: dict[Stream, int] = {}

    def fits(self, packet: Packet[Stream]) -> bool:
        """Whether a packet, moved already, comes along; stamps it for the muxer, which wants order."""
        if packet.pts is None:
            return False
        if packet.stream.type == "data" and packet.pts < 0 < packet.pts + (packet.duration or 0):
            packet.pts, packet.duration = 0, packet.pts + (packet.duration or 0)
        if packet.pts < 0:
            return False
        if self._end_s is not None:
            end = math.ceil(self._end_s / packet.time_base)
            if packet.pts >= end:
                return False
            packet.duration = min(packet.duration or 0, end - packet.pts)
        packet.pts = packet.dts = max(packet.pts, self._latest.get(packet.stream, 0))
        self._latest[packet.stream] = packet.pts
        return True


class Ending:
    """Lets the packets of a picture through up to an end; frames are not in the order they are shown.

    A frame behind the end goes along only if one before it in time follows it in the file and may need it; it
    is shown for a tick, at the very end.
    """

    def __init__(self, end_s: float | None) -> None:
        self._end_s = end_s
        self._behind: list[Packet[Stream]] = []
        self._n_squeezed = 0
        self.is_over = False

    def push(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """The packets that are now known to be needed."""
        if self._end_s is None or packet.pts is None:
            return [packet]
        end = math.ceil(self._end_s / packet.time_base)
        if packet.pts >= end:
            self.is_over = packet.dts is not None and packet.dts >= end
            self._behind.append(packet)
            return []
        packet.duration = min(packet.duration or 0, end - packet.pts)
        needed, self._behind = self._behind, []
        for late in needed:
            late.pts, late.duration = end + self._n_squeezed, 1
            self._n_squeezed += 1
        return [*needed, packet]


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
        # a DTS behind its own PTS, or long before it, is broken and would drag all later packets along
        dts = packet.dts or 0
        if packet.pts is not None:
            most = round(LONGEST_LEAD_S / packet.time_base) if packet.time_base else packet.pts - dts
            dts = max(min(dts, packet.pts), packet.pts - most)
        packet.dts = dts if self._lowest is None else max(dts, self._lowest)
        packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
        self._lowest = packet.dts + 1


def encoded_sound(
    stream: AudioStream, blocks: Iterable[Array], rate_hz: int, layout: str
) -> Iterator[Packet[Stream]]:
    """Blocks [channels, n] in `stream`'s codec; PyAV converts and regroups to the codec's frames."""
    start = 0
    for block in blocks:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(block.clip(-1, 1)), format="fltp", layout=layout)
        frame.sample_rate = rate_hz
        frame.time_base = Fraction(1, rate_hz)
        frame.pts = start
        start += block.shape[1]
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
