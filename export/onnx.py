"""One graph as an ONNX file of opset 23 whose weights lie in a safetensors file beside it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer
from torch import nn

from taro_rt.engines.contract import Contract
from taro_rt.engines.errors import BuildError
from taro_rt.export.weights import Stored

OPSET = 23


def export_graph(path: Path, module: nn.Module, contract: Contract, places: Mapping[int, Stored]) -> None:
    """Write `module` as `path`, with the names and free axes of `contract`.

    `places` tells, by the id of each parameter and stored buffer of `module`, where its values lie; files are
    looked for beside `path`. Other constants are embedded. Raises `BuildError` when PyTorch cannot export it.
    """
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    stored = {name: places[id(tensor)] for name, tensor in named if id(tensor) in places}
    model = trace(module, contract)
    graph = model.graph
    weights = [graph.initializers.pop(name) for name in stored if name in graph.initializers]
    for value in weights:  # as inputs the optimiser cannot fold them into transposed copies
        value.const_value = None
        graph.inputs.append(value)
    optimizer.optimize(model)
    del graph.inputs[len(contract.inputs) :]
    for value in weights:
        _point(graph, value, stored[str(value.name)])
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)  # it would tell the paths of the exporting machine
    graph.name = contract.graph
    ir.save(model, path)


def trace(module: nn.Module, contract: Contract) -> ir.Model:
    """`module` traced with the names and free axes of `contract`; not optimised. Raises `BuildError`."""
    letters = {n for spec in contract.inputs for n in spec.shape if isinstance(n, str)}
    dims = {letter: torch.export.Dim(letter, min=1) for letter in letters}
    shapes = {
        spec.name: {axis: dims[n] for axis, n in enumerate(spec.shape) if isinstance(n, str)}
        for spec in contract.inputs
    }
    example = contract.example(
        b=2, s=3, t=5, n=7
    )  # sizes that differ and are not 1: none is taken for a constant
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                (),
                kwargs={name: torch.from_numpy(array) for name, array in example.items()},
                input_names=[spec.name for spec in contract.inputs],
                output_names=[spec.name for spec in contract.outputs],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=shapes,
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            why = " ".join(str(error).split())
            raise BuildError(
                f"{contract.graph}: PyTorch {torch.__version__} cannot export it: {why}"
            ) from error
    if program is None:
        raise BuildError(f"{contract.graph}: PyTorch {torch.__version__} exported nothing")
    return program.model


def _point(graph: ir.Graph, value: ir.Value, place: Stored) -> None:
    """Make `value` an initializer with external data, widened to float32 where it is stored as half."""
    if value.shape is None or value.name is None:
        raise BuildError(f"{graph.name}: the exporter gave a weight without name or shape")
    name, shape = value.name, value.shape
    if place.half:
        value.name = f"{name}.float32"
        half = ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.FLOAT16))
        cast = ir.node("Cast", [half], attributes={"to": ir.DataType.FLOAT}, outputs=[value])
        graph.insert_before(graph[0], cast)
        value = half
    dtype = ir.DataType.FLOAT16 if place.half else ir.DataType.FLOAT
    value.const_value = ir.ExternalTensor(
        place.file, place.offset, place.length, dtype, shape=shape, name=name
    )
    graph.initializers[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own deprecations and of packages that these networks do not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
