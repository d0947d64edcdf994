"""The sound as a file gets it: levelled, at the file's rate and layout, with the original if that is kept.

All of it flows in blocks of half a second. Time 0 is the first displayed frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, repeat

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from taro_rt.engines.contract import Array
from taro_rt.runtime.audio import BLOCK_S, Audio
from taro_rt.runtime.dynamics import ducked, limited
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.loudness import CEILING, MAX_GAIN_DB, Meter, level_gain, most_gain
from taro_rt.runtime.probe import VideoInfo
from taro_rt.runtime.seeking import seek_sound
from taro_rt.runtime.source import open_video, read_packets, tick_of

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
LONGEST_GAP_S = 24 * 3600
"""Silence that is put where the original has none; more is a broken time stamp."""
TOLERANCE_S = 0.05
"""A frame may be off its time by this much: containers round, and players do not jump either."""
LEVEL_TOLERANCE, LEVEL_STEP_DB = 0.3, 3.0
"""LU that a limited sound may be quieter than asked for, and by how much more gain is tried then."""
LEAST_RETURN = 0.15
"""LU that a sound must come nearer to its level for each dB that the limiter takes off its peaks for it: else
noise comes up for nothing."""
END: Packet[Stream] = Packet()
"""Stands for the end: what the decoder still holds."""


def finished(audio: Audio, finish: Finish, info: VideoInfo, rate_hz: int, channels: int) -> Iterator[Array]:
    """Blocks [channels, n] of the finished sound, float32 within full scale, as long as `audio`."""
    n_block, n_total = round(BLOCK_S * rate_hz), round(audio.duration_s * rate_hz)
    gain = np.float32(gain_of(audio, finish, min(channels, 2)))
    new = exactly(resampled((block[None] * gain for block in audio.blocks()), audio.rate_hz, rate_hz),
                  n_total, n_block)  # fmt: skip
    front = np.zeros((channels, 1), np.float32)
    front[:2] = 1.0  # of more than two channels, the front pair
    if not (finish.mixes and info.has_audio):
        yield from limited((front * block for block in new), rate_hz)
        return
    with original_sound(info, rate_hz, channels) as sound:
        old = exactly(sound, n_total, n_block)
        both: Iterator[Array] = (np.concatenate(pair) for pair in zip(old, new, strict=True))
        if finish.audio == "duck":
            both = ducked(both, rate_hz)
        yield from limited((block[:-1] + front * block[-1:] for block in both), rate_hz)


def gain_of(audio: Audio, finish: Finish, n_fronts: int) -> float:
    """Factor for the new sound; the same sound from two channels counts as twice as loud (BS.1770)."""
    target = None if finish.loudness is None else finish.loudness - 10 * float(np.log10(n_fronts))
    meter = _measured(audio.blocks(), audio.rate_hz)
    gain = level_gain(meter.loudness(), meter.peak, target)
    if target is not None and gain * meter.peak > CEILING:
        gain = _gain_through_limiter(audio, meter, min(target, meter.loudness() + MAX_GAIN_DB))
    return gain * float(10 ** (finish.gain_db / 20))


def _gain_through_limiter(audio: Audio, meter: Meter, target: float) -> float:
    """Factor whose limited sound comes near to `target`, and that is worth what it limits.

    The limiter takes loudness from short hard sounds, so more gain is tried, step by step: not all of it may
    arrive, and loudness even falls where what lies between them gets loud enough to count.
    """
    first = gain = level_gain(meter.loudness(), meter.peak, target)
    most, step = most_gain(meter.peak), 10 ** (LEVEL_STEP_DB / 20)
    tried: list[tuple[float, float]] = []
    while True:
        off = _limited_loudness(audio, gain) - target
        tried.append((gain, off))
        if off > -LEVEL_TOLERANCE or gain >= most:
            break
        gain = min(gain * step, most)
    if len(tried) > 1 and tried[-1][1] > LEVEL_TOLERANCE:
        (low, below), (high, above) = tried[-2:]
        gain = low * (high / low) ** (below / (below - above))
        tried.append((gain, _limited_loudness(audio, gain) - target))
    return min(tried, key=lambda one: abs(one[1]) + LEAST_RETURN * 20 * math.log10(one[0] / first))[0]


def _limited_loudness(audio: Audio, gain: float) -> float:
    blocks = limited((block[None] * np.float32(gain) for block in audio.blocks()), audio.rate_hz)
    return _measured((block[0] for block in blocks), audio.rate_hz).loudness()


def _measured(blocks: Iterable[Array], rate_hz: int) -> Meter:
    meter = Meter(rate_hz)
    for block in blocks:
        meter.add(block)
    return meter


def resampled(blocks: Iterable[Array], from_hz: int, to_hz: int) -> Iterator[Array]:
    """Mono blocks [1, n] at another rate; about as many as the time they fill needs."""
    if from_hz == to_hz:
        yield from blocks
        return
    resampler, start = AudioResampler(format="fltp", layout="mono", rate=to_hz), 0
    for block in blocks:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = from_hz, Fraction(1, from_hz), start
        start += block.shape[1]
        yield from _arrays(resampler.resample(frame))
    yield from _arrays(resampler.resample(None))


def exactly(blocks: Iterable[Array], n_total: int, n_block: int) -> Iterator[Array]:
    """The same sound in blocks of `n_block`, cut off or filled up with silence at `n_total`."""
    held, n_left, source = None, n_total, iter(blocks)
    while n_left > 0:
        n = min(n_block, n_left)
        while held is None or held.shape[1] < n:
            block = next(source, None)
            if block is None:
                block = np.zeros((1 if held is None else len(held), n), np.float32)
            held = block if held is None else np.concatenate([held, block], axis=1)
        yield held[:, :n]
        held, n_left = held[:, n:], n_left - n


@contextmanager
def original_sound(info: VideoInfo, rate_hz: int, channels: int) -> Iterator[Iterator[Array]]:
    """Blocks [channels, n] of the video's own sound from time 0 on; where it has none, silence."""
    with open_video(info.path) as (container, _):
        stream = container.streams.best("audio")
        assert isinstance(stream, AudioStream)
        if info.span.start_s:
            seek_sound(container, stream, Fraction(info.start_s).limit_denominator(1_000_000))
        frames = _resampled_frames(container, stream, rate_hz, LAYOUTS[channels])
        yield _placed(frames, info.start_s, rate_hz, channels)


def _decoded(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Every frame that can be decoded; the rest is silence later on."""
    for packet in chain(read_packets(container, stream), [END]):
        if packet is None:
            continue
        try:
            yield from stream.decode(None if packet is END else packet)
        except av.FFmpegError:
            continue


def _resampled_frames(
    container: InputContainer, stream: AudioStream, rate_hz: int, layout: str
) -> Iterator[tuple[float | None, Array]]:
    """Time in the file, if known, and samples [channels, n] of every frame; packed or planar, any rate.

    A resampler takes one kind of sound only: where format, layout or rate change, another one takes over.
    """
    resampler, kind = None, None
    for frame in _decoded(container, stream):
        time_s = None if frame.pts is None else float(frame.pts * tick_of(stream))
        frame.pts = None  # the resampler must not move anything: `_placed` does
        try:
            if kind != (kind := (frame.format.name, frame.layout.name, frame.sample_rate)):
                yield from _rest(resampler)
                resampler = AudioResampler(format="fltp", layout=layout, rate=rate_hz)
            assert resampler is not None
            made = list(_arrays(resampler.resample(frame)))
        except (av.FFmpegError, ValueError):  # a kind that cannot be converted: silence later on
            resampler, kind = None, None
            continue
        for samples in made:
            yield time_s, samples
            time_s = None
    yield from _rest(resampler)


def _rest(resampler: AudioResampler | None) -> Iterator[tuple[None, Array]]:
    """What a resampler still holds; nothing if it never had a frame, which it would not survive."""
    if resampler is not None:
        for samples in _arrays(resampler.resample(None)):
            yield None, samples


def _placed(
    frames: Iterator[tuple[float | None, Array]], start_s: float, rate_hz: int, channels: int
) -> Iterator[Array]:
    """Every frame at its time: silence before a late one, a cut for what comes again or lies before 0."""
    n_done, tolerance = 0, round(TOLERANCE_S * rate_hz)
    for time_s, samples in frames:
        place = n_done if time_s is None else round((time_s - start_s) * rate_hz)
        if place > n_done + tolerance or (n_done == 0 and place > 0):
            for n in _portions(min(place - n_done, LONGEST_GAP_S * rate_hz), rate_hz):
                yield np.zeros((channels, n), np.float32)
            n_done = place
        elif place < n_done - tolerance or (n_done == 0 and place < 0):
            samples = samples[:, n_done - place :]
        n_done += samples.shape[1]
        if samples.shape[1]:
            yield samples


def _portions(n: int, most: int) -> Iterator[int]:
    yield from repeat(most, n // most)
    yield n % most


def _arrays(frames: Iterable[AudioFrame]) -> Iterator[Array]:
    for frame in frames:
        yield frame.to_ndarray().astype(np.float32, copy=False)
