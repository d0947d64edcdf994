"""What keeps the service flat, and how it ends: its queue, the files it keeps, signals, failures."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import command_line, names
from service import TOKEN, Client, serving

from taro_rt.runtime.commands import Job, Machine
from taro_rt.runtime.service.asks import Ask
from taro_rt.runtime.service.jobs import Jobs
from taro_rt.runtime.service.kept import Video, temporary_shelf
from taro_rt.runtime.service.refusals import Refusal
from taro_rt.runtime.service.settings import Settings


@pytest.fixture
def own_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process puts temporary files, and nothing else is."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@contextmanager
def working(bundle: Path, **settings: int) -> Iterator[Jobs]:
    """The queue alone, without HTTP."""
    asked = Settings(token=TOKEN, **settings)  # type: ignore[arg-type]
    with Machine(str(bundle), threads=1) as machine, temporary_shelf(asked) as shelf:
        jobs = Jobs(machine, asked, shelf)
        try:
            yield jobs
        finally:
            jobs.close()


def until(holds: Callable[[], bool]) -> None:
    """Wait, but not for ever."""
    stop = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < stop
        time.sleep(0.01)


def kept(folder: Path) -> int:
    """Folders of jobs and uploads that a service in this process keeps."""
    return sum(1 for shelf in folder.iterdir() for _ in shelf.iterdir())


def test_a_job_too_many_is_told_when_to_come_again(tiny_bundle: Path, video: Path) -> None:
    with serving(tiny_bundle, allow=(video.parent,), max_waiting=2) as client:
        running = client.generate(video, steps=10_000).json["job"]
        while client.ask("GET", f"/v1/jobs/{running}").json["state"] != "running":
            time.sleep(0.01)
        assert [client.generate(video).status for _ in range(3)] == [202, 202, 429]
        answer = client.upload("generate", video.read_bytes())
        assert answer.status == 429 and int(answer.headers["retry-after"]) >= 1
        assert "expected at most 2 jobs that wait" in answer.message
        client.ask("DELETE", f"/v1/jobs/{running}")
        until(lambda: client.generate(video).status == 202)


def test_old_jobs_and_uploads_are_dropped(tiny_bundle: Path, video: Path, own_temporary: Path) -> None:
    with serving(tiny_bundle, keep_jobs=2) as client:
        jobs = []
        for _ in range(5):
            jobs.append(client.upload("onsets", video.read_bytes()).json["job"])
            client.wait(jobs[-1])
        client.wait(client.upload("onsets", video.read_bytes()).json["job"])
        assert client.ask("GET", f"/v1/jobs/{jobs[0]}").status == 404
        assert kept(own_temporary) <= 2 * (2 + 1), "of jobs and of uploads, and the one that is just done"
    assert names(own_temporary) == []


def test_what_takes_too_much_room_is_dropped_but_not_the_newest(
    tiny_bundle: Path, video: Path, own_temporary: Path
) -> None:
    with serving(tiny_bundle, keep_bytes=1) as client:
        for _ in range(3):
            record = client.wait(client.upload("generate", video.read_bytes()).json["job"])
            assert client.take(record)
        assert kept(own_temporary) <= 4


def test_a_fault_leaves_no_file(tiny_bundle: Path, own_temporary: Path) -> None:
    with serving(tiny_bundle) as client:
        for request in (b"{", {"options": {"steps": 0}}, {"output": {"path": "/etc/a.mp4"}}):
            assert client.upload("generate", b"content", request).status >= 400
        assert kept(own_temporary) == 0


def test_an_upload_that_breaks_off_leaves_nothing(tiny_bundle: Path, own_temporary: Path) -> None:
    with serving(tiny_bundle, max_waiting=1) as client:
        with socket.create_connection((client.host, client.port)) as connection:
            connection.sendall(
                f"POST /v1/generate HTTP/1.1\r\nHost: {client.host}:{client.port}\r\n"
                f"Authorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode()
            )
            until(lambda: kept(own_temporary) == 1)
            assert client.upload("onsets", b"").status == 429, "its place is kept"
        until(lambda: kept(own_temporary) == 0)
        assert client.upload("onsets", b"").status == 202


def test_a_stop_ends_what_runs_and_what_waits(tiny_bundle: Path, video: Path) -> None:
    with serving(tiny_bundle, allow=(video.parent,)) as client:
        client.generate(video, {"path": str(video.with_name("a.mp4"))}, steps=10_000)
        client.generate(video, {"path": str(video.with_name("b.mp4"))})
        started = time.perf_counter()
    assert time.perf_counter() - started < 5
    assert names(video.parent) == ["clip.mp4"]


def test_whoever_follows_a_job_hears_of_the_stop(tiny_bundle: Path, video: Path) -> None:
    with working(tiny_bundle) as jobs:
        with jobs.place():
            task = jobs.submit(Ask("generate", Job()), Video(video, "a", "a"))
        heard: list[str] = []
        with jobs.listening(task, lambda: heard.append(task.state)):
            jobs.stop()
            jobs.close()
        assert heard[-1] == task.state == "cancelled"
        with pytest.raises(Refusal, match="stopping"), jobs.place():
            pass


def test_a_bug_in_one_job_is_not_the_end_of_the_next(
    tiny_bundle: Path, video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with working(tiny_bundle) as jobs:
        with monkeypatch.context() as patch, jobs.place():
            patch.setattr(Ask, "work", lambda *_: 1 / 0)
            broken = jobs.submit(Ask("onsets", Job()), Video(video, "a", "a"))
            while broken.state in ("queued", "running"):
                time.sleep(0.01)
        assert broken.error and broken.error["type"] == "InternalError"
        assert "ZeroDivisionError" in capsys.readouterr().err
        with jobs.place():
            sound = jobs.submit(Ask("onsets", Job()), Video(video, "a", "a"))
        while sound.state in ("queued", "running"):
            time.sleep(0.01)
        assert sound.state == "done"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_nothing_left(
    tiny_bundle: Path, video: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    more = ("--bundle", tiny_bundle, "--threads", 1, "--port", 0, "--allow", video.parent, "--json")
    command, environment = command_line("serve", *more)
    environment |= {"TARO_TOKEN": "", "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        told = json.loads(process.stdout.readline())
        client = Client("127.0.0.1", int(told["url"].rpartition(":")[2]))
        document = {"video": str(video), "options": {"steps": 10_000}}
        accepted = client.ask("POST", "/v1/generate", document, token=told["token"])
        assert accepted.status == 202
        assert list(temporary.glob("taro-rt-*"))
        process.send_signal(stop)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert list(temporary.glob("taro-rt-*")) == []


def test_a_token_of_the_callers_own_is_not_shown(tiny_bundle: Path) -> None:
    command, environment = command_line("serve", "--bundle", tiny_bundle, "--threads", 1, "--port", 0)
    environment["TARO_TOKEN"] = TOKEN
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        shown = process.stdout.readline()
        process.terminate()
        shown += process.communicate(timeout=30)[0]
    assert shown.startswith("page: http://127.0.0.1:") and TOKEN not in shown
