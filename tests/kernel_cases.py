"""What the tests of kernels share: they run on a GPU, or in Triton's interpreter (test_interpreter.py)."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TYPES = [torch.float32, torch.float16] if INTERPRETED else [torch.bfloat16, torch.float16]
"""The interpreter has no bfloat16."""
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Relative rms difference."""

types = pytest.mark.parametrize("dtype", TYPES, ids=str)


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Normal values on the device."""
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(*shape, generator=generator)).to(DEVICE, dtype)


def off(got: Tensor, want: Tensor) -> float:
    """Relative rms difference; NaN counts as endless."""
    difference = (got.float() - want.float()).square().mean().sqrt() / want.float().square().mean().sqrt()
    return float(difference.nan_to_num(float("inf")))


def exact(reference: Callable[..., Any], *arguments: Any) -> Any:
    """What the reference gives in float32 for the same values."""
    return reference(*(in_float32(argument) for argument in arguments))


def in_float32(argument: Any) -> Any:
    """A tensor, or a pair of them, as float32; anything else as it is."""
    if isinstance(argument, Tensor):
        return argument.float()
    if type(argument) is tuple:
        return tuple(in_float32(each) for each in argument)
    return argument


def assert_alike(got: Any, want: Any, dtype: torch.dtype) -> None:
    """Every output has its type and shape, and is off by no more than that type explains."""
    for one, other in zip(got, want, strict=True):
        assert one.dtype == dtype and one.shape == other.shape
        assert not other.numel() or off(one, other) < TOLERANCE[dtype]


@contextmanager
def poisoned() -> Iterator[None]:
    """New memory holds NaN, so that what a kernel leaves out is seen."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
            plain: Callable[..., Tensor] = getattr(owner, name)
            patch.setattr(owner, name, lambda *a, plain=plain, **k: plain(*a, **k).fill_(float("nan")))
        yield
