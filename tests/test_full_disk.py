"""Outputs for which there is no room, or no permission: a line that says so, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from media import burst, encode, numbered
from typer.testing import CliRunner

from taro_rt.runtime.cli import app


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return encode(tmp_path / "a.mp4", numbered(75, 64, 48), sound=burst(3, 1))


def run_with_room_for(n_bytes: int, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """The command where no file may grow beyond `n_bytes`: to it that is a disk that fills up."""
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)\n"
        "from taro_rt.runtime.cli import app\n"
        "app()\n"
    )
    source = Path(__file__).parents[1] / "src"
    return subprocess.run(
        [sys.executable, "-c", program, str(n_bytes), *map(str, arguments), "--threads", "1"],
        env=os.environ | {"PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("command", "name", "more", "n_bytes"),
    [
        ("onsets", "hits.json", (), 100),
        ("generate", "out.mp4", ("--steps", 1), 100_000),  # not even the samples find room
        ("generate", "out.wav", ("--steps", 1, "--rate", 44100, "--channels", 2), 250_000),  # they do
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, video: Path, tiny_bundle: Path, command: str, name: str, more: tuple[Any], n_bytes: int
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    result = run_with_room_for(n_bytes, command, video, "-o", folder / name, "--bundle", tiny_bundle, *more)
    assert result.returncode == 5, result.stderr
    assert result.stderr.startswith(f"taro-rt: {folder}") and result.stderr.count("\n") == 1
    assert os.listdir(folder) == []


def test_a_disk_with_room_is_no_fault(tmp_path: Path, video: Path, tiny_bundle: Path) -> None:
    target = tmp_path / "hits.json"
    result = run_with_room_for(100_000, "onsets", video, "-o", target, "--bundle", tiny_bundle)
    assert result.returncode == 0 and json.loads(target.read_text())["onsets"] is not None


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can make a file")
@pytest.mark.parametrize(
    ("command", "name"), [("onsets", "a.json"), ("generate", "a.mp4"), ("generate", "a.wav")]
)
def test_a_folder_that_takes_no_file_is_one_line(
    video: Path, tiny_bundle: Path, command: str, name: str
) -> None:
    more = ["--steps", "1"] if command == "generate" else []
    arguments = [command, str(video), "-o", f"/proc/{name}", "--bundle", str(tiny_bundle), "--threads", "1"]
    result = CliRunner().invoke(app, [*arguments, *more])
    assert result.exit_code == 5 and result.output.count("\n") == 1
    assert result.output.startswith("taro-rt: /proc") and "choose another" in result.output
