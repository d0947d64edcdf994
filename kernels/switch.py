"""Whether kernels or their references compute."""

from __future__ import annotations

import os
from typing import NoReturn

from torch import Tensor

VARIABLE = "TARO_KERNELS"
"""Set to "off", every kernel gives way to its reference."""
INTERPRETER = "TRITON_INTERPRET"
"""Set to 1 before kernels are imported, Triton runs them on tensors of the CPU, slowly."""


def is_used(tensor: Tensor) -> bool:
    """Whether a kernel computes on `tensor`: it is not switched off and can reach the tensor."""
    if os.environ.get(VARIABLE, "") == "off":
        return False
    return tensor.is_cuda or os.environ.get(INTERPRETER) == "1"


def refuse(kernel: str, expected: str, got: object) -> NoReturn:
    """Raise `ValueError` for what a kernel cannot take."""
    raise ValueError(f"{kernel}: expected {expected}, got {got}; set {VARIABLE}=off to do without it")
