"""Graphs of fixed sizes, for runtimes that compile for one shape: their contracts, and engines made of them.

The denoiser's goes on to the end of the sampler's step, so that a whole sampler is a chain of such calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from taro_rt.engines.contract import Array, Contract, TensorSpec
from taro_rt.engines.errors import EngineError
from taro_rt.engines.stages import FULL, IMAGENET_MEAN, IMAGENET_STD, Geometry, contracts
from taro_rt.engines.window import Pixels, Step

BATCHES = (1, 2)
"""One row, or two: the conditional and the null one of a guided step, or two independent ones."""
PLANNED = {
    "onset": (1,),
    "visual": (1,),
    "conditioner": (1,),
    "denoiser": BATCHES,
    "decoder": (1,),
    "vocoder": (1,),
}
"""The batches that a plan is built for, by graph: the pipeline gives only the denoiser more than one row."""

FLOAT_BYTES = 4
STRIDE = 64
"""Values between the coefficients of two steps, so that each begins where a copy is fast."""


class Fixed(Protocol):
    """A graph compiled for one shape."""

    contract: Contract

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Outputs by name, for inputs of exactly the contract's sizes."""
        ...

    def close(self) -> None:
        """Give its memory back."""
        ...


def static_contracts(geometry: Geometry, steps: int, batch: int) -> dict[str, Contract]:
    """The six contracts at batch `batch`, at `steps` times and for a whole window of context tokens.

    What stays free is `t`, the frames of a visual network that looks ahead. Tensors stay float32 whatever
    lies between them.

    The denoiser [r rows] takes, besides, `noise` like its latents, `update` [3] = (keep, push, spread) and
    `mix` [r, r]. It returns `latents_out` = keep latents + push (mix velocity) + spread noise: with `mix` the
    identity and (0, 1, 0) every row's velocity, with rows (g, 1 - g) the guided step of scale g (spec B5).
    """
    sizes = {"b": batch, "s": steps, "n": geometry.visual_frames}
    made = {name: _fixed(contract, sizes) for name, contract in contracts(geometry).items()}
    plain = made["denoiser"]
    latents = plain.inputs[0]
    more = (
        TensorSpec("noise", latents.shape),
        TensorSpec("update", (3,)),
        TensorSpec("mix", (batch, batch)),
    )
    result = TensorSpec("latents_out", latents.shape)
    made["denoiser"] = Contract("denoiser", (*plain.inputs, *more), (result,))
    return made


def _fixed(contract: Contract, sizes: dict[str, int]) -> Contract:
    inputs, outputs = (
        tuple(TensorSpec(s.name, tuple(sizes.get(str(n), n) for n in s.shape)) for s in side)
        for side in (contract.inputs, contract.outputs)
    )
    return Contract(contract.graph, inputs, outputs)


class RowEngine:
    """A graph whose rows are independent: as many as there are, in pieces of the batches planned for."""

    backend = "tensorrt"

    def __init__(self, contract: Contract, plans: Mapping[int, Fixed]) -> None:
        """`contract` with free axes, as of every backend; `plans` by batch, one of them 1."""
        self.contract, self._plans = contract, plans

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """The outputs by name. Raises `ContractError` for inputs that do not fit, else `EngineError`."""
        self.contract.check(inputs)
        n_rows = len(next(iter(inputs.values())))
        made = [
            self._run(self._plans[n], {name: array[first : first + n] for name, array in inputs.items()})
            for first, n in pieces(n_rows, tuple(self._plans))
        ]
        return {name: np.concatenate([part[name] for part in made]) for name in made[0]}

    def _run(self, plan: Fixed, inputs: dict[str, Array]) -> dict[str, Array]:
        if self.contract.graph != "denoiser":
            return plan(**inputs)
        rows = plan_of_velocity(inputs["latents"])
        return {"velocity": plan(**inputs, **rows)["latents_out"]}

    def close(self) -> None:
        """Let all plans go."""
        for plan in self._plans.values():
            plan.close()


class ConditionerEngine:
    """The conditioner, for any number of times, in pieces of as many as were planned for."""

    backend = "tensorrt"

    def __init__(self, contract: Contract, plan: Fixed) -> None:
        self.contract, self._plan = contract, plan
        self._steps = next(int(s.shape[0]) for s in plan.contract.inputs if s.name == "times")

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """The outputs by name. Raises `ContractError` for inputs that do not fit, else `EngineError`."""
        self.contract.check(inputs)
        rows = [
            self._row(inputs["times"], inputs["onset"][i : i + 1], inputs["features"][i : i + 1])
            for i in range(len(inputs["onset"]))
        ]
        return {
            "modulation": np.concatenate([row["modulation"] for row in rows], 1),
            "null_modulation": rows[0]["null_modulation"],
            "tokens": np.concatenate([row["tokens"] for row in rows]),
        }

    def _row(self, times: Array, onset: Array, features: Array) -> dict[str, Array]:
        parts = [
            self._plan(times=part, onset=onset, features=features) for part in filled(times, self._steps)
        ]
        vectors = {
            name: np.concatenate([part[name] for part in parts])[: len(times)]
            for name in ("modulation", "null_modulation")
        }
        return {**vectors, "tokens": parts[0]["tokens"]}

    def close(self) -> None:
        """Let the plan go."""
        self._plan.close()


def sized(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of `spec` with its free axes at `sizes`."""
    return tuple(sizes[n] if isinstance(n, str) else n for n in spec.shape)


def pieces(n_rows: int, batches: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """First row and size of each piece, the largest batches first; `batches` holds 1."""
    first = 0
    while first < n_rows:
        size = max(batch for batch in batches if batch <= n_rows - first)
        yield first, size
        first += size


def filled(times: Array, count: int) -> list[Array]:
    """`times` in pieces of `count`, the last one filled up with its last time."""
    missing = -len(times) % count
    whole = np.concatenate([times, np.repeat(times[-1:], missing)])
    return [np.ascontiguousarray(part) for part in whole.reshape(-1, count)]


def plan_of_velocity(latents: Array) -> dict[str, Array]:
    """What makes the denoiser's plan give the velocity of every row."""
    update, mix = np.array([0, 1, 0], np.float32), np.eye(len(latents), dtype=np.float32)
    return {"noise": np.zeros_like(latents), "update": update, "mix": mix}


def mixing(steps: tuple[Step, ...], batch: int) -> Array:
    """The matrix that guides both rows alike; all guided steps have the same scale."""
    if batch == 1:
        return np.ones((1, 1), np.float32)
    scales = {step.guidance for step in steps if step.guided}
    if len(scales) != 1:
        raise EngineError(f"sampler: expected one guidance scale in all guided steps, got {sorted(scales)}")
    (scale,) = scales
    return np.array([[scale, 1 - scale]] * 2, np.float32)


def coefficients(steps: tuple[Step, ...]) -> Array:
    """What the denoiser's plan is told of every step, [s, STRIDE]: keep, push, spread."""
    made = np.zeros((len(steps), STRIDE), np.float32)
    for i, step in enumerate(steps):
        made[i, :3] = step.keep, step.push, step.spread
    return made


def onset_tensor(segment: Pixels) -> Array:
    """A segment as the onset network reads it, [1, 3, t, h, w] (spec B2)."""
    pixels = (segment.astype(np.float32) / FULL - IMAGENET_MEAN) / IMAGENET_STD
    return np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))[None]


def visual_tensor(frames: Pixels) -> Array:
    """Frames as the visual network reads them, [1, 3, t, h, w]."""
    return np.ascontiguousarray((frames.astype(np.float32) / FULL).transpose(3, 0, 1, 2))[None]
