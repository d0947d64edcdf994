"""A small client of the service over one connection, as an add-on would have it; standard library only."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any

TOKEN = "a-token-for-benchmarks"
MARK = "a-boundary-that-no-video-has"


class Client:
    """Keeps its connection open. A context manager."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = HTTPConnection(host, port, timeout=600)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def made(self, video: Path, upload: bool, seed: int) -> bytes:
        """The .wav of a seed. Raises `RuntimeError` for any answer but the expected."""
        asked: dict[str, Any] = {"options": {"seed": seed}, "output": {"format": "wav"}}
        if upload:
            body, kind = _form(video, asked), f"multipart/form-data; boundary={MARK}"
        else:
            body, kind = json.dumps({"video": str(video), **asked}).encode(), "application/json"
        job = json.loads(self._ask("POST", "/v1/generate", body, {"Content-Type": kind}))["job"]
        last = self._ask("GET", f"/v1/jobs/{job}/events").decode().strip().rpartition("data: ")[2]
        if json.loads(last)["state"] != "done":
            raise RuntimeError(last)
        return self._ask("GET", f"/v1/jobs/{job}/takes/1")

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        self._connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}", **(headers or {})})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{answer.status} {content!r}")
        return content


def _form(video: Path, asked: dict[str, Any]) -> bytes:
    parts = (
        ('name="video"; filename="clip.mp4"', video.read_bytes()),
        ('name="request"', json.dumps(asked).encode()),
    )
    told = [
        f"--{MARK}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data for head, data in parts
    ]
    return b"\r\n".join([*told, f"--{MARK}--\r\n".encode()])
