"""Clips made of frames in memory, and of open files."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import chosen, encode, numbered, numbers

from taro_rt.engines.errors import Cancelled, MediaError, OptionsError, UnreadableError
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.frames import FrameRoll
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline

SMALL = Geometry(onset_resize=80, onset_crop=72, visual_size=100, resize="fast")
FRAMES = numbered(75)
QUICK = Options(steps=2)


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Iterator[Pipeline]:
    with Pipeline.load(tiny_bundle, backend="onnxruntime", threads=1) as loaded:
        yield loaded


@pytest.mark.parametrize("resize", ["fast", "released"])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(60)])
def test_frames_in_memory_give_the_clip_of_a_file_that_holds_them(
    tmp_path: Path, fps: Fraction, resize: Any
) -> None:
    """The file is lossless RGB. 30 and 60 per second put frames right on the middles of slots."""
    geometry, step = replace(SMALL, resize=resize), 1 / fps
    ticks = {"time_base": step, "codec": "qtrle", "pix_fmt": "rgb24"}
    path = encode(tmp_path / "a.mov", FRAMES, [k * step for k in range(75)], fps=float(fps), **ticks)
    file = Clip.read(path, geometry)
    made = Clip.from_frames(FRAMES, [12.5 + float(k * step) for k in range(75)], geometry)
    assert np.array_equal(made.onset_frames, file.onset_frames)
    assert np.array_equal(made.visual_frames, file.visual_frames)
    assert made.duration_s == pytest.approx(file.duration_s, abs=1e-6)
    assert (made.info.width, made.info.height, made.info.n_frames) == (160, 96, 75)


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=40), st.integers(90, 40_000))
def test_every_slot_shows_the_last_frame_before_its_middle(steps: list[int], last: int) -> None:
    times = [Fraction(int(t), 90000) for t in np.cumsum([0, *steps])]
    end = times[-1] + Fraction(last, 90000)
    frames = numbered(len(times), 20, 8)
    clip = Clip.from_frames(frames, [float(t) for t in times], SMALL, float(end))
    for seen, rate in ((clip.onset_frames, SMALL.onset_fps), (clip.visual_frames, SMALL.visual_fps)):
        assert numbers(seen) == chosen(times, end, rate)


def test_a_generator_of_frames_of_several_sizes_is_a_clip() -> None:
    sizes = [(96, 160), (50, 70), (33, 31)]
    frames = (np.full((*size, 3), 80 * k, np.uint8) for k, size in enumerate(sizes))
    clip = Clip.from_frames(frames, [0, 0.25, 0.5], SMALL)
    assert [int(frame.mean()) for frame in clip.visual_frames] == [0, 80, 160]
    assert clip.duration_s == 0.75


def test_frames_that_are_a_view_of_others_are_seen_as_they_are() -> None:
    turned = np.ascontiguousarray(FRAMES[:, ::-1, :, ::-1])[:, ::-1, :, ::-1]
    made, plain = (Clip.from_frames(frames, np.arange(75) / 25, SMALL) for frames in (turned, FRAMES))
    assert np.array_equal(made.onset_frames, plain.onset_frames)


def test_a_single_frame_lasts_as_long_as_it_is_said_to() -> None:
    assert Clip.from_frames(FRAMES[:1], [3.0], SMALL).duration_s == pytest.approx(0.04)
    assert Clip.from_frames(FRAMES[:1], [3.0], SMALL, duration_s=2.5).duration_s == 2.5


BAD_FRAMES = {
    "grey": (np.zeros((2, 8, 8), np.uint8), r"uint8 \[height, width, 3\], got uint8 \[8, 8\] as frame 0"),
    "alpha": (np.zeros((2, 8, 8, 4), np.uint8), r"got uint8 \[8, 8, 4\]"),
    "floats": (np.zeros((2, 8, 8, 3)), r"got float64 \[8, 8, 3\]"),
    "one frame": (np.zeros((8, 8, 3), np.uint8)[:2], r"got uint8 \[8, 3\]"),
    "no height": (np.zeros((2, 0, 8, 3), np.uint8), r"got uint8 \[0, 8, 3\]"),
    "lists": ([[[0]], [[0]]], "got list as frame 0"),
    "too few": (np.zeros((1, 8, 8, 3), np.uint8), "one for each of 2 times, got 1"),
    "too many": (np.zeros((3, 8, 8, 3), np.uint8), "one for each of 2 times, got more"),
    "later odd": ([np.zeros((8, 8, 3), np.uint8), None], "one for each of 2 times, got 1"),
}


@pytest.mark.parametrize(("frames", "fault"), BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_frames_that_do_not_fit_are_refused(frames: Any, fault: str) -> None:
    with pytest.raises(OptionsError, match=fault):
        Clip.from_frames(frames, [0.0, 0.1], SMALL)


@pytest.mark.parametrize(
    ("times", "duration_s", "fault"),
    [
        ([], None, r"seconds \[n >= 1\], one for each frame, got \[0\]"),
        ([[0.0]], None, r"got \[1, 1\]"),
        (["soon"], None, "times_s: expected seconds, a number"),
        ([0.0, float("nan")], None, "finite seconds, got nan for frame 1"),
        ([0.0, float("inf")], None, "finite seconds, got inf for frame 1"),
        ([0.0, 0.2, 0.1], None, r"do not go back, got 0\.1 s after 0\.2 s \(frame 2\); sort"),
        ([0.0, 1.0], 1.0, "duration_s: expected more than the 1 s"),
        ([0.0, 1.0], float("nan"), "duration_s: .*got nan"),
        ([0.0, 1.0], float("inf"), "duration_s: .*got inf"),
        ([0.0, 1.0], "2", "duration_s: .*got '2'"),
    ],
)
def test_times_that_are_none_are_refused(times: Any, duration_s: Any, fault: str) -> None:
    with pytest.raises(OptionsError, match=fault):
        FrameRoll(times, duration_s)


@pytest.mark.parametrize(
    ("times", "fault"),
    [
        ([0.0, 700.0], "frames: expected at most 600 s between two frames"),
        ([0.0, 1e-5], r"frames: expected at least 0\.001 s of picture"),
        (list(np.arange(0, 3700, 100.0)), "frames: expected at most 3600 s of picture in memory"),
    ],
)
def test_times_that_no_file_may_have_are_refused(times: list[float], fault: str) -> None:
    with pytest.raises(MediaError, match=fault):
        Clip.from_frames(numbered(len(times), 20, 8), times, SMALL)


def test_a_picture_beyond_the_limit_is_refused_before_it_is_copied() -> None:
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (10_000, 10_000, 3))
    with pytest.raises(MediaError, match="pixels, got 10000 x 10000"):
        Clip.from_frames([huge], [0.0], SMALL)


def test_taking_frames_in_tells_its_progress_and_can_be_stopped() -> None:
    said: list[float] = []

    def until_half(stage: str, fraction: float) -> bool:
        said.append(fraction)
        return stage == "read" and fraction < 0.5

    with pytest.raises(Cancelled):
        Clip.from_frames(FRAMES, np.arange(75) / 25, SMALL, progress=until_half)
    assert said == sorted(said) and said[0] == 0 and said[-1] >= 0.5


def test_a_sound_made_for_frames_is_written_as_a_wav(pipeline: Pipeline, tmp_path: Path) -> None:
    clip = Clip.from_frames(FRAMES, np.arange(75) / 25, pipeline.geometry)
    write_output(clip.info, pipeline.generate(clip, QUICK).audio, tmp_path / "a.wav")
    assert (tmp_path / "a.wav").stat().st_size == 44 + 2 * 48000


class Pipe(io.RawIOBase):
    """Bytes that come a few at a time and never twice."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        some, self._rest = self._rest[:777], self._rest[777:]
        return some


@pytest.mark.parametrize("kind", ["file", "memory", "pipe"])
def test_an_open_file_gives_what_its_path_gives(pipeline: Pipeline, encoded: Path, kind: str) -> None:
    expected = pipeline.generate(encoded, QUICK)
    before = set(Path(tempfile.gettempdir()).glob("taro-rt-*"))
    with encoded.open("rb") as file:
        source: Any = {"file": file, "memory": io.BytesIO(file.read()), "pipe": Pipe(encoded.read_bytes())}
        file.seek(0)
        result = pipeline.generate(source[kind], QUICK)
        assert not source[kind].closed
    assert np.array_equal(result.audio.samples, expected.audio.samples) and result.onsets == expected.onsets
    assert set(Path(tempfile.gettempdir()).glob("taro-rt-*")) == before


def test_onsets_and_clips_take_open_files_too(pipeline: Pipeline, encoded: Path) -> None:
    curve, _ = pipeline.onsets(encoded)
    assert np.array_equal(pipeline.onsets(io.BytesIO(encoded.read_bytes()))[0], curve)
    clip = Clip.read(io.BytesIO(encoded.read_bytes()), pipeline.geometry)
    assert np.array_equal(clip.onset_frames, Clip.read(encoded, pipeline.geometry).onset_frames)


@pytest.mark.parametrize(
    ("source", "kind", "fault"),
    [
        (io.BytesIO(), UnreadableError, r"no bytes left; go to its beginning: seek\(0\)"),
        (io.BytesIO(b"no video at all"), UnreadableError, "something unreadable"),
        (io.StringIO("text"), OptionsError, "one that reads str; open it with 'rb'"),
        ([1, 2], OptionsError, "expected a path, a file opened with 'rb' or a Clip.*got list"),
        (None, OptionsError, "got NoneType"),
        (np.zeros((2, 8, 8, 3), np.uint8), OptionsError, "Clip.from_frames.*got ndarray"),
    ],
    ids=["empty", "no video", "text", "list", "none", "array"],
)
def test_what_is_no_video_is_refused(
    pipeline: Pipeline, source: Any, kind: type[Exception], fault: str
) -> None:
    with pytest.raises(kind, match=fault):
        pipeline.generate(source, QUICK)


class Endless(io.RawIOBase):
    """A camera that nobody turns off."""

    def read(self, size: int = -1) -> bytes:
        return bytes(1000)


def test_copying_an_endless_file_can_be_stopped(pipeline: Pipeline) -> None:
    answers = iter([True] * 3)
    with pytest.raises(Cancelled, match="read"):
        pipeline.generate(Endless(), QUICK, lambda *_: next(answers, False))  # type: ignore[arg-type]
