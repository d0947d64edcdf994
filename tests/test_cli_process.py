"""The `taro-rt` command as a process: signals, streams that nobody reads, imports that fail."""

import json
import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import typer
from command import command_line, names

from taro_rt.runtime.terminal import session


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing(video: Path, tiny_bundle: Path, stop: signal.Signals) -> None:
    more = ("--json", "--steps", 10000, "--threads", 1)
    command, environment = command_line("generate", video, "--bundle", tiny_bundle, *more)
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, stop, signal.SIG_DFL),  # tests under nohup have SIGHUP ignored
    ) as process:
        assert process.stderr and process.stdout
        for line in process.stderr:
            if "generate" in line:
                break
        process.send_signal(stop)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["error"]["exit_code"] == 130 and "Traceback" not in err
    assert names(video.parent) == ["clip.mp4"]


def test_the_installed_command_works_as_a_module(video: Path, tiny_bundle: Path) -> None:
    command, environment = command_line("generate", video, "--bundle", tiny_bundle, "--steps", 1)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
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
    command, environment = command_line("generate", video, "--bundle", tiny_bundle, "--steps", 1, *more)
    line = f"{shlex.join(command)} {redirection}"
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True)
    assert done.returncode == exit_code
    assert [line for line in done.stderr.splitlines() if not line.startswith("{")] == [says] * bool(says)
    assert names(video.parent) == ["clip.mp4", "clip.taro.mp4"]
