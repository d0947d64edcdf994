"""AdaLN over both streams in one launch: a program per token, float32 within (spec B4, equations (4), (5)).

A token takes the modulation row of its time: token i of n reads row i * rows // n. One row serves all (the
published, global form). The modulation of a step is one tensor with the vectors of all blocks and both
streams; shift, scale and gate are named by their place in it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from taro_rt.kernels.launch import Launch, wait_for_inputs
from taro_rt.kernels.switch import is_used, refuse

EPS = 1e-6
MAX_WIDTH = 4096
"""A row lies in the registers of one program."""


@triton.jit
def _place(context, x, row, batch, n, m, D: tl.constexpr):
    """Where a token's values begin: `context` holds the rows below n, `x` the m others."""
    if row < n:
        at = context + (batch * n + row).to(tl.int64) * D
    else:
        at = x + (batch * m + row - n).to(tl.int64) * D
    return at


@triton.jit
def _vectors(modulation, row, batch, n, m, rows, n_vectors, D: tl.constexpr):
    """Where the modulation vectors of a token begin."""
    if row < n:
        at = batch * rows + row * rows // n
    else:
        at = batch * rows + (row - n) * rows // m
    return modulation + (at * n_vectors).to(tl.int64) * D


@triton.jit
def _normed(values, mask, D: tl.constexpr, EPS: tl.constexpr):
    mean = tl.sum(values, 0) / D
    centred = tl.where(mask, values - mean, 0.0)
    return centred / tl.sqrt(tl.sum(centred * centred, 0) / D + EPS)


@triton.jit
def modulate_kernel(
    context, x, modulation, context_out, x_out,
    n, m, rows, n_vectors, context_vector, x_vector,
    D: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    wait_for_inputs(PDL)
    row, batch = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, BLOCK)
    mask = columns < D
    values = tl.load(_place(context, x, row, batch, n, m, D) + columns, mask, 0.0).to(tl.float32)
    vector = tl.where(row < n, context_vector, x_vector)
    vectors = _vectors(modulation, row, batch, n, m, rows, n_vectors, D) + vector * D
    shift = tl.load(vectors + columns, mask, 0.0).to(tl.float32)
    scale = tl.load(vectors + D + columns, mask, 0.0).to(tl.float32)
    made = _normed(values, mask, D, EPS) * (1 + scale) + shift
    out = _place(context_out, x_out, row, batch, n, m, D)
    tl.store(out + columns, made.to(out.dtype.element_ty), mask)


@triton.jit
def gate_modulate_kernel(
    context, x, context_update, x_update, modulation, context_sum, x_sum, context_out, x_out,
    n, m, rows, n_vectors, context_gate, context_vector, x_gate, x_vector,
    D: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    wait_for_inputs(PDL)
    row, batch = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, BLOCK)
    mask = columns < D
    values = tl.load(_place(context, x, row, batch, n, m, D) + columns, mask, 0.0).to(tl.float32)
    update = tl.load(_place(context_update, x_update, row, batch, n, m, D) + columns, mask, 0.0)
    vectors = _vectors(modulation, row, batch, n, m, rows, n_vectors, D)
    gate, vector = tl.where(row < n, context_gate, x_gate), tl.where(row < n, context_vector, x_vector)
    opened = tl.load(vectors + gate * D + columns, mask, 0.0).to(tl.float32)
    shift = tl.load(vectors + vector * D + columns, mask, 0.0).to(tl.float32)
    scale = tl.load(vectors + (vector + 1) * D + columns, mask, 0.0).to(tl.float32)
    total = values + opened * update.to(tl.float32)
    sums = _place(context_sum, x_sum, row, batch, n, m, D)
    tl.store(sums + columns, total.to(sums.dtype.element_ty), mask)
    made = _normed(total, mask, D, EPS) * (1 + scale) + shift
    out = _place(context_out, x_out, row, batch, n, m, D)
    tl.store(out + columns, made.to(out.dtype.element_ty), mask)


class Vectors(NamedTuple):
    """Where the vectors of a half block stand among those of a step; the scale follows the shift."""

    context_shift: int
    x_shift: int
    context_gate: int = 0
    x_gate: int = 0


def modulate_streams(context: Tensor, x: Tensor, modulation: Tensor, at: Vectors) -> tuple[Tensor, Tensor]:
    """LN(s)(1 + scale) + shift of both streams: `context` [b, n, d] and `x` [b, m, d], shaped like them.

    `modulation` is [b, rows, vectors, d]; the context may have no tokens. Raises `ValueError` for shapes or
    types that do not go together.
    """
    if not is_used(x):
        return modulate_streams_reference(context, x, modulation, at)
    _check("modulate_streams", (context, x), modulation, at, gated=False)
    made: tuple[Tensor, Tensor] = _modulate_streams(context, x, modulation, list(at))
    return made


def gate_modulate_streams(
    context: Tensor, x: Tensor, context_update: Tensor, x_update: Tensor, modulation: Tensor, at: Vectors
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both streams with their gated updates, s + gate * update, and LN(that)(1 + scale) + shift.

    Shapes as of `modulate_streams`, updates like their streams. Returns the two sums, then the two modulated.
    """
    if not is_used(x):
        return gate_modulate_streams_reference(context, x, context_update, x_update, modulation, at)
    streams = (context, x, context_update, x_update)
    _check("gate_modulate_streams", streams, modulation, at, gated=True)
    made: tuple[Tensor, Tensor, Tensor, Tensor] = _gate_modulate_streams(*streams, modulation, list(at))
    return made


def modulate_launch(
    context: Tensor, x: Tensor, modulation: Tensor, outputs: tuple[Tensor, ...], at: Vectors
) -> Launch:
    """The launch of `modulate_streams` into `outputs`."""
    arguments = (context, x, modulation, *outputs, *_sizes(context, x, modulation), *at[:2])
    return _rows_launch(modulate_kernel, context, x, arguments)


def gate_modulate_launch(
    streams: tuple[Tensor, ...], modulation: Tensor, outputs: tuple[Tensor, ...], at: Vectors
) -> Launch:
    """The launch of `gate_modulate_streams` into `outputs`; `streams` are context, x and their updates."""
    context, x = streams[:2]
    places = (at.context_gate, at.context_shift, at.x_gate, at.x_shift)
    arguments = (*streams, modulation, *outputs, *_sizes(context, x, modulation), *places)
    return _rows_launch(gate_modulate_kernel, context, x, arguments)


def _sizes(context: Tensor, x: Tensor, modulation: Tensor) -> tuple[int, ...]:
    return context.shape[1], x.shape[1], modulation.shape[1], modulation.shape[2]


def _rows_launch(kernel: Any, context: Tensor, x: Tensor, arguments: tuple[Any, ...]) -> Launch:
    batch, m, width = x.shape
    constants = {"D": width, "BLOCK": triton.next_power_of_2(width), "EPS": EPS}
    return Launch(kernel, (context.shape[1] + m, batch), arguments, constants, warps_of(width))


def modulate_streams_reference(
    context: Tensor, x: Tensor, modulation: Tensor, at: Vectors
) -> tuple[Tensor, Tensor]:
    """`modulate_streams` in plain PyTorch."""
    return _modulated(context, modulation, at.context_shift), _modulated(x, modulation, at.x_shift)


def gate_modulate_streams_reference(
    context: Tensor, x: Tensor, context_update: Tensor, x_update: Tensor, modulation: Tensor, at: Vectors
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`gate_modulate_streams` in plain PyTorch."""
    context = context + _spread(modulation, context.shape[1], at.context_gate) * context_update
    x = x + _spread(modulation, x.shape[1], at.x_gate) * x_update
    return context, x, *modulate_streams_reference(context, x, modulation, at)


def _spread(modulation: Tensor, n: int, vector: int) -> Tensor:
    """A vector's rows [b, rows, d] for n tokens in time order, [b, n, d] (or [b, 1, d])."""
    values, rows = modulation[:, :, vector], modulation.shape[1]
    if rows == 1:
        return values
    return values.index_select(1, torch.arange(n, device=values.device) * rows // max(n, 1))


def _modulated(stream: Tensor, modulation: Tensor, shift: int) -> Tensor:
    n = stream.shape[1]
    normed = F.layer_norm(stream, stream.shape[-1:], eps=EPS)
    return normed * (1 + _spread(modulation, n, shift + 1)) + _spread(modulation, n, shift)


@torch.library.custom_op("taro_rt::modulate_streams", mutates_args=())
def _modulate_streams(context: Tensor, x: Tensor, modulation: Tensor, at: list[int]) -> tuple[Tensor, Tensor]:
    outputs = _like(context, x)
    modulate_launch(context, x, modulation, outputs, Vectors(*at)).run()
    return outputs  # type: ignore[return-value]


@_modulate_streams.register_fake
def _(context: Tensor, x: Tensor, modulation: Tensor, at: list[int]) -> tuple[Tensor, Tensor]:
    return _like(context, x)  # type: ignore[return-value]


@torch.library.custom_op("taro_rt::gate_modulate_streams", mutates_args=())
def _gate_modulate_streams(
    context: Tensor, x: Tensor, context_update: Tensor, x_update: Tensor, modulation: Tensor, at: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    streams = (context, x, context_update, x_update)
    outputs = _like(context, x, context, x)
    gate_modulate_launch(streams, modulation, outputs, Vectors(*at)).run()
    return outputs  # type: ignore[return-value]


@_gate_modulate_streams.register_fake
def _(
    context: Tensor, x: Tensor, context_update: Tensor, x_update: Tensor, modulation: Tensor, at: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _like(context, x, context, x)  # type: ignore[return-value]


def _like(*streams: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(each) for each in streams)


def warps_of(width: int) -> int:
    """Warps of a program with a row of `width` values: about 8 a thread."""
    block: int = triton.next_power_of_2(width)
    return min(8, max(1, block // 256))


def _check(kernel: str, streams: tuple[Tensor, ...], modulation: Tensor, at: Vectors, gated: bool) -> None:
    context, x, *updates = streams
    shapes = [tuple(s.shape) for s in streams]
    if x.dim() != 3 or context.dim() != 3 or context.shape[::2] != x.shape[::2] or not x.numel():
        refuse(kernel, "streams [b, n, d] and [b, m, d]", shapes)
    if [u.shape for u in updates] != [s.shape for s in (context, x)][: len(updates)]:
        refuse(kernel, "updates shaped like their streams", shapes)
    batch, _, width = x.shape
    if width > MAX_WIDTH:
        refuse(kernel, f"a width of at most {MAX_WIDTH}", width)
    last = max(at.context_shift + 1, at.x_shift + 1, *((at.context_gate, at.x_gate) if gated else ()))
    if modulation.dim() != 4 or modulation.shape[::3] != (batch, width) or modulation.shape[2] <= last:
        expected = f"modulation [{batch}, rows, {last + 1} vectors or more, {width}]"
        refuse(kernel, expected, tuple(modulation.shape))
    tensors = (*streams, modulation)
    if len({(t.dtype, t.device) for t in tensors}) != 1:
        got = sorted({f"{t.dtype} on {t.device}" for t in tensors})
        refuse(kernel, "tensors of one type on one device", got)
    if not all(t.is_contiguous() for t in tensors):
        refuse(kernel, "contiguous tensors", [t.stride() for t in tensors])
