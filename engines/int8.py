"""The denoiser's linear layers in 8 bits, for processors without bfloat16: fast, and not the same sound.

Weights are rounded once, symmetrically, with a scale for every output; activations at every call, with one
scale for the whole tensor. Attention, norms, the patch embedding and the last linear stay float32.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.cache import VARIABLE, cache_folder
from taro_rt.engines.contract import Array
from taro_rt.engines.errors import BackendUnavailable, BuildError
from taro_rt.engines.machine import adds_bytes_exactly

DOMAIN, OPERATOR = "com.microsoft", "DynamicQuantizeMatMul"
"""Rounds its first input, multiplies in integers, scales the product: one operator of ONNX Runtime."""
NAME = "denoiser.int8.1.onnx"
"""The number changes with the way of rounding: what an older one kept is not read."""


@contextmanager
def quantised(bundle: Bundle) -> Iterator[Path]:
    """The bundle's denoiser with 8-bit linear layers, as a graph that can be read meanwhile.

    Made once and kept in the user's cache; where that is off it is made anew. Raises `BackendUnavailable`
    without the `onnx` package, `BuildError` where it cannot be written.
    """
    bits = 8 if adds_bytes_exactly() else 7
    kept = cache_folder(f"int{bits}", bundle)
    if kept and (kept / NAME).exists():
        try:
            yield kept / NAME
        except BuildError:  # damaged: made anew next time
            (kept / NAME).unlink(missing_ok=True)
            raise
        return
    if not find_spec("onnx"):
        raise BackendUnavailable("precision int8 needs onnx to be made: pip install 'taro-rt[int8]'")
    with TemporaryDirectory(prefix="taro-int8-") as folder:
        made = Path(folder) / NAME
        try:
            write(bundle.graph("denoiser"), made, bits)
            if kept:
                _keep(made, kept / NAME)
        except OSError as error:
            raise BuildError(
                f"precision int8: its graph cannot be written ({error.strerror}); free some space, or set "
                f"{VARIABLE}=off"
            ) from error
        yield made


def _keep(made: Path, target: Path) -> None:
    """Move it whole: another process that makes the same meanwhile does no harm."""
    part = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        shutil.copyfile(made, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write(source: Path, target: Path, bits: int = 8) -> int:
    """Write the graph `source` to `target`, all but its last linear layer in 8 bits; how many that are.

    Weights of 7 `bits` leave room for sums of two products in 16 bits.
    """
    import onnx

    model = onnx.load(source)
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    linears = [
        (node, weight)
        for node in graph.node
        if node.op_type == "MatMul" and (weight := _constant(node.input[1], made_by, constants)) is not None
    ][:-1]
    for node, weight in linears:
        rounded, scale = round_columns(weight, bits)
        names = [f"{node.output[0]}.{part}" for part in ("rounded", "scale")]
        graph.initializer.append(onnx.numpy_helper.from_array(rounded, names[0]))
        graph.initializer.append(onnx.numpy_helper.from_array(scale, names[1]))
        node.op_type, node.domain = OPERATOR, DOMAIN
        node.input[1] = names[0]
        node.input.append(names[1])
    _drop_unused(graph)
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, target)
    return len(linears)


def round_columns(weight: Array, bits: int = 8) -> tuple[Any, Array]:
    """int8 values [k, n] and the scale of every column [n]: weight is about values times scale."""
    scale = np.maximum(np.abs(weight).max(0), 1e-12) / (2 ** (bits - 1) - 1)
    return np.round(weight / scale).astype(np.int8), scale.astype(np.float32)


def _constant(name: str, made_by: dict[str, Any], constants: dict[str, Any]) -> Array | None:
    """The matrix behind a weight's name: stored in half precision, then cast, cut and transposed."""
    import onnx

    if name in constants:
        stored = np.asarray(onnx.numpy_helper.to_array(constants[name]), np.float32)
        return stored if stored.ndim == 2 else None
    node = made_by.get(name)
    if node is None or node.op_type not in ("Cast", "Transpose", "Slice"):
        return None
    array = _constant(node.input[0], made_by, constants)
    if array is None or node.op_type == "Cast":
        return array
    if node.op_type == "Transpose":
        return array.T
    start, end, axis, step = (
        int(onnx.numpy_helper.to_array(constants[each]).item()) if each in constants else None
        for each in (*node.input[1:], "")[:4]
    )
    if start is None or end is None:
        return None
    return array[(slice(None),) * (axis or 0) + (slice(start, end, step),)]


def _drop_unused(graph: Any) -> None:
    """Leave out what no output needs any more."""
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):  # in order of use
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(constants)
