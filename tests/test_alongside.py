"""Several pieces of work at once, told and stopped as one."""

from __future__ import annotations

import threading
import time

import pytest

from taro_rt.engines.errors import Cancelled, MediaError
from taro_rt.runtime import alongside as module
from taro_rt.runtime.alongside import alongside
from taro_rt.runtime.progress import Progress, report


@pytest.fixture(autouse=True)
def four_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 4)


def until_stopped(told: Progress) -> None:
    for _ in range(2000):
        report(told, "write", 0.5)
        time.sleep(0.005)
    raise AssertionError("nobody stopped it")


def test_every_piece_is_done_and_several_at_a_time() -> None:
    both, found = threading.Barrier(2, timeout=10), set[int]()

    def work(k: int, told: Progress) -> None:
        both.wait()
        found.add(k)

    alongside(work, 4, "write")
    assert found == {0, 1, 2, 3}


@pytest.mark.parametrize("n", [1, 3])
def test_only_the_callers_thread_is_told_and_of_the_stage_as_a_whole(n: int) -> None:
    threads, fractions = set[int](), list[float]()

    def progress(stage: str, fraction: float) -> None:
        assert stage == "write"
        threads.add(threading.get_ident())
        fractions.append(fraction)

    def work(k: int, told: Progress) -> None:
        for percent in range(0, 101, 20):
            report(told, "write", percent / 100)
            time.sleep(0.02)

    alongside(work, n, "write", progress)
    assert threads == {threading.get_ident()}
    assert fractions == sorted(fractions) and fractions[-1] > 0.5 and max(fractions) <= 1


def test_the_first_error_ends_the_others_and_is_raised() -> None:
    running = []

    def work(k: int, told: Progress) -> None:
        if k == 1:
            raise MediaError("full")
        running.append(k)
        try:
            until_stopped(told)
        finally:
            running.remove(k)

    with pytest.raises(MediaError, match="full"):
        alongside(work, 3, "write")
    assert running == []


@pytest.mark.parametrize("stopped", [Cancelled, KeyboardInterrupt])
@pytest.mark.parametrize("n", [1, 3])
def test_who_watches_can_stop_all_of_them(n: int, stopped: type[BaseException]) -> None:
    def progress(stage: str, fraction: float) -> bool:
        if fraction and stopped is KeyboardInterrupt:
            raise KeyboardInterrupt
        return not fraction

    ended = []

    def work(k: int, told: Progress) -> None:
        try:
            until_stopped(told)
        finally:
            ended.append(k)

    with pytest.raises(stopped):
        alongside(work, n, "write", progress)
    assert len(ended) == n


def test_pieces_that_were_not_begun_are_not_begun_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 1)
    begun = []

    def work(k: int, told: Progress) -> None:
        begun.append(k)
        raise MediaError("full")

    with pytest.raises(MediaError, match="full"):
        alongside(work, 5, "write")
    assert len(begun) < 5
