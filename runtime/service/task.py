"""One job and how far it is."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from taro_rt.runtime.commands import Record
from taro_rt.runtime.service.asks import Ask
from taro_rt.runtime.service.documents import State
from taro_rt.runtime.service.kept import Video

ENDED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(eq=False)
class Task:
    """A job. Changed by `Jobs` only, under its lock."""

    ask: Ask
    video: Video
    folder: Path
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = "queued"
    stage: str | None = None
    progress: float = 0.0
    result: Record | None = None
    error: Record | None = None
    stop: bool = False
    """Whether its end was asked for while it ran."""
    ended_s: float = 0.0
    """On the monotonic clock."""
    listeners: set[Callable[[], None]] = field(default_factory=set)
