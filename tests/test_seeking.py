"""Parts of files whose format lands between key frames when it is searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media import burst, burst_time, encode, numbered, numbers, read_sound, video_frames

from taro_rt.engines.stages import Geometry
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.probe import probe
from taro_rt.runtime.source import Span

SMALL = Geometry(onset_resize=16, onset_crop=16, visual_size=100, resize="fast")
FRAMES = numbered(200)
SPANS = [Span(0.96), Span(1.0, 3.0), Span(4.3, 6.5), Span(7.0)]


@pytest.fixture(scope="module", params=[0, 2], ids=["plain", "b-frames"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same 8 s as mp4 and as MPEG-TS, key frames every half second, a click at 5 s."""
    folder, sound = tmp_path_factory.mktemp("videos"), burst(8.0, 5.0)
    mp4, ts = (
        encode(folder / name, FRAMES, b_frames=request.param, gop=12, sound=sound)
        for name in ("a.mp4", "a.ts")
    )
    return mp4, ts


def shown(video: Path, span: Span, target: Path) -> tuple[list[int], list[float]]:
    """Numbers and times of the frames that the output shows within its length."""
    info = probe(video, span)
    silence = Audio(np.zeros(round(info.duration_s * 16000), np.float32), 16000)
    write_output(info, silence, target, Finish("mix", loudness=None))
    frames = [f for f in video_frames(target) if float(f[0]) < info.duration_s - 0.001]
    return numbers(np.stack([pixels for _, _, pixels in frames])), [float(pts) for pts, _, _ in frames]


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_a_part_of_a_transport_stream_shows_the_same_frames_as_of_mp4(
    pair: tuple[Path, Path], tmp_path: Path, span: Span
) -> None:
    (expected, times), (got, got_times) = (shown(v, span, tmp_path / f"{v.suffix}.mp4") for v in pair)
    assert got == expected and got[0] == round(span.start_s * 25 + 0.499)
    assert got_times == pytest.approx(times, abs=1e-4) and got_times[0] == 0


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_a_part_of_a_transport_stream_is_read_and_counted_as_of_mp4(
    pair: tuple[Path, Path], span: Span
) -> None:
    mp4, ts = (Clip.read(video, SMALL, span=span) for video in pair)
    assert numbers(ts.visual_frames) == numbers(mp4.visual_frames)
    for found in (ts.info, probe(pair[1], span)):
        assert (found.n_frames, found.n_skipped_packets) == (mp4.info.n_frames, 0)
        assert found.duration_s == pytest.approx(mp4.info.duration_s, abs=1e-4)


def test_the_sound_of_a_part_of_a_transport_stream_is_in_its_place(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    shown(pair[1], Span(4.3, 6.5), tmp_path / "out.mp4")
    start_s, samples, rate_hz = read_sound(tmp_path / "out.mp4")
    assert start_s == 0
    assert start_s + burst_time(samples, rate_hz) == pytest.approx(0.68, abs=0.001)
