"""The cuda backend, as far as a CPU can show it: the same sound as the oracle's, whichever way it goes."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media import numbered
from on_cpu import cuda_on_cpu

from taro_rt import Bundle, Clip, Options, Pipeline
from taro_rt.engines import cuda, cuda_window
from taro_rt.engines.errors import BackendUnavailable, BuildError, ContractError, EngineError
from taro_rt.engines.nets.networks import Networks
from taro_rt.runtime.bench.gate import TOLERANCES, relative_rms
from taro_rt.runtime.onsets import Onset
from taro_rt.runtime.pipeline import Result

OPTIONS = Options(steps=6, takes=2, seed=3)
BUNDLES = ("tiny", "embedded")


@pytest.fixture(scope="module")
def bundles(tiny_bundle: Path) -> dict[str, Bundle]:
    return {"tiny": Bundle.open(tiny_bundle), "embedded": Bundle.open("default")}


@pytest.fixture(scope="module")
def oracles(bundles: dict[str, Bundle]) -> Iterator[dict[str, Pipeline]]:
    loaded = {name: Pipeline.load(bundle, "eager", threads=1) for name, bundle in bundles.items()}
    yield loaded
    for pipeline in loaded.values():
        pipeline.close()


@pytest.fixture(scope="module")
def pipelines(bundles: dict[str, Bundle]) -> Iterator[dict[str, Pipeline]]:
    loaded = {name: cuda_on_cpu(bundle) for name, bundle in bundles.items()}
    yield loaded
    for pipeline in loaded.values():
        pipeline.close()


def moving(pipeline: Pipeline, seconds: float = 3.0) -> Clip:
    n = round(25 * seconds)
    return Clip.from_frames(numbered(n, 64, 48), np.arange(n) / 25, pipeline.geometry)


def samples(result: Result) -> np.ndarray:
    return np.stack([take.samples for take in result.takes])


def made(pipeline: Pipeline, options: Options = OPTIONS, seconds: float = 3.0) -> np.ndarray:
    return samples(pipeline.generate(moving(pipeline, seconds), options))


@pytest.mark.parametrize("name", BUNDLES)
def test_in_float32_a_window_sounds_as_the_oracle_says(
    name: str, oracles: dict[str, Pipeline], pipelines: dict[str, Pipeline]
) -> None:
    want = oracles[name].generate(moving(oracles[name]), OPTIONS)
    got = pipelines[name].generate(moving(pipelines[name]), OPTIONS)
    assert relative_rms(samples(got), samples(want)) < 1e-4
    assert {"watch", "sampler", "sound"} <= set(got.timings)


def test_a_window_tells_the_onsets_that_it_saw(
    oracles: dict[str, Pipeline], pipelines: dict[str, Pipeline]
) -> None:
    want, got = (
        some["embedded"].generate(moving(some["embedded"]), OPTIONS) for some in (oracles, pipelines)
    )
    np.testing.assert_allclose(got.onset_curve, want.onset_curve, atol=1e-5)


def test_given_onsets_take_the_place_of_what_is_seen(
    oracles: dict[str, Pipeline], pipelines: dict[str, Pipeline]
) -> None:
    options = replace(OPTIONS, onsets=(Onset(0.5, 1.0), Onset(2.0, 0.5)))
    want, got = made(oracles["tiny"], options), made(pipelines["tiny"], options)
    assert relative_rms(got, want) < 1e-4
    assert relative_rms(got, made(pipelines["tiny"])) > 1e-3


@pytest.mark.parametrize(
    ("precision", "most"),
    [("bfloat16", 0.022), ("fp8", TOLERANCES["fp8"]["trajectory"])],
    ids=["bfloat16", "fp8"],
)
def test_narrow_arithmetic_stays_within_its_tolerance(
    precision: str, most: float, bundles: dict[str, Bundle]
) -> None:
    """Latents of the embedded bundle after all of its 25 steps; bfloat16 is held to the 2.2 % that the
    released recipe is off with this bundle (bench-embedded.json; 1.4 % at the published size, spec C3)."""
    finals = []
    for kind in ("float32", precision):
        with cuda_on_cpu(bundles["embedded"], kind) as pipeline:
            made(pipeline, Options(steps=25))
            window = pipeline.engines.window
            assert isinstance(window, cuda_window.CudaWindow)
            finals.append(window._latents[1].numpy())
    assert 1e-4 < relative_rms(finals[1], finals[0]) < most


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-4), ("bfloat16", 0.05), ("fp8", 0.2)])
def test_fused_steps_sound_as_the_oracle_says(
    precision: str,
    most: float,
    bundles: dict[str, Bundle],
    oracles: dict[str, Pipeline],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the references of the kernels, which have tests of their own."""
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setenv("TARO_KERNELS", "off")
    with cuda_on_cpu(bundles["embedded"], precision, fused=True) as pipeline:
        assert relative_rms(made(pipeline), made(oracles["embedded"])) < most


@pytest.mark.parametrize("method", ["sde", "ode", "dpm++"])
def test_step_by_step_sounds_as_the_whole_loop(
    method: str, bundles: dict[str, Bundle], pipelines: dict[str, Pipeline]
) -> None:
    options = Options(steps=5, takes=3, method=method)  # type: ignore[arg-type]
    with cuda_on_cpu(bundles["tiny"], window=False) as stepwise:
        assert relative_rms(made(stepwise, options), made(pipelines["tiny"], options)) < 1e-5


@pytest.mark.parametrize(
    "options",
    [Options(steps=4, method="heun"), Options(steps=4, method="dpm++2m"), Options(steps=4, guidance_every=2)],
    ids=["heun", "second order", "guidance every 2nd step"],
)
def test_options_that_no_fixed_loop_follows_go_step_by_step(
    options: Options, oracles: dict[str, Pipeline], pipelines: dict[str, Pipeline]
) -> None:
    result = pipelines["tiny"].generate(moving(pipelines["tiny"]), options)
    assert "sampler" not in result.timings
    assert relative_rms(samples(result), made(oracles["tiny"], options)) < 1e-4


def test_a_clip_of_several_windows_goes_step_by_step(
    oracles: dict[str, Pipeline], pipelines: dict[str, Pipeline]
) -> None:
    options = Options(steps=3)
    want, got = (made(some["tiny"], options, 11.0) for some in (oracles, pipelines))
    assert got.shape == (1, 176_000) and relative_rms(got, want) < 1e-4


def test_takes_made_in_several_launches_are_those_made_in_one(
    bundles: dict[str, Bundle], pipelines: dict[str, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(steps=3, takes=5)
    want = made(pipelines["tiny"], options)
    monkeypatch.setattr(cuda_window, "TAKES", 2)
    assert relative_rms(made(pipelines["tiny"], options), want) < 1e-5


def test_pipelines_side_by_side_do_not_disturb_each_other(
    bundles: dict[str, Bundle], pipelines: dict[str, Pipeline]
) -> None:
    want = made(pipelines["tiny"])
    with cuda_on_cpu(bundles["tiny"]) as other:
        made(other, replace(OPTIONS, seed=99))
        np.testing.assert_array_equal(made(pipelines["tiny"]), want)
    np.testing.assert_array_equal(made(pipelines["tiny"]), want)


def test_noise_is_drawn_once_the_encoders_are_on_their_way(
    pipelines: dict[str, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    from taro_rt.runtime import generation

    window, draw = pipelines["tiny"].engines.window, generation.draw_noise
    assert isinstance(window, cuda_window.CudaWindow)
    with torch.inference_mode():
        window._features.zero_()
    seen = []

    def watched(*arguments: Any) -> np.ndarray:
        seen.append(bool(window._features.any()))
        return draw(*arguments)

    monkeypatch.setattr(generation, "draw_noise", watched)
    made(pipelines["tiny"])
    assert seen == [True] * 6


@pytest.mark.parametrize("used", [False, True], ids=["unused", "after a generation"])
def test_closing_lets_every_weight_go(
    used: bool, bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[torch.Tensor]] = []
    load: Callable[..., Networks] = cuda.load_networks

    def watched(*arguments: Any) -> Networks:
        networks = load(*arguments)
        for net in networks.by_name().values():
            kept.extend(weakref.ref(parameter) for parameter in net.parameters())
        return networks

    monkeypatch.setattr(cuda, "load_networks", watched)
    pipeline = cuda_on_cpu(bundles["tiny"])
    if used:
        made(pipeline, Options(steps=2))
        made(pipeline, Options(steps=2, method="heun"))
    loaded = pipeline.engines
    assert any(ref() is not None for ref in kept)
    pipeline.close()
    assert loaded is pipeline.engines
    assert [ref().shape for ref in kept if ref() is not None] == []  # type: ignore[union-attr]
    with pytest.raises(EngineError, match="this engine is closed"):
        made(pipeline)


def test_memory_is_weights_and_buffers_and_nothing_after_closing(bundles: dict[str, Bundle]) -> None:
    pipeline = cuda_on_cpu(bundles["embedded"])
    window = pipeline.engines.window
    assert window is not None
    idle = window.memory_mb
    weights = sum(bundles["embedded"].weights(n).stat().st_size for n in ("transformer", "visual", "onset"))
    assert idle > weights / 1e6  # float32 of what is stored as half
    made(pipeline, Options(steps=2))
    assert window.memory_mb > idle
    pipeline.close()
    assert window.memory_mb < 0.2


def test_a_narrow_pipeline_takes_little_more_than_half_the_memory(bundles: dict[str, Bundle]) -> None:
    memory = []
    for precision in ("float32", "bfloat16"):
        with cuda_on_cpu(bundles["embedded"], precision) as pipeline:
            assert pipeline.engines.window is not None
            memory.append(pipeline.engines.window.memory_mb)
    assert memory[1] < 0.6 * memory[0]


def test_an_engine_keeps_few_programs_and_drops_the_one_not_used_for_longest(
    bundles: dict[str, Bundle],
) -> None:
    with cuda_on_cpu(bundles["tiny"]) as pipeline:
        vocoder = pipeline.engines.vocoder
        assert isinstance(vocoder, cuda.CudaEngine)
        for b in range(1, cuda.SHAPES + 3):
            vocoder(**vocoder.contract.example(b=b))
        assert len(vocoder._programs._kept) == cuda.SHAPES
        assert ((1, 816, 64),) not in vocoder._programs._kept


def test_an_engine_refuses_what_does_not_fit(bundles: dict[str, Bundle]) -> None:
    with (
        cuda_on_cpu(bundles["tiny"]) as pipeline,
        pytest.raises(ContractError, match="vocoder: expected mel"),
    ):
        pipeline.engines.vocoder(mel=np.zeros((1, 815, 64), np.float32))


def test_too_little_memory_is_told_before_anything_is_loaded() -> None:
    with pytest.raises(BuildError, match="expected about 2000 MB of free GPU memory, got 1999 MB; end what"):
        cuda.require_memory(2000 << 20, 1999 << 20)
    cuda.require_memory(2000 << 20, 2000 << 20)


def test_memory_that_runs_out_while_loading_is_told_and_nothing_is_kept(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []

    def run_out(networks: Any, *more: Any) -> None:
        loaded.append(weakref.ref(networks.transformer))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cuda, "load_networks_on", run_out)
    with pytest.raises(BuildError, match=r"the GPU's memory ran out; about .* MB are needed"):
        cuda.load_cuda(Bundle.open(tiny_bundle), device="cpu")
    gc.collect()
    assert [each() for each in loaded] == [None]


def test_the_embedded_bundle_needs_about_a_gigabyte(bundles: dict[str, Bundle]) -> None:
    small = cuda.needed_bytes(bundles["embedded"])
    assert 0.5e9 < small < 1.5e9


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_loading_says_so(bundles: dict[str, Bundle]) -> None:
    with pytest.raises(BackendUnavailable, match=r"reaches no NVIDIA GPU; install one built for CUDA"):
        cuda.load_cuda(bundles["tiny"])


def test_it_can_be_imported_without_triton_and_without_a_gpu() -> None:
    program = "import sys; sys.modules['triton'] = None; import taro_rt.engines.cuda"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
