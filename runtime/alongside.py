"""Several pieces of work at once, as one stage to whoever watches: told, stopped and failing as if one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from threading import Event

from taro_rt.engines.machine import usable_cores
from taro_rt.runtime.progress import Progress, report

TOLD_EVERY_S = 0.05


def alongside(
    work: Callable[[int, Progress], None], n: int, stage: str, progress: Progress | None = None
) -> None:
    """Call `work(k, progress)` for k below `n`, as many at once as there are cores.

    Only the caller's thread tells `progress`: the mean over all pieces. The first error, an interrupt or a
    `Cancelled` that it asks for ends the others where they next tell theirs, and is raised when all have
    ended: nobody writes any more when this returns.
    """
    done, stop = [0.0] * n, Event()

    def told(k: int, stage: str, fraction: float) -> bool:
        done[k] = fraction
        return not stop.is_set()

    if n == 1:
        work(0, lambda stage, fraction: progress(stage, fraction) if progress else None)
        return
    with ThreadPoolExecutor(min(n, usable_cores())) as threads:
        pieces = [threads.submit(work, k, partial(told, k)) for k in range(n)]
        try:
            left = set(pieces)
            while left:
                ended, left = wait(left, TOLD_EVERY_S, FIRST_EXCEPTION)
                report(progress, stage, sum(done) / n)
                for piece in ended:
                    piece.result()
        except BaseException:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise
