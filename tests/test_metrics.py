"""The figures by which sounds are judged: known answers for known inputs."""

from __future__ import annotations

import numpy as np
import pytest

from taro_rt.training import metrics
from taro_rt.training.evaluate import CLIPS, RATES, delivered, rate_of
from taro_rt.training.reconstruction import compare
from taro_rt.training.scenes import KINDS

RNG = np.random.default_rng(0)


def test_the_frechet_distance_of_gaussians_is_the_known_one() -> None:
    a = RNG.standard_normal((40_000, 3))
    b = 2.0 * RNG.standard_normal((40_000, 3)) + [1.0, 0.0, 0.0]
    assert metrics.frechet(a, a) == pytest.approx(0.0, abs=1e-9)
    assert metrics.frechet(a, b) == pytest.approx(1.0 + 3 * (2.0 - 1.0) ** 2, rel=0.05)


def test_the_inception_score_is_one_without_variety_and_the_number_of_classes_with_all_of_it() -> None:
    assert metrics.inception_score(np.tile([0.7, 0.2, 0.1], (50, 1))) == pytest.approx(1.0)
    assert metrics.inception_score(np.eye(5)) == pytest.approx(5.0, rel=1e-3)


def test_the_divergence_is_zero_for_equal_classes_and_grows_with_surprise() -> None:
    real = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert metrics.divergence(real, real) == pytest.approx(0.0, abs=1e-9)
    assert metrics.divergence(real, real[::-1]) > metrics.divergence(real, 0.5 * (real + real[::-1])) > 0


def test_rises_of_energy_are_found_where_they_are() -> None:
    mel = np.full((400, 64), -11.0, np.float32)
    for k in (50, 180, 300):
        decay = np.arange(60, dtype=np.float32)[:, None]
        mel[k : k + 60] = np.maximum(mel[k : k + 60], -2.0 - 0.15 * decay)
    assert metrics.mel_onsets(mel) == pytest.approx([0.5, 1.8, 3.0], abs=0.03)


@pytest.mark.parametrize("quiet_db", [20.0, 40.0])
def test_the_gap_between_events_and_silence_is_measured(quiet_db: float) -> None:
    samples = 10 ** (-quiet_db / 20) * np.ones(5 * 16000, np.float32)
    samples[16000:17600] = samples[32000:33600] = 1.0
    assert metrics.loudness_gap_db(samples, np.array([1.0, 2.0])) == pytest.approx(quiet_db, abs=0.1)


def test_a_clip_without_a_silence_has_no_gap() -> None:
    assert metrics.loudness_gap_db(np.ones(16000, np.float32), np.array([0.3, 0.6])) is None


def test_the_longest_silence_is_between_two_events_or_at_an_end() -> None:
    assert metrics.longest_silence(np.array([1.0, 4.5, 5.0]), 6.0) == (1.0, 4.5)
    assert metrics.longest_silence(np.array([1.5, 2.0]), 2.5) == (0.0, 1.5)
    assert metrics.longest_silence(np.array([0.5]), 1.4) is None
    assert metrics.longest_silence(np.zeros(0), 9.0) is None


def test_half_a_sound_is_6_db_off_in_spectrum_and_wave_and_has_the_same_mel() -> None:
    whole = np.random.default_rng(0).standard_normal(16000).astype(np.float32) / 8
    found = compare([whole], [0.5 * whole])
    assert found["spectral_convergence"] == pytest.approx(0.5, abs=1e-4)
    assert found["spectral_snr_db"] == pytest.approx(6.02, abs=0.01)
    assert found["waveform_snr_db"] == pytest.approx(6.02, abs=0.01)
    assert found["log_mel_error_db"] == pytest.approx(0, abs=1e-3)


def test_of_delivered_sounds_the_worst_is_told() -> None:
    noise = np.random.default_rng(0).standard_normal(16000 * 4).astype(np.float32)
    times, quiet = np.array([0.5, 3.0]), np.full(len(noise), 0.001, np.float32)
    for time_s in times:
        quiet[int(time_s * 16000) :][:1600] = 0.1
    clear, loud = noise * quiet, noise * 0.1 + 0.01
    found = delivered([clear, loud], [times, times], [times, np.array([0.5, 1.9, 3.0])], [clear, clear])
    gaps, lufs = found["events_over_silence_db"], found["lufs"]
    assert isinstance(gaps, dict) and isinstance(lufs, dict)
    assert (gaps["of"], gaps["below_20_db"], gaps["of_these_with_an_onset_picked"]) == (2, 1, 1)
    for picked_s, n_seen in ((0.6, 0), (0.7, 1), (2.8, 1), (2.9, 0)):
        near = delivered([clear, loud], [times, times], [times, np.array([picked_s])], [clear, clear])
        assert isinstance(gaps := near["events_over_silence_db"], dict)
        assert gaps["of_these_with_an_onset_picked"] == n_seen
    assert gaps["in_the_own_sound"] == gaps["of_these_in_the_own_sound_too"] == 0
    assert gaps["worst"] < 1 and gaps["median"] == pytest.approx(20, abs=1)
    assert lufs["lowest"] < lufs["highest"]
    assert found["constant_part"] == pytest.approx(0.01, abs=1e-3)


def test_a_silence_whose_next_event_comes_early_is_told() -> None:
    noise = np.random.default_rng(0).standard_normal(16000 * 4).astype(np.float32)
    times = np.array([0.5, 3.0])
    last = np.array([0.5, 1.5])  # the silence after the last one has no next event
    early, noisy, ending = noise.copy(), noise.copy(), noise.copy()
    early[int(0.7 * 16000) : int(2.8 * 16000)] = 0
    noisy[int(0.7 * 16000) : int(2.7 * 16000)] = 0
    ending[int(1.7 * 16000) : int(3.8 * 16000)] = 0
    events = [times, times, last]
    found = delivered([early, noisy, ending], events, events, [early, noisy, ending])
    gaps = found["events_over_silence_db"]
    assert isinstance(gaps, dict)
    assert (gaps["below_20_db"], gaps["of_these_with_the_next_event_early"]) == (3, 1)


def test_silences_that_are_none_in_the_clips_own_sound_are_told() -> None:
    noise = np.random.default_rng(0).standard_normal(16000 * 4).astype(np.float32)
    times, clear = np.array([0.5, 3.0]), noise.copy()
    clear[int(0.7 * 16000) : 3 * 16000] = 0
    found = delivered([noise, noise, clear], [times] * 3, [times] * 3, [noise, clear, noise])
    gaps = found["events_over_silence_db"]
    assert isinstance(gaps, dict)
    counts = (gaps["below_20_db"], gaps["of_these_in_the_own_sound_too"], gaps["in_the_own_sound"])
    assert counts == (2, 1, 2)


def test_a_silent_sound_is_counted_and_has_no_level() -> None:
    loud = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    found = delivered([loud, np.zeros(16000, np.float32)], *[[np.zeros(0)] * 2] * 3)
    assert found["silent"] == 1
    assert isinstance(found["lufs"], dict) and found["lufs"]["lowest"] > -40


def test_clips_of_every_kind_have_every_frame_rate() -> None:
    for kind in range(len(KINDS)):
        assert {rate_of(row) for row in range(kind, CLIPS, len(KINDS))} == set(RATES)
    assert min(RATES) == 12 and max(RATES) == 60
