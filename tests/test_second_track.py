"""The original sound as a track of its own: just what was heard before, from the first sample on."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from media import SOUND_RATE_HZ, Samples, encode, numbered
from test_uneven_sound import with_sound

from taro_rt.runtime.audio import Audio
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.probe import probe
from taro_rt.runtime.source import Span

FRAMES = numbered(75, 64, 48)


def sweep() -> Samples:
    t = np.arange(3 * SOUND_RATE_HZ) / SOUND_RATE_HZ
    return (0.3 * np.sin(2 * np.pi * 440 * t * (1 + 0.3 * t)))[None].astype(np.float32)


def heard(video: Path, track: int, from_s: float = 0.0) -> Samples:
    """A second of a track's first channel from a time after the first displayed frame on."""
    with av.open(str(video)) as container:
        shown = next(container.decode(video=0))
        start_s = float(shown.pts * shown.time_base) + from_s
    parts, at = [], 0
    with av.open(str(video)) as container:
        for frame in container.decode(audio=track):
            if not parts:
                at = round((float(frame.pts * frame.time_base) - start_s) * SOUND_RATE_HZ)
            values = frame.to_ndarray()
            planes = values if frame.format.is_planar else values.reshape(frame.samples, -1).T
            scale = 1 if planes.dtype.kind == "f" else -float(np.iinfo(planes.dtype).min)
            parts.append(planes[0] / scale)
    line = np.concatenate([np.zeros(max(0, at)), *parts])[max(0, -at) :]
    return line[:SOUND_RATE_HZ].astype(np.float32)


@pytest.mark.parametrize("target", ["out.mp4", "out.mov", "out.mkv"])
@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("aac", "a.mp4"),
        ("aac", "a.mkv"),
        ("libmp3lame", "a.mp4"),
        ("libmp3lame", "a.mkv"),
        ("libopus", "a.mp4"),
        ("libopus", "a.mkv"),
    ],
)
def test_a_second_track_equals_the_original_from_the_first_sample_on(
    tmp_path: Path, codec: str, name: str, target: str
) -> None:
    picture = encode(tmp_path / "p.mp4", FRAMES, gop=12)
    source = with_sound(picture, tmp_path / name, [(0.0, sweep())], codec)
    for span in (Span(), Span(0.96)):
        info, output = probe(source, span), tmp_path / target
        silence = Audio(np.zeros(round(info.duration_s * 16000), np.float32), 16000)
        write_output(info, silence, output, Finish("keep-as-second-track"))
        expected = heard(source, 0, span.start_s)
        # Matroska's time stamps are whole milliseconds, so a sample may lie half of one off
        shifts = range(-48, 49) if ".mkv" in name + target else range(1)
        got = heard(output, 1)
        n = SOUND_RATE_HZ - 48
        errors = [np.abs(got[max(0, k) :][:n] - expected[max(0, -k) :][:n]).max() for k in shifts]
        assert min(errors) < 1e-3, f"{span}: {min(errors)}"
