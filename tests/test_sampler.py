import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taro_rt.engines.bundle import SamplerDefaults
from taro_rt.engines.contract import Array
from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.sampler import drift, guide, is_guided, linear_steps, sample, time_grid

RELEASED = SamplerDefaults(
    steps=25, guidance=8.0, guidance_low=0.0, guidance_high=0.7, method="sde", path="linear"
)
RELEASED_TIMES = [1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72, 0.68, 0.64, 0.6, 0.56, 0.52]
RELEASED_TIMES += [0.48, 0.44, 0.4, 0.36, 0.32, 0.28, 0.24, 0.2, 0.16, 0.12, 0.08, 0.04]
BFLOAT16_TIMES = [1.0, 0.9609375, 0.921875, 0.87890625, 0.83984375, 0.80078125, 0.7578125, 0.71875]
BFLOAT16_TIMES += [0.6796875, 0.640625, 0.6015625, 0.55859375, 0.51953125, 0.48046875, 0.44140625]
BFLOAT16_TIMES += [0.3984375, 0.359375, 0.3203125, 0.28125, 0.240234375, 0.2001953125, 0.16015625]
BFLOAT16_TIMES += [0.1201171875, 0.080078125, 0.0400390625, 0.0]


def settings(
    method: str = "sde", steps: int = 25, path: str = "linear", guidance: float = 8.0
) -> SamplerDefaults:
    return SamplerDefaults(
        steps=steps, guidance=guidance, guidance_low=0.0, guidance_high=0.7, method=method, path=path
    )


def no_noise(step: int) -> Array:
    return np.zeros(4, np.float32)


class Recorder:
    """A velocity that remembers how it was called."""

    def __init__(self, velocity: Callable[[Array, float], Array] = lambda x, t: x * 0) -> None:
        self.velocity = velocity
        self.calls: list[tuple[Array, float, bool]] = []

    def __call__(self, latents: Array, t: float, guided: bool) -> Array:
        self.calls.append((latents, t, guided))
        return self.velocity(latents, t)

    @property
    def rows(self) -> list[int]:
        return [1 + guided for _, _, guided in self.calls]


def test_the_released_grid_falls_in_even_steps_and_ends_at_zero() -> None:
    grid = time_grid("sde", 25)
    assert grid.dtype == np.float32
    np.testing.assert_array_equal(grid, np.array([*RELEASED_TIMES, 0], np.float32))


@pytest.mark.parametrize("steps", [1, 2, 7, 25, 100])
def test_every_grid_starts_at_noise_and_ends_at_data(steps: int) -> None:
    for method in ("sde", "ode", "heun", "dpm++", "dpm++2m"):
        grid = time_grid(method, steps)
        assert len(grid) == steps + 1 and grid[0] == 1 and grid[-1] == 0
        assert (np.diff(grid) < 0).all()


@pytest.mark.parametrize(("method", "calls", "rows"), [("sde", 25, 42), ("ode", 25, 42), ("heun", 49, 82)])
def test_calls_and_rows_are_the_released_ones(method: str, calls: int, rows: int) -> None:
    velocity = Recorder()
    sample(velocity, np.zeros(4, np.float32), no_noise, settings(method))
    assert (len(velocity.calls), sum(velocity.rows)) == (calls, rows)


def test_the_sde_guides_from_the_ninth_call_on() -> None:
    velocity = Recorder()
    sample(velocity, np.zeros(4, np.float32), no_noise, RELEASED)
    assert velocity.rows == [1] * 8 + [2] * 17
    assert [t for _, t, _ in velocity.calls] == pytest.approx(RELEASED_TIMES, abs=1e-7)


def test_heun_evaluates_the_corrector_with_the_decision_of_its_step() -> None:
    velocity = Recorder()
    sample(velocity, np.zeros(4, np.float32), no_noise, settings("heun"))
    steps = [(round(t, 2), guided) for _, t, guided in velocity.calls]
    assert steps[14:18] == [(0.72, False), (0.68, False), (0.68, True), (0.64, True)]
    assert steps[-1] == (0.04, True), "no corrector on the last step"


def test_a_given_grid_replaces_the_one_of_the_settings() -> None:
    velocity = Recorder()
    sample(velocity, np.zeros(4, np.float32), no_noise, RELEASED, np.array(BFLOAT16_TIMES, np.float32))
    assert [t for _, t, _ in velocity.calls] == BFLOAT16_TIMES[:-1]
    assert velocity.rows == [1] * 8 + [2] * 17


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_guidance_of_one_or_less_is_never_evaluated(guidance: float) -> None:
    velocity = Recorder()
    sample(velocity, np.zeros(4, np.float32), no_noise, settings(guidance=guidance))
    assert sum(velocity.rows) == 25


@pytest.mark.parametrize(("low", "high", "guided"), [(0.3, 0.6, (4, 8)), (0.7, 0.9, (1, 4)), (0, 1, (0, 11))])
def test_the_guidance_interval_holds_both_its_ends(low: float, high: float, guided: tuple[int, int]) -> None:
    """In float32 0.6 lies above and 0.7 below the number written here."""
    interval = SamplerDefaults(
        steps=10, guidance=2.0, guidance_low=low, guidance_high=high, method="ode", path="linear"
    )
    got = [is_guided(float(t), interval) for t in time_grid("ode", 10)]
    assert got == [guided[0] <= i < guided[1] for i in range(11)]


def test_guidance_pushes_away_from_the_null_velocity() -> None:
    conditional, null = np.array([1.0, 2.0], np.float32), np.array([0.5, 2.0], np.float32)
    guided = guide(conditional, null, 8.0)
    assert guided.dtype == np.float32
    np.testing.assert_array_equal(guided, [4.5, 2.0])


@given(st.floats(min_value=0.01, max_value=0.99), st.floats(-9, 9), st.floats(-9, 9))
def test_drift_equals_the_long_form_through_the_score(t: float, x: float, v: float) -> None:
    cot = 1 / math.tan(math.pi * t / 2)
    scores = {"linear": -((1 - t) * v + x) / t, "vp": -((2 / math.pi) * cot * v + x)}
    for path, score in scores.items():
        got = drift(np.array([x], np.float32), np.array([v], np.float32), t, path)
        assert got.dtype == np.float32
        assert got[0] == pytest.approx(v - t * score, rel=1e-4, abs=1e-4)


def test_an_sde_run_equals_the_long_form_step_by_step() -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal(64, np.float32)
    draws = rng.standard_normal((25, 64), np.float32)
    used: list[int] = []

    def noise(step: int) -> Array:
        used.append(step)
        return draws[step]

    got = sample(Recorder(lambda x, t: np.float32(t) * np.sin(3 * x)), start, noise, RELEASED)

    x = start.astype(np.float64)
    for i, (t, t_next) in enumerate(pairwise([*RELEASED_TIMES, 0.0])):
        v, dt = t * np.sin(3 * x), t_next - t
        score = -((1 - t) * v + x) / t
        x = x + (v - t * score) * dt
        if i < 24:
            x = x + math.sqrt(2 * t) * math.sqrt(-dt) * draws[i]
    assert used == list(range(24)), "no noise on the last step"
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, x, atol=1e-4)


@pytest.mark.parametrize("method", ["ode", "heun"])
def test_an_ode_reaches_a_single_data_point(method: str) -> None:
    point = np.float32(0.75)
    start = np.random.default_rng(0).standard_normal(100, np.float32)
    got = sample(Recorder(lambda x, t: (x - point) / np.float32(t)), start, no_noise, settings(method))
    np.testing.assert_allclose(got, point, atol=1e-5)


def gaussian_velocity(path: str, deviation: float) -> Callable[[Array, float], Array]:
    """The exact velocity when the data is normal with this deviation."""

    def velocity(x: Array, t: float) -> Array:
        a, s, da, ds = 1 - t, t, -1.0, 1.0
        if path == "vp":
            a, s = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
            da, ds = -math.pi / 2 * s, math.pi / 2 * a
        share = (da * a * deviation**2 + ds * s) / (a**2 * deviation**2 + s**2)
        return x * np.float32(share)

    return velocity


@pytest.mark.parametrize("path", ["linear", "vp"])
@pytest.mark.parametrize("method", ["sde", "ode", "heun"])
def test_gaussian_noise_becomes_the_gaussian_data(path: str, method: str) -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal(50_000, np.float32)
    draws = {i: rng.standard_normal(50_000, np.float32) for i in range(200)}
    velocity = Recorder(gaussian_velocity(path, 0.5))
    got = sample(velocity, start, draws.__getitem__, settings(method, 200, path))
    assert got.std() == pytest.approx(0.5, rel=0.02)
    assert abs(got.mean()) < 0.01


def test_heun_is_of_second_order_and_euler_of_first() -> None:
    start = np.ones(1, np.float32)

    def error(method: str, steps: int) -> float:
        velocity = Recorder(gaussian_velocity("linear", 0.5))
        return abs(float(sample(velocity, start, no_noise, settings(method, steps))[0]) - 0.5)

    assert error("ode", 20) / error("ode", 40) == pytest.approx(2, rel=0.25)
    assert error("heun", 20) < error("ode", 20) / 5


def gaussian_mean(method: str, steps: int) -> float:
    """Where x = 1 goes without noise, from t = 1 to 0.25, for Gaussian data."""
    grid = np.append(np.linspace(1, 0.25, steps + 1), 0).astype(np.float32)
    reached: list[Array] = []

    def velocity(x: Array, t: float, guided: bool) -> Array:
        reached.append(x)
        return gaussian_velocity("linear", 0.5)(x, t)

    sample(velocity, np.ones(1, np.float32), no_noise, settings(method), grid)
    return float(reached[-1][0])


def test_the_exponential_solvers_are_of_first_and_second_order() -> None:
    """All three solve the same SDE: what Euler-Maruyama tends to is where they go."""
    limit = gaussian_mean("dpm++2m", 3000)
    assert gaussian_mean("sde", 3000) == pytest.approx(limit, abs=2e-4)

    def error(method: str, steps: int) -> float:
        return abs(gaussian_mean(method, steps) - limit)

    assert error("dpm++", 20) / error("dpm++", 40) == pytest.approx(2, rel=0.15)
    assert error("dpm++2m", 20) / error("dpm++2m", 40) == pytest.approx(4, rel=0.25)
    assert error("dpm++2m", 20) < error("dpm++", 20) / 4 and error("dpm++", 20) < error("sde", 20)


@pytest.mark.parametrize(("method", "steps", "off"), [("dpm++", 100, 0.04), ("dpm++2m", 12, 0.03)])
def test_the_exponential_solvers_reach_the_gaussian_data(method: str, steps: int, off: float) -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal(50_000, np.float32)
    draws = {i: rng.standard_normal(50_000, np.float32) for i in range(steps)}
    velocity = Recorder(gaussian_velocity("linear", 0.5))
    got = sample(velocity, start, draws.__getitem__, settings(method, steps))
    assert got.std() == pytest.approx(0.5, rel=off)


@pytest.mark.parametrize("method", ["dpm++", "dpm++2m"])
@pytest.mark.parametrize("steps", [1, 4, 12])
def test_the_exponential_solvers_reach_a_single_data_point_in_any_number_of_steps(
    method: str, steps: int
) -> None:
    point = np.float32(0.75)
    start = np.random.default_rng(0).standard_normal(100, np.float32)
    draws = np.random.default_rng(1).standard_normal((steps, 100), np.float32)
    got = sample(
        Recorder(lambda x, t: (x - point) / np.float32(t)), start, draws.__getitem__, settings(method, steps)
    )
    np.testing.assert_allclose(got, point, atol=1e-5)


def test_the_exponential_solvers_refuse_a_path_they_do_not_solve() -> None:
    with pytest.raises(OptionsError, match=r"dpm\+\+ is for the linear path, got 'vp'"):
        sample(Recorder(), np.zeros(4, np.float32), no_noise, settings("dpm++", path="vp"))


@pytest.mark.parametrize("method", ["sde", "ode", "heun"])
def test_one_step_is_enough_to_finish(method: str) -> None:
    velocity = Recorder()
    got = sample(velocity, np.ones(4, np.float32), no_noise, settings(method, 1))
    assert len(velocity.calls) == 1 and np.isfinite(got).all()


def test_the_start_is_left_as_it_was() -> None:
    start = np.ones(4, np.float32)
    sample(Recorder(lambda x, t: x), start, no_noise, RELEASED)
    assert (start == 1).all()


def test_an_unknown_method_or_path_is_named() -> None:
    for odd in (settings(method="rk4"), settings(path="cosine")):
        with pytest.raises(OptionsError, match=r"rk4|cosine"):
            sample(Recorder(), np.zeros(4, np.float32), no_noise, odd)


@pytest.mark.parametrize(
    ("method", "path"), [("sde", "linear"), ("sde", "vp"), ("ode", "linear"), ("dpm++", "linear")]
)
def test_steps_as_numbers_are_the_steps(method: str, path: str) -> None:
    chosen = settings(method, 7, path)
    rng = np.random.default_rng(0)
    start, *noises = rng.standard_normal((8, 2, 3))  # float64: guidance blows rounding up

    def conditional(x: Array, t: float) -> Array:
        return np.sin(3 * x + t)

    def velocity(x: Array, t: float, guided: bool) -> Array:
        v = conditional(x, t)
        return guide(v, -0.5 * x, chosen.guidance) if guided else v

    want = sample(velocity, start, lambda i: noises[i], chosen)
    numbers = linear_steps(chosen, time_grid(method, 7))
    assert numbers is not None
    x = start
    for i, step in enumerate(numbers):
        v = conditional(x, step.t)
        if step.guided:
            v = guide(v, -0.5 * x, step.guidance)
        x = step.keep * x + step.push * v + (step.spread * noises[i] if step.spread else 0)
    np.testing.assert_allclose(x, want, rtol=2e-5, atol=2e-5)
    assert numbers[-1].spread == 0 and {step.guided for step in numbers} == {False, True}


@pytest.mark.parametrize("method", ["heun", "dpm++2m"])
def test_steps_that_look_at_others_are_no_numbers(method: str) -> None:
    assert linear_steps(settings(method), time_grid(method, 25)) is None
