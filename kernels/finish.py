"""What follows a convolution in one launch: its bias, sums with other values, LeakyReLU (spec B7).

On their own these are a launch and a pass over memory each, and cuDNN's convolutions end with a plain ReLU
or none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from taro_rt.kernels.launch import Launch, wait_for_inputs
from taro_rt.kernels.switch import is_used, refuse

VALUES = 2048
"""Of a program."""


@triton.jit
def finish_conv_kernel(
    x, bias, skip, more, total, leaky, n_values, gain, slope,
    C: tl.constexpr, VALUES: tl.constexpr, SKIPS: tl.constexpr, MORE: tl.constexpr,
    TOTAL: tl.constexpr, LEAKY: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    wait_for_inputs(PDL)
    at = tl.program_id(0).to(tl.int64) * VALUES + tl.arange(0, VALUES)
    inside = at < n_values
    made = tl.load(x + at, inside, 0.0).to(tl.float32) + tl.load(bias + at % C).to(tl.float32)
    if SKIPS:
        made += tl.load(skip + at, inside, 0.0).to(tl.float32)
    if MORE:
        made += tl.load(more + at, inside, 0.0).to(tl.float32)
    made *= gain
    if TOTAL:
        tl.store(total + at, made.to(total.dtype.element_ty), inside)
    if LEAKY:
        tl.store(leaky + at, tl.where(made > 0, made, made * slope).to(leaky.dtype.element_ty), inside)


def finish_conv(
    x: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    more: Tensor | None = None,
    gain: float = 1.0,
    slope: float = 0.1,
    total: bool = True,
    leaky: bool = False,
) -> tuple[Tensor, ...]:
    """gain (x + bias + skip + more) of `x` [b, c, h, w] whose channels lie side by side if `total`, and its
    LeakyReLU if `leaky`, shaped like `x`. Raises `ValueError` for what does not go together."""
    if not is_used(x):
        return finish_conv_reference(x, bias, skip, more, gain, slope, total, leaky)
    given = [None if t is None else t.permute(0, 2, 3, 1).contiguous() for t in (x, skip, more)]
    _check(given, bias, total or leaky)
    made = _finish_conv(given[0], bias, given[1], given[2], [gain, slope], total, leaky)
    return tuple(t.permute(0, 3, 1, 2) for t in made)


def finish_conv_reference(
    x: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    more: Tensor | None = None,
    gain: float = 1.0,
    slope: float = 0.1,
    total: bool = True,
    leaky: bool = False,
) -> tuple[Tensor, ...]:
    """`finish_conv` in plain PyTorch."""
    made = x + bias[:, None, None]
    for other in (skip, more):
        made = made if other is None else made + other
    made = made * gain if gain != 1.0 else made
    return (*([made] if total else []), *([F.leaky_relu(made, slope)] if leaky else []))


def finish_conv_launch(
    x: Tensor, bias: Tensor, skip: Tensor | None, more: Tensor | None, gain: float, slope: float,
    total: Tensor | None, leaky: Tensor | None,
) -> Launch:  # fmt: skip
    """The launch of `finish_conv` of `x` [b, h, w, c] into `total` and `leaky`."""
    n, c = x.numel(), x.shape[3]
    given = (x if t is None else t for t in (skip, more, total, leaky))
    constants = {
        "C": c, "VALUES": VALUES, "SKIPS": skip is not None, "MORE": more is not None,
        "TOTAL": total is not None, "LEAKY": leaky is not None,
    }  # fmt: skip
    arguments = (x, bias, *given, n, gain, slope)
    return Launch(finish_conv_kernel, (triton.cdiv(n, VALUES),), arguments, constants, 4)


@torch.library.custom_op("taro_rt::finish_conv", mutates_args=())
def _finish_conv(
    x: Tensor, bias: Tensor, skip: Tensor | None, more: Tensor | None, numbers: list[float],
    total: bool, leaky: bool,
) -> list[Tensor]:  # fmt: skip
    outputs = [torch.empty_like(x) if wanted else None for wanted in (total, leaky)]
    finish_conv_launch(x, bias, skip, more, numbers[0], numbers[1], *outputs).run()
    return [t for t in outputs if t is not None]


@_finish_conv.register_fake
def _(
    x: Tensor, bias: Tensor, skip: Tensor | None, more: Tensor | None, numbers: list[float],
    total: bool, leaky: bool,
) -> list[Tensor]:  # fmt: skip
    return [torch.empty_like(x) for wanted in (total, leaky) if wanted]


def _check(given: list[Tensor | None], bias: Tensor, wants_any: bool) -> None:
    kernel, there = "finish_conv", [t for t in given if t is not None]
    x = there[0]
    if not x.numel() or any(t.shape != x.shape for t in there) or bias.shape != x.shape[3:]:
        shapes = [tuple(t.shape) for t in (*there, bias)]
        refuse(kernel, "values of one shape [b, h, w, c] and a bias [c]", shapes)
    if len({(t.dtype, t.device) for t in (*there, bias)}) != 1:
        got = sorted({f"{t.dtype} on {t.device}" for t in (*there, bias)})
        refuse(kernel, "tensors of one type on one device", got)
    if not wants_any:
        refuse(kernel, "a sum or its LeakyReLU to be wanted", "neither")
