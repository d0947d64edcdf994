# mypy: disable-error-code="valid-type"
"""Our kernels inside TensorRT plans: plugins whose machine code is compiled when a plan is built.

Those for rows; attention's is in `plugin_attention`. Python and Triton are needed to build a plan, not to run
it. The entries are compiled and assembled for every GPU by a test; that TensorRT takes them was not seen yet.

No `from __future__ import annotations` here: TensorRT reads the annotations of what it registers. Vectors are
named in a string: with NumPy 2.4 TensorRT 10.16 reads no whole number, and with Python 3.11 no array.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import triton
import triton.language as tl

from taro_rt.kernels.aot import Code, Definition, assembled, launched
from taro_rt.kernels.plugin_attention import ATTENTION_DEFINITIONS
from taro_rt.kernels.rows import EPS, gate_modulate_kernel, modulate_kernel

NAMESPACE = "taro_rt"
WARPS = (1, 2, 4, 8)
"""What TensorRT tries; tactic k takes the k-th, counted from 1."""
TYPES = {"FLOAT": ("fp32", "FP32"), "HALF": ("fp16", "FP16")}
"""By TensorRT's name of a type: Triton's, and that of the plugin interface."""


@triton.jit
def modulate_entry(
    context, x, modulation, n, m, rows, n_vectors, context_shift, x_shift, context_out, x_out,
    D: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    modulate_kernel(
        context, x, modulation, context_out, x_out,
        n, m, rows, n_vectors, context_shift, x_shift, D, BLOCK, EPS,
    )  # fmt: skip


@triton.jit
def gate_modulate_entry(
    context, x, context_update, x_update, modulation,
    n, m, rows, n_vectors, context_gate, context_shift, x_gate, x_shift,
    context_sum, x_sum, context_out, x_out, D: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    gate_modulate_kernel(
        context, x, context_update, x_update, modulation, context_sum, x_sum, context_out, x_out,
        n, m, rows, n_vectors, context_gate, context_shift, x_gate, x_shift, D, BLOCK, EPS,
    )  # fmt: skip


@triton.jit
def gate_modulate_x_entry(
    x, x_update, modulation, n, m, rows, n_vectors, x_gate, x_shift, x_sum, x_out,
    D: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """For x alone: `n` is 0, so nothing of the context is touched."""
    gate_modulate_kernel(
        x, x, x_update, x_update, modulation, x_sum, x_sum, x_out, x_out,
        n, m, rows, n_vectors, x_gate, x_shift, x_gate, x_shift, D, BLOCK, EPS,
    )  # fmt: skip


ENTRIES = {
    "ModulateStreams": modulate_entry,
    "GateModulateStreams": gate_modulate_entry,
    "GateModulate": gate_modulate_x_entry,
}
"""By the operator's name in the ONNX files."""


@cache
def compiled(operator: str, kind: str, width: int, capability: tuple[int, int], warps: int) -> Code:
    """The entry of `operator` for rows of `kind` (Triton's name) as wide as `width`. Raises `ValueError`."""
    if width * (4 if kind == "fp32" else 2) % 16:
        raise ValueError(f"{operator}: expected rows of a multiple of 16 bytes, got {width} values of {kind}")
    constants = {"D": width, "BLOCK": triton.next_power_of_2(width), "EPS": EPS}
    return assembled(operator, ENTRIES[operator], kind, constants, capability, warps)


def register_plugins(capability: tuple[int, int], lazy: bool = False) -> None:
    """Make the operators known to TensorRT, compiled for a GPU of `capability` when a plan is built.

    Once in a process. `lazy` leaves TensorRT's registry alone.
    """
    if NAMESPACE in _registered:
        return
    import tensorrt.plugin as trtp

    desc = trtp.TensorDesc
    types = (trtp.KernelLaunchParams, trtp.SymExprs, trtp.AutoTuneCombination)
    for operator, define in {**DEFINITIONS, **ATTENTION_DEFINITIONS}.items():
        name = f"{NAMESPACE}::{operator}"
        describe, tune, implement = define(desc, types, capability)
        trtp.register(name, lazy_register=lazy)(describe)
        trtp.autotune(name)(tune)
        trtp.aot_impl(name)(implement)
    _registered.append(NAMESPACE)


_registered: list[str] = []


def _tuned(inputs: list[Any], n_outputs: int, combination: Any) -> list[Any]:
    """One type for all tensors, as the network has it; every number of warps."""
    kind = TYPES[inputs[0].dtype.name][1]
    tactics = list(range(1, len(WARPS) + 1))
    return [combination(", ".join([kind] * (len(inputs) + n_outputs)), "LINEAR", tactics)]


def _implemented(
    operator: str, inputs: list[Any], places: str, tactic: int, capability: tuple[int, int]
) -> tuple[str, str, Any, Any]:
    """Kernel, PTX, launch and scalars for tensors of these static shapes, the context's first if there."""
    modulation, x = inputs[-1].shape, inputs[0 if operator == "GateModulate" else 1]
    batch, m, width = x.shape
    n = 0 if operator == "GateModulate" else inputs[0].shape[1]
    code = compiled(operator, TYPES[x.dtype.name][0], width, capability, WARPS[tactic - 1])
    vectors = (int(each) for each in places.strip("\0 ").split(","))
    return launched(code, (n + m, batch), [n, m, modulation[1], modulation[2], *vectors])


def _modulate_streams(desc: Any, types: Any, capability: tuple[int, int]) -> Definition:
    launch, exprs, combination = types

    def describe(context: desc, x: desc, modulation: desc, places: str) -> tuple[desc, desc]:
        return context.like(), x.like()

    def tune(context: desc, x: desc, modulation: desc, outputs: tuple[desc, desc]) -> list[combination]:
        return _tuned([context, x, modulation], 2, combination)

    def implement(
        context: desc, x: desc, modulation: desc, places: str, outputs: tuple[desc, desc], tactic: int
    ) -> tuple[str | bytes, str | bytes, launch, exprs]:
        return _implemented("ModulateStreams", [context, x, modulation], places, tactic, capability)

    return describe, tune, implement


def _gate_modulate_streams(desc: Any, types: Any, capability: tuple[int, int]) -> Definition:
    launch, exprs, combination = types

    def describe(
        context: desc, x: desc, context_update: desc, x_update: desc, modulation: desc, places: str
    ) -> tuple[desc, desc, desc, desc]:
        return context.like(), x.like(), context.like(), x.like()

    def tune(
        context: desc, x: desc, context_update: desc, x_update: desc, modulation: desc,
        outputs: tuple[desc, desc, desc, desc],
    ) -> list[combination]:  # fmt: skip
        return _tuned([context, x, context_update, x_update, modulation], 4, combination)

    def implement(
        context: desc, x: desc, context_update: desc, x_update: desc, modulation: desc, places: str,
        outputs: tuple[desc, desc, desc, desc], tactic: int,
    ) -> tuple[str | bytes, str | bytes, launch, exprs]:  # fmt: skip
        inputs = [context, x, context_update, x_update, modulation]
        return _implemented("GateModulateStreams", inputs, places, tactic, capability)

    return describe, tune, implement


def _gate_modulate(desc: Any, types: Any, capability: tuple[int, int]) -> Definition:
    launch, exprs, combination = types

    def describe(x: desc, x_update: desc, modulation: desc, places: str) -> tuple[desc, desc]:
        return x.like(), x.like()

    def tune(x: desc, x_update: desc, modulation: desc, outputs: tuple[desc, desc]) -> list[combination]:
        return _tuned([x, x_update, modulation], 2, combination)

    def implement(
        x: desc, x_update: desc, modulation: desc, places: str, outputs: tuple[desc, desc], tactic: int
    ) -> tuple[str | bytes, str | bytes, launch, exprs]:
        return _implemented("GateModulate", [x, x_update, modulation], places, tactic, capability)

    return describe, tune, implement


DEFINITIONS: dict[str, Callable[[Any, Any, tuple[int, int]], Definition]] = {
    "ModulateStreams": _modulate_streams,
    "GateModulateStreams": _gate_modulate_streams,
    "GateModulate": _gate_modulate,
}
