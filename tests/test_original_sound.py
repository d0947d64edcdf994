"""What becomes of the video's own sound, with real files throughout."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.stream import Disposition
from media import Samples, burst, burst_time, copy_picture, encode, numbered, read_sound, video_frames

from taro_rt.engines.errors import MediaError, OptionsError
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.dynamics import DUCK_GAIN
from taro_rt.runtime.finish import Finish, Keeping, read_loudness
from taro_rt.runtime.loudness import CEILING, Meter
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.plan import plan_output
from taro_rt.runtime.probe import probe

SMALL = Geometry(onset_resize=16, onset_crop=16, visual_size=16)
RATE_HZ = 16000
FRAMES = numbered(75)


def tone(seconds: float, hz: float, rate_hz: int, level: float = 0.1) -> Samples:
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def level_at(samples: Samples, rate_hz: int, hz: float, start_s: float, end_s: float) -> float:
    """Amplitude of a tone between two times."""
    part = samples[round(start_s * rate_hz) : round(end_s * rate_hz)].astype(np.float64)
    t = np.arange(len(part)) / rate_hz
    return float(2 * abs(part @ np.exp(-2j * np.pi * hz * t)) / len(part))


@pytest.fixture(scope="module")
def sounding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s of picture, 3.2 s of a 440 Hz tone."""
    path = tmp_path_factory.mktemp("videos") / "a.mp4"
    return encode(path, FRAMES, sound=tone(3.2, 440, 48000), b_frames=2)


def written(source: Path, target: Path, finish: Finish, new: Samples | None = None) -> Path:
    info = Clip.read(source, SMALL).info
    sound = tone(info.duration_s, 2000, RATE_HZ) if new is None else new
    write_output(info, Audio(sound, RATE_HZ), target, finish)
    return target


def tracks(path: Path) -> list[tuple[str, int, int]]:
    with av.open(str(path)) as container:
        return [
            (s.codec_context.codec.canonical_name, s.codec_context.sample_rate, s.channels)
            for s in container.streams.audio
        ]


def test_replace_leaves_nothing_of_the_original(sounding: Path, tmp_path: Path) -> None:
    _, samples, rate_hz = read_sound(written(sounding, tmp_path / "out.mp4", Finish(loudness=None)))
    assert level_at(samples, rate_hz, 440, 0.5, 2.5) < 0.001
    assert level_at(samples, rate_hz, 2000, 0.5, 2.5) == pytest.approx(0.1, rel=0.05)


def two_tracks(picture: Path, target: Path) -> Path:
    """A video with two tracks of sound."""
    with av.open(str(picture)) as container, av.open(str(target), "w") as out:
        copies = {0: out.add_stream_from_template(container.streams.video[0])}
        copies |= {k: out.add_stream_from_template(container.streams.audio[0]) for k in (1, 2)}
        for packet in container.demux():
            if packet.size:
                if packet.stream.type == "audio":  # a second packet of the same bytes
                    again = av.Packet(bytes(packet))
                    again.pts, again.dts, again.time_base = packet.pts, packet.dts, packet.time_base
                    again.duration, again.stream = packet.duration, copies[2]
                    out.mux(again)
                packet.stream = copies[0 if packet.stream.type == "video" else 1]
                out.mux(packet)
    return target


@pytest.mark.parametrize(
    ("audio", "notices"),
    [
        ("replace", ["original audio streams left out: 2"]),
        ("mix", ["further audio streams left out: 1"]),
        ("keep-as-second-track", ["further audio streams left out: 1"]),
    ],
)
def test_several_tracks_that_are_lost_are_counted(
    sounding: Path, tmp_path: Path, audio: Keeping, notices: list[str]
) -> None:
    source, target = two_tracks(sounding, tmp_path / "two.mp4"), tmp_path / "out.mp4"
    plan = plan_output(probe(source), target, Finish(audio))
    assert list(plan.notices) == [f"{target}: {notice}" for notice in notices]
    assert len(tracks(written(source, target, Finish(audio)))) == (2 if audio.startswith("keep") else 1)


def test_the_only_track_is_replaced_without_a_word(sounding: Path, tmp_path: Path) -> None:
    assert plan_output(probe(sounding), tmp_path / "out.mp4").notices == ()


def test_mix_has_both_at_their_levels_and_ends_with_the_picture(sounding: Path, tmp_path: Path) -> None:
    target = written(sounding, tmp_path / "out.wav", Finish("mix", loudness=None))
    samples, rate_hz = soundfile.read(target, dtype="float32")
    assert (rate_hz, len(samples)) == (48000, 3 * 48000)
    assert level_at(samples, rate_hz, 440, 0.5, 2.9) == pytest.approx(0.1, rel=0.05)
    assert level_at(samples, rate_hz, 2000, 0.5, 2.9) == pytest.approx(0.1, rel=0.05)


def test_duck_turns_the_original_down_only_while_the_new_sound_is_heard(
    sounding: Path, tmp_path: Path
) -> None:
    new = tone(3, 2000, RATE_HZ)
    new[: RATE_HZ * 3 // 2] = 0
    target = written(sounding, tmp_path / "out.wav", Finish("duck", loudness=None), new)
    samples, rate_hz = soundfile.read(target, dtype="float32")
    assert level_at(samples, rate_hz, 440, 0.2, 1.0) == pytest.approx(0.1, rel=0.05)
    assert level_at(samples, rate_hz, 440, 2.0, 2.8) == pytest.approx(0.1 * DUCK_GAIN, rel=0.05)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_the_original_is_kept_as_a_second_track_in_its_place(tmp_path: Path, name: str) -> None:
    times = [1.075 + k / 25 for k in range(75)]
    source = encode(tmp_path / "a.mp4", FRAMES, times, sound=burst(5, 2.0), b_frames=2)
    target = written(source, tmp_path / name, Finish("keep-as-second-track"), burst(3, 0.5, RATE_HZ))
    first_s = float(video_frames(target)[0][0])
    with av.open(str(target)) as container:
        _, old = container.streams.audio
        assert old.codec_context.name == ("flac" if name == "out.mkv" else "alac")
        assert not old.disposition & Disposition.default
    heard = []
    for k in (0, 1):
        with av.open(str(target)) as container:
            frames = list(container.decode(audio=k))
        start_s = float(frames[0].pts * frames[0].time_base)
        samples = np.concatenate([f.to_ndarray().reshape(-1, f.samples)[0] for f in frames]).astype(
            np.float32
        )
        heard.append(start_s + burst_time(samples, frames[0].sample_rate) - first_s)
    assert heard == pytest.approx([0.5, 2.0 - 1.075], abs=0.001)
    assert start_s + len(samples) / 48000 - first_s <= 3.03, "no longer than the picture"


def test_an_original_beside_a_webm_picture_is_opus(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mkv", FRAMES[:25], codec="libvpx", sound=burst(1, 0.5))
    webm = written(source, tmp_path / "out.webm", Finish("keep-as-second-track"))
    assert tracks(webm) == [("opus", 48000, 1), ("opus", 48000, 1)]


@pytest.mark.parametrize("audio", ["mix", "duck", "keep-as-second-track"])
def test_a_silent_video_has_nothing_to_keep_and_that_is_said(tmp_path: Path, audio: str) -> None:
    source = encode(tmp_path / "a.mp4", FRAMES[:10])
    finish = Finish(audio)  # type: ignore[arg-type]
    assert any(
        "has no sound to" in notice
        for notice in plan_output(probe(source), tmp_path / "o.mp4", finish).notices
    )
    assert len(tracks(written(source, tmp_path / "o.mp4", finish))) == 1


def test_a_wav_has_no_second_track(sounding: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"no second track; write \.mp4"):
        plan_output(probe(sounding), tmp_path / "out.wav", Finish("keep-as-second-track"))


@pytest.mark.parametrize(
    ("name", "rate_hz", "channels", "expected"),
    [
        ("out.mp4", None, None, ("aac", 48000, 1)),
        ("out.mp4", 16000, 2, ("aac", 16000, 2)),
        ("out.mov", 44100, None, ("aac", 44100, 1)),
        ("out.mkv", 48000, 2, ("opus", 48000, 2)),
        ("out.mkv", 44100, None, ("flac", 44100, 1)),
        ("out.wav", None, None, ("pcm_s16le", 16000, 1)),
        ("out.wav", 44100, 2, ("pcm_s16le", 44100, 2)),
    ],
)
def test_rate_and_channels_are_those_asked_for(
    sounding: Path,
    tmp_path: Path,
    name: str,
    rate_hz: int | None,
    channels: int | None,
    expected: tuple[str, int, int],
) -> None:
    finish = Finish(loudness=None, rate_hz=rate_hz, channels=channels)
    target = written(sounding, tmp_path / name, finish, burst(3, 0.7, RATE_HZ))
    assert tracks(target) == [expected]
    start_s, samples, rate = read_sound(target)
    heard_s = start_s + burst_time(samples, rate)
    assert heard_s == pytest.approx(0.7, abs=0.001)


def test_webm_refuses_a_rate_that_opus_does_not_know(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.webm", FRAMES[:5], codec="libvpx")
    with pytest.raises(MediaError, match=r"use --rate 48000 or write \.mkv"):
        plan_output(probe(source), tmp_path / "out.webm", Finish(rate_hz=44100))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_default_level_is_23_lufs_below_full_scale(sounding: Path, tmp_path: Path, channels: int) -> None:
    new = np.concatenate([np.zeros(RATE_HZ, np.float32), tone(2, 1000, RATE_HZ, 0.01)])
    samples, rate_hz = soundfile.read(written(sounding, tmp_path / "o.wav", Finish(channels=channels), new))
    meter = Meter(rate_hz)
    meter.add(samples.reshape(len(samples), -1)[:, 0].astype(np.float32))
    assert meter.loudness() + 10 * np.log10(channels) == pytest.approx(-23, abs=0.3)


@pytest.mark.parametrize(("every_s", "decay_s"), [(0.25, 0.01), (1.0, 0.003), (1.0, 0.01), (2.9, 0.004)])
def test_few_short_hard_blows_come_near_the_default_level_too(
    sounding: Path, tmp_path: Path, every_s: float, decay_s: float
) -> None:
    t = np.arange(RATE_HZ // 4) / RATE_HZ
    shape = np.exp(-t / decay_s) + 0.03 * np.exp(-t / 0.1)
    new, rng = np.zeros(3 * RATE_HZ), np.random.default_rng(0)
    for start_s in np.arange(0.05, 2.7, every_s):
        new[round(start_s * RATE_HZ) :][: len(t)] += shape * rng.standard_normal(len(t))
    sound = (0.3 * new / np.abs(new).max()).astype(np.float32)
    samples, rate_hz = soundfile.read(written(sounding, tmp_path / "o.wav", Finish(), sound), dtype="float32")
    meter = Meter(rate_hz)
    meter.add(samples)
    assert meter.loudness() == pytest.approx(-23, abs=4)
    assert meter.peak <= CEILING + 1e-3


def test_gain_is_on_top_and_never_clips(sounding: Path, tmp_path: Path) -> None:
    quiet = written(sounding, tmp_path / "quiet.wav", Finish(gain_db=-6, loudness=None))
    assert np.abs(soundfile.read(quiet)[0]).max() == pytest.approx(0.1 * 10 ** (-6 / 20), rel=0.01)
    loud = written(sounding, tmp_path / "loud.wav", Finish("mix", gain_db=40, loudness=None))
    assert np.abs(soundfile.read(loud)[0]).max() <= CEILING + 1e-3


def test_a_new_sound_alone_never_clips_either(sounding: Path, tmp_path: Path) -> None:
    loud = written(sounding, tmp_path / "loud.wav", Finish(gain_db=40, loudness=None))
    assert 0.5 < np.abs(soundfile.read(loud)[0]).max() <= CEILING + 1e-3


def test_the_originals_surround_layout_is_kept_and_the_new_sound_is_in_front(tmp_path: Path) -> None:
    source = surround(encode(tmp_path / "a.mp4", FRAMES), tmp_path / "surround.mkv")
    target = written(source, tmp_path / "out.wav", Finish("mix", loudness=None))
    samples, rate_hz = soundfile.read(target, dtype="float32")
    assert samples.shape == (3 * 48000, 6)
    news = [level_at(samples[:, c], rate_hz, 2000, 0.5, 2.5) for c in range(6)]
    olds = [level_at(samples[:, c], rate_hz, 300 + 100 * c, 0.5, 2.5) for c in range(6)]
    assert news == pytest.approx([0.1, 0.1, 0, 0, 0, 0], abs=0.005)
    assert olds == pytest.approx([0.1] * 6, abs=0.02)
    assert tracks(written(source, tmp_path / "out.mp4", Finish("mix"))) == [("aac", 48000, 6)]
    assert tracks(written(source, tmp_path / "two.mp4", Finish("mix", channels=2))) == [("aac", 48000, 2)]


def surround(source: Path, target: Path) -> Path:
    """The picture of `source` with six tones, one per channel, as PCM."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        copy = out.add_stream_from_template(container.streams.video[0])
        sound = out.add_stream("pcm_s16le", rate=48000, layout="5.1")
        six = np.stack([tone(3, 300 + 100 * c, 48000) for c in range(6)])
        packed = np.ascontiguousarray((six.T * 32767).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout="5.1")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        for packet in sound.encode(frame):
            out.mux(packet)
        copy_picture(container, out, copy)
    return target


def test_loudness_is_read_from_a_number_or_off() -> None:
    assert (read_loudness("-16"), read_loudness("off")) == (-16.0, None)
    with pytest.raises(OptionsError, match="a number of LUFS or off"):
        read_loudness("loud")


@pytest.mark.parametrize(
    "wrong",
    [
        {"audio": "louder"},
        {"gain_db": 99},
        {"gain_db": float("nan")},
        {"loudness": 3},
        {"rate_hz": 8},
        {"channels": 3},
    ],
)
def test_what_cannot_be_asked_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionsError, match=next(iter(wrong)).split("_")[0]):
        Finish(**wrong)  # type: ignore[arg-type]
