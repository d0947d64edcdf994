"""Files for editors, read back by the tools that editors use."""

import json
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import opentimelineio
import pytest
import soundfile
from command import Run, names
from media import burst, burst_time, encode, numbered
from wavinfo import WavInfoReader

from taro_rt.engines.errors import OptionsError
from taro_rt.runtime import bwf, handoff
from taro_rt.runtime.bwf import write_bwf
from taro_rt.runtime.handoff import Export, read_exports
from taro_rt.runtime.onsets import Onset
from taro_rt.runtime.timecode import since_midnight

MELT_S = 60
"""After so long melt hangs; it takes less than one."""
ONSETS = [{"time_s": 0.2, "strength": 0.75}, {"time_s": 0.5, "strength": 0.5}]


def heard(timeline: Path) -> float:
    """Time at which the burst of a timeline is heard once melt has mixed it down, in seconds."""
    if shutil.which("melt") is None:
        pytest.skip("melt is not installed")
    mix = timeline.with_name("mix.wav")
    consumer = ["-consumer", f"avformat:{mix}", "video_off=1", "acodec=pcm_s16le", "ar=48000", "ac=1"]
    consumer.append("real_time=-1")  # else melt 7.12 hangs now and then
    command = ["melt", "-silent", str(timeline), *consumer]
    subprocess.run(command, check=True, timeout=MELT_S, capture_output=True, stdin=subprocess.DEVNULL)
    samples, rate_hz = soundfile.read(mix, dtype="float32")
    return burst_time(samples, rate_hz)


def clip(folder: Path, rate: Fraction = Fraction(25), name: str = "clip.mp4", **more: object) -> Path:
    """Two seconds of picture."""
    n = round(2 * rate)
    return encode(folder / name, numbered(n), [k / rate for k in range(n)], fps=rate, **more)  # type: ignore


def onset_file(folder: Path, start_s: float = 0.0) -> Path:
    path = folder / "hits.json"
    path.write_text(json.dumps({"start_s": start_s, "onsets": ONSETS}))
    return path


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(43, 2), Fraction(30000, 1001)], ids=str)
@pytest.mark.parametrize("first_frame", [0, 20])
def test_melt_plays_a_click_where_the_clip_has_it(
    run: Run, tmp_path: Path, rate: Fraction, first_frame: int
) -> None:
    video, start_s = clip(tmp_path, rate), float((first_frame - Fraction(1, 4)) / rate)
    sound, timeline = tmp_path / "s.wav", tmp_path / "t.mlt"
    part = ["--start", max(0.0, start_s)]
    assert run("generate", video, "-o", sound, *part, "--export", f"mlt={timeline}").exit_code == 0
    made = soundfile.info(sound)
    soundfile.write(sound, burst(made.duration, 0.4, made.samplerate), made.samplerate)
    lag_s = heard(timeline) - float(first_frame / rate) - 0.4
    print(f"melt, {rate} frames per second, frame {first_frame}: {1000 * lag_s:.3f} ms")
    assert abs(lag_s) <= 0.001


@pytest.mark.parametrize("name", ["o.mp4", "o.mkv"])
def test_melt_plays_the_sound_of_a_video_where_the_video_has_it(run: Run, tmp_path: Path, name: str) -> None:
    output, timeline = tmp_path / name, tmp_path / "t.mlt"
    assert run("generate", clip(tmp_path), "-o", output, "--export", f"mlt={timeline}").exit_code == 0
    encode(output, numbered(50), sound=burst(2.0, 0.7))
    assert heard(timeline) == pytest.approx(0.7, abs=0.001)


def test_melt_finds_media_of_any_name_in_another_folder(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "12:30 é & <b>\"q' %d?"
    folder.mkdir()
    video, sound, timeline = clip(folder, name="a:b & c?x=1.mp4"), folder / "s&'.wav", tmp_path / "t.mlt"
    assert run("generate", video, "-o", sound, "--export", f"mlt={timeline}").exit_code == 0
    soundfile.write(sound, burst(2.0, 0.7), 48000)
    assert heard(timeline) == pytest.approx(0.7, abs=0.001)


def test_media_are_found_from_a_folder_behind_a_link(run: Run, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    timeline = tmp_path / "link" / "t.mlt"
    assert run("generate", clip(tmp_path), "--export", f"mlt={timeline}").exit_code == 0
    resources = re.findall('name="resource">(.*)</property>', timeline.read_text("utf-8"))
    assert [(timeline.parent / name).is_file() for name in resources] == [True, True]


def test_an_mlt_timeline_marks_onsets_at_frames_of_the_whole_video(run: Run, tmp_path: Path) -> None:
    timeline = tmp_path / "t.mlt"
    more = ["--start", 0.8, "--onsets", onset_file(tmp_path, 0.8), "--export", f"mlt={timeline}"]
    assert run("generate", clip(tmp_path), "-o", tmp_path / "s.wav", *more).exit_code == 0
    assert re.findall('name="start">(.*)</', timeline.read_text("utf-8")) == ["00:00:01.000", "00:00:01.280"]


def test_an_mlt_timeline_has_the_clips_exact_rate_and_size(run: Run, tmp_path: Path) -> None:
    video = clip(tmp_path, Fraction(30000, 1001))
    assert run("generate", video, "--export", f"mlt={tmp_path / 't.mlt'}").exit_code == 0
    text = (tmp_path / "t.mlt").read_text("utf-8")
    assert 'frame_rate_num="30000" frame_rate_den="1001"' in text and 'width="160" height="96"' in text


def test_otio_reads_the_timeline_back(run: Run, tmp_path: Path) -> None:
    video, path = clip(tmp_path, Fraction(43, 2), name="ü & b.mp4"), tmp_path / "t.otio"
    more = ["--onsets", onset_file(tmp_path), "--export", f"otio={path}"]
    assert run("generate", video, "-o", tmp_path / "s.wav", *more).exit_code == 0
    timeline = opentimelineio.adapters.read_from_file(str(path))
    picture, sound = (track[0] for track in timeline.tracks)
    assert [track.kind for track in timeline.tracks] == ["Video", "Audio"]
    assert picture.source_range.duration == opentimelineio.opentime.RationalTime(43, 21.5)
    assert opentimelineio.url_utils.filepath_from_url(picture.media_reference.target_url) == str(video)
    times = [marker.marked_range.start_time.to_seconds() for marker in sound.markers]
    assert times == pytest.approx([0.2, 0.5], abs=1e-6)


def test_otio_places_a_part_at_its_frame_of_the_whole_video(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "t.otio"
    more = ["--start", 0.8, "--end", 1.6, "--export", f"otio={path}"]
    assert run("generate", clip(tmp_path), "-o", tmp_path / "s.wav", *more).exit_code == 0
    timeline = opentimelineio.adapters.read_from_file(str(path))
    (sound,) = timeline.tracks[1].find_clips()
    place = timeline.tracks[1].range_of_child(sound)
    assert (place.start_time.value, place.duration.value) == (20, 20)


def test_a_frame_rate_rounded_by_its_container_gets_its_exact_name(run: Run, tmp_path: Path) -> None:
    video, path = clip(tmp_path, Fraction(24000, 1001), "clip.mkv"), tmp_path / "t.mlt"
    assert run("generate", video, "--export", f"mlt={path}").exit_code == 0
    assert 'frame_rate_num="24000" frame_rate_den="1001"' in path.read_text("utf-8")


def test_a_variable_rate_gives_whole_frames_of_its_average(run: Run, tmp_path: Path) -> None:
    times = [0.04 * k if k < 20 else 0.8 + 0.1 * (k - 20) for k in range(30)]
    video = encode(tmp_path / "v.mp4", numbered(30), times, fps=25)
    path = tmp_path / "t.otio"
    assert run("generate", video, "--export", f"otio={path}").exit_code == 0
    timeline = opentimelineio.adapters.read_from_file(str(path))
    duration = timeline.duration()
    assert duration.value == round(duration.value)
    with av.open(str(video)) as container:
        length_s = float(container.duration or 0) / av.time_base
    assert duration.to_seconds() == pytest.approx(length_s, abs=1 / duration.rate)


def test_a_broadcast_wav_knows_its_time_of_day_and_its_onsets(run: Run, tmp_path: Path) -> None:
    video = clip(tmp_path, metadata={"timecode": "01:00:00:10"}, name="clip.mkv")
    path = tmp_path / "b.wav"
    more = ["--start", 0.8, "--onsets", onset_file(tmp_path, 0.8), "--export", f"bwf={path}"]
    assert run("generate", video, "-o", tmp_path / "s.wav", *more).exit_code == 0
    read = WavInfoReader(str(path))
    assert read.bext.time_reference == round((3600 + 0.4 + 0.8) * 48000)
    assert [cue.position for cue in read.cues.cues] == [9600, 24000]
    assert [label.text for label in read.cues.labels] == ["onset 1 (0.75)", "onset 2 (0.50)"]


def test_a_broadcast_wav_holds_the_same_samples_as_a_plain_one(run: Run, tmp_path: Path) -> None:
    plain, broadcast = tmp_path / "s.wav", tmp_path / "b.wav"
    assert run("generate", clip(tmp_path), "-o", plain, "--export", f"bwf={broadcast}").exit_code == 0
    one, two = (soundfile.read(path, dtype="int16") for path in (plain, broadcast))
    assert one[1] == two[1] and np.abs(one[0]).max() > 100
    assert np.abs(one[0].astype(int) - two[0]).max() <= 1  # libsndfile's rounding, whichever release


def test_a_sound_too_large_for_riff_becomes_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwf, "LARGEST_WAV", 1000)
    samples = burst(0.5, 0.25)
    path = tmp_path / "large.wav"
    write_bwf(path, [samples[None]], (1, len(samples)), 48000, 1 << 33, "large", [Onset(0.25)])
    read, rate_hz = soundfile.read(path, dtype="float32")
    assert path.read_bytes()[:4] == b"RF64" and rate_hz == 48000
    assert np.abs(read - samples).max() < 1e-4
    assert WavInfoReader(str(path)).bext.time_reference == 1 << 33


def test_a_second_track_is_left_out_of_the_broadcast_wav(run: Run, tmp_path: Path) -> None:
    video, path = clip(tmp_path, sound=burst(2.0, 1.0)), tmp_path / "b.wav"
    more = ["--audio", "keep-as-second-track", "--export", f"bwf={path}"]
    assert run("generate", video, *more).exit_code == 0
    assert soundfile.info(path).channels == 1


def test_every_take_has_its_own_files(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    more = ["--takes", 2, "--export", f"otio={folder / 't.otio'}, mlt={folder / 't.mlt'}", "--json"]
    record = json.loads(run("generate", clip(tmp_path), "-o", folder / "s.wav", *more).stdout)
    assert names(folder) == ["s.1.wav", "s.2.wav", "t.1.mlt", "t.1.otio", "t.2.mlt", "t.2.otio"]
    assert record["takes"][1]["exports"] == {
        "otio": str(folder / "t.2.otio"), "mlt": str(folder / "t.2.mlt")
    }  # fmt: skip
    assert "s.2.wav" in (folder / "t.2.mlt").read_text("utf-8")


@pytest.mark.parametrize(
    ("asked", "code", "reason"),
    [
        (["--export", "edl=a.edl"], 2, "otio, mlt, bwf"),
        (["--export", "otio"], 2, "otio=FILE"),
        (["--export", "otio=a.mp4"], 2, ".otio"),
        (["--export", "otio=a.otio", "--export", "otio=b.otio"], 2, "twice"),
        (["--export", "bwf=clip.wav", "-o", "./clip.wav"], 2, "a name of its own"),
        (["--export", "otio=there.otio"], 5, "--force"),
        (["--export", "otio=nowhere/a.otio"], 5, "existing output folder"),
        (["--export", "otio=a.otio", "--out-dir", "."], 2, "one video"),
        (["--export", "mlt=a\tb.mlt"], 5, "XML cannot hold"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_export_that_cannot_be_is_refused_before_anything_is_written(
    run: Run, video: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], code: int, reason: str
) -> None:
    monkeypatch.chdir(video.parent)
    Path("there.otio").write_text("mine")
    result = run("generate", video, *asked)
    assert result.exit_code == code and reason in result.stderr
    assert names(video.parent) == ["clip.mp4", "there.otio"] and Path("there.otio").read_text() == "mine"


def test_an_export_that_fails_leaves_no_output_either(
    run: Run, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handoff, "as_otio", full)
    result = run("generate", video, "--export", f"otio={video.with_name('t.otio')}")
    assert result.exit_code == 5 and "No space left" in result.stderr
    assert names(video.parent) == ["clip.mp4"]


def test_a_comma_may_be_part_of_a_name() -> None:
    assert read_exports(["otio=a,b.otio,mlt=c.mlt"]) == (
        Export("otio", Path("a,b.otio")),
        Export("mlt", Path("c.mlt")),
    )
    with pytest.raises(OptionsError):
        read_exports(["otio=a.otio,"])


@pytest.mark.parametrize(
    ("timecode", "rate", "seconds"),
    [
        ("01:00:00:00", Fraction(25), Fraction(3600)),
        ("01:00:00:00", Fraction(24000, 1001), Fraction(36036, 10)),
        ("01:00:00;00", Fraction(30000, 1001), Fraction(107892 * 1001, 30000)),
        ("noon", Fraction(25), None),
    ],
)
def test_time_of_day_counts_frames_as_they_pass(
    timecode: str, rate: Fraction, seconds: Fraction | None
) -> None:
    assert since_midnight(timecode, rate) == seconds
