"""The `taro-rt` command on real encoded clips and the tiny bundle."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from media import encode, encode_sound, numbered, read_sound, video_packets
from typer.testing import CliRunner, Result

from taro_rt import __version__
from taro_rt.engines.errors import Cancelled
from taro_rt.runtime.cli import app
from taro_rt.runtime.commands import Job, Machine, generate_file
from taro_rt.runtime.options import Options
from taro_rt.runtime.terminal import session

ROOT = Path(__file__).resolve().parent.parent
DURATION_S = 1.2


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("videos") / "clip.mp4", numbered(30), fps=25)


@pytest.fixture
def video(tmp_path: Path, encoded: Path) -> Path:
    """A silent video, the only file in its folder."""
    return Path(shutil.copy(encoded, tmp_path / "clip.mp4"))


@pytest.fixture
def run(tiny_bundle: Path) -> Callable[..., Result]:
    """Run a command; `generate` and `onsets` use the tiny bundle on one thread and few steps."""

    def command(name: str, *arguments: Any, quick: bool = True) -> Result:
        extra = ["--bundle", tiny_bundle, "--threads", 1] if quick and name in ("generate", "onsets") else []
        extra += ["--steps", 2] if quick and name == "generate" and "--steps" not in arguments else []
        return CliRunner().invoke(app, [name, *map(str, arguments), *map(str, extra)])

    return command


Run = Callable[..., Result]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_generate_writes_the_video_with_its_sound_beside_it(run: Run, video: Path) -> None:
    result = run("generate", video)
    output = video.with_name("clip.taro.mp4")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{output}\n" and result.stderr == ""
    assert files(video.parent) == ["clip.mp4", "clip.taro.mp4"]
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
    names = [str(video.with_name(f"take.{k}.wav")) for k in (1, 2)]
    assert record["takes"] == [{"output": names[0], "seed": 5}, {"output": names[1], "seed": 6}]
    assert files(video.parent) == ["clip.mp4", "take.1.wav", "take.2.wav"]
    one, two = (soundfile.read(name)[0] for name in names)
    assert np.abs(one - two).max() > 0.001


def test_a_stop_between_two_takes_leaves_neither(video: Path, tiny_bundle: Path) -> None:
    def stop(stage: str, fraction: float) -> bool:
        return not (stage == "write" and fraction == 0.5)

    before = set(video.parent.iterdir())
    with pytest.raises(Cancelled), Machine(str(tiny_bundle)) as machine:
        generate_file(machine, video, video.with_name("t.wav"), Job(Options(takes=2, steps=1)), stop)
    assert set(video.parent.iterdir()) == before


def test_default_names_of_takes_are_numbered_before_the_suffix(run: Run, video: Path) -> None:
    assert run("generate", video, "--takes", 2).exit_code == 0
    assert files(video.parent) == ["clip.mp4", "clip.taro.1.mp4", "clip.taro.2.mp4"]


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
    assert needed <= set(checks) and checks["backend onnxruntime"]["detail"] == "available"
    assert record["ok"] and all(check["ok"] for check in record["checks"])
    assert result.exit_code == 0


def test_the_version_is_shown() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"taro-rt {__version__}\n"


def break_text(folder: Path, clip: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("this is no video\n" * 50)
    return path


def break_truncated(folder: Path, clip: Path) -> Path:
    path = folder / "cut.mp4"
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    return path


def break_empty(folder: Path, clip: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def new_folder(folder: Path) -> Path:
    path = folder / "nothing here"
    path.mkdir()
    return path


def break_sound(folder: Path, clip: Path) -> Path:
    return encode_sound(folder / "sound.m4a", np.zeros(48000, np.float32))


def break_flipped(folder: Path, bundle: Path) -> Path:
    broken = Path(shutil.copytree(bundle, folder / "flipped"))
    path = broken / "vocoder.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return broken


def beyond(folder: Path) -> Path:
    path = folder / "late.json"
    path.write_text('{"onsets": [{"time_s": 99}]}')
    return path


Case = Callable[[Path, Path, Path], list[Any]]
"""Arguments of `generate` from a folder, a good video in it and a good bundle."""

CASES: dict[str, tuple[Case, int, str]] = {
    "missing": (lambda d, v, b: [d / "none.mp4"], 5, "none.mp4"),
    "folder": (lambda d, v, b: [new_folder(d)], 2, "expected videos"),
    "audio only": (lambda d, v, b: [break_sound(d, v)], 5, "sound.m4a"),
    "text": (lambda d, v, b: [break_text(d, v)], 5, "text.mp4"),
    "truncated": (lambda d, v, b: [break_truncated(d, v)], 5, "cut.mp4"),
    "empty": (lambda d, v, b: [break_empty(d, v)], 5, "empty.mp4"),
    "unknown bundle": (lambda d, v, b: [v, "--bundle", d / "nobundle"], 3, "nobundle"),
    "flipped byte": (lambda d, v, b: [v, "--bundle", break_flipped(d, b)], 3, "vocoder.safetensors"),
    "no output folder": (lambda d, v, b: [v, "-o", d / "nowhere" / "out.mp4"], 5, "nowhere"),
    "output is input": (lambda d, v, b: [v, "-o", v, "--force"], 5, "clip.mp4"),
    "unknown container": (lambda d, v, b: [v, "-o", d / "out.xyz"], 5, "out.xyz"),
    "codec not in container": (lambda d, v, b: [v, "-o", d / "out.webm"], 5, "out.webm"),
    "steps": (lambda d, v, b: [v, "--steps", 0], 2, "steps"),
    "takes": (lambda d, v, b: [v, "--takes", 0], 2, "takes"),
    "seed": (lambda d, v, b: [v, "--seed", -1], 2, "seed"),
    "guidance": (lambda d, v, b: [v, "--guidance", -1], 2, "guidance"),
    "method": (lambda d, v, b: [v, "--method", "rk4"], 2, "rk4"),
    "threads": (lambda d, v, b: [v, "--threads", 0], 2, "threads"),
    "too many threads": (lambda d, v, b: [v, "--threads", 5000], 2, "512"),
    "backend": (lambda d, v, b: [v, "--backend", "abacus"], 2, "abacus"),
    "device": (lambda d, v, b: [v, "--device", "cuda", "--backend", "onnxruntime"], 4, "cuda"),
    "precision": (lambda d, v, b: [v, "--precision", "int4"], 2, "int4"),
    "start": (lambda d, v, b: [v, "--start", 9], 5, "from 9 s on"),
    "end": (lambda d, v, b: [v, "--start", 1, "--end", 0.5], 2, "end"),
    "audio": (lambda d, v, b: [v, "--audio", "louder"], 2, "keep-as-second-track"),
    "loudness": (lambda d, v, b: [v, "--loudness", "loud"], 2, "off"),
    "gain": (lambda d, v, b: [v, "--gain", 99], 2, "gain"),
    "rate": (lambda d, v, b: [v, "--rate", 22050], 2, "44100"),
    "channels": (lambda d, v, b: [v, "--channels", 5], 2, "channels"),
    "output for many": (lambda d, v, b: [v, v, "-o", d / "out.mp4"], 2, "--out-dir"),
    "no onset file": (lambda d, v, b: [v, "--onsets", d / "none.json"], 2, "none.json"),
    "late onset": (lambda d, v, b: [v, "--onsets", beyond(d)], 2, "99"),
}


ENGINES = ("threads", "too many threads", "backend", "device", "precision")
"""Cases that only loading the engines can see."""


@pytest.mark.parametrize("json_wanted", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_in_one_line_that_names_it(
    run: Run, video: Path, tiny_bundle: Path, case: str, json_wanted: bool
) -> None:
    make, exit_code, named = CASES[case]
    arguments = make(video.parent, video, tiny_bundle)
    defaults = {"--bundle": tiny_bundle, "--threads": 1}
    for option, value in defaults.items():
        arguments += [] if option in arguments else [option, value]
    before, original = files(video.parent), video.read_bytes()
    result = run("generate", *arguments, *(["--json"] if json_wanted else []), quick=False)
    assert result.exit_code == exit_code, result.output
    if json_wanted:
        error = json.loads(result.stdout)["error"]
        assert error["exit_code"] == exit_code and error["type"].endswith(("Error", "Unavailable"))
        message = error["message"]
        stages = {json.loads(line)["stage"] for line in result.stderr.splitlines()}
        assert "load" not in stages or case in ENGINES, "engines loaded for nothing"
    else:
        assert result.stdout == "" and result.stderr.count("\n") == 1
        assert result.stderr.startswith("taro-rt: ")
        message = result.stderr
    assert named in message and "Traceback" not in result.output
    assert files(video.parent) == before and video.read_bytes() == original


def test_traceback_shows_where_an_error_came_from(run: Run, video: Path) -> None:
    result = run("generate", video.with_name("none.mp4"), "--traceback")
    assert result.exit_code == 5 and "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("taro-rt: ")


def test_an_unknown_option_is_a_usage_error(run: Run, video: Path) -> None:
    result = run("generate", video, "--stepz", 3)
    assert result.exit_code == 2 and "--stepz" in result.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing(video: Path, tiny_bundle: Path, stop: signal.Signals) -> None:
    command = [sys.executable, "-m", "taro_rt", "generate", video, "--bundle", tiny_bundle, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [*map(str, command), "--steps", "10000", "--threads", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr and process.stdout
        for line in process.stderr:
            if "generate" in line:
                break
        process.send_signal(stop)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["error"]["exit_code"] == 130 and "Traceback" not in err
    assert files(video.parent) == ["clip.mp4"]


def test_the_installed_command_works_as_a_module(video: Path, tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "taro_rt", "generate", video, "--bundle", tiny_bundle, "--steps", 1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{video.with_name('clip.taro.mp4')}\n"


def test_an_interrupt_that_spoils_an_import_is_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, session(json=False, traceback=False):
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        raise ImportError("initialization failed")
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == "taro-rt: interrupted: no unfinished output is left\n"


def test_an_import_that_fails_by_itself_is_not_hidden() -> None:
    with pytest.raises(ImportError), session(json=False, traceback=False):
        raise ImportError("initialization failed")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("redirection", "exit_code", "says"),
    [
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        (">/dev/full", 1, "taro-rt: the result cannot be shown (No space left on device)"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_whoever_does_not_listen_does_not_break_the_run(
    video: Path, tiny_bundle: Path, redirection: str, exit_code: int, says: str, more: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "taro_rt", "generate", video, "--bundle", tiny_bundle, "--steps", 1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    line = f"{shlex.join(map(str, [*command, *more]))} {redirection}"
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True)
    assert done.returncode == exit_code
    assert [line for line in done.stderr.splitlines() if not line.startswith("{")] == [says] * bool(says)
    assert files(video.parent) == ["clip.mp4", "clip.taro.mp4"]
