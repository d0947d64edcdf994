"""Asking taro-rt for sounds, through its command or its local service. Knows nothing of Blender.

Standard library only. A job runs beside the caller, who polls it: `poll()` never waits.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The service is on this machine: no proxy is asked."""


class Refused(Exception):
    """What taro-rt says when it cannot, or that it is not there: one sentence for the user."""


@dataclass(frozen=True)
class Request:
    """Which part of which video, and what to make of it."""

    video: Path
    output: Path
    """A .wav; of several takes NAME.1.wav, NAME.2.wav, ..."""
    start_s: float
    end_s: float
    seed: int = 0
    takes: int = 1


@dataclass
class State:
    """How far a job is."""

    stage: str = "start"
    progress: float = 0.0
    """0 to 1 within the stage."""
    done: bool = False
    error: str = ""
    """Why there is no result."""
    files: list[Path] = field(default_factory=list)
    """One sound per take."""
    onsets_s: list[float] = field(default_factory=list)
    """From the start of the part."""


class Job(Protocol):
    """A request on its way."""

    def poll(self) -> State: ...

    def cancel(self) -> None: ...


class CommandJob:
    """The command as a process. Raises `Refused` if it cannot be started."""

    PATIENCE_S = 10.0
    """A command that was asked to stop has so long to clean up."""

    def __init__(self, program: str, options: str, request: Request) -> None:
        self._state = State()
        arguments = [
            *("generate", str(request.video), "-o", str(request.output), "--json"),
            *("--start", repr(request.start_s), "--end", repr(request.end_s)),
            *("--seed", str(request.seed), "--takes", str(request.takes), *shlex.split(options)),
        ]
        new_group: dict[str, Any] = {}
        if os.name == "nt":  # no console window
            new_group = {"creationflags": subprocess.CREATE_NO_WINDOW}  # type: ignore[attr-defined]
        try:
            self._process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                **new_group,
            )
        except OSError as error:
            raise Refused(
                f"{program} cannot be started ({error.strerror}); set its path in the add-on's preferences"
            ) from error
        self._request = request
        self._said: list[str] = []
        self._remarks: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_result, daemon=True),
            threading.Thread(target=self._read_progress, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def poll(self) -> State:
        """How far it is."""
        if not self._state.done and self._process.poll() is not None:
            for reader in self._readers:
                reader.join()
            self._finish(self._process.returncode)
        return self._state

    def cancel(self) -> None:
        """Stop, and wait until the command has removed what it had begun; what it had just finished goes
        too."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
        try:
            self._process.wait(self.PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(self.PATIENCE_S)
        remove_takes(self._request)
        self._state.done, self._state.error = True, "cancelled"

    def _finish(self, exit_code: int) -> None:
        try:
            record = json.loads(self._said[-1])
        except (IndexError, ValueError):
            why = " ".join(self._remarks[-3:]) or f"taro-rt ended with exit code {exit_code}"
            record = {"error": {"message": why}}
        if "error" in record:
            self._state.error = record["error"]["message"]
        else:
            self._state.files = [Path(take["output"]) for take in record["takes"]]
            self._state.onsets_s = [onset["time_s"] for onset in record["onsets"]]
        self._state.done = True

    def _read_result(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            self._said = [line for line in lines if line.strip()]

    def _read_progress(self) -> None:
        assert self._process.stderr
        with self._process.stderr as lines:
            for line in lines:
                try:
                    told = json.loads(line)
                    self._state.stage, self._state.progress = str(told["stage"]), float(told["progress"])
                except (ValueError, KeyError, TypeError):  # a remark for people
                    self._remarks.append(line.strip())


class ServiceJob:
    """A job of `taro-rt serve`, watched by a thread."""

    EVERY_S = 0.2

    def __init__(self, url: str, token: str, request: Request) -> None:
        self._url, self._token = url.rstrip("/"), token
        self._request = request
        self._state = State()
        self._cancelled = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def poll(self) -> State:
        """How far it is."""
        return self._state

    def cancel(self) -> None:
        """Stop it; what was fetched already goes too."""
        self._cancelled.set()
        self._watcher.join(CommandJob.PATIENCE_S)
        remove_takes(self._request)
        self._state.done, self._state.error = True, "cancelled"

    def _watch(self) -> None:
        try:
            self._run()
        except Refused as error:
            self._state.error = str(error)
        except (KeyError, TypeError, ValueError) as error:
            self._state.error = f"the service gave an answer that is not understood ({error!r})"
        self._state.done = True

    def _run(self) -> None:
        asked = self._request
        span = {"start_s": asked.start_s, "end_s": asked.end_s}
        options = {"seed": asked.seed, "takes": asked.takes, **span}
        body = {"video": str(asked.video), "options": options, "output": {"format": "wav"}}
        address = f"/v1/jobs/{call(self._url, self._token, 'POST', '/v1/generate', body)['job']}"
        while True:
            record = call(self._url, self._token, "GET", address)
            self._state.stage = str(record.get("stage") or record["state"])
            self._state.progress = float(record.get("progress") or 0)
            if record["state"] == "done":
                break
            if record["state"] in ("failed", "cancelled"):
                error = record.get("error") or record["state"]
                raise Refused(error["message"] if isinstance(error, dict) else str(error))
            if self._cancelled.wait(self.EVERY_S):
                call(self._url, self._token, "DELETE", address)
                return
        result = record["result"]
        for k, take in enumerate(result["takes"]):
            self._state.files.append(self._fetch(take["url"], k))
        self._state.onsets_s = [onset["time_s"] for onset in result["onsets"]]

    def _fetch(self, address: str, k: int) -> Path:
        path = take_names(self._request.output, self._request.takes)[k]
        data = call(self._url, self._token, "GET", address, read=bytes)
        try:
            path.write_bytes(data)
        except OSError as error:
            raise Refused(f"{path}: cannot be written ({error.strerror})") from error
        return path


def call(
    url: str, token: str, method: str, path: str, body: Any = None, read: Callable[[bytes], Any] = json.loads
) -> Any:
    """One call of the service. Raises `Refused` with the service's own sentence where it gives one."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        asked = urllib.request.Request(url + path, data, headers, method=method)
        with DIRECT.open(asked, timeout=60) as answer:
            return read(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        try:
            raise Refused(json.loads(error.read())["error"]["message"]) from error
        except (ValueError, KeyError, TypeError):
            raise Refused(f"{url}{path}: {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise Refused(f"{url}: no service there ({error}); start taro-rt serve, or clear the URL") from error


def take_names(output: Path, takes: int) -> list[Path]:
    """What the files of several takes are called."""
    if takes == 1:
        return [output]
    return [output.with_name(f"{output.stem}.{k}{output.suffix}") for k in range(1, takes + 1)]


def remove_takes(request: Request) -> None:
    """Remove what a cancelled request has left: its names were free before."""
    for path in take_names(request.output, request.takes):
        path.unlink(missing_ok=True)


def free_name(folder: Path, stem: str, takes: int) -> Path:
    """STEM.taro.wav in `folder`, numbered so that no take's file exists yet."""
    for number in range(1, 1_000_000):
        output = folder / f"{stem}.taro{'' if number == 1 else f'-{number}'}.wav"
        if not any(path.exists() for path in take_names(output, takes)):
            return output
    raise Refused(f"{folder}: too many sounds of {stem} there")


def wait(job: Job, every_s: float = 0.05) -> State:
    """Poll until it is done."""
    while not job.poll().done:
        time.sleep(every_s)
    return job.poll()
