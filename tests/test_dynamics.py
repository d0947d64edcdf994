"""The limiter and ducking, on signals whose right answer is plain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taro_rt.engines.contract import Array
from taro_rt.runtime.dynamics import DUCK_GAIN, ducked, limited
from taro_rt.runtime.loudness import CEILING

RATE_HZ = 16000


def blocks(sound: Array, sizes: list[int]) -> list[Array]:
    return np.split(sound, [edge for edge in np.cumsum(sizes) if edge < sound.shape[1]], axis=1)


def whole(parts: list[Array]) -> Array:
    return np.concatenate(parts, axis=1)


@given(st.integers(0, 2**32), st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.floats(0.1, 20))
def test_nothing_leaves_the_limiter_above_the_ceiling(seed: int, sizes: list[int], level: float) -> None:
    sound = level * np.random.default_rng(seed).standard_normal((2, sum(sizes)), np.float32)
    got = whole(list(limited(blocks(sound, sizes), RATE_HZ)))
    assert got.shape == sound.shape
    assert np.abs(got).max() <= CEILING * (1 + 1e-6)
    assert (np.sign(got) == np.sign(sound)).all()


def test_what_does_not_exceed_the_ceiling_is_not_touched() -> None:
    sound = np.random.default_rng(0).uniform(-CEILING, CEILING, (1, 20001)).astype(np.float32)
    assert np.array_equal(whole(list(limited(blocks(sound, [7000] * 4), RATE_HZ))), sound)


def test_a_peak_is_turned_down_smoothly_and_the_rest_left() -> None:
    sound = np.full((1, RATE_HZ), 0.5, np.float32)
    sound[0, 8000] = 1.8
    gain = whole(list(limited([sound], RATE_HZ)))[0] / sound[0]
    assert gain[8000] == pytest.approx(CEILING / 1.8, rel=0.01)
    assert (gain[:7600] == 1).all() and (gain[8400:] == 1).all()
    assert np.abs(np.diff(gain)).max() < 0.01


def test_the_blocks_do_not_matter() -> None:
    sound = 2 * np.random.default_rng(0).standard_normal((2, 30000), np.float32)
    one, many = (whole(list(limited(blocks(sound, sizes), RATE_HZ))) for sizes in ([30000], [501] * 60))
    np.testing.assert_allclose(one, many, atol=1e-7)


def test_the_original_is_down_while_the_new_sound_is_heard() -> None:
    old, new = np.full((2, 3 * RATE_HZ), 0.3, np.float32), np.zeros((1, 3 * RATE_HZ), np.float32)
    new[0, RATE_HZ : RATE_HZ + 1600] = 0.5
    got = whole(list(ducked(blocks(np.concatenate([old, new]), [8000] * 6), RATE_HZ)))
    assert np.array_equal(got[2:], new)
    assert got[0, RATE_HZ + 800] == pytest.approx(0.3 * DUCK_GAIN, rel=1e-3)
    assert (got[0, : RATE_HZ // 2] == np.float32(0.3)).all() and (
        got[0, 2 * RATE_HZ :] == np.float32(0.3)
    ).all()
    assert np.abs(np.diff(got[0])).max() < 0.001, "no click"


def test_no_sound_at_all_is_no_fault() -> None:
    assert list(limited([], RATE_HZ)) == []
