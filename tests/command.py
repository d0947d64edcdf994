"""The `taro-rt` command in tests: within this process, or as a process of its own."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from taro_rt.runtime.cli import app

Run = Callable[..., Result]
"""Runs a command in this process and gives what it printed."""


def invoke(*arguments: Any) -> Result:
    """Run a command line in this process."""
    return CliRunner().invoke(app, [*map(str, arguments)])


def command_line(*arguments: Any) -> tuple[list[str], dict[str, str]]:
    """The same as a process of its own: what to run, in which environment."""
    source = Path(__file__).resolve().parents[1] / "src"
    return [sys.executable, "-m", "taro_rt", *map(str, arguments)], {**os.environ, "PYTHONPATH": str(source)}


def program(folder: Path) -> Path:
    """The command as one file in `folder`, for a caller that knows nothing of this checkout."""
    line, environment = command_line()
    script = folder / "taro-rt"
    path = shlex.quote(environment["PYTHONPATH"])
    script.write_text(f'#!/bin/sh\nPYTHONPATH={path} TARO_CACHE=off exec {shlex.join(line)} "$@"\n')
    script.chmod(0o755)
    return script


def names(folder: Path) -> list[str]:
    """What lies in `folder`, sorted."""
    return sorted(path.name for path in folder.iterdir())
