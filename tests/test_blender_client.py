"""The add-on's client without Blender: the command as a process, and a service by its routes."""

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import soundfile
from command import names, program

SOURCE = Path(__file__).parents[1] / "integrations" / "blender" / "taro_rt_blender" / "client.py"
"""Loaded by itself: its package needs Blender."""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("taro_rt_blender_client", SOURCE)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client = load()
CommandJob, ServiceJob, Request, Refused = (
    client.CommandJob,
    client.ServiceJob,
    client.Request,
    client.Refused,
)
wait, free_name = client.wait, client.free_name
OPTIONS = "--steps 2 --threads 1 --bundle"


def request_for(video: Path, takes: int = 1) -> Any:
    return Request(video, video.with_name("s.wav"), 0.39, 1.0, seed=5, takes=takes)


def test_the_command_gives_its_files_and_onsets(
    video: Path, tiny_bundle: Path, tmp_path_factory: Any
) -> None:
    taro = program(tmp_path_factory.mktemp("bin"))
    job = CommandJob(str(taro), f"{OPTIONS} {tiny_bundle}", request_for(video, takes=2))
    state = wait(job)
    assert state.error == "" and state.files == [video.with_name(f"s.{k}.wav") for k in (1, 2)]
    assert soundfile.info(state.files[0]).duration == pytest.approx(0.6, abs=1e-3)
    assert state.stage == "write" and state.progress == 1.0


def test_a_refusal_comes_as_the_commands_own_sentence(video: Path, tmp_path_factory: Any) -> None:
    video.write_bytes(b"nothing")
    state = wait(CommandJob(str(program(tmp_path_factory.mktemp("bin"))), "", request_for(video)))
    assert str(video) in state.error and state.files == []


def test_a_wrong_option_comes_as_what_the_command_said(video: Path, tmp_path_factory: Any) -> None:
    state = wait(CommandJob(str(program(tmp_path_factory.mktemp("bin"))), "--loud", request_for(video)))
    assert "--loud" in state.error


def test_a_cancelled_command_leaves_nothing(video: Path, tmp_path_factory: Any) -> None:
    taro = program(tmp_path_factory.mktemp("bin"))
    job = CommandJob(str(taro), "--steps 1000 --threads 1", request_for(video))
    while job.poll().stage != "generate":
        assert not job.poll().done, job.poll().error
        time.sleep(0.02)
    job.cancel()
    assert job.poll().error == "cancelled" and names(video.parent) == ["clip.mp4"]


def test_a_command_that_has_just_ended_when_it_is_cancelled_leaves_nothing_either(
    video: Path, tiny_bundle: Path, tmp_path_factory: Any
) -> None:
    taro = program(tmp_path_factory.mktemp("bin"))
    job = CommandJob(str(taro), f"{OPTIONS} {tiny_bundle}", request_for(video))
    job._process.wait(60)
    assert len(names(video.parent)) > 1
    job.cancel()
    assert job.poll().error == "cancelled" and names(video.parent) == ["clip.mp4"]


def test_a_command_that_is_not_there_is_refused_with_a_hint(video: Path) -> None:
    with pytest.raises(Refused, match="preferences"):
        CommandJob("/nowhere/taro-rt", "", request_for(video))


def test_a_name_is_free_for_every_take(tmp_path: Path) -> None:
    (tmp_path / "a.taro.2.wav").touch()
    assert free_name(tmp_path, "a", 1).name == "a.taro.wav"
    assert free_name(tmp_path, "a", 2).name == "a.taro-2.wav"


class Service(BaseHTTPRequestHandler):
    """Answers as the service's routes are described; a job is done at its third look."""

    seen: ClassVar[list[tuple[str, str, Any]]] = []
    ends: ClassVar[str] = "done"

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, json.loads(body) if body else None))
        if self.headers["Authorization"] != "Bearer secret":
            refusal = {"error": {"type": "Refusal", "message": "expected the token", "exit_code": 2}}
            return self.answer(401, json.dumps(refusal).encode())
        if self.path.endswith("/takes/1"):
            return self.answer(200, b"sound")
        if self.command == "POST":
            return self.answer(202, b'{"job": "0a", "video": "clip"}')
        looks = sum(method == "GET" for method, *_ in self.seen)
        record: dict[str, Any] = {"state": "running", "stage": "generate", "progress": 0.5, "error": None}
        if looks >= 3 and self.ends != "running":
            record["state"] = self.ends
            record["error"] = {"message": "no picture"} if self.ends == "failed" else None
            record["result"] = {"takes": [{"url": "/v1/jobs/0a/takes/1"}], "onsets": [{"time_s": 0.5}]}
        self.answer(200, json.dumps(record).encode())

    do_GET = do_POST = do_DELETE = handle_any

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Service, "seen", [])
    monkeypatch.setattr(ServiceJob, "EVERY_S", 0.02)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_service_is_asked_watched_and_its_sound_fetched(service: str, video: Path) -> None:
    state = wait(ServiceJob(service, "secret", request_for(video)))
    assert state.error == "" and state.onsets_s == [0.5]
    assert [path.read_bytes() for path in state.files] == [b"sound"]
    method, path, body = Service.seen[0]
    assert (method, path) == ("POST", "/v1/generate") and body == {
        "video": str(video),
        "options": {"seed": 5, "takes": 1, "start_s": 0.39, "end_s": 1.0},
        "output": {"format": "wav"},
    }


def test_a_service_refuses_with_its_own_sentence(
    service: str, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wait(ServiceJob(service, "wrong", request_for(video))).error == "expected the token"
    monkeypatch.setattr(Service, "ends", "failed")
    Service.seen.clear()
    assert wait(ServiceJob(service, "secret", request_for(video))).error == "no picture"
    assert names(video.parent) == ["clip.mp4"]


def test_a_cancelled_job_is_taken_back_from_the_service(
    service: str, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "ends", "running")
    job = ServiceJob(service, "secret", request_for(video))
    while job.poll().stage != "generate":
        time.sleep(0.01)
    job.cancel()
    assert Service.seen[-1][:2] == ("DELETE", "/v1/jobs/0a") and job.poll().error == "cancelled"


def test_no_service_is_said_in_a_sentence(video: Path) -> None:
    assert "taro-rt serve" in wait(ServiceJob("http://127.0.0.1:9", "", request_for(video))).error
