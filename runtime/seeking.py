"""Going to a place within a file, wherever its format really lands: MPEG-TS lands between key frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from taro_rt.runtime.source import read_packets, tick_of

STEPS_BACK_S = (0, 2, 10, 60)
"""By which is searched before a place if what was asked for lands too late, before the file is read whole."""
PREROLL_S = Fraction(1, 2)
"""Of sound that is decoded, and in mp4 hidden, before a place: codecs need it to be right there."""


@dataclass(frozen=True)
class Landing:
    """A place in a file: where to seek to, and the key frame from which on packets are of use."""

    seek: int | None = None
    """In ticks of the stream; None: the beginning of the file."""
    key: int | None = None
    """PTS of the key frame; None: the first packet."""


def land(container: InputContainer, stream: Stream, time_s: Fraction) -> Landing:
    """Where to begin for a picture that is right at `time_s`: the last key frame at or before it.

    The container stands there afterwards.
    """
    target = int(time_s / tick_of(stream))
    for seek in _attempts(container, stream, target):
        key = _last_key(container, stream, target)
        if key is not None:
            landing = Landing(seek, key)
            break
    else:
        landing = Landing()
    go(container, stream, landing)
    return landing


def go(container: InputContainer, stream: Stream, landing: Landing) -> None:
    """Seek to a place that was found in another opening of the same file."""
    if landing.seek is None:
        container.seek(0)
    else:
        container.seek(landing.seek, stream=stream, backward=True)


def from_key(
    packets: Iterable[Packet[Stream] | None], stream: Stream, landing: Landing
) -> Iterator[Packet[Stream] | None]:
    """The packets without those of `stream` before the key frame: they need others that were not read."""
    is_there = landing.key is None
    for packet in packets:
        if packet is not None and packet.stream is stream and not is_there:
            is_there = packet.is_keyframe and packet.pts == landing.key
        if is_there or (packet is not None and packet.stream is not stream):
            yield packet


def seek_sound(container: InputContainer, stream: Stream, time_s: Fraction) -> None:
    """Go to a packet of sound far enough before `time_s`, or to the beginning of the file."""
    target = int((time_s - PREROLL_S) / tick_of(stream))
    for seek in _attempts(container, stream, target):
        first = next(
            (p for p in read_packets(container, stream) if p is not None and p.pts is not None), None
        )
        if first is not None and first.pts is not None and first.pts <= target:
            container.seek(seek, stream=stream, backward=True)
            return
    container.seek(0)


def _attempts(container: InputContainer, stream: Stream, target: int) -> Iterator[int]:
    """Places at and before `target`, each after the container went there."""
    for back_s in STEPS_BACK_S:
        seek = target - round(back_s / tick_of(stream))
        try:
            container.seek(seek, stream=stream, backward=True)
        except (av.FFmpegError, OverflowError):  # the file cannot be searched, or not so early
            continue
        yield seek


def _last_key(container: InputContainer, stream: Stream, target: int) -> int | None:
    """PTS of the last key frame up to `target`, reading on from here."""
    key = None
    for packet in read_packets(container, stream):
        if packet is None or packet.pts is None:
            continue
        if packet.is_keyframe and packet.pts <= target:
            key = packet.pts
        if (packet.pts if packet.dts is None else packet.dts) > target:
            break
    return key
