from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taro_rt.engines.bundle import SamplerDefaults
from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.onsets import Onset
from taro_rt.runtime.options import Options

DEFAULTS = SamplerDefaults(
    steps=25, guidance=8.0, guidance_low=0.0, guidance_high=0.7, method="sde", path="vp"
)


def test_nothing_asked_means_the_defaults_of_the_bundle() -> None:
    assert Options().resolve(DEFAULTS) == DEFAULTS


def test_what_is_asked_takes_the_place_of_a_default() -> None:
    options = Options(steps=4, guidance=0, guidance_low=0.1, guidance_high=0.2, method="heun")
    assert options.resolve(DEFAULTS) == SamplerDefaults(
        steps=4, guidance=0, guidance_low=0.1, guidance_high=0.2, method="heun", path="vp"
    )


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"steps": 0}, "steps: expected a whole number, 1 to 10000, got 0"),
        ({"steps": 2.5}, "steps: expected a whole number, 1 to 10000, got 2.5"),
        ({"steps": True}, "got True"),
        ({"steps": "4"}, "got '4'"),
        ({"steps": 2_000_000_000}, "steps: expected a whole number, 1 to 10000, got 2000000000"),
        ({"takes": 0}, "takes: expected a whole number, 1 to 100, got 0"),
        ({"takes": None}, "takes: expected a whole number"),
        ({"seed": -1}, "seed: expected a whole number, 0 or more, got -1"),
        ({"guidance": -0.5}, "guidance: expected a number, 0 to 1000, got -0.5"),
        ({"guidance": float("nan")}, "got nan"),
        ({"guidance": float("inf")}, "got inf"),
        ({"guidance_low": 1.1}, "guidance_low: expected a number, 0 to 1, got 1.1"),
        ({"guidance_high": -0.1}, "guidance_high: expected a number, 0 to 1, got -0.1"),
        ({"guidance_low": 0.6, "guidance_high": 0.5}, "guidance_low: expected at most guidance_high (0.5)"),
        ({"onsets": [1.5]}, "onsets: expected Onset(time_s, strength) objects"),
        ({"guidance_every": 0}, "guidance_every: expected a whole number, 1 to 1000, got 0"),
        ({"method": "rk4"}, "method: expected sde, ode, heun, dpm++, dpm++2m, got 'rk4'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(asked: dict[str, Any], fault: str) -> None:
    with pytest.raises(OptionsError) as caught:
        Options(**asked)
    assert fault in str(caught.value)


def test_all_faults_are_listed_at_once() -> None:
    with pytest.raises(OptionsError, match=r"steps: .*; takes: .*; method: "):
        Options(steps=0, takes=0, method="rk4")  # type: ignore[arg-type]


def test_an_unknown_keyword_is_an_error() -> None:
    with pytest.raises(TypeError, match="stepz"):
        Options(stepz=3)  # type: ignore[call-arg]


def test_an_interval_that_closes_against_the_defaults_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"expected at most guidance_high \(0\.7\), got 0\.8"):
        Options(guidance_low=0.8).resolve(DEFAULTS)


def test_numpy_numbers_are_numbers() -> None:
    assert Options(steps=np.int64(3), guidance=np.float32(2)).resolve(DEFAULTS).steps == 3  # type: ignore[arg-type]


def test_onsets_are_kept_as_a_tuple() -> None:
    assert Options(onsets=[Onset(1.0)]).onsets == (Onset(1.0),)  # type: ignore[arg-type]


@given(st.integers(1, 1000), st.floats(0, 100), st.floats(0, 0.5), st.floats(0.5, 1), st.integers(0, 2**64))
def test_what_is_in_range_is_taken(steps: int, guidance: float, low: float, high: float, seed: int) -> None:
    options = Options(steps=steps, guidance=guidance, guidance_low=low, guidance_high=high, seed=seed)
    assert options.resolve(DEFAULTS).guidance_low == low
