"""What the `taro-rt` command refuses, in one line that names it; nothing changes and nothing is left."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Run, names
from media import encode_sound


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
    before, original = names(video.parent), video.read_bytes()
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
    assert names(video.parent) == before and video.read_bytes() == original


def test_traceback_shows_where_an_error_came_from(run: Run, video: Path) -> None:
    result = run("generate", video.with_name("none.mp4"), "--traceback")
    assert result.exit_code == 5 and "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("taro-rt: ")


def test_an_unknown_option_is_a_usage_error(run: Run, video: Path) -> None:
    result = run("generate", video, "--stepz", 3)
    assert result.exit_code == 2 and "--stepz" in result.stderr
