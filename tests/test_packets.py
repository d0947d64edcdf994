"""Time stamps of copied packets."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taro_rt.runtime.packets import DecodeTimes

stamps = st.lists(
    st.tuples(st.integers(-50, 500), st.none() | st.integers(-60, 400)), min_size=1, max_size=30
)


@given(stamps)
def test_decode_times_rise_and_never_pass_their_pts(values: list[tuple[int, int | None]]) -> None:
    times, packets, ready = DecodeTimes(), [], []
    for pts, dts in values:
        packet = av.Packet(1)
        packet.pts, packet.dts, packet.duration = pts, dts, 40
        packets.append(packet)
        ready += times.push(packet)
    ready += times.finish()
    assert ready == packets
    dts = [packet.dts for packet in ready]
    assert all(a < b for a, b in pairwise(dts))
    assert all(packet.dts <= packet.pts for packet in ready)


def test_missing_decode_times_at_the_start_are_filled_backwards() -> None:
    times, ready = DecodeTimes(), []
    for pts, dts in [(0, None), (120, None), (40, 0), (80, 40)]:
        packet = av.Packet(1)
        packet.pts, packet.dts, packet.duration = pts, dts, 40
        ready += times.push(packet)
    assert [(p.pts, p.dts) for p in ready] == [(0, -80), (120, -40), (40, 0), (80, 40)]


@pytest.mark.parametrize("broken", [9000, -900_000])
def test_one_broken_decode_time_does_not_drag_the_later_ones_along(broken: int) -> None:
    times, ready = DecodeTimes(), []
    for pts, dts in [(0, broken), (120, 0), (160, 40)]:
        packet = av.Packet(1)
        packet.time_base = Fraction(1, 1000)
        packet.pts, packet.dts, packet.duration = pts, dts, 40
        ready += times.push(packet)
    assert [packet.pts for packet in ready] == [0, 120, 160]
    assert min(packet.dts for packet in ready) >= -10_000
