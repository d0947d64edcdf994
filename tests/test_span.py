"""A part of a video: what is read of it, and what the file made of it shows."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest
from media import burst, burst_time, encode, numbered, numbers, read_sound, video_frames, video_packets

from taro_rt.engines.errors import MediaError, OptionsError
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.clip import Clip, open_reel
from taro_rt.runtime.finish import Finish, Keeping
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.plan import plan_output
from taro_rt.runtime.probe import probe
from taro_rt.runtime.source import Span

SMALL = Geometry(onset_resize=16, onset_crop=16, visual_size=100, resize="fast")
FRAMES = numbered(200)
FPS = 25


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 s, key frames every 2 s, B-frames, starting at 0.6 s in its own time, with a sound of its own."""
    times = [0.6 + k / FPS for k in range(200)]
    path = tmp_path_factory.mktemp("videos") / "a.mp4"
    return encode(path, FRAMES, times, b_frames=2, gop=50, sound=burst(8.6, 0.6 + 4.0))


@pytest.mark.parametrize(
    ("start_s", "end_s", "first", "last"),
    [(0, 3.0, 0, 74), (3.0, 5.0, 75, 124), (2.99, 4.01, 75, 100), (6.0, None, 150, 199), (7.9, 60, 198, 199)],
)
def test_a_part_is_the_frames_from_its_start_up_to_its_end(
    video: Path, start_s: float, end_s: float | None, first: int, last: int
) -> None:
    span = Span(start_s, end_s)
    clip, found = Clip.read(video, SMALL, span=span), probe(video, span)
    assert clip.info.n_frames == last - first + 1
    assert clip.info.start_s == pytest.approx(0.6 + first / FPS)
    stop_s = min(8.0, math.inf if end_s is None else end_s)
    assert clip.duration_s == pytest.approx(stop_s - first / FPS, abs=1e-4)
    assert (found.start_s, found.duration_s) == pytest.approx((clip.info.start_s, clip.duration_s), abs=1e-4)
    assert numbers(clip.visual_frames)[0] == min(first + 3, last)


def test_a_reel_shows_of_a_part_what_a_clip_holds_and_forgets_what_is_behind(video: Path) -> None:
    span = Span(1.5, 7.5)
    clip = Clip.read(video, SMALL, span=span)
    with open_reel(probe(video, span), SMALL) as reel:
        for offset in (0, 30, 60):
            assert np.array_equal(reel.onset_part(offset, 30), clip.onset_frames[offset : offset + 30])
        assert len(reel._onset._slots) < 60
        assert np.array_equal(reel.visual_part(8, 40), clip.visual_frames[8:48])
        assert np.array_equal(reel.visual_part(400, 3), clip.visual_frames[-1:])
        info, warnings = reel.finish()
    assert info == clip.info and warnings == clip.warnings == ()


@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 3.0), (2.5, 5.28), (6.2, None)])
def test_the_file_of_a_part_shows_just_its_frames_untouched_and_in_sync(
    video: Path, tmp_path: Path, name: str, start_s: float, end_s: float | None
) -> None:
    info = Clip.read(video, SMALL, span=Span(start_s, end_s)).info
    write_output(
        info, Audio(burst(info.duration_s, 0.4, 16000), 16000), tmp_path / name, Finish(loudness=None)
    )
    first, n = round(start_s * FPS + 0.4999), info.n_frames
    shown = video_frames(tmp_path / name)
    whole = {round((float(pts) - 0.6) * FPS): pixels for pts, _, pixels in video_frames(video)}
    kept = [frame for frame in shown if float(frame[0] - shown[0][0]) < info.duration_s - 0.001]
    assert len(kept) == n and len(shown) <= n + 2
    assert float(shown[-1][0] - shown[0][0]) < info.duration_s + 0.001, "what follows is shown for a tick"
    assert all(np.array_equal(pixels, whole[first + k]) for k, (_, _, pixels) in enumerate(kept))
    assert [float(t - kept[0][0]) for t, _, _ in kept] == pytest.approx([k / FPS for k in range(n)], abs=1e-4)
    start, samples, rate_hz = read_sound(tmp_path / name)
    assert start + burst_time(samples, rate_hz) - float(shown[0][0]) == pytest.approx(0.4, abs=0.001)
    packets, originals = video_packets(tmp_path / name), video_packets(video)
    assert {data for _, data in packets} <= {data for _, data in originals}
    assert len(packets) <= n + 50 + 3, "no more than the group of pictures before the part is copied"


def test_the_original_sound_of_a_part_comes_from_that_part(video: Path, tmp_path: Path) -> None:
    info = Clip.read(video, SMALL, span=Span(3.0, 6.0)).info
    silence = Audio(np.zeros(round(info.duration_s * 16000), np.float32), 16000)
    for name in ("out.wav", "out.mp4"):
        write_output(info, silence, tmp_path / name, Finish("mix"))
        start_s, samples, rate_hz = read_sound(tmp_path / name)
        assert start_s + burst_time(samples, rate_hz) == pytest.approx(1.0, abs=0.001)
    write_output(info, silence, tmp_path / "two.mp4", Finish("keep-as-second-track"))
    with av.open(str(tmp_path / "two.mp4")) as container:
        parts = [(f.pts * f.time_base, f.to_ndarray()[0]) for f in container.decode(audio=1)]
    heard_s = float(parts[0][0]) + burst_time(np.concatenate([part for _, part in parts]), 48000)
    assert heard_s - float(video_frames(tmp_path / "two.mp4")[0][0]) == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize("audio", ["replace", "mix"])
@pytest.mark.parametrize(
    ("name", "start_s"), [("out.wav", 2.77), ("out.mp4", 2.77), ("out.mov", 2.77), ("out.mkv", 2.0)]
)
def test_a_click_of_a_part_is_found_at_its_time_less_the_start(
    video: Path, tmp_path: Path, name: str, start_s: float, audio: Keeping
) -> None:
    span, click_s = Span(start_s, 6.5), 4.0  # the original clicks there, too
    info = probe(video, span)
    new = burst(info.duration_s, click_s - start_s, 16000) * (audio == "replace")
    write_output(info, Audio(new, 16000), tmp_path / name, Finish(audio, loudness=None))
    begun_s, samples, rate_hz = read_sound(tmp_path / name)
    shown_s = 0.0 if name == "out.wav" else float(video_frames(tmp_path / name)[0][0])
    # the part begins with the first frame from its start on
    expected_s = click_s - start_s if audio == "replace" else click_s - math.ceil(start_s * FPS) / FPS
    assert begun_s + burst_time(samples, rate_hz) - shown_s == pytest.approx(expected_s, abs=0.001)


def test_a_part_within_a_group_of_pictures_needs_a_container_with_edit_lists(
    video: Path, tmp_path: Path
) -> None:
    with pytest.raises(MediaError, match=r"lie before the part asked for; write \.mp4"):
        plan_output(probe(video, Span(3.0, 5.0)), tmp_path / "out.mkv")
    plan_output(probe(video, Span(4.0, 5.0)), tmp_path / "out.mkv")


def test_a_part_beyond_the_end_is_refused(video: Path) -> None:
    with pytest.raises(MediaError, match="from 9 s on, got the end of the video; choose an earlier start"):
        probe(video, Span(9.0))


@pytest.mark.parametrize(("start_s", "end_s"), [(3.005, 3.01), (3.005, 3.0401), (0, 1e-7)])
def test_a_part_between_two_frames_is_refused(video: Path, start_s: float, end_s: float) -> None:
    with pytest.raises(MediaError, match="got none shown there; choose a later end"):
        probe(video, Span(start_s, end_s))


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(-1, None), (2, 2), (3, 1), (float("nan"), None), (0, float("nan"))]
)
def test_a_span_that_is_none_is_refused(start_s: float, end_s: float | None) -> None:
    with pytest.raises(OptionsError, match=r"start|end"):
        Span(start_s, end_s)
