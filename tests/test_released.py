"""The baseline computes what the released script does, through the contracts of every backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_tiny_bundle import GLOBAL, make_tiny_bundle, tiny_config

from taro_rt.engines.backends import Engines, load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.eager import load_networks
from taro_rt.engines.errors import OptionsError
from taro_rt.engines.nets.config import PUBLISHED, SMALL
from taro_rt.engines.released import (
    PUBLISHED_HEAD,
    EveryStepDenoiser,
    Head,
    Recipe,
    ReleasedTransformer,
    head_of,
    load_released,
)
from taro_rt.engines.stages import typical_inputs
from taro_rt.runtime.sampler import time_grid
from taro_rt.runtime.timing import Timings
from taro_rt.runtime.velocity import Asked, Conditions, velocities
from taro_rt.training.teacher import N_TOKENS, WIDTH
from taro_rt.training.transformer import Objective

TIMES = time_grid("sde", 5)[:-1]
LESS = {
    "as released": Recipe(),
    "no head": Recipe(alignment_head=False),
    "modulation once": Recipe(alignment_head=False, modulation_every_step=False),
    "no surplus": Recipe(alignment_head=False, modulation_every_step=False, surplus=False),
}


@pytest.fixture(scope="module", params=["frame-wise", "global"])
def bundle(
    request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    if request.param == "frame-wise":
        return Bundle.open(tiny_bundle)
    folder = tmp_path_factory.mktemp("global") / "b"
    make_tiny_bundle(folder, config=tiny_config(GLOBAL))
    return Bundle.open(folder)


def velocity(engines: Engines, guided: bool) -> np.ndarray:
    feed = typical_inputs(engines.conditioner.contract, seed=1, b=1, s=1, n=32)
    conditions = Conditions(engines.conditioner, TIMES, feed["onset"], feed["features"])
    latents = typical_inputs(engines.denoiser.contract, seed=2, b=1, n=32)["latents"]
    return velocities(
        engines.denoiser, [Asked(latents, conditions, float(TIMES[2]), guided)], 8.0, Timings()
    )[0]


def relative_rms(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)))


@pytest.mark.parametrize("recipe", LESS)
@pytest.mark.parametrize("guided", [False, True])
def test_its_velocity_is_the_exact_one_up_to_bfloat16(bundle: Bundle, recipe: str, guided: bool) -> None:
    want = velocity(load_engines(bundle, "eager", threads=1), guided)
    got = velocity(load_released(bundle, LESS[recipe], threads=1), guided)
    assert 1e-4 < relative_rms(got, want) < (0.15 if guided else 0.03)


@pytest.mark.parametrize("recipe", LESS)
def test_in_float32_its_velocity_is_the_exact_one(bundle: Bundle, recipe: str) -> None:
    want = velocity(load_engines(bundle, "eager", threads=1), True)
    got = velocity(load_released(bundle, LESS[recipe], 1, "float32"), True)
    assert relative_rms(got, want) < 1e-4


def test_what_is_surplus_is_computed_and_not_kept(bundle: Bundle) -> None:
    exact, released = load_engines(bundle, "eager", threads=1), load_released(bundle, threads=1)
    for graph in ("onset", "decoder", "vocoder"):
        feed = typical_inputs(getattr(exact, graph).contract, seed=3, b=1)
        for _ in range(5):
            got, want = getattr(released, graph)(**feed), getattr(exact, graph)(**feed)
        assert all(np.array_equal(got[name], want[name]) for name in want)
    calls: list[int] = []
    onset = released.onset._module  # type: ignore[attr-defined]
    onset.net.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(4):
        released.onset(**typical_inputs(released.onset.contract, seed=3, b=1))
    assert len(calls) == 5
    frames = typical_inputs(released.visual.contract, seed=3, b=1, t=32)["frames"]
    seen: list[int] = []
    released.visual._module.net.register_forward_hook(  # type: ignore[attr-defined]
        lambda _, inputs, output: seen.append(inputs[0].shape[2])
    )
    assert released.visual(frames=frames)["features"].shape[1] == 32 and seen == [40]


def test_the_alignment_head_runs_in_every_call(bundle: Bundle) -> None:
    networks = load_networks(bundle)
    calls: list[tuple[int, ...]] = []
    net = ReleasedTransformer(networks.transformer, head_of(bundle.manifest.networks))
    net.projectors.register_forward_hook(lambda _, inputs, output: calls.append(tuple(output.shape)))
    g = bundle.manifest.geometry
    with torch.inference_mode():
        net(
            torch.randn(2, g.latent_channels, g.latent_frames, g.latent_bins),
            torch.rand(2),
            torch.randn(2, g.onset_values),
            torch.randn(2, g.visual_frames, g.visual_dim),
            torch.ones(2),
        )
    assert calls == [(2, 204, 128)]


def test_every_part_of_the_recipe_is_really_computed(bundle: Bundle) -> None:
    """Counted at the networks of `load_released` itself."""
    whole = load_released(bundle, threads=1).denoiser._module  # type: ignore[attr-defined]
    heads, modulations = list[int](), list[int]()
    whole.projectors.register_forward_hook(lambda *_: heads.append(1))
    whole.net.final_layer.adaLN_modulation[1].register_forward_hook(lambda *_: modulations.append(1))
    engines = load_released(bundle, threads=1)
    engines = replace(engines, denoiser=EveryStepDenoiser(whole, engines.denoiser.contract))
    for _ in range(3):
        velocity(engines, guided=True)
    assert len(heads) == len(modulations) == 3


def test_the_head_of_the_embedded_bundle_is_that_of_its_training() -> None:
    what = Objective().tra
    assert what is not None
    assert Head(what.block, N_TOKENS, what.hidden, WIDTH) == head_of(SMALL)


def test_the_head_of_the_published_size_is_the_published_one() -> None:
    assert head_of(PUBLISHED) == PUBLISHED_HEAD


def test_a_head_without_modulation_at_every_step_is_refused() -> None:
    with pytest.raises(OptionsError, match="no alignment head where modulation is made once"):
        Recipe(modulation_every_step=False)
