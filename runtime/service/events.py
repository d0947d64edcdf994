"""Following a job from an event loop while a thread works on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from taro_rt.runtime.commands import Record
from taro_rt.runtime.service.jobs import Jobs
from taro_rt.runtime.service.task import ENDED, Task

HEARTBEAT_S = 10.0
"""So that a listener that has gone is noticed."""


async def changes(jobs: Jobs, task: Task) -> AsyncIterator[Record | None]:
    """The record now and after every change, up to its end; None while nothing happens."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has ended, and whoever listened with it
            loop.call_soon_threadsafe(changed.set)

    with jobs.listening(task, wake):
        while True:
            changed.clear()
            record = jobs.record(task)
            yield record
            if record["state"] in ENDED:
                return
            while not await _within(changed, HEARTBEAT_S):
                yield None


async def event_lines(jobs: Jobs, task: Task) -> AsyncIterator[bytes]:
    """The same as server-sent events."""
    async for record in changes(jobs, task):
        text = ": waiting\n\n" if record is None else f"event: job\ndata: {json.dumps(record)}\n\n"
        yield text.encode("ascii")


async def wait_for_end(jobs: Jobs, task: Task, timeout_s: float) -> None:
    """Return when the job has ended, or at the latest after so many seconds."""

    async def follow() -> None:
        async for _ in changes(jobs, task):
            pass

    with suppress(TimeoutError):
        await asyncio.wait_for(follow(), timeout_s)


async def _within(changed: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(changed.wait(), seconds)
    except TimeoutError:
        return False
    return True
