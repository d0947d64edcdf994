"""Waiting for native code, breakable: within a call of it Python hears no signal."""

from __future__ import annotations

import os
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
        self._start()

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
        if self._process != os.getpid():
            self._start()  # a forked process has no thread but the one that forked: work would wait for ever
        try:
            future = self._threads.submit(work)
            while not wait([future], PERIOD_S).done:
                if self._ask:
                    self._ask()
        except BaseException:
            self._finish(stop)
            raise
        return future.result()

    def close(self) -> None:
        """Let the thread go."""
        self._threads.shutdown(wait=False)

    def _start(self) -> None:
        self._threads, self._process = ThreadPoolExecutor(1, "taro-rt"), os.getpid()

    def _finish(self, stop: Callable[[], None]) -> None:
        """Have the work stopped, and wait until the thread has nothing to do.

        Asked again and again: a run that is just beginning may not hear it the first time.
        """
        stop()
        try:
            rest = self._threads.submit(int)
            while not wait([rest], PERIOD_S).done:
                stop()
        except RuntimeError:  # closed meanwhile: who is asked may do so
            self._threads.shutdown()
