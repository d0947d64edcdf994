"""A canvas sampled window by window equals the canvas sampled at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taro_rt.engines.bundle import SamplerDefaults
from taro_rt.engines.contract import Array
from taro_rt.runtime.sampler import evaluations, sample, steps
from taro_rt.runtime.velocity import Asked, Conditions
from taro_rt.runtime.wavefront import Run, Wavefront
from taro_rt.runtime.windows import cut, merge

Method = Literal["sde", "ode", "heun", "dpm++2m"]
LENGTH = 20
RNG = np.random.default_rng(0)
START = RNG.standard_normal((2, 3, 2000, 4), np.float32)
STEPS = RNG.standard_normal((12, 2, 3, 2000, 4), np.float32)


def velocity(window: int, latents: Array, t: float, guided: bool) -> Array:
    """No element by element function: every window mixes what it sees along time."""
    level = np.float32(window % 3 - 1 + 0.5 * guided)
    return np.sin(latents + level) * np.float32(t) - 0.1 * latents.mean(axis=2, keepdims=True)


def at_once(offsets: Sequence[int], defaults: SamplerDefaults) -> Array:
    n = offsets[-1] + LENGTH

    def whole(latents: Array, t: float, guided: bool) -> Array:
        parts = [velocity(i, cut(latents, at, LENGTH, 2), t, guided) for i, at in enumerate(offsets)]
        return np.concatenate(list(merge(parts, offsets, axis=2)), axis=2)

    return sample(whole, START[:, :, :n], lambda i: STEPS[i, :, :, :n], defaults)


class Watched:
    """A wavefront over `offsets` that remembers what was under way."""

    def __init__(self, offsets: Sequence[int], defaults: SamplerDefaults, per_call: int = 4) -> None:
        self.entered: list[int] = []
        self.calls: list[int] = []
        self.most_under_way = 0

        def start(low: int, high: int) -> Run:
            return steps(START[:, :, low:high], lambda i: STEPS[i, :, :, low:high], defaults)

        def enter(window: int) -> Conditions:
            self.entered.append(window)
            return cast("Conditions", window)  # evaluate below only wants to know which one

        def evaluate(asked: list[Asked]) -> list[Array]:
            self.calls.append(len(asked))
            self.most_under_way = max(self.most_under_way, len(self.front._conditions))
            return [velocity(cast("int", a.conditions), a.latents, a.t, a.guided) for a in asked]

        self.front = Wavefront(offsets, LENGTH, start, enter, evaluate, per_call)

    def whole(self) -> Array:
        return np.concatenate(list(self.front.pieces()), axis=2)


def spread(n: int, hop: int) -> list[int]:
    return [k * hop for k in range(n)]


@pytest.mark.parametrize("method", ["sde", "ode", "heun", "dpm++2m"])
@pytest.mark.parametrize("offsets", [[0], [0, 15], spread(9, 15), spread(9, 8), [0, 10, 15, 30, 49]])
def test_a_wavefront_equals_joint_sampling_to_the_bit(method: Method, offsets: list[int]) -> None:
    defaults = SamplerDefaults(steps=7, method=method)
    watched = Watched(offsets, defaults)
    assert np.array_equal(watched.whole(), at_once(offsets, defaults))
    assert sum(watched.calls) == len(offsets) * evaluations(defaults)


@settings(max_examples=40)
@given(st.lists(st.integers(1, LENGTH - 1), max_size=12), st.integers(1, 6), st.sampled_from(["sde", "heun"]))
def test_any_overlap_and_any_batch_give_the_same(hops: list[int], per_call: int, method: Method) -> None:
    offsets, defaults = [0, *np.cumsum(hops).tolist()], SamplerDefaults(steps=4, method=method)
    assert np.array_equal(Watched(offsets, defaults, per_call).whole(), at_once(offsets, defaults))


def test_windows_enter_in_order_and_no_more_than_a_few_per_evaluation_are_under_way() -> None:
    defaults = SamplerDefaults(steps=8)
    short, long = Watched(spread(40, 15), defaults), Watched(spread(120, 15), defaults)
    for watched in (short, long):
        watched.whole()
        assert watched.entered == sorted(watched.entered)
    assert short.most_under_way == long.most_under_way <= 2 * evaluations(defaults) + 4


def test_calls_are_full_but_at_the_ends() -> None:
    watched = Watched(spread(120, 15), SamplerDefaults(steps=8))
    watched.whole()
    assert np.mean(watched.calls) > 3.5


def test_the_first_piece_is_there_long_before_the_last_window_enters() -> None:
    watched = Watched(spread(100, 15), SamplerDefaults(steps=8))
    pieces: Callable[[], Array] = watched.front.pieces().__next__
    assert pieces().shape == (2, 3, 15, 4)
    assert len(watched.entered) < 25
