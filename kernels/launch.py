"""A kernel with the arguments of a launch: what runs on a GPU is what `offline` compiles without one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

OVERLAPS = (9, 0)
"""Compute capability from which on a launch may get ready while the one before it ends."""


@triton.jit
def wait_for_inputs(PDL: tl.constexpr):
    """The first thing a kernel does. Launched early (programmatic dependent launch), it waits until what was
    launched before has written all it writes; what is launched after it may get ready from now on."""
    if PDL:
        gdc_wait()
        gdc_launch_dependents()


@dataclass(frozen=True)
class Launch:
    """`arguments` in the kernel's order (tensors, numbers), then its compile-time `constants`; `PDL` is added
    where it is launched."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    warps: int
    stages: int = 1

    def options(self, overlaps: bool) -> dict[str, Any]:
        """Of the compiler."""
        made = {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}
        return {**made, "launch_pdl": True} if overlaps else made

    def run(self) -> None:
        """Launch on the current device and stream."""
        overlaps = can_overlap(next(a for a in self.arguments if isinstance(a, Tensor)))
        constants = {**self.constants, "PDL": overlaps}
        self.kernel[self.grid](*self.arguments, **constants, **self.options(overlaps))


def can_overlap(tensor: Tensor) -> bool:
    """Whether the device of `tensor` starts a launch before the one before it has ended."""
    return tensor.is_cuda and torch.cuda.get_device_capability(tensor.device) >= OVERLAPS
