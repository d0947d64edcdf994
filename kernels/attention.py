"""Attention of both streams over both, read from and written to where the projections keep each (spec B4).

Nothing is concatenated or copied: keys run through the context's tokens, then through x's. Online softmax in
base 2, sums in float32 (FlashAttention-2's loop).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from taro_rt.kernels.launch import Launch, wait_for_inputs
from taro_rt.kernels.switch import is_used, refuse

WIDTHS = (16, 32, 64, 128)
"""Widths of a head."""


@dataclass(frozen=True)
class Tiles:
    """How a launch is cut; the choice stands apart from the kernel, so that it compiles without a GPU."""

    queries: int
    keys: int
    warps: int
    stages: int


TILES = (Tiles(64, 64, 4, 3), Tiles(64, 32, 4, 3), Tiles(128, 64, 8, 3))
"""None spills registers on sm_80, sm_90 or sm_120 (`offline`); the first is the fastest on an H200."""
DEFAULT = TILES[0]


@triton.jit
def _attended(
    q, k, v, bias, k_stride, v_stride, n_keys, scale, top, total, acc,
    HEAD: tl.constexpr, KEYS: tl.constexpr, HAS_BIAS: tl.constexpr, F32_DOTS: tl.constexpr,
):  # fmt: skip
    """One more stream of keys: running maximum, sum of weights and weighted values."""
    columns = tl.arange(0, HEAD)
    for first in range(0, n_keys, KEYS):
        at = first + tl.arange(0, KEYS)
        mask = at < n_keys
        k_block = tl.load(k + at[:, None] * k_stride + columns[None, :], mask[:, None], 0.0)
        if F32_DOTS:
            scores = tl.dot(q, tl.trans(k_block), input_precision="ieee") * scale
        else:
            scores = tl.dot(q, tl.trans(k_block)) * scale
        if HAS_BIAS:
            scores += tl.load(bias + at, mask, 0.0)[None, :] * 1.4426950408889634
        scores = tl.where(mask[None, :], scores, float("-inf"))
        highest = tl.maximum(top, tl.max(scores, 1))
        kept, weights = tl.exp2(top - highest), tl.exp2(scores - highest[:, None])
        total = total * kept + tl.sum(weights, 1)
        v_block = tl.load(v + at[:, None] * v_stride + columns[None, :], mask[:, None], 0.0)
        acc = acc * kept[:, None]
        if F32_DOTS:
            acc += tl.dot(weights.to(v_block.dtype), v_block, input_precision="ieee")
        else:
            acc += tl.dot(weights.to(v_block.dtype), v_block)
        top = highest
    return top, total, acc


@triton.jit
def joint_attention_kernel(
    context_q, context_k, context_v, x_q, x_k, x_v, bias, context_out, x_out,
    context_batch, context_token, x_batch, x_token, n, m, heads, context_tiles, scale,
    HEAD: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    HAS_BIAS: tl.constexpr, F32_DOTS: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """A program per tile of one stream's queries and head; `context_tiles` is 0 where the context asks
    nothing.

    Strides are of a batch entry and of a token; the values of a head lie side by side, heads too.
    """
    wait_for_inputs(PDL)
    tile, batch, head = tl.program_id(0), tl.program_id(1) // heads, tl.program_id(1) % heads
    c_base = batch.to(tl.int64) * context_batch + head * HEAD
    x_base = batch.to(tl.int64) * x_batch + head * HEAD
    columns = tl.arange(0, HEAD)
    if tile < context_tiles:
        at = tile * QUERIES + tl.arange(0, QUERIES)
        n_queries = n
        q_at, q_stride = context_q + c_base, context_token
        out = context_out + (batch.to(tl.int64) * n * heads + head) * HEAD
    else:
        at = (tile - context_tiles) * QUERIES + tl.arange(0, QUERIES)
        n_queries = m
        q_at, q_stride = x_q + x_base, x_token
        out = x_out + (batch.to(tl.int64) * m * heads + head) * HEAD
    mask = at < n_queries
    q = tl.load(q_at + at[:, None] * q_stride + columns[None, :], mask[:, None], 0.0)
    top = tl.full([QUERIES], -1.0e30, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    acc = tl.zeros([QUERIES, HEAD], tl.float32)
    top, total, acc = _attended(
        q, context_k + c_base, context_v + c_base, bias, context_token, context_token, n, scale,
        top, total, acc, HEAD, KEYS, HAS_BIAS, F32_DOTS,
    )  # fmt: skip
    top, total, acc = _attended(
        q, x_k + x_base, x_v + x_base, bias + n, x_token, x_token, m, scale,
        top, total, acc, HEAD, KEYS, HAS_BIAS, F32_DOTS,
    )  # fmt: skip
    made = acc / total[:, None]
    places = out + at[:, None] * heads * HEAD + columns[None, :]
    tl.store(places, made.to(out.dtype.element_ty), mask[:, None])


def joint_attention(
    context: Tensor, x: Tensor, heads: int, bias: Tensor | None = None, tiles: Tiles = DEFAULT
) -> tuple[Tensor, Tensor]:
    """What both streams attend to over [context, x], from their projections: [b, n, d] and [b, m, d].

    `x` [b, m, 3 d] holds queries, keys and values; `context` [b, n, 3 d] too, or [b, n, 2 d] keys and values
    alone, and then the first of the two outputs has no tokens [b, 0, d]. `bias` [n + m] is added to the
    scores of a key (log 32 makes one token count as 32 alike). Raises `ValueError` for what does not go
    together.
    """
    if not is_used(x):
        return joint_attention_reference(context, x, heads, bias)
    _check(context, x, heads, bias)
    cut = [tiles.queries, tiles.keys, tiles.warps, tiles.stages]
    made: tuple[Tensor, Tensor] = _joint_attention(context, x, heads, bias, cut)
    return made


def attention_launch(
    context: Tensor,
    x: Tensor,
    heads: int,
    bias: Tensor | None,
    outputs: tuple[Tensor, Tensor],
    tiles: Tiles = DEFAULT,
) -> Launch:
    """The launch of `joint_attention` into `outputs`."""
    (batch, n, inner), (_, m, whole) = context.shape, x.shape
    width = whole // 3
    asks, head, k_at = inner == whole, width // heads, inner - 2 * width
    context_tiles = triton.cdiv(n, tiles.queries) if asks else 0
    arguments = (
        context, context[..., k_at:], context[..., k_at + width :], x, x[..., width:], x[..., 2 * width :],
        x if bias is None else bias, *outputs,
        context.stride(0), context.stride(1), x.stride(0), x.stride(1), n, m, heads, context_tiles,
        math.log2(math.e) / math.sqrt(head),
    )  # fmt: skip
    f32 = x.dtype == torch.float32  # no type to compute fast in: one stage needs least memory
    constants = {
        "HEAD": head, "QUERIES": tiles.queries, "KEYS": tiles.keys,
        "HAS_BIAS": bias is not None, "F32_DOTS": f32,
    }  # fmt: skip
    grid = (context_tiles + triton.cdiv(m, tiles.queries), batch * heads)
    return Launch(joint_attention_kernel, grid, arguments, constants, tiles.warps, 1 if f32 else tiles.stages)


def joint_attention_reference(
    context: Tensor, x: Tensor, heads: int, bias: Tensor | None = None, tiles: Tiles = DEFAULT
) -> tuple[Tensor, Tensor]:
    """`joint_attention` in plain PyTorch."""
    q_x, k_x, v_x = x.chunk(3, -1)
    width, n_asking = q_x.shape[-1], context.shape[1]
    k_c, v_c = context[..., -2 * width : -width], context[..., -width:]
    q = q_x
    if context.shape[-1] == 3 * width:
        q = torch.cat([context[..., :width], q_x], 1)
    else:
        n_asking = 0
    k, v = torch.cat([k_c, k_x], 1), torch.cat([v_c, v_x], 1)
    q, k, v = (s.unflatten(2, (heads, -1)).transpose(1, 2) for s in (q, k, v))  # [b, h, n, d / h]
    mask = None if bias is None else bias.to(q.dtype).expand(q.shape[2], -1)
    made = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
    return made[:, :n_asking], made[:, n_asking:]


@torch.library.custom_op("taro_rt::joint_attention", mutates_args=())
def _joint_attention(
    context: Tensor, x: Tensor, heads: int, bias: Tensor | None, tiles: list[int]
) -> tuple[Tensor, Tensor]:
    outputs = _outputs(context, x)
    attention_launch(context, x, heads, bias, outputs, Tiles(*tiles)).run()
    return outputs


@_joint_attention.register_fake
def _(context: Tensor, x: Tensor, heads: int, bias: Tensor | None, tiles: list[int]) -> tuple[Tensor, Tensor]:
    return _outputs(context, x)


def _outputs(context: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    batch, m, whole = x.shape
    width = whole // 3
    n_asking = context.shape[1] if context.shape[2] == whole else 0
    return x.new_empty(batch, n_asking, width), x.new_empty(batch, m, width)


def _check(context: Tensor, x: Tensor, heads: int, bias: Tensor | None) -> None:
    kernel, shapes = "joint_attention", [tuple(context.shape), tuple(x.shape)]
    if context.dim() != 3 or x.dim() != 3 or x.shape[2] % 3 or len(context) != len(x) or not x.numel():
        refuse(kernel, "projections [b, n, 3 d or 2 d] and [b, m, 3 d]", shapes)
    width = x.shape[2] // 3
    if context.shape[2] not in (2 * width, 3 * width) or not context.shape[1]:
        refuse(kernel, f"a context [b, n, {3 * width}] or [b, n, {2 * width}] of one token or more", shapes)
    if width % heads or width // heads not in WIDTHS:
        refuse(kernel, f"heads of width {', '.join(map(str, WIDTHS))}", f"{width} values in {heads} heads")
    tensors = [context, x] if bias is None else [context, x, bias]
    if bias is not None and bias.shape != (context.shape[1] + x.shape[1],):
        refuse(kernel, f"a bias [{context.shape[1] + x.shape[1]}]", tuple(bias.shape))
    if bias is not None and bias.dtype != torch.float32:
        refuse(kernel, "a bias of float32", bias.dtype)
    if context.dtype != x.dtype or len({t.device for t in tensors}) != 1:
        refuse(kernel, "streams of one type on one device", [f"{t.dtype} on {t.device}" for t in tensors])
    if any(t.stride(-1) != 1 for t in tensors):
        refuse(kernel, "values of a token side by side", [t.stride() for t in tensors])
