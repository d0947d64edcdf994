"""The gain of a whole sound, where the limiter takes some of it back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from taro_rt.engines.contract import Array
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.dynamics import limited
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.loudness import CEILING, MAX_GAIN_DB, MAX_LIMITING_DB, Meter
from taro_rt.runtime.mixing import gain_of

RATE_HZ = 16000


def click(decay_s: float, beside: float) -> Audio:
    """Three seconds of silence but for one click, and a rustle of 20 ms that is `beside` times as loud."""
    t = np.arange(RATE_HZ // 4) / RATE_HZ
    shape = np.exp(-t / decay_s) + beside * np.exp(-t / 0.02)
    sound = np.zeros(3 * RATE_HZ)
    sound[RATE_HZ // 20 :][: len(t)] = shape * np.random.default_rng(0).standard_normal(len(t))
    return Audio((0.3 * sound / np.abs(sound).max()).astype(np.float32), RATE_HZ)


def delivered(audio: Audio) -> float:
    """Loudness in the file."""
    gain = np.float32(gain_of(audio, Finish(), 1))
    blocks = limited((block[None] * gain for block in audio.blocks()), RATE_HZ)
    return measured(np.concatenate([block[0] for block in blocks]))


def measured(samples: Array) -> float:
    """Loudness in LUFS."""
    meter = Meter(RATE_HZ)
    meter.add(samples)
    return meter.loudness()


@pytest.mark.parametrize(("beside", "off_by"), [(0.02, 4.0), (0.03, 0.3), (0.07, 0.3)])
def test_a_lone_click_is_brought_near_the_level_by_what_is_heard_beside_it(
    beside: float, off_by: float
) -> None:
    assert delivered(click(0.0005, beside)) == pytest.approx(-23, abs=off_by)


def test_a_sound_gets_louder_by_30_db_at_most_whatever_is_limited() -> None:
    faint = 10 ** (-80 / 20) * np.random.default_rng(1).standard_normal(8 * RATE_HZ)
    faint[2 * RATE_HZ] = 10 ** (-30 / 20)
    audio = Audio(faint.astype(np.float32), RATE_HZ)
    assert delivered(audio) == pytest.approx(measured(audio.samples) + MAX_GAIN_DB, abs=0.5)


def test_limiting_stays_within_its_cap() -> None:
    audio = click(0.0005, 0.02)
    room = CEILING / float(np.abs(audio.samples).max())
    assert 20 * math.log10(gain_of(audio, Finish(), 1) / room) == pytest.approx(MAX_LIMITING_DB, abs=1e-6)


def test_a_click_with_nothing_beside_it_is_not_limited_for_nothing() -> None:
    audio = click(0.0005, 0.0)
    assert gain_of(audio, Finish(), 1) == pytest.approx(10 ** ((-23 - measured(audio.samples)) / 20))
