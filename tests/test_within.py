"""`taro-rt generate --within take.wav`: one part of a sound made anew in a file, the rest to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command import Run, names
from hypothesis import given, settings
from hypothesis import strategies as st
from media import encode, numbered

from taro_rt.engines.errors import MediaError
from taro_rt.runtime.retake import BLOCK, Take

EXACT = {"PCM_U8": "int32", "PCM_16": "int32", "PCM_24": "int32", "PCM_32": "int32", "FLOAT": "float32"}
EXACT["DOUBLE"] = "float64"
PART = ["--start", 0.4, "--end", 0.9]


def raw(path: Path) -> Any:
    """The samples [n, channels] as they are stored."""
    return soundfile.read(path, dtype=EXACT[soundfile.info(path).subtype], always_2d=True)[0]


@pytest.fixture
def take(run: Run, video: Path) -> Path:
    """A sound of the video, as the command writes it."""
    path = video.with_name("take.wav")
    assert run("generate", video, "-o", path).exit_code == 0
    return path


def written_as(take: Path, subtype: str, rate_hz: int, channels: int, kind: str = "WAV") -> Path:
    """The same length of a noise in another kind of .wav."""
    n = round(soundfile.info(take).frames * rate_hz / 16000)
    samples = 0.1 * np.random.default_rng(1).standard_normal((n, channels))
    path = take.with_name("other.wav")
    soundfile.write(path, samples, rate_hz, subtype, format=kind)
    return path


@pytest.mark.parametrize(
    ("subtype", "rate_hz", "channels", "kind"),
    [
        ("PCM_16", 16000, 1, "WAV"),
        ("PCM_24", 48000, 2, "WAV"),
        ("PCM_32", 44100, 1, "WAV"),
        ("PCM_U8", 16000, 2, "WAV"),
        ("FLOAT", 48000, 1, "WAV"),
        ("DOUBLE", 22050, 2, "WAV"),
        ("PCM_24", 48000, 6, "WAVEX"),
        ("PCM_16", 48000, 2, "RF64"),
    ],
)
def test_only_the_part_changes_and_the_kind_of_file_is_kept(
    run: Run, video: Path, take: Path, subtype: str, rate_hz: int, channels: int, kind: str
) -> None:
    before, after = written_as(take, subtype, rate_hz, channels, kind), video.with_name("new.wav")
    result = run("generate", video, "--within", before, *PART, "--seed", 3, "-o", after)
    assert result.exit_code == 0, result.output
    old, new = soundfile.info(before), soundfile.info(after)
    for name in ("format", "subtype", "samplerate", "channels", "frames"):
        assert getattr(new, name) == getattr(old, name)
    low, high = round(0.4 * rate_hz), round(0.9 * rate_hz)
    a, b = raw(before), raw(after)
    assert np.array_equal(a[:low], b[:low]) and np.array_equal(a[high:], b[high:])
    assert np.mean(a[low:high] != b[low:high]) > 0.9


def test_the_same_generation_keeps_its_level_in_the_part(run: Run, video: Path, take: Path) -> None:
    again = video.with_name("again.wav")
    assert run("generate", video, "--within", take, *PART, "-o", again).exit_code == 0
    a, b = raw(take) / 2**31, raw(again) / 2**31
    assert np.abs(a - b).max() < 0.01 * np.abs(a).max()


def test_gain_makes_the_part_louder(run: Run, video: Path, take: Path) -> None:
    louder = video.with_name("louder.wav")
    assert run("generate", video, "--within", take, *PART, "--gain", -12, "-o", louder).exit_code == 0
    middle = slice(round(0.5 * 16000), round(0.8 * 16000))
    a, b = raw(take)[middle], raw(louder)[middle]
    assert np.abs(b).max() == pytest.approx(np.abs(a).max() / 4, rel=0.05)


def test_edited_onsets_of_the_whole_video_and_takes(run: Run, video: Path, take: Path) -> None:
    edited = video.with_name("edited.json")
    edited.write_text(json.dumps({"start_s": 0.0, "onsets": [{"time_s": 0.6}]}))
    output = video.with_name("new.wav")
    asked = ["--within", take, *PART, "--onsets", edited, "--takes", 2, "--seed", 7, "-o", output, "--json"]
    result = run("generate", video, *asked)
    record = json.loads(result.stdout)
    assert [one["seed"] for one in record["takes"]] == [7, 8] and record["within"] == str(take)
    assert record["onsets"] == [{"time_s": 0.6, "strength": 0.9}]
    assert (record["start_s"], record["end_s"], record["rate_hz"]) == (0.4, 0.9, 16000)
    assert names(video.parent) == ["clip.mp4", "edited.json", "new.1.wav", "new.2.wav", "take.wav"]
    assert (raw(video.with_name("new.1.wav")) != raw(video.with_name("new.2.wav"))).any()
    stages = {json.loads(line)["stage"] for line in result.stderr.splitlines()}
    assert stages == {"load", "generate", "write"}


def test_without_an_end_the_part_reaches_to_the_end(run: Run, video: Path, take: Path) -> None:
    output = video.with_name("new.wav")
    assert run("generate", video, "--within", take, "--start", 0.7, "--seed", 1, "-o", output).exit_code == 0
    a, b = raw(take), raw(output)
    assert np.array_equal(a[:11200], b[:11200]) and (a[-800:] != b[-800:]).mean() > 0.9


def test_the_take_itself_is_replaced_with_force_only(run: Run, video: Path, take: Path) -> None:
    before = raw(take)
    assert run("generate", video, "--within", take, *PART, "--seed", 1, "-o", take).exit_code == 5
    assert np.array_equal(raw(take), before)
    result = run("generate", video, "--within", take, *PART, "--seed", 1, "-o", take, "--force")
    assert result.exit_code == 0 and (raw(take) != before).any()
    assert names(video.parent) == ["clip.mp4", "take.wav"]


def write_short(folder: Path) -> Path:
    soundfile.write(folder / "short.wav", np.zeros(16000), 16000)
    return folder / "short.wav"


def write_flac(folder: Path) -> Path:
    soundfile.write(folder / "sound.flac", np.zeros(19200), 16000)
    return folder / "sound.flac"


def write_law(folder: Path) -> Path:
    soundfile.write(folder / "law.wav", np.zeros(19200), 16000, "ULAW")
    return folder / "law.wav"


def write_text(folder: Path) -> Path:
    (folder / "text.wav").write_text("no sound")
    return folder / "text.wav"


def is_good(folder: Path) -> Path:
    return folder / "take.wav"


REFUSED: dict[str, tuple[Callable[[Path], Path], list[Any], int, str]] = {
    "short": (write_short, [*PART], 2, "expected 1.200 s, as long as the clip, got 1.000 s"),
    "flac": (write_flac, [*PART], 5, "expected a .wav of PCM_U8"),
    "law": (write_law, [*PART], 5, "got WAV of ULAW; convert it first"),
    "text": (write_text, [*PART], 5, "expected a .wav, got something unreadable"),
    "missing": (lambda folder: folder / "none.wav", [*PART], 5, "got no file there"),
    "folder": (lambda folder: folder, [*PART], 5, "got no file there"),
    "beyond": (is_good, ["--start", 1, "--end", 2], 2, "within the clip's 1.200 s, got 1 s to 2 s"),
    "behind": (is_good, ["--start", 3], 2, "choose an earlier start"),
    "backwards": (is_good, ["--start", 1, "--end", 0.5], 2, "end: expected more than the start"),
    "loudness": (is_good, [*PART, "--loudness", "-16"], 2, "level, rate and channels are those of"),
    "rate": (is_good, [*PART, "--rate", 48000], 2, "leave out --audio, --loudness, --rate and --channels"),
    "export": (is_good, [*PART, "--export", "mlt=a.mlt"], 2, "expected no --export with it"),
    "mix": (is_good, [*PART, "--audio", "mix"], 2, "leave out --audio"),
    "mp4": (is_good, [*PART, "-o", "new.mp4"], 2, "expected a .wav, since only there"),
    "folder of outputs": (is_good, [*PART, "--out-dir", "made"], 2, "expected one video and -o"),
}


@pytest.mark.parametrize(("make", "asked", "code", "fault"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(
    run: Run,
    video: Path,
    take: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Path],
    asked: list[Any],
    code: int,
    fault: str,
) -> None:
    monkeypatch.chdir(video.parent)
    within = make(video.parent)
    before = names(video.parent)
    output = [] if "-o" in asked or "--out-dir" in asked else ["-o", "new.wav"]
    result = run("generate", video, "--within", within, *asked, *output)
    assert result.exit_code == code, result.output
    assert fault in result.stderr and result.stderr.count("\n") == 1
    assert names(video.parent) == before


def test_an_output_must_be_named(run: Run, video: Path, take: Path) -> None:
    result = run("generate", video, "--within", take, *PART)
    assert result.exit_code == 2 and "expected -o with the name of the new .wav" in result.stderr


@settings(max_examples=40)
@given(
    st.sampled_from(list(EXACT)),
    st.integers(1, 3),
    st.integers(2, 2 * BLOCK + 100).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    st.data(),
)
def test_a_file_is_rewritten_to_the_bit_but_for_the_part(
    tmp_path_factory: pytest.TempPathFactory, subtype: str, channels: int, place: tuple[int, int], data: Any
) -> None:
    (n, low), folder = place, tmp_path_factory.mktemp("wav")
    high = data.draw(st.integers(low + 1, n))
    rng = np.random.default_rng(n)
    samples = np.clip(rng.standard_normal((n, channels)), -1, 1)
    soundfile.write(folder / "a.wav", samples, 48000, subtype)
    made = np.clip(rng.standard_normal((high - low, channels)), -1, 1)
    Take.open(folder / "a.wav").write(folder / "b.wav", low, made, None)
    a, b = raw(folder / "a.wav"), raw(folder / "b.wav")
    assert np.array_equal(a[:low], b[:low]) and np.array_equal(a[high:], b[high:])
    step = {"PCM_U8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23}.get(subtype, 1e-7)
    stored = b[low:high] if "float" in EXACT[subtype] else b[low:high] / 2**31
    assert np.abs(stored - made).max() <= step


def test_a_full_disk_is_named(run: Run, take: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="cannot be written there"):
        Take.open(take).write(tmp_path / "no folder" / "a.wav", 0, np.zeros((10, 1)), None)


def test_a_part_of_a_long_video_costs_its_windows_only(run: Run, tmp_path: Path) -> None:
    video = encode(tmp_path / "long.mp4", numbered(200, 64, 48), fps=5)
    take, output = tmp_path / "take.wav", tmp_path / "new.wav"
    soundfile.write(take, 0.1 * np.random.default_rng(0).standard_normal(40 * 16000), 16000)
    edited = tmp_path / "edited.json"
    edited.write_text('{"onsets": [{"time_s": 21}]}')
    asked = ["--within", take, "--start", 20, "--end", 22, "--onsets", edited, "-o", output]
    result = run("generate", video, *asked)
    assert result.exit_code == 0, result.output
    a, b = raw(take), raw(output)
    changed = np.flatnonzero((a != b).any(axis=1))
    assert changed[0] >= 20 * 16000 and changed[-1] < 22 * 16000 and len(changed) > 31000
