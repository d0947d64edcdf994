"""Real test videos: `encode` and its kin write them, the rest measures what came of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

TIME_BASE = Fraction(1, 90000)
SOUND_RATE_HZ = 48000
N_BITS = 10
"""Bars of a numbered frame: its number in binary, first bit left, in the upper half."""

Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]
Packets = list[tuple[Fraction, bytes]]


def numbered(n: int, width: int = 160, height: int = 96) -> Pixels:
    """Frames [n, height, width, 3] that carry their own number, readable after coding and scaling."""
    bits = np.arange(n)[:, None] >> np.arange(N_BITS) & 1  # [n, bits]
    columns = np.arange(width) * N_BITS // width
    frames = np.full((n, height, width, 3), 64, np.uint8)
    frames[:, : height // 2] = (bits[:, columns] * 255).astype(np.uint8)[:, None, :, None]
    return frames


def numbers(frames: Pixels) -> list[int]:
    """The numbers of `numbered` frames [n, h, w, 3] of any size."""
    _, height, width, _ = frames.shape
    columns = ((np.arange(N_BITS) + 0.5) * width / N_BITS).astype(int)
    bits = frames[:, height // 4, columns, 1] > 127  # [n, bits]
    return [int(row @ (1 << np.arange(N_BITS))) for row in bits.astype(int)]


def chosen(times: Sequence[Fraction], duration_s: Fraction, rate_hz: int) -> list[int]:
    """Frame selection of spec B2 by its definition: slot k shows the last frame before its middle."""
    n_slots = max(1, int(duration_s * rate_hz + Fraction(1, 2)))
    middles = [Fraction(2 * k + 1, 2 * rate_hz) for k in range(n_slots)]
    return [max(j for j, t in enumerate(times) if t < middle) for middle in middles]


def burst(duration_s: float, at_s: float, rate_hz: int = SOUND_RATE_HZ) -> Samples:
    """Silence with 5 ms of a 2 kHz tone under a Hann window, centred on `at_s`."""
    t = np.arange(round(duration_s * rate_hz)) / rate_hz - at_s
    window = np.where(np.abs(t) < 0.0025, 0.5 + 0.5 * np.cos(2 * np.pi * t / 0.005), 0)
    return (0.9 * window * np.cos(2 * np.pi * 2000 * t)).astype(np.float32)


def burst_time(samples: Samples, rate_hz: int) -> float:
    """Centre of the loudest 20 ms, weighted by energy, in seconds."""
    energy = samples.astype(np.float64) ** 2
    peak = int(np.argmax(energy))
    near = np.arange(max(0, peak - rate_hz // 100), min(len(energy), peak + rate_hz // 100))
    return float((near * energy[near]).sum() / energy[near].sum() / rate_hz)


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """The calling thread is scheduled as before when the block ends.

    SVT-AV1 run by root makes it a real-time one, and all threads it starts later: one that computes then
    keeps the others from hearing anything.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def encode(
    path: Path,
    frames: Pixels,
    times: Sequence[float] | None = None,
    *,
    fps: float = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    b_frames: int = 0,
    gop: int = 12,
    time_base: Fraction = TIME_BASE,
    sound: Samples | None = None,
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write uint8 RGB frames [n, h, w, 3], each shown from its time on; without `times` at `fps` from 0.

    The suffix chooses the container; `sound` [n] at 48 kHz starts at 0, as AAC or, in mkv and webm, as Opus;
    `options` go to the muxer.
    """
    if times is None:
        times = [k / fps for k in range(len(frames))]
    with ordinary_scheduling(), av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(metadata or {})
        video = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = time_base
        video.codec_context.max_b_frames = b_frames
        video.codec_context.gop_size = gop
        video.codec_context.thread_count = 1
        if codec == "libx264":
            video.options = {"preset": "veryfast", "bf": str(b_frames), "b-adapt": "0"}
        elif codec.startswith("libvpx"):
            video.options = {"deadline": "realtime", "cpu-used": "8"}
        packets = []
        for pixels, time_s in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.time_base, frame.pts = time_base, round(Fraction(time_s) / time_base)
            frame.duration = round(1 / Fraction(fps) / time_base)
            packets += video.encode(frame)
        packets += video.encode(None)
        if sound is not None:
            packets += _encoded(container, sound)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def encode_sound(path: Path, samples: Samples, cover: Path | None = None) -> Path:
    """A sound file (.m4a), with a picture file as cover art if given."""
    with av.open(str(path), "w", format="mp4") as container:
        packets = _encoded(container, samples)
        if cover is not None:
            packets += _cover(container, cover)
        for packet in packets:
            container.mux(packet)
    return path


def remux(
    source: Path,
    target: Path,
    *,
    shift_s: float = 0.0,
    cover: Path | None = None,
    subtitles: Path | None = None,
) -> Path:
    """Copy the picture's packets of an mp4, moved by `shift_s`, beside cover art or subtitles.

    A negative shift in mp4 hides what then lies before 0 behind an edit list: a cut made without encoding.
    """
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        extra = _cover(out, cover) if cover is not None else []
        extra += _subtitles(out, subtitles) if subtitles is not None else []
        for packet in extra:
            out.mux(packet)
        for packet in container.demux(stream):
            if packet.size:
                ticks = round(Fraction(shift_s) / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = copy
                out.mux(packet)
    return target


def with_data(picture: Path, target: Path, codec: str, first_s: float = 0.0) -> Path:
    """The picture of an mp4 with a stream of data: a packet every 0.3 s that ends with its own number.

    Raises ValueError where PyAV knows no such data: before 16.1 none.
    """
    with av.open(str(picture)) as container, av.open(str(target), "w") as out:
        copy = out.add_stream_from_template(container.streams.video[0])
        data = out.add_data_stream(codec)
        packets = [p for p in container.demux(video=0) if p.size]
        for packet in packets:
            packet.stream = copy
        for k in range(13):
            packet = av.Packet(b"telemetry %02d" % k)
            packet.time_base, packet.stream = Fraction(1, 1000), data
            packet.pts = packet.dts = round(1000 * first_s) + 300 * k
            packet.duration = 300
            packets.append(packet)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return target


def copy_picture(
    container: av.container.InputContainer, out: av.container.OutputContainer, stream: av.VideoStream
) -> None:
    """All packets of the first picture, as they are, into `stream` of `out`."""
    for packet in container.demux(video=0):
        if packet.size:
            packet.stream = stream
            out.mux(packet)


def turn(path: Path, quarter_turns: int) -> Path:
    """Make an mp4 ask its player for a counter-clockwise turn, by the matrix in its track header."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # version 0: 40 bytes of times, ids and layers
    one, minus = b"\0\1\0\0", b"\xff\xff\0\0"
    zero = bytes(4)
    a, b = {0: (one, zero), 1: (zero, minus), 2: (minus, zero), 3: (zero, one)}[quarter_turns % 4]
    c = {one: minus, minus: one, zero: zero}[b]
    data[start : start + 20] = a + b + zero + c + a
    path.write_bytes(data)
    return path


def video_packets(path: Path) -> Packets:
    """PTS in seconds and bytes of the picture's packets, in the file's order."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size]


def video_frames(path: Path) -> list[tuple[Fraction, int, Pixels]]:
    """PTS in seconds, rotation and pixels of every displayed frame."""
    with av.open(str(path)) as container:
        return [
            (f.pts * Fraction(f.time_base), f.rotation, f.to_ndarray(format="rgb24"))
            for f in container.decode(video=0)
        ]


def read_sound(path: Path) -> tuple[float, Samples, int]:
    """PTS of the first sample, the samples (first channel) and their rate."""
    parts, start_s, rate_hz = [], None, 0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            if start_s is None:
                start_s, rate_hz = float(frame.pts * frame.time_base), frame.sample_rate
            values = frame.to_ndarray()
            planes = values if frame.format.is_planar else values.reshape(frame.samples, -1).T
            parts.append(planes[0])
    assert start_s is not None, f"{path}: no sound"
    return start_s, np.concatenate(parts).astype(np.float32), rate_hz


def _encoded(container: av.container.OutputContainer, samples: Samples) -> list[av.Packet]:
    opus = container.format.name in ("matroska", "webm")
    stream = container.add_stream("libopus" if opus else "aac", rate=SOUND_RATE_HZ, layout="mono")
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = SOUND_RATE_HZ, 0
    return [*stream.encode(frame), *stream.encode(None)]


def _subtitles(container: av.container.OutputContainer, srt: Path) -> list[av.Packet]:
    with av.open(str(srt)) as text:
        source = text.streams.subtitles[0]
        stream = container.add_stream_from_template(source)
        packets = [p for p in text.demux(source) if p.size]
    for packet in packets:
        packet.stream = stream
    return packets


def _cover(container: av.container.OutputContainer, picture: Path) -> list[av.Packet]:
    with av.open(str(picture)) as art:
        frame = next(art.decode(video=0))
    frame = frame.reformat(format="yuvj420p")
    stream = container.add_stream("mjpeg", rate=1, width=frame.width, height=frame.height)
    stream.pix_fmt = "yuvj420p"
    stream.disposition = av.stream.Disposition.attached_pic.value
    frame.pts = 0
    return [*stream.encode(frame), *stream.encode(None)]
