"""The cuda backend on a GPU: graphs replay what was recorded, nothing waits, nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from media import numbered

from taro_rt import Bundle, Clip, Options, Pipeline
from taro_rt.engines import gpu
from taro_rt.engines.cuda_graph import Device
from taro_rt.engines.cuda_window import CudaWindow
from taro_rt.runtime.bench.gate import relative_rms

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(gpu.why_not()), reason=f"gpu: this machine {gpu.why_not()}"),
]
OPTIONS = Options(steps=6, takes=2, seed=3)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open("default")


@pytest.fixture
def pipeline(bundle: Bundle) -> Iterator[Pipeline]:
    with Pipeline.load(bundle, "cuda") as loaded:
        yield loaded


def made(pipeline: Pipeline, options: Options = OPTIONS) -> np.ndarray:
    clip = Clip.from_frames(numbered(75, 64, 48), np.arange(75) / 25, pipeline.geometry)
    return np.stack([take.samples for take in pipeline.generate(clip, options).takes])


def test_it_is_chosen_for_the_device_and_not_by_itself(bundle: Bundle) -> None:
    with Pipeline.load(bundle, device="cuda") as asked, Pipeline.load(bundle) as default:
        assert str(asked.engines.choice).startswith("cuda in bfloat16")
        assert default.engines.backend != "cuda"


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_it_sounds_as_the_oracle_on_the_processor(bundle: Bundle, precision: str, most: float) -> None:
    with Pipeline.load(bundle, "eager") as oracle, Pipeline.load(bundle, "cuda", precision=precision) as got:
        assert relative_rms(made(got), made(oracle)) < most


def test_fp8_stays_near_bfloat16(bundle: Bundle, pipeline: Pipeline) -> None:
    if why_not := gpu.why_not(gpu.FP8):
        pytest.skip(f"gpu: fp8 {why_not}")
    with Pipeline.load(bundle, "cuda", precision="fp8") as narrow:
        assert relative_rms(made(narrow), made(pipeline)) < 0.3


def test_a_replay_is_what_was_recorded() -> None:
    device = Device("cuda")
    with device.active():
        x = torch.ones(1000, device="cuda")
        program = device.record(lambda: device.side_by_side(lambda: x * 2, lambda: x + 1))
        x.fill_(3)
        twice, more = program()
        device.wait()
        assert bool((twice == 6).all()) and bool((more == 4).all())
    program.close()
    device.close()


def test_every_run_gives_the_same(pipeline: Pipeline) -> None:
    np.testing.assert_array_equal(made(pipeline), made(pipeline))


def test_the_whole_loop_is_the_loop_step_by_step(bundle: Bundle) -> None:
    from dataclasses import replace

    with Pipeline.load(bundle, "cuda", precision="float32") as whole:
        stepwise = Pipeline(bundle, replace(whole.engines, window=None))
        assert relative_rms(made(stepwise), made(whole)) < 1e-3


def test_the_host_waits_once_between_the_frames_and_the_sound(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits otherwise is an error while it all is launched; the first run has recorded."""
    made(pipeline)
    watch, wait = CudaWindow.watch, Device.wait

    def strict(self: CudaWindow, scene: object) -> object:
        torch.cuda.set_sync_debug_mode("error")
        return watch(self, scene)  # type: ignore[arg-type]

    def lenient(self: Device) -> None:
        torch.cuda.set_sync_debug_mode("default")
        wait(self)

    monkeypatch.setattr(CudaWindow, "watch", strict)
    monkeypatch.setattr(Device, "wait", lenient)
    try:
        made(pipeline)
        assert torch.cuda.get_sync_debug_mode() == 0
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_closing_leaves_nothing_on_the_device(bundle: Bundle) -> None:
    with Pipeline.load(bundle, "cuda") as first:
        made(first)  # what the libraries keep for the process is there now
    before = torch.cuda.memory_allocated()
    with Pipeline.load(bundle, "cuda") as pipeline:
        made(pipeline)
        made(pipeline, Options(steps=3, method="heun"))
        assert torch.cuda.memory_allocated() > before
    assert torch.cuda.memory_allocated() <= before + (1 << 20)


def test_two_pipelines_in_two_threads_give_what_each_gives_alone(bundle: Bundle, pipeline: Pipeline) -> None:
    with Pipeline.load(bundle, "cuda") as other, ThreadPoolExecutor(2) as threads:
        want = [made(one) for one in (pipeline, other)]  # each may have chosen other convolutions
        both = [threads.submit(made, one) for _ in range(5) for one in (pipeline, other)]
        for i, future in enumerate(both):
            np.testing.assert_array_equal(future.result(), want[i % 2])


def test_the_command_uses_it(run: object, video: Path) -> None:
    result = run("generate", video, "--backend", "cuda", "--json")  # type: ignore[operator]
    assert result.exit_code == 0 and '"backend": "cuda"' in result.stdout
