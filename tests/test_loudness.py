"""Loudness against levels that the standard and EBU Tech 3341 give for tones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from taro_rt.engines.contract import Array
from taro_rt.runtime.loudness import CEILING, MAX_GAIN_DB, MAX_LIMITING_DB, Meter, level_gain, limit_peak


def tone(level_db: float, seconds: float, rate_hz: int = 48000, hz: float = 997) -> Array:
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (10 ** (level_db / 20) * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def measured(samples: Array, rate_hz: int = 48000, n_block: int = 24000) -> float:
    meter = Meter(rate_hz)
    for start in range(0, len(samples), n_block):
        meter.add(samples[start : start + n_block])
    return meter.loudness()


@pytest.mark.parametrize("rate_hz", [16000, 44100, 48000])
def test_a_full_scale_tone_of_997_hz_in_one_channel_has_minus_3_01(rate_hz: int) -> None:
    assert measured(tone(0, 3, rate_hz), rate_hz) == pytest.approx(-3.01, abs=0.05)


@pytest.mark.parametrize("level_db", [-40.0, -20.0])
def test_loudness_follows_the_level(level_db: float) -> None:
    assert measured(tone(level_db, 3)) == pytest.approx(level_db - 3.01, abs=0.05)


def test_quiet_passages_are_gated_out() -> None:
    """EBU Tech 3341, case 3, in one channel."""
    parts = [tone(-36, 10), tone(-23, 60), tone(-36, 10)]
    assert measured(np.concatenate(parts)) == pytest.approx(-23 - 3.01, abs=0.1)


def test_silence_between_events_does_not_count() -> None:
    gaps = np.concatenate([tone(-20, 5), np.zeros(48000 * 20, np.float32)])
    assert measured(gaps) == pytest.approx(measured(tone(-20, 5)), abs=0.4)


def test_low_tones_weigh_less_and_high_tones_more() -> None:
    low, middle, high = (measured(tone(-20, 3, hz=hz)) for hz in (40, 997, 4000))
    assert low < middle - 4 and middle + 2.5 < high < middle + 4


def test_the_size_of_the_blocks_does_not_matter() -> None:
    sound = np.random.default_rng(0).standard_normal(100_000, np.float32) / 9
    assert measured(sound, n_block=999) == pytest.approx(measured(sound, n_block=100_000), abs=1e-9)


def test_silence_has_no_loudness_and_a_blink_has_some() -> None:
    assert measured(np.zeros(48000, np.float32)) == -math.inf
    assert measured(np.zeros(0, np.float32)) == -math.inf
    assert measured(tone(-20, 0.05)) == pytest.approx(-23, abs=1)


def test_the_gain_reaches_the_target_or_stops_at_its_cap() -> None:
    assert level_gain(-33.0, 0.1, -23.0) == pytest.approx(10 ** (10 / 20))
    assert level_gain(-80.0, 1e-4, -23.0) == pytest.approx(10 ** (MAX_GAIN_DB / 20))
    assert level_gain(-math.inf, 0.0, -23.0) == 1.0
    assert level_gain(-33.0, 0.1, None) == 1.0


def test_peaks_may_be_limited_by_a_few_db_and_no_more() -> None:
    gain = level_gain(-60.0, 0.5, -23.0)
    assert gain * 0.5 == pytest.approx(CEILING * 10 ** (MAX_LIMITING_DB / 20))


def test_a_sound_beyond_the_ceiling_is_scaled_as_a_whole() -> None:
    loud, quiet = np.array([0.5, -2.0], np.float32), np.array([0.2, -0.3], np.float32)
    np.testing.assert_allclose(limit_peak(loud), [CEILING / 4, -CEILING], rtol=1e-6)
    assert limit_peak(quiet) is quiet
