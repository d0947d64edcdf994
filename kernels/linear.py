"""The linear layers of both streams in one launch, with bias and, where asked, GELU on the way out (spec B4).

Context and x have weights of their own but the same depth. The context's product is too small to fill a GPU:
beside that of x it costs no launch and next to no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from taro_rt.kernels.launch import Launch, can_overlap, wait_for_inputs
from taro_rt.kernels.switch import is_used, refuse


@dataclass(frozen=True)
class LinearTiles:
    """How a launch is cut: a program makes `rows` x `columns` values, `depth` of the products at a time."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


LINEAR_TILES = (
    LinearTiles(128, 128, 64, 8, 3),
    LinearTiles(128, 64, 64, 4, 3),
    LinearTiles(64, 64, 64, 4, 4),
    LinearTiles(32, 64, 64, 4, 4),
)
"""From the largest. None spills registers on sm_80, sm_90 or sm_120 (`offline`)."""
PROGRAMS = 108
"""A launch should fill the A100's 108 multiprocessors."""
COPIED_TILES = (LinearTiles(128, 128, 64, 8, 3), LinearTiles(64, 128, 64, 4, 4))
"""Of the copy engine, from the largest: the fastest of five on an H200."""
COPIED_PROGRAMS = 66
"""A launch should fill half of an H200's 132 multiprocessors: large tiles read less twice."""
ALIGNED_BYTES = 16
"""What the copy engine reads begins at multiples of this, and so do its rows."""


@triton.jit
def _finished(acc, bias, column, n_columns, GELU: tl.constexpr):
    """Sums with their bias, and through GELU."""
    made = acc + tl.load(bias + column, column < n_columns, 0.0).to(tl.float32)[None, :]
    if GELU:  # 0.5 (1 + tanh(u)) is 1 / (1 + 2^(-2 u log2 e)); beyond 2^115 it is as good as nothing
        exponent = made * (-2.302208198144325 - 0.10294324022154082 * made * made)
        made = made / (1 + tl.exp2(tl.minimum(exponent, 115.0)))
    return made


@triton.jit
def _products(
    a, weight, top, left, n_rows, n_columns,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, F32_DOTS: tl.constexpr,
):  # fmt: skip
    """A tile of sums from what threads read, row-major; a weight is [columns, D]."""
    row, column, depth = top + tl.arange(0, ROWS), left + tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    is_row, is_column = (row < n_rows)[:, None], (column < n_columns)[:, None]
    a_at = a + row.to(tl.int64)[:, None] * D + depth[None, :]
    weight_at = weight + column[:, None] * D + depth[None, :]
    acc = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, D, DEPTH):
        if D % DEPTH == 0:
            a_block = tl.load(a_at + first, is_row, 0.0)
            w_block = tl.load(weight_at + first, is_column, 0.0)
        else:
            inside = (first + depth < D)[None, :]
            a_block = tl.load(a_at + first, is_row & inside, 0.0)
            w_block = tl.load(weight_at + first, is_column & inside, 0.0)
        if F32_DOTS:
            acc += tl.dot(a_block, tl.trans(w_block), input_precision="ieee")
        else:
            acc += tl.dot(a_block, tl.trans(w_block))
    return acc


@triton.jit
def _copied_products(
    a, weight, top, left,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """The same from what the copy engine brings."""
    acc = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, D, DEPTH):
        acc = tl.dot(a.load([top, first]), weight.load([left, first]).T, acc)
    return acc


@triton.jit
def linear_streams_kernel(
    context, x, context_weight, x_weight, context_bias, x_bias, context_out, x_out,
    context_rows, x_rows, context_columns, x_columns, context_programs,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    GELU: tl.constexpr, F32_DOTS: tl.constexpr, COPIED: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """A program per tile of outputs, the context's first. `COPIED`, the first four are descriptors of the
    copy engine (TMA), else tensors."""
    wait_for_inputs(PDL)
    program = tl.program_id(0)
    if program < context_programs:
        a, weight, bias, out = context, context_weight, context_bias, context_out
        n_rows, n_columns = context_rows, context_columns
    else:
        a, weight, bias, out = x, x_weight, x_bias, x_out
        n_rows, n_columns = x_rows, x_columns
        program -= context_programs
    across = tl.cdiv(n_columns, COLUMNS)
    top, left = program // across * ROWS, program % across * COLUMNS
    if COPIED:
        acc = _copied_products(a, weight, top, left, D, ROWS, COLUMNS, DEPTH)
    else:
        acc = _products(a, weight, top, left, n_rows, n_columns, D, ROWS, COLUMNS, DEPTH, F32_DOTS)
    row, column = top + tl.arange(0, ROWS), left + tl.arange(0, COLUMNS)
    made = _finished(acc, bias, column, n_columns, GELU)
    places = out + row.to(tl.int64)[:, None] * n_columns + column[None, :]
    is_kept = (row < n_rows)[:, None] & (column < n_columns)[None, :]
    tl.store(places, made.to(out.dtype.element_ty), is_kept)


def linear_streams(
    context: Tensor,
    x: Tensor,
    context_layer: tuple[Tensor, Tensor],
    x_layer: tuple[Tensor, Tensor],
    gelu: bool = False,
    tiles: LinearTiles | None = None,
) -> tuple[Tensor, Tensor]:
    """Linear layers of `context` [b, n, d] and `x` [b, m, d]: [b, n, o] and [b, m, p], GELU (tanh) on demand.

    A layer is its weight [o, d] and bias [o]; that of a context without tokens is not read. Without `tiles`,
    the largest that fill a GPU are taken. Raises `ValueError` for what does not go together.
    """
    if not is_used(x):
        return linear_streams_reference(context, x, context_layer, x_layer, gelu)
    _check(context, x, context_layer, x_layer)
    tiles = tiles or filling_tiles(context, x, context_layer, x_layer)
    cut = [tiles.rows, tiles.columns, tiles.depth, tiles.warps, tiles.stages]
    made: tuple[Tensor, Tensor] = _linear_streams(context, x, *context_layer, *x_layer, gelu, cut)
    return made


def linear_streams_reference(
    context: Tensor,
    x: Tensor,
    context_layer: tuple[Tensor, Tensor],
    x_layer: tuple[Tensor, Tensor],
    gelu: bool = False,
    tiles: LinearTiles | None = None,
) -> tuple[Tensor, Tensor]:
    """`linear_streams` in plain PyTorch."""
    made = F.linear(context, *context_layer), F.linear(x, *x_layer)
    if not gelu:
        return made
    return F.gelu(made[0], approximate="tanh"), F.gelu(made[1], approximate="tanh")


def linear_streams_launch(
    context: Tensor, x: Tensor, context_layer: tuple[Tensor, Tensor], x_layer: tuple[Tensor, Tensor],
    gelu: bool, outputs: tuple[Tensor, Tensor], tiles: LinearTiles, copied: bool = False,
) -> Launch:  # fmt: skip
    """The launch of `linear_streams` into `outputs`; `copied` takes the copy engine of Hopper and newer."""
    n_context, n_x = _programs(context, x, context_layer, x_layer, tiles)
    grid = (n_context + n_x,)
    rest = (
        context_layer[1], x_layer[1], *outputs,
        context.shape[:2].numel(), x.shape[:2].numel(), len(context_layer[0]), len(x_layer[0]), n_context,
    )  # fmt: skip
    f32 = x.dtype == torch.float32  # no type to compute fast in: one stage needs least memory
    constants = {
        "D": x.shape[2], "ROWS": tiles.rows, "COLUMNS": tiles.columns, "DEPTH": tiles.depth,
        "GELU": gelu, "F32_DOTS": f32, "COPIED": copied,
    }  # fmt: skip
    read: tuple[Any, ...] = (context, x, context_layer[0], x_layer[0])
    if copied:
        streams = (context if context.numel() else x[:, :1], x)  # of nothing there is no descriptor
        read = (
            *(TensorDescriptor.from_tensor(s.flatten(0, 1), [tiles.rows, tiles.depth]) for s in streams),
            *(TensorDescriptor.from_tensor(w, [tiles.columns, tiles.depth]) for w in read[2:]),
        )
    stages = 1 if f32 and not copied else tiles.stages
    return Launch(linear_streams_kernel, grid, (*read, *rest), constants, tiles.warps, stages)


def _programs(
    context: Tensor, x: Tensor, context_layer: tuple[Tensor, Tensor], x_layer: tuple[Tensor, Tensor],
    tiles: LinearTiles,
) -> tuple[int, int]:  # fmt: skip
    """Programs of the context and of x."""
    pairs = ((context, context_layer[0]), (x, x_layer[0]))
    n_context, n_x = (
        triton.cdiv(stream.shape[:2].numel(), tiles.rows) * triton.cdiv(len(weight), tiles.columns)
        for stream, weight in pairs
    )
    return n_context, n_x


def filling_tiles(
    context: Tensor, x: Tensor, context_layer: tuple[Tensor, Tensor], x_layer: tuple[Tensor, Tensor]
) -> LinearTiles:
    """The largest tiles that give the multiprocessors enough to do, else the smallest."""
    choices, enough = (COPIED_TILES, COPIED_PROGRAMS) if is_copied(x) else (LINEAR_TILES, PROGRAMS)
    for tiles in choices:
        if sum(_programs(context, x, context_layer, x_layer, tiles)) >= enough:
            return tiles
    return choices[-1]


def is_copied(x: Tensor) -> bool:
    """Whether the copy engine of Hopper and newer brings tiles of `x` [b, m, d], wherever it begins. Of
    float32 they are too large."""
    is_aligned = x.shape[2] * x.element_size() % ALIGNED_BYTES == 0
    return can_overlap(x) and is_aligned and x.dtype != torch.float32


@torch.library.custom_op("taro_rt::linear_streams", mutates_args=())
def _linear_streams(
    context: Tensor, x: Tensor,
    context_weight: Tensor, context_bias: Tensor, x_weight: Tensor, x_bias: Tensor,
    gelu: bool, tiles: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    outputs = _outputs(context, x, context_weight, x_weight)
    layers = (context_weight, context_bias), (x_weight, x_bias)
    read = (context, x, context_weight, x_weight)
    copied = is_copied(x) and all(t.data_ptr() % ALIGNED_BYTES == 0 for t in read)
    linear_streams_launch(context, x, *layers, gelu, outputs, LinearTiles(*tiles), copied).run()
    return outputs


@_linear_streams.register_fake
def _(
    context: Tensor, x: Tensor,
    context_weight: Tensor, context_bias: Tensor, x_weight: Tensor, x_bias: Tensor,
    gelu: bool, tiles: list[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _outputs(context, x, context_weight, x_weight)


def _outputs(context: Tensor, x: Tensor, context_weight: Tensor, x_weight: Tensor) -> tuple[Tensor, Tensor]:
    return (
        x.new_empty(*context.shape[:2], len(context_weight)),
        x.new_empty(*x.shape[:2], len(x_weight)),
    )


def _check(
    context: Tensor, x: Tensor, context_layer: tuple[Tensor, Tensor], x_layer: tuple[Tensor, Tensor]
) -> None:
    kernel = "linear_streams"
    if x.dim() != 3 or context.dim() != 3 or context.shape[::2] != x.shape[::2] or not x.numel():
        refuse(kernel, "streams [b, n, d] and [b, m, d]", [tuple(context.shape), tuple(x.shape)])
    depth = x.shape[2]
    for weight, bias in (context_layer, x_layer):
        if weight.dim() != 2 or weight.shape[1] != depth or bias.shape != weight.shape[:1]:
            expected = f"a weight [o, {depth}] and its bias [o]"
            refuse(kernel, expected, [tuple(weight.shape), tuple(bias.shape)])
    tensors = (context, x, *context_layer, *x_layer)
    if len({(t.dtype, t.device) for t in tensors}) != 1:
        got = sorted({f"{t.dtype} on {t.device}" for t in tensors})
        refuse(kernel, "tensors of one type on one device", got)
    if not all(t.is_contiguous() for t in tensors):
        refuse(kernel, "contiguous tensors", [t.stride() for t in tensors])
