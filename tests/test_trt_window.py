"""The window of plans chains them right: on the host's memory, with ONNX Runtime running the same files.

What is CUDA's or TensorRT's is not here: copies are the host's, and recording fails, as it may on a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from deployed_files import Files
from tensorrt_rows import _noise, one_by_one

from taro_rt.engines.backends import Choice, Engines
from taro_rt.engines.contract import Array
from taro_rt.engines.eager import EagerEngine
from taro_rt.engines.errors import EngineError
from taro_rt.engines.nets.networks import Networks
from taro_rt.engines.ort import OrtEngine
from taro_rt.engines.stages import contracts
from taro_rt.engines.static import sized
from taro_rt.engines.trt_window import TrtWindow
from taro_rt.engines.window import Scene, Step
from taro_rt.export.parity import deviation


class HostMemory:
    """Bytes of the host that are garbage at first, so that nothing counts on zeros by chance."""

    def __init__(self, n_bytes: int, fill: int = 0xFF) -> None:
        self.n_bytes = n_bytes
        self.bytes = np.full(max(1, n_bytes), fill, np.uint8)
        self.address = self.bytes.ctypes.data

    def close(self) -> None:
        self.address = 0


class HostStream:
    """Does at once what a stream does in order; cannot record."""

    def __init__(self) -> None:
        self.recordings = 0

    def allocate(self, n_bytes: int) -> HostMemory:
        return HostMemory(n_bytes)

    def copy(self, to: int, source: int, n_bytes: int) -> None:
        ctypes.memmove(to, source, n_bytes)

    def clear(self, at: int, n_bytes: int) -> None:
        ctypes.memset(at, 0, n_bytes)

    def upload(self, to: int, array: Array) -> None:
        ctypes.memmove(to, array.ctypes.data, array.nbytes)

    def download(self, source: int, shape: tuple[int, ...]) -> Array:
        made = np.empty(shape, np.float32)
        ctypes.memmove(made.ctypes.data, source, made.nbytes)
        return made

    def wait(self) -> None:
        pass

    def mark(self) -> Any:
        return SimpleNamespace(seconds_since=lambda earlier: 0.25)

    def capture(self) -> None:
        self.recordings += 1

    def captured(self) -> Any:
        raise EngineError("this stream records nothing")

    def abandon(self) -> None:
        pass


class HostPlan:
    """An ONNX file of static shapes between buffers with addresses."""

    def __init__(self, engine: OrtEngine, stream: HostStream, largest: dict[str, int]) -> None:
        self.contract, self._engine, self._stream = engine.contract, engine, stream
        specs = (*engine.contract.inputs, *engine.contract.outputs)
        self.shapes = {spec.name: sized(spec, largest) for spec in specs}
        self.buffers = {name: HostMemory(4 * int(np.prod(shape))) for name, shape in self.shapes.items()}

    def address(self, name: str, row: int = 0) -> int:
        return self.buffers[name].address + row * self.row_bytes(name)

    def row_bytes(self, name: str) -> int:
        return 4 * int(np.prod(self.shapes[name][1:]))

    def reshape(self, shapes: dict[str, tuple[int, ...]]) -> None:
        sizes = {"t": shapes["frames"][2]}
        specs = (*self.contract.inputs, *self.contract.outputs)
        self.shapes = {spec.name: sized(spec, sizes) for spec in specs}

    def enqueue(self) -> None:
        feed = {
            s.name: self._stream.download(self.address(s.name), self.shapes[s.name])
            for s in self.contract.inputs
        }
        for name, array in self._engine(**feed).items():
            self._stream.upload(self.address(name), np.ascontiguousarray(array))

    def take(self, name: str) -> Array:
        return self._stream.download(self.address(name), self.shapes[name])


@pytest.fixture(scope="module")
def networks(frame_wise_files: Files) -> Networks:
    return frame_wise_files.networks


@pytest.fixture(scope="module")
def window(frame_wise_files: Files) -> Iterator[TrtWindow]:
    geometry, stream = frame_wise_files.networks.config.geometry(), HostStream()
    plans = {
        (graph, batch): HostPlan(frame_wise_files.engine(graph, batch), stream, {"t": geometry.visual_encode})
        for graph, batch in frame_wise_files.written()
    }
    loaded: Any = SimpleNamespace(stream=stream, plans=plans, scratch=HostMemory(256), close=lambda: None)
    made = TrtWindow(loaded, geometry)
    yield made
    made.close()


def scene_of(networks: Networks, visual_frames: int, takes: int = 1) -> Scene:
    """Frames of noise and five steps, the middle ones guided."""
    g, rng = networks.config.geometry(), np.random.default_rng(visual_frames)
    segments = -(-g.onset_values // g.onset_segment)
    onset = rng.integers(0, 256, (segments, g.onset_seen, g.onset_crop, g.onset_crop, 3), np.uint8)
    seen = rng.integers(0, 256, (visual_frames, g.visual_size, g.visual_size, 3), np.uint8)
    steps = tuple(
        Step(t, 1.0 - 0.1 * i, -0.2, 0.3 if i < 4 else 0.0, 3.0 if i in (1, 2, 3) else 1.0)
        for i, t in enumerate((1.0, 0.8, 0.6, 0.4, 0.2))
    )
    return Scene(onset, None, seen, steps, takes, lambda k, first, n: _noise(k + 100 * first, g))


def expected(networks: Networks, scene: Scene) -> Array:
    """Plain PyTorch, every network called from the host."""
    torch.set_num_threads(1)
    promised = contracts(networks.config.geometry())
    graphs = {name: EagerEngine(module, promised[name]) for name, module in networks.graphs().items()}
    engines = Engines(**graphs, choice=Choice("eager", "float32", ""))
    bundle: Any = SimpleNamespace(manifest=SimpleNamespace(geometry=networks.config.geometry()))
    return one_by_one(bundle, engines, scene)


@pytest.mark.parametrize("visual_frames", [40, 33])
def test_a_window_at_once_is_plain_pytorch_one_by_one(
    networks: Networks, window: TrtWindow, visual_frames: int
) -> None:
    scene = scene_of(networks, visual_frames)
    assert deviation(window(scene).wave, expected(networks, scene)).relative_rms < 2e-4


def test_takes_have_their_own_noise(networks: Networks, window: TrtWindow) -> None:
    scene = scene_of(networks, 40, takes=2)
    made = window(scene).wave
    second = replace(scene, takes=1, noise=lambda k, first, n: scene.noise(k, 1, n))
    assert deviation(made[1:], window(second).wave).max_abs == 0
    assert np.abs(made[0] - made[1]).max() > 1e-3


def test_given_onsets_take_the_place_of_those_seen(networks: Networks, window: TrtWindow) -> None:
    scene = scene_of(networks, 40)
    seen = window(scene)
    assert seen.logits is not None
    g = networks.config.geometry()
    given = replace(scene, onset_frames=None, onset=np.ascontiguousarray(seen.logits[: g.onset_values]))
    again = window(given)
    assert again.logits is None
    assert deviation(again.wave, seen.wave).max_abs == 0


def test_another_guidance_needs_no_other_program(networks: Networks, window: TrtWindow) -> None:
    scene = scene_of(networks, 40)
    stronger = replace(scene, steps=tuple(replace(s, guidance=5.0 if s.guided else 1.0) for s in scene.steps))
    assert deviation(window(stronger).wave, expected(networks, stronger)).relative_rms < 2e-4


def test_a_loop_that_cannot_be_recorded_is_run_as_it_is_and_says_why(
    window: TrtWindow, networks: Networks
) -> None:
    window(scene_of(networks, 40))
    window(scene_of(networks, 40))
    assert window.reasons() == ["this stream records nothing"]


def test_seconds_are_told_by_stage(window: TrtWindow, networks: Networks) -> None:
    assert window(scene_of(networks, 40, takes=2)).seconds == {"watch": 0.25, "sampler": 0.5, "sound": 0.5}
