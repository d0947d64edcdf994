"""Telling the caller how far a generation is, as a call, a bar or lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol, TextIO

from taro_rt.engines.errors import Cancelled

Progress = Callable[[str, float], "bool | None"]
"""`progress(stage, fraction)`, 0 to 1 within the stage; returning False stops the generation."""


class Reporter(Protocol):
    """Shows progress; `close` leaves the terminal clean."""

    def __call__(self, stage: str, fraction: float) -> None: ...

    def close(self) -> None: ...


def report(progress: Progress | None, stage: str, fraction: float) -> None:
    """Call `progress` if there is one. Raises `Cancelled` if it answers False."""
    if progress is not None and progress(stage, fraction) is False:
        raise Cancelled(f"stopped in the {stage} stage: the progress callback asked for it")


class Silent:
    """For output that nobody watches."""

    def __call__(self, stage: str, fraction: float) -> None:
        pass

    def close(self) -> None:
        pass


class Bar:
    """One line on a terminal, rewritten in place and wiped at the end."""

    WIDTH = 30

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = ""

    def __call__(self, stage: str, fraction: float) -> None:
        filled = round(fraction * self.WIDTH)
        line = f"{stage:<9}{'█' * filled}{'░' * (self.WIDTH - filled)}{fraction:5.0%}"
        if line != self._shown:
            self._stream.write(f"\r{line}")
            self._stream.flush()
            self._shown = line

    def close(self) -> None:
        if self._shown:
            self._stream.write(f"\r{' ' * len(self._shown)}\r")
            self._stream.flush()
            self._shown = ""


class JsonLines:
    """One JSON object per line and per whole percent, for a program that reads along."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: tuple[str, int] | None = None

    def __call__(self, stage: str, fraction: float) -> None:
        percent = int(fraction * 100)
        if self._last == (stage, percent):
            return
        self._last = (stage, percent)
        self._stream.write(json.dumps({"stage": stage, "progress": percent / 100}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        pass
