"""A running service in tests, on a port of its own, and a client that can also misbehave."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from taro_rt.runtime.commands import Machine
from taro_rt.runtime.service.server import Address, Server, serve
from taro_rt.runtime.service.settings import Settings

TOKEN = "a-token-for-the-tests"
STEPS = 2


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's document."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """Of a refusal."""
        return str(self.json["error"]["message"])


@dataclass(frozen=True)
class Client:
    """Talks to a service."""

    host: str
    port: int

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        token: str | None = TOKEN,
    ) -> Answer:
        """One request; a dict is sent as JSON. A header of None or "" is left out."""
        sent = {"Authorization": f"Bearer {token}"} if token is not None else {}
        if isinstance(body, dict):
            body, sent["Content-Type"] = json.dumps(body), "application/json"
        connection = HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body, sent | (headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def upload(self, kind: str, content: bytes, request: Any = None, filename: str = "clip.mp4") -> Answer:
        """A job for a video that is sent along."""
        body, content_type = form(content, request, filename)
        return self.ask("POST", f"/v1/{kind}", body, {"Content-Type": content_type})

    def wait(self, job: str) -> Any:
        """The record of a job when it has ended, from its events."""
        return self.events(job)[-1]

    def events(self, job: str) -> list[Any]:
        """All records that a job's events tell."""
        lines = self.ask("GET", f"/v1/jobs/{job}/events").body.decode().splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]

    def generate(self, video: Path | str, output: dict[str, Any] | None = None, **options: Any) -> Answer:
        """Ask for a sound in few steps."""
        asked = {"steps": STEPS, **options}
        return self.ask(
            "POST", "/v1/generate", {"video": str(video), "options": asked, "output": output or {}}
        )

    def made(self, video: Path | str, output: dict[str, Any] | None = None, **options: Any) -> Any:
        """The record of a finished generation."""
        return self.wait(self.generate(video, output, **options).json["job"])

    def take(self, record: Any, take: int = 1) -> bytes:
        """A take's file."""
        return self.ask("GET", f"/v1/jobs/{record['job']}/takes/{take}").body


def form(content: bytes, request: Any = None, filename: str = "clip.mp4") -> tuple[bytes, str]:
    """A multipart body and its content type; `request` is a document, or bytes that should be one."""
    mark = uuid.uuid4().hex
    body = (
        f'--{mark}\r\nContent-Disposition: form-data; name="video"; filename="{filename}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
    )
    if request is not None:
        document = request if isinstance(request, bytes) else json.dumps(request).encode()
        body += f'--{mark}\r\nContent-Disposition: form-data; name="request"\r\n\r\n'.encode()
        body += document + b"\r\n"
    return body + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


@contextmanager
def serving(bundle: Path | str, **settings: Any) -> Iterator[Client]:
    """A service with the engines of `bundle` on one thread, ended with the block."""
    started = threading.Event()
    found: list[tuple[Address, Server]] = []

    def ready(address: Address, server: Server) -> None:
        found.append((address, server))
        started.set()

    def run() -> None:
        try:
            with Machine(str(bundle), threads=1) as machine:
                serve(machine, Settings(**{"token": TOKEN, "port": 0, **settings}), ready)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    assert found, "the service did not start"
    (address, server) = found[0]
    try:
        yield Client(address.host, address.port)
    finally:
        server.should_exit = True
        thread.join()
