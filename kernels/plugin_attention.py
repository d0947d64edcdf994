# mypy: disable-error-code="valid-type"
"""Joint attention inside TensorRT plans, an option: whether it beats TensorRT's own, only a GPU can tell.

A plugin has 48 KiB of shared memory, so that its tiles are smaller than those of the `cuda` backend; half
precision only. No `from __future__ import annotations` here, for the reasons that `plugin` states.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from taro_rt.kernels.aot import Code, Definition, assembled, launched
from taro_rt.kernels.attention import WIDTHS, Tiles, joint_attention_kernel

if TYPE_CHECKING:
    import tensorrt.plugin as trtp

PLUGIN_TILES = (Tiles(64, 32, 4, 2), Tiles(128, 32, 8, 1), Tiles(32, 64, 4, 1), Tiles(32, 32, 4, 2))
"""What TensorRT tries; tactic k takes the k-th, counted from 1."""


@triton.jit
def attend_streams_entry(
    context, x, n, m, heads, context_out, x_out,
    D: tl.constexpr, HEAD: tl.constexpr, SCALE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Both streams' queries; `context` [b, n, 3 d] and `x` [b, m, 3 d] hold queries, keys and values."""
    joint_attention_kernel(
        context, context + D, context + 2 * D, x, x + D, x + 2 * D, x, context_out, x_out,
        n * 3 * D, 3 * D, m * 3 * D, 3 * D, n, m, heads, tl.cdiv(n, QUERIES), SCALE,
        HEAD, QUERIES, KEYS, False, False,
    )  # fmt: skip


@triton.jit
def attend_entry(
    context, x, n, m, heads, x_out,
    D: tl.constexpr, HEAD: tl.constexpr, SCALE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """For x's queries alone; `context` [b, n, 2 d] holds keys and values."""
    joint_attention_kernel(
        context, context, context + D, x, x + D, x + 2 * D, x, x_out, x_out,
        n * 2 * D, 2 * D, m * 3 * D, 3 * D, n, m, heads, 0, SCALE,
        HEAD, QUERIES, KEYS, False, False,
    )  # fmt: skip


ATTENTION_ENTRIES = {"AttendStreams": attend_streams_entry, "Attend": attend_entry}
"""By the operator's name in the ONNX files."""


@cache
def compiled_attention(
    operator: str, kind: str, width: int, heads: int, capability: tuple[int, int], tiles: Tiles
) -> Code:
    """The entry of `operator` for streams as wide as `width`. Raises `ValueError`."""
    head = width // heads
    if head not in WIDTHS or width % heads:
        raise ValueError(f"{operator}: expected heads of width {WIDTHS}, got {width} values in {heads} heads")
    constants = {"D": width, "HEAD": head, "SCALE": math.log2(math.e) / math.sqrt(head)}
    constants |= {"QUERIES": tiles.queries, "KEYS": tiles.keys}
    entry = ATTENTION_ENTRIES[operator]
    return assembled(operator, entry, kind, constants, capability, tiles.warps, tiles.stages)


def tactics(capability: tuple[int, int]) -> list[int]:
    """The places in `PLUGIN_TILES`, from 1, of those for a GPU.

    B200 and B300 multiply tiles of 64 and more in a memory of their own, which a plugin cannot have.
    """
    return [k for k, tiles in enumerate(PLUGIN_TILES, 1) if capability[0] != 10 or tiles.queries < 64]


def _implemented(
    operator: str, context: Any, x: Any, places: str, tactic: int, capability: tuple[int, int]
) -> tuple[str, str, Any, Any]:
    """Kernel, PTX, launch and scalars for streams of these static shapes; `places` is how many heads."""
    (batch, m, whole), n, tiles = x.shape, context.shape[1], PLUGIN_TILES[tactic - 1]
    heads = int(places.strip("\0 "))
    code = compiled_attention(operator, "fp16", whole // 3, heads, capability, tiles)
    asking = triton.cdiv(n, tiles.queries) if operator == "AttendStreams" else 0
    grid = (asking + triton.cdiv(m, tiles.queries), batch * heads)
    return launched(code, grid, [n, m, heads])


def _tuned(n_tensors: int, combination: Any, capability: tuple[int, int]) -> list[Any]:
    return [combination(", ".join(["FP16"] * n_tensors), "LINEAR", tactics(capability))]


def _attended(stream: "trtp.TensorDesc") -> "trtp.TensorDesc":
    """A tensor of a third of the width: one set of values for every query."""
    made = stream.like()
    made.shape_expr[2] = stream.shape_expr[2] // 3
    return made


def _attend_streams(desc: Any, types: Any, capability: tuple[int, int]) -> Definition:
    launch, exprs, combination = types

    def describe(context: desc, x: desc, places: str) -> tuple[desc, desc]:
        return _attended(context), _attended(x)

    def tune(context: desc, x: desc, outputs: tuple[desc, desc]) -> list[combination]:
        return _tuned(4, combination, capability)

    def implement(
        context: desc, x: desc, places: str, outputs: tuple[desc, desc], tactic: int
    ) -> tuple[str | bytes, str | bytes, launch, exprs]:
        return _implemented("AttendStreams", context, x, places, tactic, capability)

    return describe, tune, implement


def _attend(desc: Any, types: Any, capability: tuple[int, int]) -> Definition:
    launch, exprs, combination = types

    def describe(context: desc, x: desc, places: str) -> desc:
        return _attended(x)

    def tune(context: desc, x: desc, outputs: tuple[desc]) -> list[combination]:
        return _tuned(3, combination, capability)

    def implement(
        context: desc, x: desc, places: str, outputs: tuple[desc], tactic: int
    ) -> tuple[str | bytes, str | bytes, launch, exprs]:
        return _implemented("Attend", context, x, places, tactic, capability)

    return describe, tune, implement


ATTENTION_DEFINITIONS: dict[str, Callable[[Any, Any, tuple[int, int]], Definition]] = {
    "AttendStreams": _attend_streams,
    "Attend": _attend,
}
