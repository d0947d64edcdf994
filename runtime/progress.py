"""Telling the caller how far a generation is, as a call, a bar or lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Protocol, TextIO

from taro_rt.engines.errors import Cancelled

Progress = Callable[[str, float], "bool | None"]
"""`progress(stage, fraction)`, 0 to 1 within the stage; returning False stops the generation."""


class Reporter(Protocol):
    """Shows progress; `close` leaves the terminal clean."""

    subject: str
    """The video that is worked on, where there are several."""

    def __call__(self, stage: str, fraction: float) -> None: ...

    def close(self) -> None: ...


def report(progress: Progress | None, stage: str, fraction: float) -> None:
    """Call `progress` if there is one. Raises `Cancelled` if it answers False."""
    if progress is not None and progress(stage, fraction) is False:
        raise Cancelled(f"stopped in the {stage} stage: the progress callback asked for it")


class Percents:
    """Progress of one stage, told once for each whole percent however often something is done."""

    def __init__(self, progress: Progress | None, stage: str) -> None:
        self._progress, self._stage = progress, stage
        self._said = -1

    def __call__(self, fraction: float) -> None:
        """Raises `Cancelled` as `report` does."""
        percent = min(100, int(100 * fraction))
        if percent > self._said:
            self._said = percent
            report(self._progress, self._stage, percent / 100)


class Repeated:
    """Progress whose latest word can be said again, so that a caller may stop a long step too."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._said: tuple[str, float] | None = None

    def __call__(self, stage: str, fraction: float) -> None:
        self._said = (stage, fraction)
        report(self._progress, stage, fraction)

    def again(self) -> None:
        """Say it again. Raises `Cancelled` if the caller asks for it."""
        if self._said is not None:
            report(self._progress, *self._said)


class TimeLeft:
    """Guesses, from the course of a stage so far, how long the rest of it takes."""

    ENOUGH_S, ENOUGH = 1.0, 0.01

    def __init__(self) -> None:
        self._stage: tuple[str, str] = ("", "")
        self._since = 0.0

    def __call__(self, subject: str, stage: str, fraction: float) -> float | None:
        """Seconds, or None as long as nothing can be said."""
        now = monotonic()
        if self._stage != (subject, stage):
            self._stage, self._since = (subject, stage), now
        elapsed = now - self._since
        if elapsed < self.ENOUGH_S or fraction < self.ENOUGH:
            return None
        return elapsed * (1 - fraction) / fraction


def clock(seconds: float) -> str:
    """0:07, 12:30 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _write(stream: TextIO, text: str) -> None:
    with suppress(OSError):  # that nobody reads progress any more does not end the work
        stream.write(text)
        stream.flush()


class Silent:
    """For output that nobody watches."""

    subject = ""

    def __call__(self, stage: str, fraction: float) -> None:
        pass

    def close(self) -> None:
        pass


class Bar:
    """One line on a terminal, rewritten in place and wiped at the end."""

    WIDTH = 30

    def __init__(self, stream: TextIO) -> None:
        self.subject = ""
        self._stream = stream
        self._shown = ""
        self._left = TimeLeft()

    def __call__(self, stage: str, fraction: float) -> None:
        filled = round(fraction * self.WIDTH)
        left_s = self._left(self.subject, stage, fraction)
        left = "" if left_s is None else f"{clock(left_s):>8} left"
        name = f"{Path(self.subject).name[:24]}  " if self.subject else ""
        line = f"{name}{stage:<9}{'█' * filled}{'░' * (self.WIDTH - filled)}{fraction:5.0%}{left}"
        if line != self._shown:
            _write(self._stream, f"\r{line}{' ' * (len(self._shown) - len(line))}")
            self._shown = line

    def close(self) -> None:
        if self._shown:
            _write(self._stream, f"\r{' ' * len(self._shown)}\r")
            self._shown = ""


class JsonLines:
    """One JSON object per line and per whole percent, for a program that reads along."""

    def __init__(self, stream: TextIO) -> None:
        self.subject = ""
        self._stream = stream
        self._last: tuple[str, str, int] | None = None
        self._left = TimeLeft()

    def __call__(self, stage: str, fraction: float) -> None:
        percent = int(fraction * 100)
        left_s = self._left(self.subject, stage, fraction)
        if self._last == (self.subject, stage, percent):
            return
        self._last = (self.subject, stage, percent)
        line: dict[str, str | float] = {"video": self.subject} if self.subject else {}
        line |= {"stage": stage, "progress": percent / 100}
        line |= {} if left_s is None else {"left_s": round(left_s, 1)}
        _write(self._stream, json.dumps(line) + "\n")

    def close(self) -> None:
        pass
