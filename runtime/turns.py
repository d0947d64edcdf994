"""One thread at a time through the engines; who waits can give up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from taro_rt.engines.errors import OptionsError
from taro_rt.engines.watch import PERIOD_S
from taro_rt.runtime.progress import Progress, report


class Turns:
    """Work that must not overlap, in whichever threads it is asked for."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._is_taken = False

    @contextmanager
    def taken(self, progress: Progress | None) -> Iterator[None]:
        """A turn of one's own. `progress` hears of "wait" several times a second until it begins.

        Raises `Cancelled` if `progress` says so, and `OptionsError` within a turn of the same thread: a
        progress callback that waited for itself would wait for ever.
        """
        while not self._lock.acquire(timeout=PERIOD_S):
            report(progress, "wait", 0.0)
        try:
            if self._is_taken:
                raise OptionsError(
                    "pipeline: expected to be called after the work under way, got a call from its own "
                    "progress callback; let that one return first, or load a second pipeline"
                )
            self._is_taken = True
            try:
                yield
            finally:
                self._is_taken = False
        finally:
            self._lock.release()

    @contextmanager
    def over(self) -> Iterator[None]:
        """When no other thread has a turn; within a turn of one's own, at once."""
        with self._lock:
            yield
