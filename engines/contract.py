"""What goes into an engine and what comes out: names, dtypes and shapes.

One `Contract` serves export names, run-time checks, example inputs, parity and benchmarks.
Knows NumPy and the errors, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taro_rt.engines.errors import ContractError

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TensorSpec:
    """One float32 tensor: its name and its shape, whose entries are sizes, or letters for free axes."""

    name: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}[{', '.join(str(n) for n in self.shape)}]"


@dataclass(frozen=True)
class Contract:
    """The inputs and outputs of one graph, in order. The same letter means the same size within one call."""

    graph: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check(self, feed: Mapping[str, Any]) -> None:
        """Raise `ContractError` unless `feed` holds exactly the inputs, float32, with fitting shapes."""
        expected, got = {spec.name for spec in self.inputs}, set(feed)
        if expected != got:
            raise ContractError(f"{self.graph}: expected inputs {sorted(expected)}, got {sorted(got)}")
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            array = feed[spec.name]
            dtype, shape = np.dtype(array.dtype), tuple(array.shape)
            if dtype != np.float32:
                raise ContractError(f"{self.graph}: {spec} must be float32, got {dtype}")
            fits = len(shape) == len(spec.shape)
            for want, have in zip(spec.shape, shape, strict=False):
                fits = fits and have == (sizes.setdefault(want, have) if isinstance(want, str) else want)
            if not fits:
                raise ContractError(f"{self.graph}: expected {spec}, got shape {list(shape)}")

    def example(self, seed: int = 0, **free: int) -> dict[str, Array]:
        """Standard-normal inputs; every free axis has size 2 unless named (`example(b=1)`)."""
        rng = np.random.default_rng(seed)
        return {
            spec.name: rng.standard_normal(
                [free.get(n, 2) if isinstance(n, str) else n for n in spec.shape], dtype=np.float32
            )
            for spec in self.inputs
        }

    def as_json(self) -> dict[str, Any]:
        """Plain containers, as stored in a manifest."""
        return {
            side: [{"name": spec.name, "shape": list(spec.shape)} for spec in specs]
            for side, specs in (("inputs", self.inputs), ("outputs", self.outputs))
        }
