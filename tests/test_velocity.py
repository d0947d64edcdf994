"""The canvas velocity over hand-made engines whose answers can be computed without windows."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from taro_rt.engines.contract import Array, Contract
from taro_rt.engines.stages import Geometry, contracts
from taro_rt.runtime import velocity
from taro_rt.runtime.sampler import time_grid
from taro_rt.runtime.timing import Timings
from taro_rt.runtime.velocity import CanvasVelocity, Conditions
from taro_rt.runtime.windows import Windows, plan

GEOMETRY = Geometry(width=4, time_positions=2, modulation_vectors=3, visual_dim=4)
TIMES = time_grid("sde", 25)[:-1]


@dataclass
class HandMade:
    """An engine that checks its contract, remembers its feeds and answers by a function."""

    contract: Contract
    answer: Callable[..., dict[str, Array]]
    backend: str = "hand-made"
    feeds: list[dict[str, Array]] = field(default_factory=list)

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        self.contract.check(inputs)
        self.feeds.append(inputs)
        return self.answer(**inputs)

    def close(self) -> None:
        self.feeds.clear()


def conditioner() -> HandMade:
    """Modulation holds t + the window's first onset value, the null row t, the tokens the first feature."""

    def answer(times: Array, onset: Array, features: Array) -> dict[str, Array]:
        by_time = times[:, None, None, None, None]
        row = by_time + onset[None, :, 0, None, None, None]
        return {
            "modulation": np.broadcast_to(row, (len(times), len(onset), 2, 3, 4)).astype(np.float32),
            "null_modulation": np.broadcast_to(by_time, (len(times), 1, 1, 3, 4)).astype(np.float32),
            "tokens": np.broadcast_to(features[:, :, :1], (len(onset), 32, 4)).astype(np.float32),
        }

    return HandMade(contracts(GEOMETRY)["conditioner"], answer)


def denoiser() -> HandMade:
    """Velocity = modulation * sin(latents) + tokens, sample by sample."""

    def answer(latents: Array, tokens: Array, modulation: Array) -> dict[str, Array]:
        column = (slice(None), None, None, None)
        return {"velocity": modulation[:, 0, 0, 0][column] * np.sin(latents) + tokens[:, 0, 0][column]}

    return HandMade(contracts(GEOMETRY)["denoiser"], answer)


def canvas(
    windows: Windows, onset: float = 0.5, token: float = 0.25, guidance: float = 8.0
) -> tuple[CanvasVelocity, HandMade, HandMade]:
    conditions, net = conditioner(), denoiser()
    rows = np.full((len(windows), 120), onset, np.float32)
    features = np.full((len(windows), 32, 4), token, np.float32)
    made = Conditions(conditions, TIMES, rows, features)
    return CanvasVelocity(net, made, windows, guidance, Timings()), conditions, net


def latents(windows: Windows, takes: int) -> Array:
    return np.random.default_rng(0).standard_normal((takes, 8, windows.latent_length, 16), np.float32)


@pytest.mark.parametrize("takes", [1, 3, 5])
@pytest.mark.parametrize("duration_s", [3.0, 9.0, 31.0])
def test_a_canvas_of_windows_equals_the_network_on_the_whole(duration_s: float, takes: int) -> None:
    windows = plan(duration_s, GEOMETRY)
    x, t = latents(windows, takes), float(TIMES[3])
    got = canvas(windows)[0](x, t, guided=False)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, (t + 0.5) * np.sin(x) + 0.25, atol=1e-5)


@pytest.mark.parametrize("takes", [1, 5])
def test_a_guided_canvas_follows_the_guidance_rule(takes: int) -> None:
    windows = plan(20.0, GEOMETRY)
    x, t = latents(windows, takes), float(TIMES[10])
    got = canvas(windows, guidance=4.0)[0](x, t, guided=True)
    conditional, null = (t + 0.5) * np.sin(x) + 0.25, t * np.sin(x)
    np.testing.assert_allclose(got, null + 4 * (conditional - null), atol=1e-5)


def test_one_window_is_the_plain_network_to_the_bit() -> None:
    windows = plan(8.0, GEOMETRY)
    x, t = latents(windows, 1), float(TIMES[2])
    velocity_of_canvas, _, net = canvas(windows)
    got = velocity_of_canvas(x, t, guided=False)
    assert np.array_equal(got, net(**net.feeds[0])["velocity"])


def test_every_window_has_its_own_conditions() -> None:
    windows = plan(14.0, GEOMETRY)
    onset = np.array([[1.0], [2.0]], np.float32).repeat(120, axis=1)
    made = Conditions(conditioner(), TIMES, onset, np.zeros((2, 32, 4), np.float32))
    got = CanvasVelocity(denoiser(), made, windows, 1.0, Timings())(
        np.full((1, 8, windows.latent_length, 16), np.pi / 2, np.float32), float(TIMES[0]), guided=False
    )
    along = got[0, 0, :, 0]
    assert along[:140] == pytest.approx(2.0) and along[210:] == pytest.approx(3.0)
    assert np.diff(along).min() >= -1e-6 and np.diff(along).max() < 0.05, "a fade, not a step"


def test_the_null_row_of_a_guided_call_has_no_condition() -> None:
    windows = plan(3.0, GEOMETRY)
    velocity_of_canvas, _, net = canvas(windows)
    velocity_of_canvas(latents(windows, 1), float(TIMES[20]), guided=True)
    feed = net.feeds[0]
    assert len(feed["latents"]) == 2 and np.array_equal(feed["latents"][0], feed["latents"][1])
    assert (feed["tokens"][1] == 0).all() and (feed["tokens"][0] == 0.25).all()
    assert (feed["modulation"][1] == TIMES[20]).all()
    assert feed["modulation"].shape == (2, 2, 3, 4)


def test_calls_stay_small_however_long_the_clip() -> None:
    windows = plan(120.0, GEOMETRY)
    velocity_of_canvas, _, net = canvas(windows)
    velocity_of_canvas(latents(windows, 3), float(TIMES[20]), guided=True)
    assert max(len(feed["latents"]) for feed in net.feeds) <= 2 * velocity.LATENTS_PER_CALL


def test_conditions_are_made_once_when_they_fit() -> None:
    windows = plan(8.0, GEOMETRY)
    velocity_of_canvas, conditions, _ = canvas(windows)
    for t in TIMES:
        velocity_of_canvas(latents(windows, 1), float(t), guided=False)
    assert [len(feed["times"]) for feed in conditions.feeds] == [25]


@pytest.mark.parametrize("rows", [1, 20, 100])
def test_conditions_are_made_in_blocks_within_the_budget(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    windows = plan(60.0, GEOMETRY)
    x = latents(windows, 1)
    whole = canvas(windows)[0]
    monkeypatch.setattr(velocity, "MODULATION_BYTES", rows * 2 * 3 * 4 * 4)
    small, conditions, _ = canvas(windows)
    for t in TIMES[:12]:
        assert np.array_equal(small(x, float(t), guided=True), whole(x, float(t), guided=True))
    kept = [outputs["modulation"].nbytes for _, outputs in small._conditions._blocks.values()]
    assert sum(kept) <= max(rows, velocity.LATENTS_PER_CALL) * 2 * 3 * 4 * 4
    largest = max(len(feed["times"]) * len(feed["onset"]) for feed in conditions.feeds)
    assert largest <= max(rows, velocity.LATENTS_PER_CALL)
