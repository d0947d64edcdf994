# mypy: disable-error-code="valid-type"
"""Joint attention inside TensorRT plans, an option: whether it beats TensorRT's own, only a GPU can tell.

A plugin has 48 KiB of shared memory, so that its tiles are smaller than those of the `cuda` backend; half
precision only. No `from __future__ import annotations` here, for the reasons that `plugin` states.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import triton
import triton.language as tl

from taro_rt.kernels.aot import Code, assembled
from taro_rt.kernels.attention import Tiles, joint_attention_kernel

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
    constants = {"D": width, "HEAD": head, "SCALE": math.log2(math.e) / math.sqrt(head)}
    constants |= {"QUERIES": tiles.queries, "KEYS": tiles.keys}
    entry = ATTENTION_ENTRIES[operator]
    return assembled(operator, entry, kind, constants, capability, tiles.warps, tiles.stages)


def _implemented(
    operator: str, context: Any, x: Any, places: str, tactic: int, capability: tuple[int, int]
) -> tuple[str, str, Any, Any]:
    """Kernel, PTX, launch and scalars for streams of these static shapes; `places` is how many heads."""
    import tensorrt.plugin as trtp

    (batch, m, whole), n, tiles = x.shape, context.shape[1], PLUGIN_TILES[tactic - 1]
    heads = int(places.strip("\0 "))
    code = compiled_attention(operator, "fp16", whole // 3, heads, capability, tiles)
    numbers = [n, m, heads]
    extra = trtp.SymIntExprs(len(numbers))
    for i, number in enumerate(numbers):  # whole numbers given as they are would be of no type
        extra[i] = trtp.SymInt32(number)
    asking = -(-n // tiles.queries) if operator == "AttendStreams" else 0
    launch = trtp.KernelLaunchParams()
    launch.grid_x, launch.grid_y = asking - (-m // tiles.queries), batch * heads
    launch.block_x = 32 * code.warps
    launch.shared_mem = code.shared_bytes
    return code.name, code.ptx, launch, extra


def _tuned(n_tensors: int, combination: Any) -> list[Any]:
    tactics = list(range(1, len(PLUGIN_TILES) + 1))
    return [combination(", ".join(["FP16"] * n_tensors), "LINEAR", tactics)]


def _attended(stream: Any) -> Any:
    """A tensor of a third of the width: one set of values for every query."""
    made = stream.like()
    made.shape_expr[2] = stream.shape_expr[2] // 3
    return made


def _attend_streams(desc: Any, types: Any, capability: tuple[int, int]) -> Any:
    launch, exprs, combination = types

    def describe(context: desc, x: desc, places: str) -> tuple[desc, desc]:
        return _attended(context), _attended(x)

    def tune(context: desc, x: desc, outputs: tuple[desc, desc]) -> list[combination]:
        return _tuned(4, combination)

    def implement(
        context: desc, x: desc, places: str, outputs: tuple[desc, desc], tactic: int
    ) -> tuple[str | bytes, str | bytes, launch, exprs]:
        return _implemented("AttendStreams", context, x, places, tactic, capability)

    return describe, tune, implement


def _attend(desc: Any, types: Any, capability: tuple[int, int]) -> Any:
    launch, exprs, combination = types

    def describe(context: desc, x: desc, places: str) -> desc:
        return _attended(x)

    def tune(context: desc, x: desc, outputs: tuple[desc]) -> list[combination]:
        return _tuned(3, combination)

    def implement(
        context: desc, x: desc, places: str, outputs: tuple[desc], tactic: int
    ) -> tuple[str | bytes, str | bytes, launch, exprs]:
        return _implemented("Attend", context, x, places, tactic, capability)

    return describe, tune, implement


DEFINITIONS: dict[str, Callable[[Any, Any, tuple[int, int]], Any]] = {
    "AttendStreams": _attend_streams,
    "Attend": _attend,
}
