"""Ctrl-C and a polite kill: the same exception, and no library between can make another of it."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from taro_rt.runtime.progress import Reporter

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While open, the first signal raises `KeyboardInterrupt` and is remembered; later ones do nothing."""

    def __init__(self) -> None:
        self.asked = False
        """Whether to stop was asked for."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in (*SIGNALS, *_hangup()):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:  # a second one would stop the cleaning up behind the first
            self.asked = True
            raise KeyboardInterrupt


def _hangup() -> tuple[signal.Signals, ...]:
    """The signal of a closed terminal, where there is one and nobody asked (nohup) to outlive it."""
    if not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return ()
    return (signal.SIGHUP,)


class Interruptible:
    """A reporter that stops the work at its next word if the interrupt itself was swallowed on the way."""

    def __init__(self, reporter: Reporter, interrupts: Interrupts) -> None:
        self._reporter, self._interrupts = reporter, interrupts

    @property
    def subject(self) -> str:
        """See `Reporter`."""
        return self._reporter.subject

    @subject.setter
    def subject(self, name: str) -> None:
        self._reporter.subject = name

    def __call__(self, stage: str, fraction: float) -> None:
        if self._interrupts.asked:
            raise KeyboardInterrupt
        self._reporter(stage, fraction)

    def close(self) -> None:
        self._reporter.close()
