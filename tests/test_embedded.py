"""The embedded bundle, end to end from real encoded videos: what a new user gets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from taro_rt.engines.bundle import DEFAULT, Bundle
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.loudness import Meter
from taro_rt.runtime.onsets import Onset
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.runtime.windows import plan
from taro_rt.training import metrics
from taro_rt.training.clips import HELD_OUT, write_video
from taro_rt.training.evaluate import FIRST_TEST_ROW, Heard, listen
from taro_rt.training.mel import LogMel
from taro_rt.training.metrics import f1, loudness_gap_db, mel_onsets
from taro_rt.training.scenes import KINDS
from taro_rt.training.scores import Judges, onset_f1

SAMPLE = Path(__file__).parents[1] / "samples" / "drumstick.mp4"
FRAME_S = 1 / 30


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load()


def video_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


def decoded_sound(path: Path) -> npt.NDArray[np.float32]:
    with av.open(str(path)) as container:
        planes = [frame.to_ndarray()[0] for frame in container.decode(container.streams.audio[0])]
    return np.concatenate(planes)


def taro_rt(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "taro_rt", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_one_command_adds_a_sound_as_long_as_the_picture_and_copies_the_picture(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    record = json.loads(taro_rt("generate", str(SAMPLE), "-o", str(output), "--json").stdout.splitlines()[-1])
    assert record
    assert video_packets(output) == video_packets(SAMPLE)
    with av.open(str(output)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.duration and audio.duration and video.time_base and audio.time_base
        picture_s = float(video.duration * video.time_base)
        assert float(audio.duration * audio.time_base) == pytest.approx(picture_s, abs=FRAME_S)
    assert np.abs(decoded_sound(output)).max() > 0.02


def test_same_seed_gives_the_same_samples_and_another_seed_others(pipeline: Pipeline) -> None:
    first, again, other = (
        pipeline.generate(SAMPLE, Options(seed=seed, steps=4)).audio.samples for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_sound_is_audible_not_clipped_and_free_of_dc(pipeline: Pipeline) -> None:
    audio = pipeline.generate(SAMPLE).audio
    level = np.abs(audio.samples)
    assert 0.02 < level.max() <= 0.99
    assert np.mean(level > 0.95 * level.max()) < 0.001
    assert np.sqrt(np.mean(audio.samples**2)) > 0.002
    assert abs(float(audio.samples.mean())) < 0.002


def test_a_second_without_events_is_at_least_20_db_below_them(pipeline: Pipeline) -> None:
    times = (0.8, 1.9, 5.0, 6.1)
    onsets = tuple(Onset(time_s, 0.9) for time_s in times)
    samples = pipeline.generate(SAMPLE, Options(onsets=onsets)).audio.samples
    gap_db = loudness_gap_db(samples, np.array(times))
    assert gap_db is not None
    assert gap_db >= 20


@pytest.mark.parametrize("kind", ["hammer", "rain"])
def test_the_delivered_sound_lies_within_4_lu_of_minus_23_lufs(tmp_path: Path, kind: str) -> None:
    write_video(tmp_path / "clip.mp4", HELD_OUT + 5, duration_s=6.0, height=90, kind=kind)
    taro_rt("generate", str(tmp_path / "clip.mp4"), "-o", str(tmp_path / "clip.wav"))
    samples, rate_hz = soundfile.read(tmp_path / "clip.wav", dtype="float32")
    meter = Meter(rate_hz)
    meter.add(samples)
    assert -27 < meter.loudness() < -19
    assert np.abs(samples).max() < 10 ** (-1 / 20) + 1e-3


def test_no_click_where_windows_meet(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "rain.mp4"
    write_video(path, HELD_OUT + 3, duration_s=13.0, height=90, kind="rain")
    samples = pipeline.generate(path, Options(steps=10)).audio.samples
    w = plan(13.0, pipeline.geometry)
    assert len(w) == 2
    jumps = np.abs(np.diff(samples))
    window = round(pipeline.geometry.window_s * 16000)
    for seam in (w.sample_offsets[1], w.sample_offsets[0] + window):
        beside = np.concatenate([jumps[seam - 8000 : seam - 80], jumps[seam + 80 : seam + 8000]])
        assert jumps[seam - 80 : seam + 80].max() <= 1.1 * beside.max()


@pytest.fixture(scope="module")
def heard(pipeline: Pipeline) -> Heard:
    """The sound of a clip of every kind, of looks that were never trained on."""
    return listen(pipeline, range(FIRST_TEST_ROW, FIRST_TEST_ROW + len(KINDS)), Options())


def test_the_kind_of_unseen_clips_is_heard_better_than_chance(heard: Heard) -> None:
    accuracy = metrics.accuracy(Judges.read().hear(heard.mels)[0], heard.clips.kinds)
    assert accuracy >= 0.4, f"kind heard right: {accuracy:.0%}, chance {1 / len(KINDS):.0%}"


def test_sound_follows_the_events_of_unseen_clips_better_than_chance(heard: Heard) -> None:
    generated, chance = onset_f1([mel_onsets(mel) for mel in heard.mels], heard.clips, 0.1)
    assert generated > chance + 0.25, f"F1 at ±100 ms: generated {generated:.2f}, chance {chance:.2f}"


def sound_onsets(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Times (s) at which the energy of a sound rises."""
    return mel_onsets(LogMel()(torch.from_numpy(samples)[None])[0].numpy())


def test_edited_onsets_move_the_sound(pipeline: Pipeline, tmp_path: Path) -> None:
    times = [0.8, 2.3, 3.9, 5.2, 6.9]
    options = Options(onsets=tuple(Onset(t, 0.9) for t in times))
    found = sound_onsets(pipeline.generate(SAMPLE, options).audio.samples)
    elsewhere = np.array([t + 0.6 for t in times])
    assert f1(found, np.array(times), 0.1) > f1(found, elsewhere, 0.1) + 0.3


def test_long_clip_is_covered_to_its_end(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    scene = write_video(path, HELD_OUT + 2, duration_s=19.0, height=90, kind="hammer")
    audio: Audio = pipeline.generate(path, Options(steps=10)).audio
    assert audio.duration_s == pytest.approx(19.0, abs=FRAME_S)
    assert scene.events[-1].time_s > 17
    assert np.abs(audio.samples[int(16.5 * audio.rate_hz) :]).max() > 0.01


def test_embedded_bundle_is_small_and_says_where_it_comes_from() -> None:
    manifest = Bundle.open("default").manifest
    assert sum(path.stat().st_size for path in DEFAULT.iterdir()) < 30e6
    assert max(path.stat().st_size for path in DEFAULT.iterdir()) < 16e6
    assert manifest.licence == "Apache-2.0"
    assert "procedurally generated" in manifest.provenance["data"]


def test_wav_output_holds_exactly_the_generated_samples(pipeline: Pipeline, tmp_path: Path) -> None:
    output, quieter = tmp_path / "out.wav", 10 ** (-30 / 20)  # so that no peak has to be limited
    options = ("--steps", "2", "--seed", "9", "--loudness", "off", "--gain", "-30")
    taro_rt("generate", str(SAMPLE), "-o", str(output), *options)
    samples, rate = soundfile.read(output, dtype="float32")
    expected = pipeline.generate(SAMPLE, Options(steps=2, seed=9), folder=tmp_path).audio
    assert rate == expected.rate_hz
    assert np.abs(samples - quieter * expected.samples).max() <= 1.1 / 32768
