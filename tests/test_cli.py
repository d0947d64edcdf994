"""The `taro-rt` command on real encoded clips and the tiny bundle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command import Run, invoke, names
from media import encode, numbered, read_sound, video_packets

from taro_rt import __version__
from taro_rt.engines.errors import Cancelled
from taro_rt.runtime.commands import Job, Machine, generate_file
from taro_rt.runtime.options import Options

DURATION_S = 1.2


def test_generate_writes_the_video_with_its_sound_beside_it(run: Run, video: Path) -> None:
    result = run("generate", video)
    output = video.with_name("clip.taro.mp4")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{output}\n" and result.stderr == ""
    assert names(video.parent) == ["clip.mp4", "clip.taro.mp4"]
    assert [data for _, data in video_packets(output)] == [data for _, data in video_packets(video)]
    start_s, samples, rate_hz = read_sound(output)
    assert start_s == 0 and len(samples) / rate_hz == pytest.approx(DURATION_S, abs=0.04)
    assert np.abs(samples).max() > 0.01


def test_a_wav_holds_the_sound_alone_exactly_as_long_as_the_picture(run: Run, video: Path) -> None:
    output = video.with_name("sound.wav")
    assert run("generate", video, "-o", output).exit_code == 0
    samples, rate_hz = soundfile.read(output)
    assert (rate_hz, samples.shape) == (16000, (round(DURATION_S * 16000),))


def test_several_takes_are_numbered_and_differ(run: Run, video: Path) -> None:
    result = run("generate", video, "--takes", 2, "--seed", 5, "--json", "-o", video.with_name("take.wav"))
    record = json.loads(result.stdout)
    outputs = [str(video.with_name(f"take.{k}.wav")) for k in (1, 2)]
    assert record["takes"] == [{"output": outputs[0], "seed": 5}, {"output": outputs[1], "seed": 6}]
    assert names(video.parent) == ["clip.mp4", "take.1.wav", "take.2.wav"]
    one, two = (soundfile.read(name)[0] for name in outputs)
    assert np.abs(one - two).max() > 0.001


def test_a_stop_while_takes_are_written_leaves_none(video: Path, tiny_bundle: Path) -> None:
    def stop(stage: str, fraction: float) -> bool:
        return not (stage == "write" and fraction >= 0.5)

    before = set(video.parent.iterdir())
    with pytest.raises(Cancelled), Machine(str(tiny_bundle)) as machine:
        generate_file(machine, video, video.with_name("t.wav"), Job(Options(takes=2, steps=1)), stop)
    assert set(video.parent.iterdir()) == before


def test_default_names_of_takes_are_numbered_before_the_suffix(run: Run, video: Path) -> None:
    assert run("generate", video, "--takes", 2).exit_code == 0
    assert names(video.parent) == ["clip.mp4", "clip.taro.1.mp4", "clip.taro.2.mp4"]


def test_json_gives_one_record_on_stdout_and_progress_lines_on_stderr(run: Run, video: Path) -> None:
    result = run("generate", video, "--seed", 3, "--json")
    record = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert record["output"] == str(video.with_name("clip.taro.mp4")) and record["seed"] == 3
    assert record["video_s"] == pytest.approx(DURATION_S) and record["audio_s"] == pytest.approx(DURATION_S)
    assert record["backend"] == "onnxruntime" and record["warnings"] == []
    assert record["precision"] == "float32" and record["reason"]
    assert all(seconds >= 0 for seconds in record["timings_s"].values())
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    assert stages == ["load", "generate", "write"]
    assert all(0 <= line["progress"] <= 1 for line in lines)


def test_options_reach_the_sampler(run: Run, video: Path) -> None:
    def sound(*arguments: Any) -> Any:
        output = video.with_name("sound.wav")
        assert run("generate", video, "-o", output, "--force", *arguments).exit_code == 0
        return soundfile.read(output)[0]

    plain = sound()
    assert np.array_equal(plain, sound())
    for change in (["--seed", 1], ["--guidance", 2], ["--method", "ode"], ["--steps", 3]):
        assert np.abs(plain - sound(*change)).max() > 1e-3, change


def test_a_part_at_another_rate_on_two_channels(run: Run, video: Path) -> None:
    output = video.with_name("part.wav")
    asked = ["--start", 0.4, "--end", 1.0, "--rate", 44100, "--channels", 2, "--json"]
    record = json.loads(run("generate", video, "-o", output, *asked).stdout)
    samples, rate_hz = soundfile.read(output)
    assert (record["video_s"], record["rate_hz"]) == (pytest.approx(0.6), 44100) and rate_hz == 44100
    assert samples.shape == (round(0.6 * 44100), 2) and np.array_equal(samples[:, 0], samples[:, 1])


def test_the_original_sound_and_the_level_are_as_asked(run: Run, tmp_path: Path) -> None:
    tone = (0.05 * np.sin(np.arange(57600) * 0.3)).astype(np.float32)
    video = encode(tmp_path / "sounding.mp4", numbered(30), sound=tone)
    levels = {}
    for audio, loudness in (("replace", "-30"), ("replace", "-20"), ("mix", "-30")):
        output = tmp_path / "sound.wav"
        result = run("generate", video, "-o", output, "--force", "--audio", audio, "--loudness", loudness)
        assert result.exit_code == 0, result.output
        levels[audio, loudness] = np.sqrt(np.mean(soundfile.read(output)[0] ** 2))
    assert levels["replace", "-20"] > 1.5 * levels["replace", "-30"]
    assert levels["mix", "-30"] > levels["replace", "-30"]


def test_an_existing_output_is_replaced_with_force_only(run: Run, video: Path) -> None:
    output = video.with_name("clip.taro.mp4")
    output.write_text("mine")
    refused = run("generate", video)
    assert refused.exit_code == 5 and "--force" in refused.stderr and output.read_text() == "mine"
    assert run("generate", video, "--force").exit_code == 0
    assert read_sound(output)[1].size


def test_onsets_prints_what_generate_takes_back(run: Run, video: Path) -> None:
    result = run("onsets", video, "--json")
    record = json.loads(result.stdout)
    assert record["duration_s"] == pytest.approx(DURATION_S) and record["fps"] == 15
    assert len(record["curve"]) == 18 and all(0 <= value <= 1 for value in record["curve"])
    edited = video.with_name("edited.json")
    edited.write_text(json.dumps({**record, "onsets": [{"time_s": 0.5, "strength": 0.8}]}))
    taken = json.loads(run("generate", video, "--onsets", edited, "--json").stdout)
    assert taken["onsets"] == [{"time_s": 0.5, "strength": 0.8}]
    assert "onset" not in taken["timings_s"]


def test_onsets_writes_a_file(run: Run, video: Path) -> None:
    output = video.with_name("onsets.json")
    result = run("onsets", video, "-o", output)
    assert result.exit_code == 0 and result.stdout == f"{output}\n"
    assert set(json.loads(output.read_text())) == {"video", "start_s", "duration_s", "fps", "onsets", "curve"}
    assert run("onsets", video, "-o", output).exit_code == 5
    assert run("onsets", video, "-o", output, "--force").exit_code == 0


def test_info_tells_what_a_bundle_is_and_its_licence(run: Run, tiny_bundle: Path) -> None:
    record = json.loads(run("info", tiny_bundle, "--json").stdout)
    assert "denoiser.onnx" in record["files"]
    assert record["name"] == "tiny" and record["licence"] == "Apache-2.0"
    assert record["sampler"]["steps"] == 25 and record["geometry"]["rate_hz"] == 16000
    text = run("info", tiny_bundle).stdout
    assert "licence: Apache-2.0" in text and "guidance 8.0" in text


def test_doctor_names_every_check(run: Run) -> None:
    result = run("doctor", "--json")
    record = json.loads(result.stdout)
    checks = {check["name"]: check for check in record["checks"]}
    needed = {"taro-rt", "numpy", "av", "soundfile", "onnxruntime", "backend onnxruntime", "default bundle"}
    needed |= {"choice", "choice for large bundles"}
    assert needed <= set(checks) and checks["backend onnxruntime"]["detail"] == "available"
    assert record["ok"] and all(check["ok"] for check in record["checks"])
    assert result.exit_code == 0


def test_the_version_is_shown() -> None:
    assert invoke("--version").stdout == f"taro-rt {__version__}\n"
