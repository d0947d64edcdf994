"""The add-on within Blender, without a display; and its client without Blender."""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command import program
from media import encode, numbered

ROOT = Path(__file__).parents[1]
HOST_S = 300
HOSTS = {
    "blender": ["blender", "-b", "--factory-startup", "--python-exit-code", "1", "--python"],
    "bpy": [os.environ.get("BPY_PYTHON", sys.executable)],
}
"""How each runs a script. BPY_PYTHON: a Python that has bpy, where it is not this one."""


def is_there(host: str) -> bool:
    if host == "blender":
        return shutil.which("blender") is not None
    return "BPY_PYTHON" in os.environ or importlib.util.find_spec("bpy") is not None


@pytest.fixture(
    scope="module", params=[("blender", "25"), ("blender", "43/2"), ("bpy", "43/2")], ids="-".join
)
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path
) -> dict[str, Any]:
    """What `blender_host.py` tells of one host at one frame rate."""
    host, rate = request.param[0], Fraction(request.param[1])
    if not is_there(host):
        pytest.skip(f"{host} is not installed")
    asked = asked_of(tmp_path_factory.mktemp("blender"), tiny_bundle, rate)
    return {"host": host, "rate": rate, **told(HOSTS[host], "blender_host.py", asked)}


def asked_of(folder: Path, bundle: Path, rate: Fraction, steps: int = 2) -> dict[str, Any]:
    """What the scripts need: the add-on, the command, and two seconds of a video in `folder`."""
    n = round(2 * rate)
    video = encode(folder / "clip é.mp4", numbered(n), [k / rate for k in range(n)], fps=rate)  # type: ignore[misc]
    addon = folder / "addon.zip"
    subprocess.run([sys.executable, ROOT / "integrations/blender/build.py", addon], check=True)
    return {
        "folder": str(folder),
        "zip": str(addon),
        "video": str(video),
        "program": str(program(folder)),
        "options": f"--bundle {shlex.quote(str(bundle))} --steps {steps} --threads 1",
        "takes": 2,
        "rate": [rate.numerator, rate.denominator],
    }


def told(command: list[str], script: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The JSON that a script in Blender prints last."""
    folder = asked["folder"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"TARO_BLENDER": json.dumps(asked), "HOME": folder, "XDG_CONFIG_HOME": folder}
    environment |= {"BLENDER_USER_RESOURCES": folder, "BLENDER_USER_SCRIPTS": f"{folder}/scripts"}
    done = subprocess.run(
        [*command, str(ROOT / "tests" / script)],
        env=environment,
        timeout=HOST_S,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"version"')]
    assert lines, done.stdout[-3000:] + done.stderr[-3000:]
    return dict(json.loads(lines[-1]))


@pytest.mark.parametrize("part", ["whole", "trimmed"])
def test_the_sound_is_heard_with_its_picture(measured: dict[str, Any], part: str) -> None:
    found = measured[part]
    mix, rate_hz = soundfile.read(found["mix"], always_2d=True)
    sound, sound_rate_hz = soundfile.read(Path(found["mix"]).with_name(found["files"][0]))
    times_s = np.arange(len(sound) * rate_hz // sound_rate_hz) / rate_hz
    sound, mix = np.interp(times_s, np.arange(len(sound)) / sound_rate_hz, sound), mix[:, 0]
    correlation = np.correlate(np.pad(mix, len(sound)), sound, "valid")
    lag_s = (int(np.argmax(correlation)) - len(sound)) / rate_hz - found["expected_s"]
    host = f"{measured['host']} {measured['version']}"
    print(f"{host}, {measured['rate']} frames per second, {part}: {1000 * lag_s:.3f} ms")
    assert abs(lag_s) <= 0.001


@pytest.mark.parametrize("part", ["whole", "trimmed"])
def test_strips_lie_over_what_is_visible_of_the_movie(measured: dict[str, Any], part: str) -> None:
    found = measured[part]
    start, end = found["movie"]
    assert found["answer"] == ["FINISHED"]
    assert found["start"] == [start, start] and all(abs(frame - end) <= 1 for frame in found["end"])


def test_takes_lie_on_free_channels_and_only_the_first_is_heard(measured: dict[str, Any]) -> None:
    assert measured["whole"]["channel"] == [2, 3] and measured["whole"]["mute"] == [False, True]


def test_a_second_run_does_not_touch_the_files_of_the_first(measured: dict[str, Any]) -> None:
    assert measured["whole"]["files"] == ["clip é.taro.1.wav", "clip é.taro.2.wav"]
    assert measured["trimmed"]["files"] == ["clip é.taro-2.1.wav", "clip é.taro-2.2.wav"]


def test_what_cannot_be_done_is_said_in_a_sentence_and_changes_nothing(measured: dict[str, Any]) -> None:
    assert "frames per second" in measured["other_rate"]
    assert "steps" in measured["refused"] and "preferences" in measured["missing"]
    assert measured["sounds_after_refusals"] == 0


def test_a_retimed_strip_is_refused(measured: dict[str, Any]) -> None:
    if "retimed" not in measured:
        pytest.skip("this Blender retimes only in a window")
    assert "retimed" in measured["retimed"]


def test_escape_stops_the_work_in_a_window_and_the_next_run_is_whole(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    if not is_there("blender") or shutil.which("xvfb-run") is None:
        pytest.skip("blender or xvfb-run is not installed")
    screen = ["xvfb-run", "-a", "-s", "-screen 0 1280x720x24 +extension GLX"]
    window = ["--factory-startup", "--enable-event-simulate", "-p", "0", "0", "1280", "720", "--python"]
    found = told(
        [*screen, "blender", *window],
        "blender_window.py",
        asked_of(tmp_path, tiny_bundle, Fraction(25), steps=400),
    )  # so many steps that it is under way when Esc comes
    assert found["begun"] == ["RUNNING_MODAL"]
    assert found["left_by_escape"] == [] and found["sounds_after_escape"] == 0
    assert found["sounds"] == [[1, 2, False], [1, 3, True]]
