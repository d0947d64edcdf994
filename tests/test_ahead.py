"""Decoding goes on in a thread of its own, gives the same frames, and ends when its user does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media import encode, numbered

from taro_rt.engines.errors import MediaError
from taro_rt.engines.nets.config import SMALL
from taro_rt.runtime import clip
from taro_rt.runtime.ahead import Ahead
from taro_rt.runtime.clip import Clip, open_reel
from taro_rt.runtime.probe import probe

GEOMETRY = SMALL.geometry()


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "taro-rt read"]


def counted(n: int, seen: list[int], error: Exception | None = None) -> Iterator[Fraction]:
    for k in range(n):
        seen.append(k)
        yield Fraction(k)
    if error:
        raise error


def test_it_goes_no_farther_than_it_may_and_stops_when_it_is_closed() -> None:
    seen: list[int] = []
    ahead = Ahead(counted(100, seen))
    ahead.until(lambda: len(seen) > 3, Fraction(5))
    for _ in range(100):
        time.sleep(0.01)
        if len(seen) == 7:
            break
    assert len(seen) == 7, "the first one beyond what is allowed is made, then it waits"
    ahead.close()
    assert len(seen) == 7 and readers() == []


def test_an_error_is_raised_only_where_more_is_waited_for() -> None:
    seen: list[int] = []
    ahead = Ahead(counted(3, seen, MediaError("broken")))
    ahead.until(lambda: len(seen) >= 2, None)
    for _ in range(2):
        with pytest.raises(MediaError, match="broken"):
            ahead.until(lambda: len(seen) >= 4, None)
    ahead.close()


def test_waiting_ends_with_the_last_item() -> None:
    seen: list[int] = []
    ahead = Ahead(counted(3, seen))
    ahead.until(lambda: False, None)
    assert len(seen) == 3
    ahead.close()


def test_a_reel_gives_the_frames_of_a_clip_however_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = encode(tmp_path / "a.mp4", numbered(100, 64, 48), fps=25)
    whole = Clip.read(video, GEOMETRY)
    for ahead_s in (0, 1, 100):
        monkeypatch.setattr(clip, "AHEAD_S", ahead_s)
        with open_reel(probe(video), GEOMETRY) as reel:
            for offset in range(0, len(whole.onset_frames), 7):
                want = whole.onset_part(offset, 7)
                assert np.array_equal(reel.onset_part(offset, 7), want)
            assert np.array_equal(reel.visual_part(0, 99), whole.visual_frames)
            assert reel.finish()[0] == whole.info
    assert readers() == []


def test_a_reel_that_is_left_early_leaves_no_thread(tmp_path: Path) -> None:
    video = encode(tmp_path / "a.mp4", numbered(250, 64, 48), fps=25)
    with pytest.raises(KeyboardInterrupt), open_reel(probe(video), GEOMETRY) as reel:
        reel.onset_part(0, 5)
        raise KeyboardInterrupt
    assert readers() == []
