"""Velocities of windows over hand-made engines whose answers can be computed without networks."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from taro_rt.engines.contract import Array, Contract
from taro_rt.engines.stages import Geometry, contracts
from taro_rt.runtime import velocity
from taro_rt.runtime.sampler import time_grid
from taro_rt.runtime.timing import Timings
from taro_rt.runtime.velocity import Asked, Conditions, Feed, velocities

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


def conditions(
    net: HandMade | None = None, onset: float = 0.5, token: float = 0.25, n_sharing: int = 1
) -> Conditions:
    row, features = np.full((1, 120), onset, np.float32), np.full((1, 32, 4), token, np.float32)
    return Conditions(net or conditioner(), TIMES, row, features, n_sharing)


def latents(takes: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((takes, 8, 204, 16), np.float32)


def evaluate(net: HandMade, *asked: Asked, guidance: float = 8.0) -> list[Array]:
    return velocities(net, asked, guidance, Timings())


def expected(one: Asked, onset: float = 0.5, token: float = 0.25, guidance: float = 8.0) -> Array:
    conditional, null = (one.t + onset) * np.sin(one.latents) + token, one.t * np.sin(one.latents)
    return null + guidance * (conditional - null) if one.guided else conditional


@pytest.mark.parametrize("takes", [1, 3, 5])
@pytest.mark.parametrize("guided", [False, True])
def test_takes_share_the_conditions_of_their_window(takes: int, guided: bool) -> None:
    asked = Asked(latents(takes), conditions(), float(TIMES[3]), guided)
    (got,) = evaluate(denoiser(), asked)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected(asked), atol=1e-5)


def test_windows_of_one_call_may_be_at_different_times_guided_or_not() -> None:
    levels = [(0.5, 0.25), (-1.0, 0.5), (2.0, 0.0)]
    asked = [
        Asked(latents(2, seed=i), conditions(None, *level), float(TIMES[3 * i]), i != 1)
        for i, level in enumerate(levels)
    ]
    net = denoiser()
    for one, got, level in zip(asked, evaluate(net, *asked), levels, strict=True):
        np.testing.assert_allclose(got, expected(one, *level), atol=1e-4)
    assert [len(feed["latents"]) for feed in net.feeds] == [2 * 3 + 2 * 2]


def test_one_window_is_the_plain_network_to_the_bit() -> None:
    net = denoiser()
    (got,) = evaluate(net, Asked(latents(1), conditions(), float(TIMES[2]), False))
    assert np.array_equal(got, net(**net.feeds[0])["velocity"])


def test_the_null_row_of_a_guided_call_has_no_condition() -> None:
    net = denoiser()
    evaluate(net, Asked(latents(1), conditions(), float(TIMES[20]), True))
    feed = net.feeds[0]
    assert len(feed["latents"]) == 2 and np.array_equal(feed["latents"][0], feed["latents"][1])
    assert (feed["tokens"][1] == 0).all() and (feed["tokens"][0] == 0.25).all()
    assert (feed["modulation"][1] == TIMES[20]).all()
    assert feed["modulation"].shape == (2, 2, 3, 4)


def test_calls_stay_small_however_many_the_takes() -> None:
    net = denoiser()
    evaluate(net, Asked(latents(11), conditions(), float(TIMES[20]), True))
    assert max(len(feed["latents"]) for feed in net.feeds) <= 2 * velocity.LATENTS_PER_CALL


@pytest.mark.parametrize("takes", [1, 5])
def test_guidance_is_evaluated_every_second_time_and_pushes_as_far_between(takes: int) -> None:
    net, on, x = denoiser(), conditions(), latents(takes)
    asked = [Asked(x, on, float(TIMES[i]), i > 0) for i in range(6)]
    got = [velocities(net, [one], 8.0, Timings(), every=2)[0] for one in asked]
    rows = [sum(len(f["latents"]) for f in net.feeds)]
    push = 0.5 * np.sin(x) + 0.25  # conditional less null, at every time
    for one, v in zip(asked, got, strict=True):
        conditional = (one.t + 0.5) * np.sin(x) + 0.25
        np.testing.assert_allclose(v, conditional + 7 * push * one.guided, atol=1e-4)
    assert rows == [takes * (6 + 3)]


def test_guidance_of_every_time_is_the_plain_one_to_the_bit() -> None:
    asked = [Asked(latents(2), conditions(), float(TIMES[9]), True)]
    (plain,) = velocities(denoiser(), asked, 8.0, Timings())
    (every,) = velocities(denoiser(), asked, 8.0, Timings(), every=1)
    assert np.array_equal(plain, every)


def test_conditions_are_made_once_when_they_fit() -> None:
    net = conditioner()
    made = conditions(net)
    for t in TIMES:
        made.at(float(t))
    assert [len(feed["times"]) for feed in net.feeds] == [25]


@pytest.mark.parametrize(("n_sharing", "blocks"), [(1, [20, 5]), (4, [5] * 5), (30, [1] * 25)])
def test_conditions_are_made_in_blocks_within_the_budget(
    monkeypatch: pytest.MonkeyPatch, n_sharing: int, blocks: list[int]
) -> None:
    whole = conditions()
    monkeypatch.setattr(velocity, "MODULATION_BYTES", 20 * 2 * 3 * 4 * 4)
    net = conditioner()
    made = conditions(net, n_sharing=n_sharing)
    for t in TIMES:
        for got, want in zip(made.at(float(t)), whole.at(float(t)), strict=True):
            assert np.array_equal(got, want)
    assert [len(feed["times"]) for feed in net.feeds] == blocks


def test_memory_of_the_feed_is_used_again_and_nothing_of_the_last_call_is_left_in_it() -> None:
    one, feed = Asked(latents(2), conditions(), float(TIMES[3]), True), Feed()
    other = Asked(latents(2, seed=5), conditions(None, -1.0, 0.5), float(TIMES[4]), True)
    net, addresses = denoiser(), []
    for asked, level in ((one, (0.5, 0.25)), (other, (-1.0, 0.5)), (one, (0.5, 0.25))):
        (got,) = velocities(net, [asked], 8.0, Timings(), feed=feed)
        np.testing.assert_allclose(got, expected(asked, *level), atol=1e-4)
        addresses.append(net.feeds[-1]["modulation"].ctypes.data)
    assert len(set(addresses)) == 1
    (plain,) = velocities(net, [replace(one, guided=False)], 8.0, Timings(), feed=feed)
    np.testing.assert_allclose(plain, expected(replace(one, guided=False)), atol=1e-4)
