"""Reading a multipart form with a video straight into a file, however large; a fault leaves nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from taro_rt.runtime.service.refusals import Refusal

LARGEST_DOCUMENT = 1 << 20
"""Bytes of a JSON document."""
LONGEST_NAME = 100
SHAPE = "a form with `video`, a file, and at most `request`, a JSON document"


@dataclass
class Part:
    """One part of a form as it comes."""

    headers: dict[str, str] = field(default_factory=dict)
    name: str = ""
    filename: str = ""
    n_bytes: int = 0


class Form:
    """Takes the bytes of a form: the video goes to `path`, the document is kept in memory."""

    def __init__(self, boundary: bytes, path: Path, max_upload: int) -> None:
        self.filename: str | None = None
        """The video's, as its sender calls it; None until it has come whole."""
        self.document = bytearray()
        self.has_document = self.ended = False
        self._path, self._max_upload = path, max_upload
        self._part, self._field, self._value = Part(), bytearray(), bytearray()
        self._video: list[bytes] = []
        calls = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._named,
            "on_end": self._last,
        }
        self._parser = MultipartParser(boundary, calls)  # type: ignore[arg-type]

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """Raises `Refusal` for a form of another shape or size."""
        with self._path.open("xb") as file:
            async for chunk in chunks:
                try:
                    self._parser.write(chunk)
                except FormParserError as error:
                    raise Refusal(400, f"the form: expected {SHAPE}, got something else ({error})") from None
                if self._video:
                    blocks, self._video = self._video, []
                    await run_sync(_write, file, blocks)
        if not self.ended:
            raise Refusal(400, f"the form: expected {SHAPE}, got a part of one; send it again")
        if self.filename is None:
            raise Refusal(422, f"the form: expected {SHAPE}, got no video")

    def _begin(self) -> None:
        self._part = Part()

    def _header(self) -> None:
        name = self._field.decode("latin-1").lower()
        self._part.headers[name] = self._value.decode("utf-8", "replace")
        self._field, self._value = bytearray(), bytearray()

    def _named(self) -> None:
        _, options = parse_options_header(self._part.headers.get("content-disposition", ""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name not in ("video", "request"):
            raise Refusal(422, f"the form: expected {SHAPE}, got a part named {name[:80]!r}")
        if (name == "video" and self.filename is not None) or (name == "request" and self.has_document):
            raise Refusal(422, f"the form: expected {SHAPE}, got {name} twice")
        self._part.name = name
        self._part.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        if name == "request":
            self.has_document = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._part.n_bytes += end - start
        is_video = self._part.name == "video"
        limit = self._max_upload if is_video else LARGEST_DOCUMENT
        if self._part.n_bytes > limit:
            raise too_large(limit)
        if is_video:
            self._video.append(data[start:end])
        else:
            self.document += data[start:end]

    def _end(self) -> None:
        if self._part.name == "video":
            self.filename = plain_name(self._part.filename)

    def _last(self) -> None:
        self.ended = True


def boundary_of(content_type: str) -> bytes:
    """Raises `Refusal` for a form without one."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 256:
        raise Refusal(400, f"{kind.decode('latin-1')}: expected a boundary of 1 to 256 bytes")
    return boundary


def too_large(limit: int) -> Refusal:
    """What is told to one who sends more than `limit` bytes."""
    return Refusal(413, f"expected at most {limit} bytes; send less, or name a file below an allowed folder")


def plain_name(name: str) -> str:
    """A file name without folders and odd characters: for messages and for the names of results."""
    last = re.split(r"[/\\]", name)[-1]
    clean = re.sub(r"[^\w .()+-]", "_", last).strip(" .")
    stem, dot, suffix = clean.rpartition(".")
    return f"{stem[:LONGEST_NAME]}{dot}{suffix[:10]}" if stem else f"{clean[:LONGEST_NAME] or 'video'}"


def _write(file: IO[bytes], blocks: list[bytes]) -> None:
    try:
        file.writelines(blocks)
    except OSError as error:
        raise Refusal(
            413, f"the upload cannot be kept ({error.strerror}); make room and try again"
        ) from error
