"""Waiting for native code, breakable: within a call of it Python hears no signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
PERIOD_S = 0.2
"""Between two questions whether to go on."""


class Watch:
    """Has work done in a thread of its own, one after the other; the caller's thread waits and listens."""

    def __init__(self) -> None:
        self._ask: Callable[[], None] | None = None
        self._threads = ThreadPoolExecutor(1, "taro-rt")

    @contextmanager
    def asking(self, ask: Callable[[], None]) -> Iterator[None]:
        """Within the block `ask` is called every `PERIOD_S` of a run, in the thread that waits for it.

        An exception that it raises ends the run.
        """
        self._ask = ask
        try:
            yield
        finally:
            self._ask = None

    def run(self, work: Callable[[], T], stop: Callable[[], None]) -> T:
        """What `work` returns or raises. An interrupt of the caller calls `stop`, which must end the work."""
        try:
            future = self._threads.submit(work)
            while not wait([future], PERIOD_S).done:
                if self._ask:
                    self._ask()
        except BaseException:
            stop()
            self._threads.submit(int).result()  # after it, the work is over
            raise
        return future.result()

    def close(self) -> None:
        """Let the thread go."""
        self._threads.shutdown(wait=False)
