"""Work of an iterator done ahead of time, in a thread of its own: decoding goes on while networks run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from threading import Condition, Thread


class Ahead:
    """Runs through `items`, which yields the times it has come to, as far as `until` lets it."""

    def __init__(self, items: Iterator[Fraction]) -> None:
        self._items = items
        self._allowed_s: Fraction | None = Fraction(0)
        self._changed = Condition()
        self._is_over = self._is_closed = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="taro-rt read", daemon=True)
        self._thread.start()

    def until(self, is_ready: Callable[[], bool], allowed_s: Fraction | None) -> None:
        """Wait until `is_ready`, or the end; it may go on to `allowed_s` (None: to the end) meanwhile.

        Raises what the iterator raised, as soon as nothing more can come.
        """
        with self._changed:
            if allowed_s is None or (self._allowed_s is not None and allowed_s > self._allowed_s):
                self._allowed_s = allowed_s
            self._changed.notify_all()
            while not is_ready() and not self._is_over:
                self._changed.wait()
        if self._error is not None and not is_ready():
            raise self._error

    def close(self) -> None:
        """Stop after the item that is under way."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            for time_s in self._items:
                with self._changed:
                    self._changed.notify_all()
                    while not self._is_closed and self._is_far(time_s):
                        self._changed.wait()
                    if self._is_closed:
                        return
        except BaseException as error:  # raised again where somebody waits for more
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _is_far(self, time_s: Fraction) -> bool:
        return self._allowed_s is not None and time_s > self._allowed_s
