"""Reading videos, with real files that the tests encode."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
from media import chosen, encode, numbered, numbers, remux, turn, video_frames

from taro_rt.engines.errors import Cancelled
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.resize import Fast, resize_bytes, resize_floats

SMALL = Geometry(onset_resize=80, onset_crop=72, visual_size=100, resize="fast")
FRAMES = numbered(75)


def check_picks(clip: Clip, path: Path) -> None:
    """The clip shows what the definition says for the PTS that another pass over the file finds."""
    stamps = [pts for pts, _, _ in video_frames(path)]
    shown = numbers(np.stack([pixels for _, _, pixels in video_frames(path)]))
    times, duration_s = [t - stamps[0] for t in stamps], Fraction(clip.duration_s).limit_denominator(90000)
    for frames, rate_hz in ((clip.onset_frames, SMALL.onset_fps), (clip.visual_frames, SMALL.visual_fps)):
        assert numbers(frames) == [shown[j] for j in chosen(times, duration_s, rate_hz)]


@pytest.mark.parametrize("fps", [10, 24000 / 1001, 25, 30, 50])
def test_reads_steady_videos_of_any_rate(tmp_path: Path, fps: float) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES, fps=fps, b_frames=2)
    clip = Clip.read(path, SMALL)
    check_picks(clip, path)
    assert clip.info.n_frames == 75
    assert clip.duration_s == pytest.approx(75 / fps, abs=1e-4)
    assert clip.info.average_fps == pytest.approx(fps, rel=1e-3)
    assert clip.warnings == ()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_times_frames_of_a_variable_rate_by_their_stamps(tmp_path: Path, name: str) -> None:
    times = np.cumsum([0, *np.tile([0.02, 0.05, 0.1, 0.3], 19)])[:75]
    path = encode(tmp_path / name, FRAMES, list(times), b_frames=2)
    clip = Clip.read(path, SMALL)
    check_picks(clip, path)
    last_step_s = times[-1] - times[-2]  # the durations that such files state belong to other frames
    assert clip.duration_s == pytest.approx(times[-1] + last_step_s, abs=0.001)


def test_a_last_frame_that_is_held_counts_in_full(tmp_path: Path) -> None:
    """As screen recorders write it: the file states a long last frame, and short ones truly before it."""
    source = encode(tmp_path / "a.mp4", FRAMES[:10])
    path = tmp_path / "held.mp4"
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in [p for p in container.demux(video=0) if p.size]:
            packet.stream = stream
            if packet.pts * packet.time_base > 0.35:
                packet.duration = round(2 / packet.time_base)
            out.mux(packet)
    assert Clip.read(path, SMALL).duration_s == pytest.approx(0.36 + 2)


def test_time_starts_at_the_first_displayed_frame(tmp_path: Path) -> None:
    times = [1.075 + k / 25 for k in range(75)]
    path = encode(tmp_path / "late.mp4", FRAMES, times, b_frames=2)
    clip = Clip.read(path, SMALL)
    assert clip.info.start_s == pytest.approx(1.075)
    assert clip.duration_s == pytest.approx(3.0)
    assert numbers(clip.visual_frames)[:4] == [3, 9, 15, 21]


def test_what_an_edit_list_hides_is_not_seen(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", FRAMES, b_frames=2, gop=50)
    path = remux(whole, tmp_path / "cut.mp4", shift_s=-0.8)
    clip = Clip.read(path, SMALL)
    assert clip.info.n_hidden_packets > 0
    assert clip.info.n_frames == 55
    assert numbers(clip.visual_frames)[:3] == [23, 29, 35]
    assert clip.duration_s == pytest.approx(2.2)


@pytest.mark.parametrize("resize", ["fast", "released"])
@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_rotated_videos_are_seen_upright(
    tmp_path: Path, quarter_turns: int, resize: Literal["fast", "released"]
) -> None:
    stored = np.rot90(FRAMES[:30], -quarter_turns, axes=(1, 2))
    path = turn(encode(tmp_path / "phone.mp4", stored), quarter_turns)
    clip = Clip.read(path, replace(SMALL, resize=resize))
    assert numbers(clip.visual_frames) == [3, 9, 15, 21, 28]
    assert (clip.info.width, clip.info.height) == (160, 96)
    assert clip.info.rotation_deg % 360 == 90 * quarter_turns


def test_stamps_that_go_back_do_not_reorder_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "b.avi", FRAMES, b_frames=2, time_base=Fraction(1, 25))
    stamps = [pts for pts, _, _ in video_frames(path)]
    assert stamps != sorted(stamps), "the file does not have the fault that this test is about"
    clip = Clip.read(path, SMALL)
    shown = numbers(clip.onset_frames)
    assert shown == sorted(shown)
    assert clip.duration_s == pytest.approx(3.0, abs=0.1)


def test_one_frame_is_a_clip(tmp_path: Path) -> None:
    clip = Clip.read(encode(tmp_path / "one.mp4", FRAMES[5:6]), SMALL)
    assert (numbers(clip.onset_frames), numbers(clip.visual_frames)) == ([5], [5])
    assert clip.duration_s == pytest.approx(0.04)


def test_the_length_is_found_where_the_header_does_not_say_it(tmp_path: Path) -> None:
    path = encode(tmp_path / "live.webm", FRAMES, codec="libvpx", options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    assert Clip.read(path, SMALL).duration_s == pytest.approx(3.0, abs=0.002)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "time_base"),
    [
        ("a.webm", "libvpx-vp9", "yuva420p", Fraction(1, 1000)),
        ("a.mov", "prores_ks", "yuv422p10le", Fraction(1, 90000)),
        ("a.ts", "libx264", "yuv420p", Fraction(1, 90000)),
        ("a.h264", "libx264", "yuv420p", Fraction(1, 25)),
        ("a.mkv", "ffv1", "yuv444p", Fraction(1, 1000)),
    ],
)
def test_reads_other_containers_and_pixels(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, time_base: Fraction
) -> None:
    path = encode(tmp_path / name, FRAMES[:40], codec=codec, pix_fmt=pix_fmt, time_base=time_base)
    clip = Clip.read(path, SMALL)
    assert numbers(clip.visual_frames) == [3, 9, 15, 21, 28, 34]
    assert clip.duration_s == pytest.approx(1.6)


def test_an_animated_gif_is_a_video(tmp_path: Path) -> None:
    frames = np.repeat(np.array([0, 80, 160, 240], np.uint8), 5)[:, None, None, None] * np.ones(
        (1, 33, 47, 3), np.uint8
    )
    path = encode(tmp_path / "a.gif", frames, codec="gif", pix_fmt="gray", fps=10, time_base=Fraction(1, 100))
    clip = Clip.read(path, SMALL)
    assert clip.duration_s == pytest.approx(2.0)
    assert clip.onset_frames[::15, 0, 0, 0].tolist() == pytest.approx([0, 160], abs=3)


@pytest.mark.parametrize("resize", ["fast", "released"])
def test_scales_like_the_triangle_filter_of_the_model(
    tmp_path: Path, resize: Literal["fast", "released"]
) -> None:
    y, x = np.mgrid[:240, :320]
    tones, edges = np.sin(x / 3 + y / 7), np.sign(np.sin(x / 17))
    waves = [128 + 60 * tones + 40 * edges * np.sign(np.sin(y / a)) for a in (3, 5, 9)]
    frames = np.clip(np.stack(waves, -1), 0, 255).astype(np.uint8)[None]
    path = encode(tmp_path / "a.mkv", frames, codec="ffv1")
    with av.open(str(path)) as container:
        source = full_chroma(next(container.decode(video=0)))
    clip = Clip.read(path, replace(SMALL, resize=resize))
    for got, n in ((clip.onset_frames[0], SMALL.onset_resize), (clip.visual_frames[0], SMALL.visual_size)):
        want = np.stack([triangle(240, n) @ source[..., c] @ triangle(320, n).T for c in range(3)], -1)
        assert np.abs(got - want).mean() < 1.5, "grey levels of 255"


def test_released_frames_are_shrunk_with_the_released_arithmetic_exactly(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", FRAMES[:1], codec="ffv1")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        whole = frame.reformat(format="rgb24", interpolation=Fast.FILTER).to_ndarray()
    clip = Clip.read(path, replace(SMALL, resize="released"))
    np.testing.assert_array_equal(clip.visual_frames[0], resize_bytes(whole, 100, 100))
    np.testing.assert_array_equal(clip.onset_frames[0], resize_floats(whole, 80, 80))


@pytest.mark.parametrize("shape", [(720, 1280), (97, 61), (30, 20), (1, 1), (3, 2000)])
def test_released_bytes_are_those_of_whole_numbers(shape: tuple[int, int]) -> None:
    """Sums of bytes with 22-bit weights, rounded after each pass, horizontal first (spec B2)."""
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    frame[:, ::7], frame[::5] = 255, 0
    rows, columns = (np.floor(0.5 + triangle(n, 56) * 2**22).astype(np.int64) for n in shape)
    narrow = np.einsum("xw,hwc->hxc", columns, frame.astype(np.int64)) + 2**21 >> 22
    want = np.einsum("yh,hxc->yxc", rows, narrow) + 2**21 >> 22
    np.testing.assert_array_equal(resize_bytes(frame, 56, 56), want)


@pytest.mark.parametrize("shape", [(720, 1280), (97, 61), (30, 20), (1, 1)])
def test_released_floats_are_the_weighted_sums(shape: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    want = np.einsum("yh,xw,hwc->yxc", triangle(shape[0], 48), triangle(shape[1], 48), frame, optimize=True)
    np.testing.assert_allclose(resize_floats(frame, 48, 48), want, rtol=0, atol=1e-4)


def full_chroma(frame: av.VideoFrame) -> np.ndarray:
    """RGB at the frame's own size, with colours interpolated to full resolution."""
    bicubic, full_chroma, accurate = 0x4, 0x2000, 0x40000
    return frame.reformat(format="rgb24", interpolation=bicubic | full_chroma | accurate).to_ndarray() * 1.0


def triangle(n_in: int, n_out: int) -> np.ndarray:
    """Weights [n_out, n_in] of the antialiased triangle filter."""
    scale = n_in / n_out
    centres = (np.arange(n_out)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(n_in) + 0.5 - centres) / max(scale, 1))
    return weights / weights.sum(1, keepdims=True)


def test_a_cut_off_file_gives_what_is_there_and_a_warning(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    clip = Clip.read(path, SMALL)
    assert 10 < clip.info.n_frames < 70
    assert len(clip.visual_frames) == int(clip.duration_s * 4 + 0.5)
    assert any("its header promises 3.00 s" in warning for warning in clip.warnings)


def test_damage_in_the_middle_is_skipped_counted_and_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 800] = bytes(37 * k % 251 for k in range(800))
    path.write_bytes(data)
    clip = Clip.read(path, SMALL)
    assert clip.info.n_skipped_packets > 0
    assert clip.warnings == (f"{path}: damaged packets skipped: {clip.info.n_skipped_packets}",)
    assert clip.duration_s == pytest.approx(3.0)
    assert len(clip.onset_frames) == 45
    assert capfd.readouterr() == ("", "")


def test_cover_art_is_not_the_picture(tmp_path: Path) -> None:
    art = encode(tmp_path / "art.png", 255 - FRAMES[:1], codec="png", pix_fmt="rgb24")
    source = encode(tmp_path / "a.mp4", FRAMES)
    clip = Clip.read(remux(source, tmp_path / "with_art.mp4", cover=art), SMALL)
    assert numbers(clip.visual_frames)[:3] == [3, 9, 15]
    assert clip.info.codec == "h264"


def test_tags_in_an_old_encoding_do_no_harm(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES[:3], metadata={"title": "ABCDEFGH"})
    path.write_bytes(path.read_bytes().replace(b"ABCDEFGH", b"\xe9t\xe9 2007"))
    assert Clip.read(path, SMALL).info.n_frames == 3


def test_names_with_colons_blanks_and_percent_signs_are_only_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = encode(tmp_path / "a.mp4", FRAMES[:3])
    source.rename(tmp_path / "12:30 été %03d.mp4")
    assert Clip.read("12:30 été %03d.mp4", SMALL).info.n_frames == 3


def test_progress_rises_to_one_and_can_stop_the_reading(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", FRAMES)
    seen: list[float] = []

    def watch(stage: str, fraction: float) -> None:
        assert stage == "read"
        seen.append(fraction)

    def stop(stage: str, fraction: float) -> bool:
        return fraction < 0.5

    Clip.read(path, SMALL, watch)
    assert seen == sorted(seen)
    assert 0.3 < seen[len(seen) // 2] < 1 == seen[-1]
    with pytest.raises(Cancelled):
        Clip.read(path, SMALL, stop)
