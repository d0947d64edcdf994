"""Our operators in an ONNX file: TensorRT finds plugins of their names, others run the function body.

A body is ordinary ONNX in the file itself; vectors and sizes are constants there, since shapes are static.
The arithmetic is that of `kernels.rows`: float32 within, whatever comes in.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import torch
from torch import Tensor

from taro_rt.engines.nets.blocks import EPS

DOMAIN, VERSION, OPSET = "taro_rt", 1, 23
PLUGIN: dict[str, int | str] = {"plugin_namespace": DOMAIN, "plugin_version": "1", "aot": 1}
"""What TensorRT's parser looks for a plugin by; `aot` asks for one that carries its compiled kernel. A plugin
reads `places`, a function body `at`: the same numbers, as text and as integers."""
TYPES = {torch.float32: onnx.TensorProto.FLOAT, torch.float16: onnx.TensorProto.FLOAT16}


@dataclass(frozen=True)
class Rows:
    """Sizes that the bodies of one file share: context tokens, x's tokens, modulation rows, width, heads."""

    context: int
    x: int
    modulation: int
    width: int
    heads: int


def modulate_streams(context: Tensor, x: Tensor, modulation: Tensor, at: list[int]) -> tuple[Tensor, Tensor]:
    """A `ModulateStreams` node; `at` is the shift of context and of x, the scale follows each."""
    return _node("ModulateStreams", [context, x, modulation], [context, x], at)  # type: ignore[return-value]


def gate_modulate_streams(
    streams: list[Tensor], modulation: Tensor, at: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A `GateModulateStreams` node for context, x and their updates; `at` is gate and shift of each."""
    like = [streams[0], streams[1]] * 2
    return _node("GateModulateStreams", [*streams, modulation], like, at)  # type: ignore[return-value]


def gate_modulate(x: Tensor, update: Tensor, modulation: Tensor, at: list[int]) -> tuple[Tensor, Tensor]:
    """A `GateModulate` node for x alone."""
    return _node("GateModulate", [x, update, modulation], [x, x], at)  # type: ignore[return-value]


def attend_streams(context: Tensor, x: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """An `AttendStreams` node: joint attention of projections [b, n, 3 d] and [b, m, 3 d] (spec B4)."""
    like = [stream[..., : stream.shape[2] // 3] for stream in (context, x)]
    return _node("AttendStreams", [context, x], like, [heads])  # type: ignore[return-value]


def attend(context: Tensor, x: Tensor, heads: int) -> Tensor:
    """An `Attend` node: the same for x's queries alone, `context` [b, n, 2 d] keys and values."""
    return _node("Attend", [context, x], [x[..., : x.shape[2] // 3]], [heads])[0]


def _node(name: str, inputs: list[Tensor], like: list[Tensor], at: list[int]) -> tuple[Tensor, ...]:
    made = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{name}",
        inputs,
        {"at": at, "places": ", ".join(map(str, at)), **PLUGIN},
        dtypes=[tensor.dtype for tensor in like],
        shapes=[tensor.shape for tensor in like],
        version=VERSION,
    )
    return tuple(made)


def functions(rows: Rows, dtype: torch.dtype) -> list[onnx.FunctionProto]:
    """The bodies of all operators for tensors of `dtype`."""
    both, one = ["context", "x"], ["x"]
    return [
        _function("ModulateStreams", both, rows, dtype, gated=False),
        _function("GateModulateStreams", both, rows, dtype, gated=True),
        _function("GateModulate", one, rows, dtype, gated=True),
        _attention("AttendStreams", rows),
        _attention("Attend", rows),
    ]


def _attention(name: str, rows: Rows) -> onnx.FunctionProto:
    """Queries of both streams or of x alone, keys and values of both; heads are those of the file."""
    both = name == "AttendStreams"
    q = "Concat <axis = 1> (context_q, x_q)" if both else "Identity (x_q)"
    lines = [
        f"{'context_q, ' if both else ''}context_k, context_v = "
        f"Split <axis = 2, num_outputs = {3 if both else 2}> (context)",
        "x_q, x_k, x_v = Split <axis = 2, num_outputs = 3> (x)",
        f"q = {q}",
        "k = Concat <axis = 1> (context_k, x_k)",
        "v = Concat <axis = 1> (context_v, x_v)",
        f"cut = Constant <value_ints = [0, 0, {rows.heads}, {rows.width // rows.heads}]> ()",
        "joined = Constant <value_ints = [0, 0, -1]> ()",
    ]
    for each in "qkv":
        lines += [f"{each}_cut = Reshape ({each}, cut)"]
        lines += [f"{each}_heads = Transpose <perm = [0, 2, 1, 3]> ({each}_cut)"]
    lines += [
        "attended = Attention (q_heads, k_heads, v_heads)",
        "turned = Transpose <perm = [0, 2, 1, 3]> (attended)",
    ]
    if both:
        lines += [
            "whole = Reshape (turned, joined)",
            f"sizes = Constant <value_ints = [{rows.context}, {rows.x}]> ()",
            "context_out, x_out = Split <axis = 1> (whole, sizes)",
        ]
    else:
        lines += ["x_out = Reshape (turned, joined)"]
    return _parsed(name, ["context", "x"], ["context_out", "x_out"] if both else ["x_out"], lines)


def _parsed(name: str, inputs: list[str], outputs: list[str], lines: list[str]) -> onnx.FunctionProto:
    """A function from ONNX's own text form."""
    body = "\n".join(f"  {line}" for line in lines)
    return onnx.parser.parse_function(
        f'<opset_import: ["" : {OPSET}], domain: "{DOMAIN}">\n'
        f"{name} <at> ({', '.join(inputs)}) => ({', '.join(outputs)}) {{\n{body}\n}}"
    )


def _function(
    name: str, streams: list[str], rows: Rows, dtype: torch.dtype, gated: bool
) -> onnx.FunctionProto:
    """With gates the vectors are gate, shift for each stream, else shift alone."""
    inputs = [*streams, *(f"{s}_update" for s in streams if gated), "modulation"]
    outputs = [*(f"{s}_sum" for s in streams if gated), *(f"{s}_out" for s in streams)]
    lines = [
        "at = Constant <value_ints: ints = @at> ()",
        "one = Constant <value_int = 1> ()",
        "after = Add (at, one)",
        "whole = Cast <to = 1> (modulation)",
        "first = Gather <axis = 2> (whole, at)",
        "next = Gather <axis = 2> (whole, after)",
        f"width = Constant <value_ints = [{rows.width}]> ()",
        "ones = ConstantOfShape <value = float[1] {1}> (width)",
        "unit = Constant <value_float = 1.0> ()",
    ]
    for k, stream in enumerate(streams):
        n = rows.context if stream == "context" else rows.x
        lines += _stream(stream, k * 2 if gated else k, n, rows.modulation, TYPES[dtype], gated)
    return _parsed(name, inputs, outputs, lines)


def _stream(s: str, k: int, n: int, n_rows: int, dtype: int, gated: bool) -> list[str]:
    """One stream, its vectors from the k-th on."""
    lines = [f"{s}_wide = Cast <to = 1> ({s})"]
    if gated:
        lines += [
            *_vector(f"{s}_gate", "first", k, n, n_rows),
            f"{s}_update_wide = Cast <to = 1> ({s}_update)",
            f"{s}_gated = Mul ({s}_gate, {s}_update_wide)",
            f"{s}_total = Add ({s}_wide, {s}_gated)",
            f"{s}_sum = Cast <to = {dtype}> ({s}_total)",
        ]
    else:
        lines.append(f"{s}_total = Identity ({s}_wide)")
    k += gated
    return [
        *lines,
        *_vector(f"{s}_shift", "first", k, n, n_rows),
        *_vector(f"{s}_scale", "next", k, n, n_rows),
        f"{s}_normed = LayerNormalization <axis = -1, epsilon = {EPS:.7f}> ({s}_total, ones)",
        f"{s}_factor = Add ({s}_scale, unit)",
        f"{s}_scaled = Mul ({s}_normed, {s}_factor)",
        f"{s}_made = Add ({s}_scaled, {s}_shift)",
        f"{s}_out = Cast <to = {dtype}> ({s}_made)",
    ]


def _vector(name: str, vectors: str, k: int, n: int, n_rows: int) -> list[str]:
    """The k-th of `vectors` [b, rows, vectors, d] for n tokens in time order, [b, n or 1, d]."""
    lines = [f"{name}_k = Constant <value_int = {k}> ()"]
    picked = f"Gather <axis = 2> ({vectors}, {name}_k)"
    if n_rows == 1:
        return [*lines, f"{name} = {picked}"]
    places = ", ".join(str(i * n_rows // n) for i in range(n))
    return [
        *lines,
        f"{name}_rows = {picked}",
        f"{name}_at = Constant <value_ints = [{places}]> ()",
        f"{name} = Gather <axis = 1> ({name}_rows, {name}_at)",
    ]
