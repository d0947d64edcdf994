"""Telemetry and timecode beside the picture: kept where the container really carries them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media import encode, numbered, video_frames, with_data

from taro_rt.engines.errors import MediaError
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.plan import MAKES_TIMECODE, plan_output
from taro_rt.runtime.probe import probe
from taro_rt.runtime.source import Span
from taro_rt.runtime.timecode import later

FRAMES = numbered(100)


def beside(picture: Path, target: Path, codec: str, first_s: float = 0.0) -> Path:
    """`with_data`, where this PyAV can make it."""
    try:
        return with_data(picture, target, codec, first_s)
    except ValueError:
        pytest.skip(f"PyAV {av.__version__} makes no stream of {codec}")


def written(source: Path, target: Path, span: Span | None = None) -> Path:
    info = probe(source, span or Span())
    write_output(info, Audio(np.zeros(round(info.duration_s * 16000), np.float32), 16000), target)
    return target


def telemetry(path: Path) -> list[tuple[float, int]]:
    """Time from the first displayed frame, and number, of every packet of data."""
    first_s = video_frames(path)[0][0]
    with av.open(str(path)) as container:
        (data,) = container.streams.data
        assert data.name == "bin_data"
        packets = [p for p in container.demux(data) if p.size]
    return [(float(p.pts * p.time_base - first_s), int(bytes(p)[-2:])) for p in packets]


@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
def test_telemetry_stays_in_its_place(tmp_path: Path, name: str) -> None:
    times = [0.6 + k / 25 for k in range(100)]
    picture = encode(tmp_path / "p.mp4", FRAMES, times, b_frames=2)
    source = beside(picture, tmp_path / "a.mp4", "bin_data", 0.6)
    target = written(source, tmp_path / name)
    assert telemetry(target) == [(pytest.approx(0.3 * k, abs=1e-3), k) for k in range(13)]
    assert plan_output(probe(source), target).notices == ()


@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
def test_a_part_has_the_telemetry_of_that_part(tmp_path: Path, name: str) -> None:
    source = beside(encode(tmp_path / "p.mp4", FRAMES, b_frames=2), tmp_path / "a.mp4", "bin_data")
    got = telemetry(written(source, tmp_path / name, Span(1.0, 3.0)))
    expected = [(max(0.0, 0.3 * k - 1.0), k) for k in range(3, 10)]  # what is in force at 1 s begins there
    assert got == [(pytest.approx(time_s, abs=1e-3), k) for time_s, k in expected]
    with av.open(str(tmp_path / name)) as out:
        assert float(out.duration / av.time_base) == pytest.approx(2.0, abs=0.03)


@pytest.mark.parametrize(
    ("codec", "made", "name"),
    [("bin_data", "a.mp4", "out.mkv"), ("klv", "a.ts", "out.mp4"), ("klv", "a.ts", "out.mov")],
)
def test_data_that_the_container_cannot_carry_is_announced(
    tmp_path: Path, codec: str, made: str, name: str
) -> None:
    source = beside(encode(tmp_path / "p.mp4", FRAMES), tmp_path / made, codec)
    target = written(source, tmp_path / name)
    assert plan_output(probe(source), target).notices == (f"{target}: data streams left out: 1",)
    with av.open(str(target)) as out:
        assert not out.streams.data


def test_data_of_a_kind_that_nobody_could_read_again_is_announced(tmp_path: Path) -> None:
    source = beside(encode(tmp_path / "p.mp4", FRAMES), tmp_path / "a.mp4", "bin_data")
    source.write_bytes(source.read_bytes().replace(b"gpmd", b"mebx"))
    for name in ("out.mp4", "out.mov"):
        target = written(source, tmp_path / name)
        assert plan_output(probe(source), target).notices == (f"{target}: data streams left out: 1",)


def clocked(folder: Path, timecode: str) -> Path:
    """100 frames with a timecode track."""
    source = folder / "clock.mov"
    with av.open(str(encode(folder / "p.mp4", FRAMES))) as container, av.open(str(source), "w") as out:
        copy = out.add_stream_from_template(container.streams.video[0], opaque=True)
        copy.codec_context.framerate = 25
        copy.metadata["timecode"] = timecode
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    with av.open(str(source)) as container:
        if not container.streams.data:
            pytest.skip(f"PyAV {av.__version__} makes no timecode track")
    return source


@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
@pytest.mark.parametrize(("span", "expected"), [(Span(), "01:00:00:20"), (Span(1.4, 3.0), "01:00:02:05")])
def test_a_timecode_track_tells_the_time_of_the_first_frame(
    tmp_path: Path, name: str, span: Span, expected: str
) -> None:
    source = clocked(tmp_path, "01:00:00:20")
    target = written(source, tmp_path / name, span)
    assert plan_output(probe(source), target).notices == ()
    with av.open(str(target)) as out:
        (clock,) = out.streams.data
        assert clock.metadata["timecode"] == out.streams.video[0].metadata["timecode"] == expected


def test_a_timecode_is_a_tag_in_matroska(tmp_path: Path) -> None:
    source = clocked(tmp_path, "01:00:00:20")
    target = written(source, tmp_path / "out.mkv")
    assert plan_output(probe(source), target).notices == ()
    with av.open(str(target)) as out:
        assert out.streams.video[0].metadata["TIMECODE"] == "01:00:00:20"


def test_a_timecode_that_makes_no_sense_is_no_fault(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mkv", FRAMES, metadata={"timecode": "noon"})
    for span in (Span(), Span(1.0)):
        try:
            written(source, tmp_path / "out.mp4", span)
        except MediaError as error:
            pytest.fail(str(error))


@pytest.mark.parametrize(
    ("timecode", "seconds", "rate", "expected"),
    [
        ("00:00:59:24", 0.04, Fraction(25), "00:01:00:00"),
        ("23:59:59:29", Fraction(1, 30), Fraction(30), "00:00:00:00"),
        ("00:00:59;29", 0.0334, Fraction(30000, 1001), "00:01:00;02"),
        ("00:09:59;29", 0.0334, Fraction(30000, 1001), "00:10:00;00"),
        ("00:00:00;00", 3600, Fraction(30000, 1001), "01:00:00;00"),
        ("00:00:59;59", 0.0167, Fraction(60000, 1001), "00:01:00;04"),
        ("23:59:59;29", 0.0334, Fraction(30000, 1001), "00:00:00;00"),
        ("01:02:03:04", 0, Fraction(24000, 1001), "01:02:03:04"),
        ("noon", 1, Fraction(25), None),
    ],
)
def test_a_timecode_goes_on(timecode: str, seconds: float, rate: Fraction, expected: str | None) -> None:
    assert later(timecode, seconds, rate) == expected


def test_every_frame_has_its_own_timecode() -> None:
    rate = Fraction(30000, 1001)
    labels = [later("00:00:00;00", float(k / rate), rate) for k in range(20 * 1800)]
    assert len(set(labels)) == len(labels)
    assert all(label and later(label, float(1 / rate), rate) == after for label, after in pairwise(labels))


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("states_rate", [True, False])
@pytest.mark.parametrize(("span", "expected"), [(Span(), "01:00:00:20"), (Span(1.92), "01:00:02:18")])
def test_a_timecode_comes_back_from_matroska(
    tmp_path: Path, states_rate: bool, whole: bool, name: str, span: Span, expected: str
) -> None:
    """Be it a tag of the picture or of the file; a part begins at a key frame, so that mkv can carry it."""
    source, picture = tmp_path / "a.mkv", encode(tmp_path / "p.mp4", FRAMES)
    with av.open(str(picture)) as container, av.open(str(source), "w") as out:
        copy = out.add_stream_from_template(container.streams.video[0], opaque=True)
        if states_rate:  # else this file claims 90000 frames per second
            copy.codec_context.framerate = 25
        (out if whole else copy).metadata["timecode"] = "01:00:00:20"
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    target = written(source, tmp_path / name, span)
    with av.open(str(target)) as out:
        found = [*out.metadata.items(), *out.streams.video[0].metadata.items()]
        assert {value for key, value in found if key.lower() == "timecode"} == {expected}
        if MAKES_TIMECODE and name != "out.mkv":
            assert [clock.metadata["timecode"] for clock in out.streams.data] == [expected]
