"""What runs static files with any number of rows, and what a window of plans is fed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from deployed_files import Files, expected
from make_tiny_bundle import tiny_config

from taro_rt.engines import stages
from taro_rt.engines.bundle import SamplerDefaults
from taro_rt.engines.contract import Array, Contract
from taro_rt.engines.errors import ContractError, EngineError
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.stages import typical_inputs
from taro_rt.engines.static import (
    BATCHES,
    STRIDE,
    ConditionerEngine,
    RowEngine,
    coefficients,
    filled,
    mixing,
    onset_tensor,
    pieces,
    visual_tensor,
)
from taro_rt.engines.window import Step
from taro_rt.export.parity import deviation
from taro_rt.runtime.prepare import onset_input, visual_input
from taro_rt.runtime.sampler import guide, linear_steps, sample, time_grid


def row_engine(static_files: Files, graph: str, contract: Contract, batches: tuple[int, ...]) -> RowEngine:
    return RowEngine(contract, {batch: static_files.engine(graph, batch) for batch in batches})


@pytest.fixture(scope="module")
def contracts(static_files: Files) -> dict[str, Contract]:
    return stages.contracts(static_files.networks.config.geometry())


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_any_number_of_rows_is_cut_to_the_batches_there_are(
    static_files: Files, contracts: dict[str, Contract], rows: int
) -> None:
    engine = row_engine(static_files, "denoiser", contracts["denoiser"], BATCHES)
    feed = typical_inputs(
        engine.contract, seed=rows, b=rows, n=static_files.networks.config.geometry().visual_frames
    )
    with torch.inference_mode():
        want = static_files.networks.graphs()["denoiser"](
            **{n: torch.from_numpy(a) for n, a in feed.items()}
        ).numpy()
    assert deviation(engine(**feed)["velocity"], want).max_abs < 1e-4 * float(np.abs(want).max())


@pytest.mark.parametrize("times", [1, 2, 5])
def test_any_number_of_times_is_conditioned_in_pieces(
    static_files: Files, contracts: dict[str, Contract], times: int
) -> None:
    engine = ConditionerEngine(contracts["conditioner"], static_files.engine("conditioner", 1))
    n = static_files.networks.config.geometry().visual_frames
    feed = typical_inputs(engine.contract, seed=times, b=2, s=times, n=n)
    want = expected(static_files.networks, "conditioner", feed)
    for (name, got), array in zip(engine(**feed).items(), want, strict=True):
        assert deviation(got, array).max_abs < 1e-4, name


def test_context_of_another_length_is_refused_by_name(
    static_files: Files, contracts: dict[str, Contract]
) -> None:
    if static_files.networks.config.transformer.time_positions > 1:
        pytest.skip("the frame-wise form takes one length only")
    engine = row_engine(static_files, "denoiser", contracts["denoiser"], (1,))
    with pytest.raises(ContractError, match=r"denoiser: expected tokens\[1, 32"):
        engine(**typical_inputs(engine.contract, seed=0, b=1, n=7))


@pytest.mark.parametrize("method", ["sde", "ode", "dpm++"])
def test_a_chain_of_plans_is_the_sampler(static_files: Files, method: str) -> None:
    """As the window of TensorRT plans chains them."""
    settings = SamplerDefaults(steps=4, guidance=3.0, method=method)  # type: ignore[arg-type]
    times = time_grid(method, 4)
    steps = linear_steps(settings, times)
    assert steps is not None and {step.guided for step in steps} == {True, False}
    plans = {batch: static_files.engine("denoiser", batch) for batch in BATCHES}
    contract = plans[1].contract
    drawn = typical_inputs(contract, seed=3)
    tokens = drawn["tokens"]
    modulation = [typical_inputs(contract, seed=10 + i)["modulation"] for i in range(4)]
    null = [typical_inputs(contract, seed=20 + i)["modulation"] for i in range(4)]
    noise = [typical_inputs(contract, seed=30 + i)["noise"] for i in range(4)]
    numbers, state = coefficients(steps), drawn["latents"]
    for i, step in enumerate(steps):
        rows = 2 if step.guided else 1
        made = plans[rows](
            latents=np.repeat(state, rows, 0), noise=np.repeat(noise[i], rows, 0), update=numbers[i, :3],
            tokens=np.concatenate([tokens, np.zeros_like(tokens)])[:rows],
            modulation=np.concatenate([modulation[i], null[i]])[:rows], mix=mixing(steps, rows),
        )  # fmt: skip
        state = made["latents_out"][:1]

    def velocity(latents: Array, t: float, guided: bool) -> Array:
        i = int(np.argmin(np.abs(times[:-1] - np.float32(t))))
        of = lambda c, m: run(static_files.networks.transformer, latents, c, m)  # noqa: E731
        v = of(tokens, modulation[i])
        return guide(v, of(np.zeros_like(tokens), null[i]), 3.0) if guided else v

    want = sample(velocity, drawn["latents"], lambda i: noise[i], settings, times)
    assert deviation(state, want).relative_rms < 2e-5


def run(net: MMDiT, *inputs: Array) -> Array:
    with torch.inference_mode():
        made: Array = net.velocity(*(torch.from_numpy(array) for array in inputs)).numpy()
        return made


def test_one_scale_of_guidance_per_loop() -> None:
    step = Step(0.5, 1.0, 1.0, 0.0, guidance=3.0)
    assert mixing((step, replace(step, guidance=1.0)), 2).tolist() == [[3.0, -2.0], [3.0, -2.0]]
    with pytest.raises(EngineError, match="one guidance scale"):
        mixing((step, replace(step, guidance=4.0)), 2)


def test_coefficients_of_a_step_begin_where_a_copy_is_fast() -> None:
    made = coefficients((Step(1.0, 2.0, 3.0, 4.0),) * 2)
    assert made.shape == (2, STRIDE) and made[1, :4].tolist() == [2.0, 3.0, 4.0, 0.0]


def test_pieces_and_times_are_all_there() -> None:
    assert list(pieces(5, (2, 1))) == [(0, 2), (2, 2), (4, 1)]
    parts = filled(np.arange(7, dtype=np.float32), 5)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3, 4], [5, 6, 6, 6, 6]]


def test_pixels_become_what_the_pipeline_feeds() -> None:
    geometry = tiny_config().geometry()
    rng = np.random.default_rng(0)
    side, crop = geometry.onset_resize, geometry.onset_crop
    frames = rng.integers(0, 256, (geometry.onset_seen, side, side, 3), np.uint8)
    edge = (side - crop) // 2
    inner = frames[:, edge : edge + crop, edge : edge + crop]
    assert np.array_equal(onset_tensor(inner), onset_input(frames, geometry.onset_margin, geometry))
    seen = rng.integers(0, 256, (40, geometry.visual_size, geometry.visual_size, 3), np.uint8)
    assert np.array_equal(visual_tensor(seen), visual_input(seen, 0, geometry))
