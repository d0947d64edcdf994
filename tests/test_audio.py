"""Sounds in memory and as WAV files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from taro_rt.engines.errors import MediaError
from taro_rt.runtime.audio import Audio, fit_length, write_wav


def test_a_wav_holds_every_sample(tmp_path: Path) -> None:
    samples = np.linspace(-1, 1, 1001, dtype=np.float32)
    write_wav(Audio(samples, 16000), tmp_path / "a.wav")
    read, rate_hz = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert (rate_hz, len(read)) == (16000, 1001)
    assert np.abs(read - samples).max() <= 1 / 32768
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"


def test_a_wav_of_samples_beyond_full_scale_is_clipped_not_wrapped(tmp_path: Path) -> None:
    write_wav(Audio(np.array([2, -2, 0.5], np.float32), 16000), tmp_path / "a.wav")
    read, _ = soundfile.read(tmp_path / "a.wav")
    assert read == pytest.approx([1, -1, 0.5], abs=1e-4)


def test_the_same_sound_gives_the_same_bytes(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    for name in ("a.wav", "b.wav"):
        write_wav(Audio(samples, 16000), tmp_path / name)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_a_float_wav_is_exact(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    write_wav(Audio(samples, 16000), tmp_path / "a.wav", subtype="FLOAT")
    assert np.array_equal(soundfile.read(tmp_path / "a.wav", dtype="float32")[0], samples)


def test_a_wav_that_cannot_be_written_is_a_media_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="nowhere: the sound cannot be written there"):
        write_wav(Audio(np.zeros(10, np.float32), 16000), tmp_path / "nowhere" / "a.wav")


def test_the_duration_is_samples_over_rate() -> None:
    assert Audio(np.zeros(8000, np.float32), 16000).duration_s == 0.5


@given(have=st.integers(0, 300), want=st.integers(0, 300))
def test_fit_length_gives_exactly_the_length_asked_for(have: int, want: int) -> None:
    fitted = fit_length(np.ones(have, np.float32), want)
    assert fitted.shape == (want,)
    assert fitted.dtype == np.float32


def test_what_is_too_short_gets_silence_behind_it() -> None:
    assert fit_length(np.ones(3, np.float32), 5).tolist() == [1, 1, 1, 0, 0]


def test_what_is_too_long_fades_out_within_5_ms() -> None:
    fitted = fit_length(np.ones(1000, np.float32), 500)
    assert (fitted[:420] == 1).all()
    assert (np.diff(fitted[420:]) < 0).all()
    assert fitted[-1] == 0


def test_fit_length_leaves_its_input_alone() -> None:
    samples = np.ones(1000, np.float32)
    fit_length(samples, 500)
    assert (samples == 1).all()
