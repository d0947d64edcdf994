"""Sounds in memory and in files of their own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taro_rt.engines.errors import EngineError, MediaError
from taro_rt.runtime.audio import Audio, Spool, fit_length


def test_a_sound_is_given_in_blocks_of_half_a_second() -> None:
    samples = np.arange(20000, dtype=np.float32)
    blocks = list(Audio(samples, 16000).blocks())
    assert [len(block) for block in blocks] == [8000, 8000, 4000]
    assert np.array_equal(np.concatenate(blocks), samples)


@pytest.mark.parametrize("have", [90, 100, 900])
def test_a_spooled_sound_is_the_same_in_a_file_as_in_memory(tmp_path: Path, have: int) -> None:
    samples = np.linspace(-1, 1, have, dtype=np.float32)
    made = []
    for folder in (None, tmp_path):
        with closing(Spool(16000, folder)) as spool:
            for part in np.array_split(samples, 3):
                spool.add(part)
            made.append(spool.audio(100))
    assert np.array_equal(made[0].samples, made[1].samples)
    assert np.array_equal(np.concatenate(list(made[1].blocks())), made[0].samples)
    assert list(tmp_path.iterdir()) == []


def test_a_sound_that_is_not_finite_is_refused() -> None:
    with pytest.raises(EngineError, match="finite"):
        Spool(16000).add(np.array([0, np.nan], np.float32))


def test_a_folder_that_cannot_keep_a_sound_is_a_media_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="nowhere: the sound cannot be kept there"):
        Spool(16000, tmp_path / "nowhere")


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
