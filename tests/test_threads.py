"""Pipelines and threads, with real engines: one that is shared, two side by side, stopping from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_watch import slow_engine

from taro_rt.engines import watch
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array
from taro_rt.engines.errors import Cancelled, EngineError, OptionsError
from taro_rt.runtime import clip as clips
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline

AT_ONCE_S = 1.0
QUICK = [Options(steps=3, seed=seed) for seed in range(8)]


@pytest.fixture(scope="module")
def alone(pipeline: Pipeline, clip: Clip) -> list[Array]:
    """What each of `QUICK` gives when nothing else happens."""
    return [pipeline.generate(clip, options).audio.samples for options in QUICK]


@pytest.fixture
def slow(tmp_path: Path, tiny_bundle: Path) -> Iterator[Pipeline]:
    """One whose onset network takes seconds, in a single call."""
    bundle = Bundle.open(tiny_bundle)
    with Pipeline.load(bundle, backend="onnxruntime", threads=1) as loaded:
        contract = bundle.contracts()["onset"]
        fixed = replace(
            contract,
            inputs=(replace(contract.inputs[0], shape=(1, *contract.inputs[0].shape[1:])),),
            outputs=(replace(contract.outputs[0], shape=(1, *contract.outputs[0].shape[1:])),),
        )
        onset = slow_engine(tmp_path, fixed, loaded.engines.watch)
        yield Pipeline(bundle, replace(loaded.engines, onset=onset))


class Stopwatch:
    """A progress callback that answers False from `stop` on, and tells when it was first called."""

    def __init__(self) -> None:
        self.begun, self._stopped = threading.Event(), threading.Event()
        self.stages: list[str] = []

    def __call__(self, stage: str, fraction: float) -> bool:
        self.stages.append(stage)
        self.begun.set()
        return not self._stopped.is_set()

    def stop(self) -> float:
        self._stopped.set()
        return time.perf_counter()


def together(work: Callable[[int], Array], n: int) -> list[Array]:
    """What `work` gives for 0..n-1, all begun at once in a thread each."""
    gate = threading.Barrier(n)

    def begin(k: int) -> Array:
        gate.wait()
        return work(k)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(begin, range(n)))


def test_a_shared_pipeline_gives_every_thread_what_it_gives_alone(
    pipeline: Pipeline, clip: Clip, alone: list[Array]
) -> None:
    made = together(lambda k: pipeline.generate(clip, QUICK[k]).audio.samples, len(QUICK))
    assert all(np.array_equal(a, b) for a, b in zip(made, alone, strict=True))


def test_calls_to_a_shared_pipeline_do_not_overlap(pipeline: Pipeline, clip: Clip) -> None:
    order: list[int] = []

    def work(k: int) -> Array:
        def progress(stage: str, fraction: float) -> None:
            if stage == "generate":
                order.append(k)

        return pipeline.generate(clip, QUICK[k], progress).audio.samples

    together(work, 4)
    turns = [k for i, k in enumerate(order) if i == 0 or order[i - 1] != k]
    assert sorted(turns) == [0, 1, 2, 3]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "eager"])
def test_two_pipelines_side_by_side_give_what_each_gives_alone(
    tiny_bundle: Path, clip: Clip, backend: str
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    options = {"backend": backend, "threads": 1, "precision": "float32"}
    with Pipeline.load(tiny_bundle, **options) as a, Pipeline.load(tiny_bundle, **options) as b:  # type: ignore[arg-type]
        expected = [(a, b)[k].generate(clip, QUICK[k]).audio.samples for k in range(2)]
        met = threading.Barrier(2, timeout=60)
        first = [True, True]

        def work(k: int) -> Array:
            def progress(stage: str, fraction: float) -> None:
                if first[k]:
                    first[k] = False
                    met.wait()  # both are in the middle of their work, or this raises

            return (a, b)[k].generate(clip, QUICK[k], progress).audio.samples

        made = together(work, 2)
    assert all(np.array_equal(x, y) for x, y in zip(made, expected, strict=True))


def test_another_thread_stops_a_long_step_within_a_second_and_the_pipeline_works_on(
    slow: Pipeline, pipeline: Pipeline, clip: Clip, alone: list[Array]
) -> None:
    progress = Stopwatch()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(slow.generate, clip, QUICK[0], progress)
        assert progress.begun.wait(10)
        time.sleep(0.3)
        asked = progress.stop()
        with pytest.raises(Cancelled):
            work.result(10)
        assert time.perf_counter() - asked < AT_ONCE_S
    again = Pipeline(slow.bundle, replace(slow.engines, onset=pipeline.engines.onset))
    assert np.array_equal(again.generate(clip, QUICK[0]).audio.samples, alone[0])


def test_an_exception_of_the_callback_comes_out_as_it_is_and_the_pipeline_works_on(
    pipeline: Pipeline, clip: Clip, alone: list[Array]
) -> None:
    class Enough(RuntimeError):
        pass

    def progress(stage: str, fraction: float) -> None:
        if fraction > 0.3:
            raise Enough("now")

    with pytest.raises(Enough, match="now"):
        pipeline.generate(clip, QUICK[1], progress)
    assert np.array_equal(pipeline.generate(clip, QUICK[1]).audio.samples, alone[1])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_error_raised_within_a_networks_run_is_not_taken_for_the_backends(
    tiny_bundle: Path, clip: Clip, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    monkeypatch.setattr(watch, "PERIOD_S", 1e-6)
    said: list[tuple[str, float]] = []

    def progress(stage: str, fraction: float) -> None:
        if said and said[-1] == (stage, fraction):  # said again: within a run
            raise RuntimeError("mine")
        said.append((stage, fraction))

    loaded = Pipeline.load(tiny_bundle, backend, threads=1, precision="float32")
    with loaded, pytest.raises(RuntimeError, match=r"\Amine\Z"):
        loaded.generate(clip, QUICK[0], progress)


def test_who_waits_for_a_turn_hears_of_it_and_can_give_up(slow: Pipeline, clip: Clip) -> None:
    busy, waiting = Stopwatch(), Stopwatch()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(slow.generate, clip, QUICK[0], busy)
        assert busy.begun.wait(10)
        second = pool.submit(slow.generate, clip, QUICK[1], waiting)
        assert waiting.begun.wait(10)
        asked = waiting.stop()
        with pytest.raises(Cancelled, match="wait"):
            second.result(10)
        assert time.perf_counter() - asked < AT_ONCE_S and set(waiting.stages) == {"wait"}
        assert not first.done()
        busy.stop()
        with pytest.raises(Cancelled):
            first.result(10)


def test_a_call_from_its_own_progress_callback_is_refused(
    pipeline: Pipeline, clip: Clip, alone: list[Array]
) -> None:
    def progress(stage: str, fraction: float) -> None:
        pipeline.generate(clip, QUICK[0])

    with pytest.raises(OptionsError, match="own progress callback"):
        pipeline.generate(clip, QUICK[0], progress)
    assert np.array_equal(pipeline.generate(clip, QUICK[0]).audio.samples, alone[0])


def test_closing_from_another_thread_waits_for_the_work_under_way(
    tiny_bundle: Path, clip: Clip, alone: list[Array]
) -> None:
    pipeline, progress = Pipeline.load(tiny_bundle, backend="onnxruntime", threads=1), Stopwatch()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(pipeline.generate, clip, QUICK[2], progress)
        assert progress.begun.wait(10)
        pipeline.close()
        assert np.array_equal(work.result(10).audio.samples, alone[2])
    with pytest.raises(EngineError, match="closed"):
        pipeline.generate(clip, QUICK[2])


def test_stopping_ends_the_decoding_between_two_frames(
    pipeline: Pipeline, encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "PERIOD_S", 0.0)
    said: list[tuple[str, float]] = []

    def progress(stage: str, fraction: float) -> bool:
        said.append((stage, fraction))
        return len(said) < 20

    with pytest.raises(Cancelled):
        pipeline.generate(encoded, QUICK[0], progress)
    assert said == 20 * [("generate", 0.0)], "asked anew for each of the first frames"
