"""Which frame each slot shows; the numbers are those of the specification."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import chosen

from taro_rt.runtime.track import FramePicker


def picks(times: list[Fraction], duration_s: Fraction, rate_hz: int) -> list[int]:
    picker, picked = FramePicker(rate_hz), []
    for j, time_s in enumerate(times):
        picked += [j - 1] * picker.push(time_s)
    return picked + [len(times) - 1] * picker.finish(duration_s)


def steady(fps: Fraction, duration_s: Fraction) -> list[Fraction]:
    return [j / fps for j in range(int(duration_s * fps))]


@pytest.mark.parametrize(
    ("fps", "duration_s", "rate_hz", "n_slots", "first", "last"),
    [
        (Fraction(25), Fraction(10), 4, 40, [3, 9, 15, 21, 28, 34], []),
        (Fraction(24000, 1001), Fraction(10), 15, 150, [], [235, 237, 238]),
        (Fraction(10), Fraction(17, 2), 15, 128, [0, 0, 1, 2, 2, 3], []),
        (Fraction(50), Fraction(413, 50), 4, 33, [6, 18, 31, 43, 56, 68], []),
        (Fraction(30), Fraction(8), 4, 32, [3, 11, 18, 26, 33, 41], []),
        (Fraction(30), Fraction(8), 15, 120, [0, 2, 4], []),
        (Fraction(25), Fraction(8), 15, 120, [0, 2, 4, 5, 7, 9], []),
    ],
)
def test_picks_the_frames_of_the_specification(
    fps: Fraction, duration_s: Fraction, rate_hz: int, n_slots: int, first: list[int], last: list[int]
) -> None:
    picked = picks(steady(fps, duration_s), duration_s, rate_hz)
    assert len(picked) == n_slots
    assert picked[: len(first)] == first
    assert picked[n_slots - len(last) :] == last


@pytest.mark.parametrize(
    ("duration_s", "counts"),
    [("3", (12, 45)), ("7.9", (32, 119)), ("8.192", (33, 123)), ("9.9", (40, 149)), ("0.1", (1, 2))],
)
def test_counts_the_slots_of_the_specification_but_never_none(
    duration_s: str, counts: tuple[int, int]
) -> None:
    d = Fraction(duration_s)
    assert (len(picks([Fraction(0)], d, 4)), len(picks([Fraction(0)], d, 15))) == counts


@given(
    steps=st.lists(st.fractions(min_value=0, max_value=1, max_denominator=1000), max_size=20),
    tail=st.fractions(min_value=Fraction(1, 1000), max_value=2, max_denominator=1000),
    rate_hz=st.integers(1, 30),
)
def test_picks_by_definition_whatever_the_frame_times(
    steps: list[Fraction], tail: Fraction, rate_hz: int
) -> None:
    times = [sum(steps[:k], Fraction(0)) for k in range(len(steps) + 1)]
    assert picks(times, times[-1] + tail, rate_hz) == chosen(times, times[-1] + tail, rate_hz)
