"""Sounds of videos that change midway or whose time stamps overlap."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import SOUND_RATE_HZ, Samples, burst_time, copy_picture, encode, numbered

from taro_rt.runtime.mixing import TOLERANCE_S, original_sound
from taro_rt.runtime.probe import probe

FRAMES = numbered(50, 64, 48)


def with_sound(
    source: Path, target: Path, parts: Sequence[tuple[float, Samples]], codec: str, layout: str = "mono"
) -> Path:
    """The picture of `source` beside samples [channels, n], each part from its time on."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        copy = out.add_stream_from_template(container.streams.video[0])
        sound = out.add_stream(codec, rate=SOUND_RATE_HZ, layout=layout)
        packets = []
        for start_s, samples in parts:
            if codec in ("ac3", "aac"):
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            else:  # PyAV converts to what the codec takes
                whole = np.ascontiguousarray((samples.T.reshape(1, -1) * 32767).astype(np.int16))
                frame = av.AudioFrame.from_ndarray(whole, format="s16", layout=layout)
            frame.sample_rate, frame.time_base = SOUND_RATE_HZ, Fraction(1, SOUND_RATE_HZ)
            frame.pts = round(start_s * SOUND_RATE_HZ)
            packets += sound.encode(frame)
        packets += sound.encode(None)
        for packet in packets:
            out.mux(packet)
        copy_picture(container, out, copy)
    return target


def heard(video: Path, channels: int) -> Samples:
    with original_sound(probe(video), SOUND_RATE_HZ, channels) as blocks:
        return np.concatenate(list(blocks), axis=1)


def tones(channels: int, seconds: float = 2.0) -> Samples:
    t = np.arange(round(seconds * SOUND_RATE_HZ)) / SOUND_RATE_HZ
    return np.tile(0.2 * np.sin(2 * np.pi * 440 * t), (channels, 1)).astype(np.float32)


def test_a_sound_that_changes_from_stereo_to_surround_is_heard_to_its_end(tmp_path: Path) -> None:
    parts = []
    for k, layout in enumerate(("stereo", "5.1")):
        times = [2 * k + n / 25 for n in range(50)]
        picture = encode(tmp_path / f"{k}.mp4", FRAMES, times)
        channels = 2 if layout == "stereo" else 6
        sound = [(2.0 * k, tones(channels))]
        parts.append(with_sound(picture, tmp_path / f"{k}.ts", sound, "ac3", layout).read_bytes())
    video = tmp_path / "both.ts"
    video.write_bytes(b"".join(parts))
    samples = heard(video, 2)
    assert samples.shape[1] == pytest.approx(4 * SOUND_RATE_HZ, abs=0.1 * SOUND_RATE_HZ)
    levels = [np.abs(samples[0, round(t * SOUND_RATE_HZ) :][:4800]).max() for t in (0.5, 1.5, 2.5, 3.5)]
    assert min(levels) > 0.1


def test_sound_that_comes_twice_by_its_time_stamps_is_cut_so_that_the_rest_is_in_time(tmp_path: Path) -> None:
    click = np.zeros((1, 4800), np.float32)
    click[0, 4500:4700] = 0.6
    silence = np.zeros((1, 4800), np.float32)
    blocks = [(0.08 * k, click if k == 15 else silence) for k in range(20)]  # of 0.1 s each
    video = with_sound(encode(tmp_path / "a.mp4", FRAMES), tmp_path / "overlap.mkv", blocks, "pcm_s16le")
    assert burst_time(heard(video, 1)[0], SOUND_RATE_HZ) == pytest.approx(1.2 + 4600 / 48000, abs=TOLERANCE_S)
