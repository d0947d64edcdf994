"""What gpu.py measures: networks, one window of pictures, and how time is taken on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import golden
import numpy as np
import torch

from taro_rt.engines.bundle import SCHEMA, Bundle, Manifest, SamplerDefaults
from taro_rt.engines.contract import Contract
from taro_rt.engines.cuda import Loaded, load_networks_on
from taro_rt.engines.cuda_graph import Device
from taro_rt.engines.eager import load_networks
from taro_rt.engines.nets.config import PUBLISHED, NetworkConfig
from taro_rt.engines.nets.networks import Networks, load_weights
from taro_rt.engines.stages import Geometry, contracts
from taro_rt.engines.window import Scene, Step
from taro_rt.runtime.noise import START, STEP, draw_noise
from taro_rt.runtime.sampler import linear_steps, time_grid

Record = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    device: str = "cuda"
    bundle: str | None = None
    """None for networks of the published size with weights by the deterministic rule of golden.py."""
    rehearsal: bool = False
    runs: int = 200
    reference_runs: int = 40
    takes: tuple[int, ...] = (1, 4, 8, 16)
    seconds: float = 570.0
    """After this nothing new is begun."""
    steps: int | None = None
    gemm_side: int = 8192
    copy_bytes: int = 2 << 30
    tensorrt: bool = False
    """Whether the bundle's TensorRT plans are measured, too."""
    began: float = field(default_factory=time.perf_counter)

    def left_s(self) -> float:
        """Seconds until nothing new is begun."""
        return self.seconds - (time.perf_counter() - self.began)


class Work:
    """Networks of one size, as often as they are asked for, and one window for them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.bundle = Bundle.open(plan.bundle) if plan.bundle else None

    @property
    def config(self) -> NetworkConfig:
        """Sizes of the networks."""
        return self.bundle.manifest.networks if self.bundle else PUBLISHED

    @property
    def geometry(self) -> Geometry:
        """Of their window."""
        return self.config.geometry()

    @property
    def contracts(self) -> dict[str, Contract]:
        """Of the six graphs."""
        return contracts(self.geometry)

    @cached_property
    def sampler(self) -> SamplerDefaults:
        """How they are sampled."""
        chosen = self.bundle.manifest.sampler if self.bundle else SamplerDefaults()
        return (
            chosen
            if self.plan.steps is None
            else SamplerDefaults(**{**vars(chosen), "steps": self.plan.steps})
        )

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The same as numbers."""
        made = linear_steps(self.sampler, time_grid(self.sampler.method, self.sampler.steps))
        assert made is not None
        return made

    @cached_property
    def _states(self) -> dict[str, golden.State]:
        """Weights of the published size; of the VAE the decoder's alone."""
        states = golden.states(self.config, seed=1)
        return {**states, "decoder": states.pop("vae")}

    def networks(self) -> Networks:
        """Fresh ones on the device, float32, norms folded: whoever gets them may change them."""
        device = self.plan.device
        if self.bundle:
            return load_networks(self.bundle, device)
        with torch.device(device):
            made = Networks.build(self.config)
        for name, net in made.by_name().items():
            own = net.state_dict()
            faults = load_weights(net, {k: v for k, v in self._states[name].items() if k in own})
            assert not faults, faults
            net.to(device)
        return made.fold()

    def load(self, precision: str, fused: bool | None = None) -> Loaded:
        """The cuda backend with them."""
        return load_networks_on(self.networks(), self.contracts, precision, self.plan.device, fused)

    def stand_in(self) -> Bundle:
        """Their bundle, or one of no files: what a pipeline reads of it is there."""
        if self.bundle:
            return self.bundle
        from pathlib import Path

        about = {k: v.as_json() for k, v in self.contracts.items()}
        manifest = Manifest(
            SCHEMA, "published size, no trained weights", "0", "float32", self.geometry, self.config,
            self.sampler, about, {}, {}, {}, "",
        )  # fmt: skip
        return Bundle(Path(), manifest)

    def noise(self, k: int, first: int, n: int) -> np.ndarray:
        """As the pipeline draws it, of seeds 0, 1, ..."""
        stream, step = (START, 0) if k == 0 else (STEP, k - 1)
        return draw_noise(
            range(first, first + n), stream, step, 0, self.geometry.latent_frames, self.geometry
        )

    def scene(self, takes: int = 1) -> Scene:
        """Frames of noise, in the type that this size of network reads."""
        g, rng = self.geometry, np.random.default_rng(0)
        segments = g.onset_values // g.onset_segment
        onset = rng.integers(0, 256, (segments, g.onset_seen, g.onset_crop, g.onset_crop, 3), np.uint8)
        visual = rng.integers(0, 256, (g.visual_encode, g.visual_size, g.visual_size, 3), np.uint8)
        seen = onset if g.resize == "fast" else onset.astype(np.float32)
        return Scene(seen, None, visual, self.steps, takes, self.noise)

    def conditions(self) -> tuple[np.ndarray, np.ndarray]:
        """Onset logits [1, values] and visual features [1, n, dim] of the size that networks give."""
        g, rng = self.geometry, np.random.default_rng(2)
        features = rng.standard_normal((1, g.visual_frames, g.visual_dim), np.float32)
        length = np.linalg.norm(features, axis=-1, keepdims=True)
        return rng.standard_normal((1, g.onset_values), np.float32), features / length

    def start_and_steps(self) -> np.ndarray:
        """Noise of one take [k, 1, c, h, w]: the start, and what the steps need, in order."""
        used = [0, *(i + 1 for i, step in enumerate(self.steps) if step.spread > 0)]
        return np.stack([self.noise(k, 0, 1) for k in used])


def attempted(make: Callable[[], Any]) -> Any:
    """What `make` gives, or in words why it failed, whatever it was (Triton's errors have no common base with
    others): the rest of a run on a rare machine is not lost."""
    try:
        return make()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}


def percentiles_ms(seconds: list[float]) -> Record:
    """p50, p90 and p99 in milliseconds, and of how many runs."""
    found = {f"p{q}": round(1e3 * float(np.percentile(seconds, q)), 4) for q in (50, 90, 99)}
    return {**found, "min": round(1e3 * min(seconds), 4), "runs": len(seconds)}


def wall_times(work: Callable[[], Any], runs: int, device: str, warm: int = 3) -> list[float]:
    """Seconds of each run by the host's clock, the device waited for at both ends."""
    taken = []
    for k in range(warm + runs):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        if k >= warm:
            taken.append(time.perf_counter() - started)
    return taken


def kernel_seconds(work: Callable[[], Any], device: str, calls: int = 20, repeats: int = 10) -> float:
    """Seconds of one call on the device alone: the median of `repeats` launches of `calls` in one graph.

    Its data stay in the caches between calls, as most of them do within a step.
    """
    on = Device(device)

    def many() -> tuple[torch.Tensor, ...]:
        for _ in range(calls):
            work()
        return ()

    on.settle()
    with on.active():
        program = on.record(many)
        program()
        taken = []
        for _ in range(repeats):
            start = on.mark()
            program()
            end = on.mark()
            on.wait()
            taken.append(on.seconds(start, end) / calls)
    program.close()
    return statistics.median(taken)


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
