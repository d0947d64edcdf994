"""A 1-D convolution with the LeakyReLU before it and the residual after it in one launch (spec B7).

Time by channels in memory, so that a tap is a product of matrices. A transposed convolution of stride s is a
convolution too, with s times the outputs (spec D9, `phases`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from taro_rt.kernels.launch import Launch, wait_for_inputs
from taro_rt.kernels.switch import is_used, refuse

TIMES, WIDEST, STAGES = 128, 64, 3
"""A program makes `TIMES` moments of at most `WIDEST` channels, from as many inputs at a time."""


@triton.jit
def leaky_conv_kernel(
    x, weight, bias, residual, out,
    n_in, n_out, x_batch, residual_batch, first, dilation, slope,
    C: tl.constexpr, OUT: tl.constexpr, TAPS: tl.constexpr,
    TIMES: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    ADDS: tl.constexpr, F32_DOTS: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """A program per tile of moments, tile of channels and batch entry; `weight` is [TAPS, OUT, C]."""
    wait_for_inputs(PDL)
    time = tl.program_id(0) * TIMES + tl.arange(0, TIMES)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    batch = tl.program_id(2).to(tl.int64)
    depth = tl.arange(0, DEPTH)
    is_column = (column < OUT)[:, None]
    acc = tl.zeros([TIMES, COLUMNS], tl.float32)
    blocks: tl.constexpr = (C + DEPTH - 1) // DEPTH
    for turn in range(0, TAPS * blocks):
        tap, channel = turn // blocks, turn % blocks * DEPTH + depth
        at = time + first + tap * dilation
        live = ((at >= 0) & (at < n_in))[:, None] & (channel < C)[None, :]
        a = tl.load(x + batch * x_batch + at[:, None] * C + channel[None, :], live, 0.0)
        a = tl.where(a > 0, a, (a.to(tl.float32) * slope).to(a.dtype))
        places = weight + (tap * OUT + column[:, None]) * C + channel[None, :]
        w = tl.load(places, is_column & (channel < C)[None, :], 0.0)
        if F32_DOTS:
            acc += tl.dot(a, tl.trans(w), input_precision="ieee")
        else:
            acc += tl.dot(a, tl.trans(w))
    acc += tl.load(bias + column, column < OUT, 0.0).to(tl.float32)[None, :]
    kept = (time < n_out)[:, None] & (column < OUT)[None, :]
    places = time[:, None] * OUT + column[None, :]
    if ADDS:
        acc += tl.load(residual + batch * residual_batch + places, kept, 0.0).to(tl.float32)
    tl.store(out + batch * n_out * OUT + places, acc.to(out.dtype.element_ty), kept)


def leaky_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    first: int,
    dilation: int = 1,
    residual: Tensor | None = None,
    length: int | None = None,
    slope: float = 0.1,
) -> Tensor:
    """bias + conv(LeakyReLU(x)) + residual [b, length, o], of `x` [b, t, c] with zeros before and after it.

    `weight` is [k, o, c]; tap i of moment j reads x at j + first + i dilation. `length` is t unless given;
    `residual` is shaped like the result. Raises `ValueError` for what does not go together.
    """
    if not is_used(x):
        return leaky_conv_reference(x, weight, bias, first, dilation, residual, length, slope)
    length = x.shape[1] if length is None else length
    _check(x, weight, bias, residual, length)
    made: Tensor = _leaky_conv(x, weight, bias, first, dilation, residual, length, slope)
    return made


def leaky_conv_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    first: int,
    dilation: int = 1,
    residual: Tensor | None = None,
    length: int | None = None,
    slope: float = 0.1,
) -> Tensor:
    """`leaky_conv` in plain PyTorch."""
    n = x.shape[1]
    length = n if length is None else length
    after = length + first + (len(weight) - 1) * dilation - n
    padded = F.pad(F.leaky_relu(x, slope).transpose(1, 2), (-first, after))  # [b, c, t']
    made = F.conv1d(padded, weight.permute(1, 2, 0), bias, dilation=dilation).transpose(1, 2)
    return made if residual is None else made + residual


def taps(weight: Tensor) -> Tensor:
    """The weight [o, c, k] of a `Conv1d` as `leaky_conv` reads it, [k, o, c]."""
    return weight.permute(2, 0, 1).contiguous()


def phases(weight: Tensor, stride: int) -> Tensor:
    """The weight [c, o, k] of a `ConvTranspose1d` as that of a convolution: [ceil(k / s), s o, c].

    Its moment a, seen as s moments of o channels, holds those from a s - p on, p the padding; its first tap
    reads x at a - (taps - 1).
    """
    channels, outputs, size = weight.shape
    n_taps = -(-size // stride)
    full = F.pad(weight, (0, n_taps * stride - size)).unflatten(2, (n_taps, stride))  # [c, o, taps, s]
    made: Tensor = full.permute(2, 3, 1, 0).flip(0).reshape(n_taps, stride * outputs, channels)
    return made.contiguous()


def leaky_conv_launch(
    x: Tensor, weight: Tensor, bias: Tensor, first: int, dilation: int, residual: Tensor | None,
    slope: float, out: Tensor,
) -> Launch:  # fmt: skip
    """The launch of `leaky_conv` into `out`."""
    n_taps, outputs, channels = weight.shape
    batch, length, _ = out.shape
    columns, depth = (min(WIDEST, max(16, triton.next_power_of_2(n))) for n in (outputs, channels))
    added = x if residual is None else residual
    arguments = (
        x, weight, bias, added, out,
        x.shape[1], length, x.stride(0), added.stride(0), first, dilation, float(slope),
    )  # fmt: skip
    f32 = x.dtype == torch.float32
    constants = {
        "C": channels, "OUT": outputs, "TAPS": n_taps, "TIMES": TIMES, "COLUMNS": columns, "DEPTH": depth,
        "ADDS": residual is not None, "F32_DOTS": f32,
    }  # fmt: skip
    grid = (triton.cdiv(length, TIMES), triton.cdiv(outputs, columns), batch)
    return Launch(leaky_conv_kernel, grid, arguments, constants, columns // 8, 1 if f32 else STAGES)


@torch.library.custom_op("taro_rt::leaky_conv", mutates_args=())
def _leaky_conv(
    x: Tensor, weight: Tensor, bias: Tensor, first: int, dilation: int, residual: Tensor | None,
    length: int, slope: float,
) -> Tensor:  # fmt: skip
    out = x.new_empty(len(x), length, weight.shape[1])
    leaky_conv_launch(x, weight, bias, first, dilation, residual, slope, out).run()
    return out


@_leaky_conv.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, first: int, dilation: int, residual: Tensor | None,
    length: int, slope: float,
) -> Tensor:  # fmt: skip
    return x.new_empty(len(x), length, weight.shape[1])


def _check(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, length: int) -> None:
    kernel = "leaky_conv"
    if x.dim() != 3 or weight.dim() != 3 or weight.shape[2] != x.shape[2] or not x.numel() or length < 1:
        refuse(kernel, "x [b, t, c] and a weight [k, o, c]", [tuple(x.shape), tuple(weight.shape)])
    if bias.shape != weight.shape[1:2]:
        refuse(kernel, f"a bias [{weight.shape[1]}]", tuple(bias.shape))
    made = (len(x), length, weight.shape[1])
    if residual is not None and residual.shape != made:
        refuse(kernel, f"a residual {list(made)}", tuple(residual.shape))
    tensors = [x, weight, bias] if residual is None else [x, weight, bias, residual]
    if len({(t.dtype, t.device) for t in tensors}) != 1:
        got = sorted({f"{t.dtype} on {t.device}" for t in tensors})
        refuse(kernel, "tensors of one type on one device", got)
    dense = [x[0], weight, bias] if residual is None else [x[0], weight, bias, residual[0]]
    if not all(t.is_contiguous() for t in dense):
        refuse(kernel, "contiguous tensors (x within a batch entry)", [t.stride() for t in tensors])
