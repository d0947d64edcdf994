"""Group norm with SiLU over pictures whose channels lie side by side, in three launches (spec B7).

Sums of parts, then scale and shift of every channel, then the values: two reads and a write, and nothing is
added by chance, so that every run gives the same. PyTorch's own turns the channels over on a GPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from taro_rt.kernels.launch import Launch, wait_for_inputs
from taro_rt.kernels.switch import is_used, refuse

PARTS = 256
"""Programs that sum at most."""
VALUES = 2048
"""That a program holds at once."""
MOST_CHANNELS = 1024


@triton.jit
def _tile(x, bias, batch, first, end, n, C: tl.constexpr, ROWS: tl.constexpr, BIASED: tl.constexpr):
    """Places from `first` on as [ROWS, C] in float32, what it is of them, and where they stand in memory."""
    row, column = first + tl.arange(0, ROWS), tl.arange(0, C)
    inside = (row < end)[:, None] & (column < C)[None, :]
    at = (batch * n + row).to(tl.int64)[:, None] * C + column[None, :]
    values = tl.load(x + at, inside, 0.0).to(tl.float32)
    if BIASED:
        values += tl.load(bias + column).to(tl.float32)[None, :]
    return values, inside, at


@triton.jit
def group_sums_kernel(
    x, bias, sums, n, rows_each, parts,
    C: tl.constexpr, ROWS: tl.constexpr, BIASED: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """Sums and sums of squares of every channel over a part of the places: `sums` [b, 2, parts, C]."""
    wait_for_inputs(PDL)
    part, batch = tl.program_id(0), tl.program_id(1)
    end = tl.minimum((part + 1) * rows_each, n)
    total = tl.zeros([C], tl.float32)
    squares = tl.zeros([C], tl.float32)
    for first in range(part * rows_each, end, ROWS):
        values, inside, _ = _tile(x, bias, batch, first, end, n, C, ROWS, BIASED)
        values = tl.where(inside, values, 0.0)
        total += tl.sum(values, 0)
        squares += tl.sum(values * values, 0)
    at = sums + (batch * 2 * parts + part) * C + tl.arange(0, C)
    tl.store(at, total)
    tl.store(at + parts * C, squares)


@triton.jit
def group_scales_kernel(
    sums, weight, shift, scales, n, parts,
    C: tl.constexpr, EACH: tl.constexpr, PARTS: tl.constexpr, EPS: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """What every channel is multiplied by and what is added: `scales` [b, 2, C], a program per group."""
    wait_for_inputs(PDL)
    batch, channel = tl.program_id(1), tl.program_id(0) * EACH + tl.arange(0, EACH)
    part = tl.arange(0, PARTS)
    at = sums + (batch * 2 * parts + part)[:, None] * C + channel[None, :]
    is_part = (part < parts)[:, None]
    total = tl.sum(tl.sum(tl.load(at, is_part, 0.0), 0), 0)
    squares = tl.sum(tl.sum(tl.load(at + parts * C, is_part, 0.0), 0), 0)
    mean = total / (n * EACH)
    inverse = 1 / tl.sqrt(tl.maximum(squares / (n * EACH) - mean * mean, 0.0) + EPS)
    scale = inverse * tl.load(weight + channel).to(tl.float32)
    places = scales + batch * 2 * C + channel
    tl.store(places, scale)
    tl.store(places + C, tl.load(shift + channel).to(tl.float32) - mean * scale)


@triton.jit
def group_apply_kernel(
    x, bias, scales, out, n,
    C: tl.constexpr, ROWS: tl.constexpr, BIASED: tl.constexpr, SILU: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """The values themselves, a program per `ROWS` places."""
    wait_for_inputs(PDL)
    batch, column = tl.program_id(1), tl.arange(0, C)
    values, inside, at = _tile(x, bias, batch, tl.program_id(0) * ROWS, n, n, C, ROWS, BIASED)
    scale, shift = tl.load(scales + batch * 2 * C + column), tl.load(scales + batch * 2 * C + C + column)
    made = values * scale[None, :] + shift[None, :]
    if SILU:
        made = made / (1 + tl.exp(tl.minimum(-made, 80.0)))
    tl.store(out + at, made.to(out.dtype.element_ty), inside)


def group_norm(
    x: Tensor, weight: Tensor, shift: Tensor, groups: int, eps: float, bias: Tensor | None, silu: bool
) -> Tensor:
    """GN(x + bias), through SiLU on demand, of `x` [b, c, h, w] whose channels lie side by side.

    `bias` [c] is what a convolution before left out. Raises `ValueError` for what does not go together.
    """
    if not is_used(x):
        return group_norm_reference(x, weight, shift, groups, eps, bias, silu)
    places = x.permute(0, 2, 3, 1).contiguous().flatten(1, 2)  # [b, h w, c], a view where channels lie last
    _check(places, weight, shift, groups, bias)
    made: Tensor = _group_norm(places, weight, shift, groups, eps, bias, silu)
    return made.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


def group_norm_reference(
    x: Tensor, weight: Tensor, shift: Tensor, groups: int, eps: float, bias: Tensor | None, silu: bool
) -> Tensor:
    """`group_norm` in plain PyTorch."""
    x = x if bias is None else x + bias[:, None, None]
    made = F.group_norm(x, groups, weight, shift, eps)
    return F.silu(made) if silu else made


def group_norm_launches(
    places: Tensor, weight: Tensor, shift: Tensor, groups: int, eps: float, bias: Tensor | None, silu: bool,
    buffers: tuple[Tensor, Tensor, Tensor],
) -> tuple[Launch, Launch, Launch]:  # fmt: skip
    """The launches of `group_norm` of `places` [b, n, c] into the last of `buffers`: sums [b, 2, parts, c],
    scales [b, 2, c], values."""
    (batch, n, c), (sums, scales, out) = places.shape, buffers
    rows, parts = max(1, VALUES // c), sums.shape[2]
    given = places if bias is None else bias
    sizes = {"C": c, "ROWS": rows, "BIASED": bias is not None}
    each = triton.cdiv(n, parts)
    of_groups = {"C": c, "EACH": c // groups, "PARTS": triton.next_power_of_2(parts), "EPS": eps}
    return (
        Launch(
            group_sums_kernel, (parts, batch), (places, given, sums, n, each, parts), sizes, 8
        ),
        Launch(
            group_scales_kernel, (groups, batch), (sums, weight, shift, scales, n, parts), of_groups, 4
        ),
        Launch(
            group_apply_kernel, (triton.cdiv(n, rows), batch), (places, given, scales, out, n),
            {**sizes, "SILU": silu}, 8,
        ),
    )  # fmt: skip


@torch.library.custom_op("taro_rt::group_norm", mutates_args=())
def _group_norm(
    places: Tensor, weight: Tensor, shift: Tensor, groups: int, eps: float, bias: Tensor | None, silu: bool
) -> Tensor:
    batch, n, c = places.shape
    parts = min(PARTS, triton.cdiv(n, max(1, VALUES // c)))
    sums = places.new_empty(batch, 2, parts, c, dtype=torch.float32)
    scales, out = places.new_empty(batch, 2, c, dtype=torch.float32), torch.empty_like(places)
    for launch in group_norm_launches(places, weight, shift, groups, eps, bias, silu, (sums, scales, out)):
        launch.run()
    return out


@_group_norm.register_fake
def _(
    places: Tensor, weight: Tensor, shift: Tensor, groups: int, eps: float, bias: Tensor | None, silu: bool
) -> Tensor:
    return torch.empty_like(places)


def takes(channels: int, groups: int) -> bool:
    """Whether the kernels can count in such widths: in powers of two."""
    return channels <= MOST_CHANNELS and not channels & (channels - 1) and not groups & (groups - 1)


def _check(places: Tensor, weight: Tensor, shift: Tensor, groups: int, bias: Tensor | None) -> None:
    kernel, c = "group_norm", places.shape[2]
    if not takes(c, groups) or c % groups or not places.numel():
        refuse(kernel, f"powers of two of at most {MOST_CHANNELS} channels in groups", (c, groups))
    tensors = [weight, shift, *([] if bias is None else [bias])]
    if any(t.shape != (c,) for t in tensors):
        refuse(kernel, f"weight, shift and bias [{c}]", [tuple(t.shape) for t in tensors])
    if len({t.device for t in (places, *tensors)}) != 1:
        refuse(kernel, "tensors on one device", [str(t.device) for t in (places, *tensors)])
