"""Kinds of video that break other tools, from the file to the file: read whole, and the sound in its place.

Rows that need more than that have tests of their own: test_clip, test_mux, test_original_sound, test_span.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import burst, burst_time, encode, numbered, numbers, read_sound, video_frames

from taro_rt.engines.stages import Geometry
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.plan import default_output
from taro_rt.runtime.probe import probe

SMALL = Geometry(onset_resize=16, onset_crop=16, visual_size=100, resize="fast")
RATE_HZ = 16000
BURST_S = 0.7
FRAMES = numbered(50)

Maker = Callable[[Path], Path]


def anamorphic(folder: Path) -> Path:
    source = encode(folder / "square.mp4", FRAMES)
    with av.open(str(source)) as container, av.open(str(folder / "a.mp4"), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream("libx264", rate=25)
        copy.width, copy.height, copy.pix_fmt = 160, 96, "yuv420p"
        copy.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for frame in container.decode(stream):
            out.mux(copy.encode(frame))
        out.mux(copy.encode(None))
    return folder / "a.mp4"


def interlaced(folder: Path) -> Path:
    """MPEG-2 in a program stream: fields, and a start that is not 0."""
    path = folder / "a.mpg"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for k, pixels in enumerate(FRAMES):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


ROWS: dict[str, Maker] = {
    "b-frames in avi": lambda d: encode(d / "a.avi", FRAMES, b_frames=2, time_base=Fraction(1, 25)),
    "flv": lambda d: encode(d / "a.flv", FRAMES, time_base=Fraction(1, 1000)),
    "transport stream": lambda d: encode(d / "a.ts", FRAMES, b_frames=2),
    "240 fps": lambda d: encode(d / "a.mp4", numbered(480), fps=240),
    "10 bit": lambda d: encode(d / "a.mkv", FRAMES, codec="libx265", pix_fmt="yuv420p10le"),
    "4:2:2": lambda d: encode(d / "a.mkv", FRAMES, pix_fmt="yuv422p"),
    "4:4:4": lambda d: encode(d / "a.mkv", FRAMES, pix_fmt="yuv444p"),
    "odd sides": lambda d: encode(d / "a.mkv", numbered(50, 161, 97), pix_fmt="yuv444p"),
    "alpha": lambda d: encode(d / "a.webm", FRAMES, codec="libvpx-vp9", pix_fmt="yuva420p"),
    "anamorphic": anamorphic,
    "interlaced": interlaced,
}


@pytest.mark.parametrize("row", ROWS)
def test_it_is_read_whole_and_its_sound_is_in_its_place(tmp_path: Path, row: str) -> None:
    source = ROWS[row](tmp_path)
    clip, found = Clip.read(source, SMALL), probe(source)
    n = clip.info.n_frames
    assert clip.warnings == () and clip.duration_s == pytest.approx(2.0, abs=0.05)
    assert (found.n_frames, found.duration_s) == (n, pytest.approx(clip.duration_s, abs=0.05))
    shown = numbers(clip.visual_frames)
    assert shown == sorted(shown) and shown[0] in (2, 3, 30, 29) and len(shown) == 8

    target = default_output(source)
    sound = burst(clip.duration_s, BURST_S, RATE_HZ)
    write_output(clip.info, Audio(sound, RATE_HZ), target, Finish(loudness=None))
    after = video_frames(target)
    start_s, samples, rate_hz = read_sound(target)
    assert start_s + burst_time(samples, rate_hz) - float(after[0][0]) == pytest.approx(BURST_S, abs=0.001)
    before = video_frames(source)
    assert len(after) == len(before) == n
    assert all(np.array_equal(a[2], b[2]) for a, b in zip(after, before, strict=True)), (
        "the picture is copied"
    )


def test_a_single_pixel_is_a_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", np.full((5, 1, 1, 3), 200, np.uint8), codec="ffv1", pix_fmt="yuv444p")
    clip = Clip.read(path, SMALL)
    assert clip.info.n_frames == 5 and abs(int(clip.visual_frames[0, 0, 0, 0]) - 200) < 6


def test_the_shape_of_its_pixels_survives(tmp_path: Path) -> None:
    info = probe(anamorphic(tmp_path))
    write_output(info, Audio(np.zeros(32000, np.float32), RATE_HZ), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as out:
        assert out.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_the_colours_of_hdr_survive(tmp_path: Path, name: str) -> None:
    with av.open(str(tmp_path / "hdr.mkv"), "w") as out:
        stream = out.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p10le"
        colours = stream.codec_context
        colours.color_primaries, colours.color_trc, colours.colorspace = 9, 16, 9  # BT.2020, PQ
        for k, pixels in enumerate(FRAMES[:10]):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p10le")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    info = probe(tmp_path / "hdr.mkv")
    write_output(info, Audio(np.zeros(6400, np.float32), RATE_HZ), tmp_path / name)
    with av.open(str(tmp_path / name)) as out:
        kept = out.streams.video[0].codec_context
        assert (kept.color_primaries, kept.color_trc, kept.colorspace) == (9, 16, 9)


@pytest.mark.parametrize("seconds", [0.04, 0.4, 1.0])
def test_a_clip_below_a_second_has_a_sound_of_its_length(tmp_path: Path, seconds: float) -> None:
    info = probe(encode(tmp_path / "a.mp4", FRAMES[: round(seconds * 25)]))
    write_output(info, Audio(np.zeros(round(seconds * RATE_HZ), np.float32), RATE_HZ), tmp_path / "o.wav")
    assert len(read_sound(tmp_path / "o.wav")[1]) == round(seconds * RATE_HZ)


def test_a_huge_declared_rate_is_ignored(tmp_path: Path) -> None:
    """Frames at uneven times make libav guess a rate of 90000 or so."""
    times = np.cumsum([0, *np.tile([0.0333, 0.1667, 0.0511], 17)])[:50]
    path = encode(tmp_path / "phone.mp4", FRAMES, list(times))
    with av.open(str(path)) as container:
        assert container.streams.video[0].guessed_rate != container.streams.video[0].average_rate
    assert probe(path).average_fps == pytest.approx(50 / probe(path).duration_s)
    assert probe(path).duration_s == pytest.approx(Clip.read(path, SMALL).duration_s)


def test_a_long_still_passage_is_held_once(tmp_path: Path) -> None:
    from taro_rt.runtime.clip import open_reel

    path = encode(tmp_path / "a.mp4", FRAMES[:3], [0, 500, 500.1])
    with open_reel(probe(path), SMALL) as reel:
        reel.finish()
        assert len({id(frame) for frame in reel._onset._slots}) <= 3
        assert reel._onset.n_settled > 7000


def test_a_raw_stream_is_as_long_at_every_look(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.h264", numbered(14, 64, 48), time_base=Fraction(1, 25))
    assert {probe(path).duration_s for _ in range(40)} == {0.56}  # a freed header was read: not at every look
