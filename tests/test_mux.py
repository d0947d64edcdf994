"""Sound put to pictures: what comes out is read back with libav's decoders, the inputs are real files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import burst, burst_time, encode, numbered, read_sound, remux, turn, video_frames, video_packets

from taro_rt.engines.errors import Cancelled, MediaError
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.plan import default_output, plan_output
from taro_rt.runtime.probe import VideoInfo, probe

SMALL = Geometry(onset_resize=16, onset_crop=16, visual_size=16)
RATE_HZ = 16000
BURST_S = 0.7
FRAMES = numbered(50)
UNEVEN = list(np.cumsum([0, *np.tile([0.02, 0.05, 0.04], 17)])[:50])

AS_IT_IS = Finish(loudness=None)
Maker = Callable[[Path], Path]


def edited(folder: Path) -> Path:
    """Begins in the middle of a group of pictures: an edit list hides its first frames."""
    whole = encode(folder / "whole.mp4", FRAMES, b_frames=2, gop=50)
    return remux(whole, folder / "cut.mp4", shift_s=-0.4)


def begun_late(folder: Path) -> Path:
    """A recording that begins between key frames: its first packets cannot be decoded."""
    path = encode(folder / "whole.ts", numbered(80), b_frames=2)
    path.write_bytes(path.read_bytes()[40 * 188 :])
    return path


def read(path: Path) -> VideoInfo:
    return Clip.read(path, SMALL).info


def muxed(source: Path, target: Path) -> Path:
    """`source` with a burst at BURST_S after its first displayed frame."""
    info = read(source)
    write_output(info, Audio(burst(info.duration_s, BURST_S, RATE_HZ), RATE_HZ), target, AS_IT_IS)
    return target


INPUTS: dict[str, Maker] = {
    "steady": lambda d: encode(d / "a.mp4", FRAMES),
    "b-frames": lambda d: encode(d / "a.mov", FRAMES, b_frames=2),
    "b-frames-mkv": lambda d: encode(d / "a.mkv", FRAMES, b_frames=2),
    "uneven": lambda d: encode(d / "a.mp4", FRAMES, UNEVEN, b_frames=2),
    "uneven-mkv": lambda d: encode(d / "a.mkv", FRAMES, UNEVEN, b_frames=2),
    "late": lambda d: encode(d / "a.mp4", FRAMES, [1.075 + k / 25 for k in range(50)], b_frames=2),
    "late-mkv": lambda d: encode(d / "a.mkv", FRAMES, [1.075 + k / 25 for k in range(50)], b_frames=2),
    "turned": lambda d: turn(encode(d / "a.mp4", FRAMES), 1),
    "edited": edited,
    "sounding": lambda d: encode(d / "a.mp4", FRAMES, sound=burst(2.5, 1.9)),
    "vp8": lambda d: encode(d / "a.webm", FRAMES, codec="libvpx"),
    "vp9": lambda d: encode(d / "a.webm", FRAMES, codec="libvpx-vp9"),
    "av1": lambda d: encode(d / "a.mkv", FRAMES[:25], codec="libsvtav1"),
    "hevc": lambda d: encode(d / "a.mkv", FRAMES[:25], codec="libx265"),
    "one-frame": lambda d: encode(d / "a.mp4", FRAMES[:1], fps=1),
    "one-frame-mkv": lambda d: encode(d / "a.mkv", FRAMES[:1], fps=1, b_frames=2),
}


@pytest.mark.parametrize(
    ("made", "suffix"),
    [
        *[("steady", suffix) for suffix in (".mp4", ".m4v", ".mov", ".mkv")],
        *[("b-frames-mkv", suffix) for suffix in (".mp4", ".mov", ".mkv")],
        *[("late", suffix) for suffix in (".mp4", ".mkv")],
        *[("turned", suffix) for suffix in (".mp4", ".mkv")],
        *[("edited", suffix) for suffix in (".mp4", ".mov")],
        *[("uneven", suffix) for suffix in (".mp4", ".mkv")],
        *[("vp8", suffix) for suffix in (".webm", ".mkv")],
        *[("vp9", suffix) for suffix in (".webm", ".mkv", ".mp4")],
        *[(made, ".mp4") for made in ("b-frames", "uneven-mkv", "late-mkv", "sounding", "av1", "hevc")],
        *[(made, ".mp4") for made in ("one-frame", "one-frame-mkv")],
    ],
)
def test_the_picture_is_untouched_and_the_sound_in_its_place(tmp_path: Path, made: str, suffix: str) -> None:
    source = INPUTS[made](tmp_path)
    target = muxed(source, tmp_path / f"out{suffix}")
    before, after = video_frames(source), video_frames(target)
    tick_s = 0.0011 if suffix in (".mkv", ".webm") else 1e-6  # Matroska rounds to milliseconds

    assert [data for _, data in video_packets(target)] == [data for _, data in video_packets(source)]
    assert len(after) == len(before)
    for (t, turned, pixels), (u, turned_before, pixels_before) in zip(after, before, strict=True):
        assert float(t - after[0][0]) == pytest.approx(float(u - before[0][0]), abs=tick_s)
        assert turned == turned_before
        assert np.array_equal(pixels, pixels_before)

    start_s, samples, rate_hz = read_sound(target)
    assert start_s + burst_time(samples, rate_hz) - float(after[0][0]) == pytest.approx(BURST_S, abs=0.001)
    info = read(source)
    assert len(samples) / rate_hz == pytest.approx(info.duration_s, abs=min(0.022, 1 / info.average_fps))


def test_the_streams_are_one_picture_and_one_mono_sound(tmp_path: Path) -> None:
    art = encode(tmp_path / "art.png", FRAMES[:1], codec="png", pix_fmt="rgb24")
    with_sound = encode(tmp_path / "a.mp4", FRAMES, sound=burst(2, 1))
    with_art = remux(with_sound, tmp_path / "art.mp4", cover=art)
    for source in (with_sound, with_art):
        with av.open(str(muxed(source, tmp_path / "out.mp4"))) as out:
            assert [s.type for s in out.streams] == ["video", "audio"]
            sound = out.streams.audio[0].codec_context
            assert (sound.name, sound.sample_rate, sound.layout.name) == ("aac", 48000, "mono")


def test_hevc_carries_the_tag_that_apple_plays(tmp_path: Path) -> None:
    with av.open(str(muxed(INPUTS["hevc"](tmp_path), tmp_path / "out.mp4"))) as out:
        assert out.streams.video[0].codec_context.codec_tag == "hvc1"


def test_the_header_states_the_true_average_rate(tmp_path: Path) -> None:
    for name in ("out.mp4", "out.mkv"):
        with av.open(str(muxed(INPUTS["b-frames"](tmp_path), tmp_path / name))) as out:
            assert out.streams.video[0].average_rate == 25


def test_the_sound_is_opus_in_matroska(tmp_path: Path) -> None:
    with av.open(str(muxed(INPUTS["steady"](tmp_path), tmp_path / "out.mkv"))) as out:
        assert out.streams.audio[0].codec_context.codec.canonical_name == "opus"


def test_the_spectrum_survives(tmp_path: Path) -> None:
    info = read(INPUTS["steady"](tmp_path))
    t = np.arange(round(info.duration_s * RATE_HZ)) / RATE_HZ
    tones = sum(0.2 * np.sin(2 * np.pi * f * t) for f in (220, 1000, 6000))
    for name in ("out.mp4", "out.mkv"):
        write_output(info, Audio(tones.astype(np.float32), RATE_HZ), tmp_path / name, AS_IT_IS)
        _, samples, rate_hz = read_sound(tmp_path / name)
        want = np.interp(np.arange(len(samples)) / rate_hz, t, tones)
        middle = slice(rate_hz // 2, rate_hz)
        levels = [abs(np.vdot(x[middle], np.exp(2j * np.pi * 220 * np.arange(rate_hz // 2) / rate_hz)))
                  for x in (samples, want)]  # fmt: skip
        assert levels[0] == pytest.approx(levels[1], rel=0.02)


def test_picture_and_sound_are_interleaved(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mp4", numbered(150, 32, 32), fps=5)  # beyond what libav sorts by itself
    target = muxed(source, tmp_path / "out.mp4")
    with av.open(str(target)) as out:
        packets = [(p.pos, p.stream.type, float(p.dts * p.time_base)) for p in out.demux() if p.size]
    latest = {"video": 0.0, "audio": 0.0}
    for _, kind, time_s in sorted(packets):
        latest[kind] = time_s
        assert abs(latest["video"] - latest["audio"]) < 1.5


def test_metadata_is_kept_but_not_what_described_the_old_file(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mp4", FRAMES, metadata={"title": "Été", "comment": "first try"})
    with av.open(str(muxed(source, tmp_path / "out.mkv"))) as out:
        tags = {key.lower(): value for key, value in out.metadata.items()}
    assert (tags["title"], tags["comment"]) == ("Été", "first try")
    assert "major_brand" not in tags


def test_a_broadcast_that_begins_between_key_frames_stays_in_sync(tmp_path: Path) -> None:
    source = begun_late(tmp_path)
    assert read(source).start_s > 0.2
    for suffix in (".mp4", ".mkv"):
        target = muxed(source, tmp_path / f"out{suffix}")
        before, after = video_frames(source), video_frames(target)
        start_s, samples, rate_hz = read_sound(target)
        heard_s = start_s + burst_time(samples, rate_hz) - float(after[0][0])
        assert heard_s == pytest.approx(BURST_S, abs=0.001)
        assert all(np.array_equal(a[2], b[2]) for a, b in zip(after, before, strict=True))
        assert read(target).duration_s == pytest.approx(read(source).duration_s)


def test_a_cut_off_file_is_copied_as_far_as_it_goes(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mp4", FRAMES, options={"movflags": "faststart"})
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 7 // 10])
    target = muxed(source, tmp_path / "out.mp4")
    assert len(video_frames(target)) == read(source).n_frames


def subtitled(folder: Path) -> Path:
    (folder / "a.srt").write_text(
        "1\n00:00:00,200 --> 00:00:00,600\nbefore\n\n2\n00:00:01,500 --> 00:00:01,900\nwithin\n"
    )
    late = encode(folder / "late.mp4", FRAMES, [0.5 + k / 25 for k in range(50)], b_frames=2)
    return remux(late, folder / "a.mkv", subtitles=folder / "a.srt")


def test_subtitles_stay_with_the_picture_in_the_same_kind_of_file(tmp_path: Path) -> None:
    target = muxed(subtitled(tmp_path), tmp_path / "out.mkv")
    with av.open(str(target)) as out:
        texts = [(float(p.pts * p.time_base), bytes(p)) for p in out.demux(subtitles=0) if p.size]
        first_s = float(min(pts for pts, _ in video_packets(target)))
    assert [text for _, text in texts] == [b"within"]
    assert texts[0][0] - first_s == pytest.approx(1.0, abs=0.0011)


def test_subtitles_that_cannot_stay_are_announced(tmp_path: Path) -> None:
    plan = plan_output(read(subtitled(tmp_path)), tmp_path / "out.mp4")
    assert any("subtitle streams left out: 1; write .mkv" in notice for notice in plan.notices)


def test_a_gif_becomes_h264_with_even_sides(tmp_path: Path) -> None:
    frames, times = numbered(20, 95, 63), [k / 10 for k in range(20)]
    kind = {"codec": "gif", "pix_fmt": "gray", "time_base": Fraction(1, 100)}
    source = encode(tmp_path / "a.gif", frames, times, fps=2, **kind)  # its last frame stays for 0.5 s
    assert default_output(source).name == "a.taro.mp4"
    assert "encoded anew" in plan_output(read(source), tmp_path / "out.mp4").notices[0]
    target = muxed(source, tmp_path / "out.mp4")
    shown = video_frames(target)
    assert [float(t) for t, _, _ in shown] == pytest.approx(times)
    assert shown[0][2].shape == (64, 96, 3)
    assert read(target).duration_s == read(source).duration_s == pytest.approx(2.4)


def test_a_raw_stream_gets_time_stamps_by_being_encoded_anew(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.h264", FRAMES, b_frames=2, time_base=Fraction(1, 25))
    target = muxed(source, tmp_path / "out.mp4")
    assert [float(t) for t, _, _ in video_frames(target)] == pytest.approx([k / 25 for k in range(50)])


@pytest.mark.parametrize(
    ("made", "name", "alternative"),
    [
        ("vp8", "out.mp4", "mp4 cannot carry vp8; write .mkv or .webm"),
        ("vp8", "out.mov", "mov cannot carry vp8; write .mkv or .webm"),
        ("vp9", "out.mov", "mov cannot carry vp9; write .mp4"),
        ("steady", "out.webm", "webm cannot carry h264; write .mp4"),
        ("edited", "out.mkv", "packets that an edit list hides; write .mp4"),
        ("steady", "out.avi", "a kind that is only read; write out.mp4"),
        ("steady", "out.mp3", "got '.mp3'; write out.mp4"),
        ("steady", "out", "got 'no suffix'; write out.mp4"),
    ],
)
def test_what_a_container_cannot_carry_is_refused_with_one_that_can(
    tmp_path: Path, made: str, name: str, alternative: str
) -> None:
    info = read(INPUTS[made](tmp_path))
    with pytest.raises(MediaError) as caught:
        plan_output(info, tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert alternative in str(caught.value)


def test_a_wav_takes_any_picture_at_the_sounds_own_rate(tmp_path: Path) -> None:
    info = read(INPUTS["steady"](tmp_path))
    plan = plan_output(replace(info, codec="unheard of"), tmp_path / "out.WAV")
    assert plan.is_wav
    assert plan.rate_hz is None


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "default"),
    [
        ("my.clip.mov", "libx264", "yuv420p", "my.clip.taro.mp4"),
        ("clip.mkv", "libx264", "yuv420p", "clip.taro.mp4"),
        ("clip.webm", "libvpx-vp9", "yuv420p", "clip.taro.mp4"),
        ("clip.webm", "libvpx", "yuv420p", "clip.taro.webm"),
        ("clip.avi", "libvpx", "yuv420p", "clip.taro.mkv"),
        ("clip.mov", "prores_ks", "yuv422p10le", "clip.taro.mov"),
    ],
)
def test_the_default_name_is_mp4_where_mp4_can_carry_the_picture(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, default: str
) -> None:
    source = encode(tmp_path / name, FRAMES[:2], codec=codec, pix_fmt=pix_fmt, time_base=Fraction(1, 25))
    assert default_output(source) == tmp_path / default
    plan_output(read(source), tmp_path / default)


def test_a_full_disk_is_a_media_error(tmp_path: Path) -> None:
    info = read(INPUTS["steady"](tmp_path))
    target = tmp_path / "out.mkv"
    target.symlink_to("/dev/full")
    with pytest.raises(MediaError, match="the video cannot be written there"):
        write_output(info, Audio(np.zeros(RATE_HZ, np.float32), RATE_HZ), target)


@pytest.mark.parametrize("name", ["out.mp4", "out.wav"])
def test_progress_of_writing_rises_and_can_stop_it(tmp_path: Path, name: str) -> None:
    info = probe(encode(tmp_path / "a.mp4", numbered(100)))
    sound, said = Audio(np.zeros(round(info.duration_s * RATE_HZ), np.float32), RATE_HZ), list[float]()

    def hear(stage: str, fraction: float) -> bool:
        assert stage == "write"
        said.append(fraction)
        return fraction < 0.7

    with pytest.raises(Cancelled):
        write_output(info, sound, tmp_path / name, progress=hear)
    assert said == sorted(set(said)) and len(said) >= 4
    assert said[0] == 0 and said[-2] < 0.7 <= said[-1]
