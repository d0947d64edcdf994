"""Self-contained ONNX files of opset 23 and static shapes, which TensorRT and ONNX Runtime both read.

ONNX Runtime is what makes their numbers certain: it runs our operators' function bodies from the same file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer
from torch import nn

from taro_rt.engines.contract import Contract
from taro_rt.engines.errors import BuildError
from taro_rt.engines.nets.networks import Networks
from taro_rt.engines.static import PLANNED, static_contracts
from taro_rt.export.custom import DOMAIN, VERSION, Rows, functions
from taro_rt.export.deployed import deployed
from taro_rt.export.onnx import trace
from taro_rt.export.operators import faults

Precision = Literal["float32", "float16"]
DTYPES = {"float32": torch.float32, "float16": torch.float16}
FOLDED = 1 << 28
"""Bytes up to which a constant is made when the file is, such as a weight the other way round."""


def file_name(graph: str, batch: int, precision: str) -> str:
    """What the file of a graph is called."""
    return f"{graph}.b{batch}.{precision}.onnx"


def deployed_models(
    networks: Networks,
    precision: Precision,
    steps: int,
    planned: Mapping[str, tuple[int, ...]] = PLANNED,
    attention: bool = False,
) -> Iterator[tuple[str, int, onnx.ModelProto]]:
    """Graph, batch and model of all that is `planned`, one after the other; `attention` as for `deployed`.

    Raises `BuildError` for one that cannot be exported or that TensorRT would refuse.
    """
    dtype, geometry = DTYPES[precision], networks.config.geometry()
    n_x = networks.transformer.pos_embed.shape[1]
    heads = networks.config.transformer.heads
    rows = Rows(geometry.visual_frames, n_x, geometry.time_positions, geometry.width, heads)
    for graph, batches in planned.items():
        module = deployed(
            networks, graph, dtype, attention
        )  # one at a time: those of large bundles fill the memory
        for batch in batches:
            contract = static_contracts(geometry, steps, batch)[graph]
            yield graph, batch, deployed_model(module, contract, rows, dtype)


def deployed_model(module: nn.Module, contract: Contract, rows: Rows, dtype: torch.dtype) -> onnx.ModelProto:
    """`module` with the names and sizes of `contract`, checked against TensorRT's operator table."""
    model = trace(module, contract)
    optimizer.optimize(model, input_size_limit=FOLDED, output_size_limit=FOLDED)
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)  # it would tell the paths of the exporting machine
    model.graph.name = contract.graph
    made = ir.to_proto(model)
    if any(node.domain == DOMAIN for node in made.graph.node):
        made.functions.extend(functions(rows, dtype))
        used = {node.op_type for node in made.graph.node}
        for function in [f for f in made.functions if f.name not in used]:
            made.functions.remove(function)
        kept = [each for each in made.opset_import if each.domain != DOMAIN]
        del made.opset_import[:]
        made.opset_import.extend([*kept, onnx.helper.make_opsetid(DOMAIN, VERSION)])
    onnx.checker.check_model(made)
    if wrong := faults(made):
        raise BuildError(
            f"{contract.graph}: TensorRT would refuse {len(wrong)} things: {'; '.join(wrong[:5])}"
        )
    return made


def write_deployed(
    networks: Networks,
    folder: Path,
    precision: Precision,
    steps: int,
    planned: Mapping[str, tuple[int, ...]] = PLANNED,
    attention: bool = False,
) -> list[Path]:
    """Write the files of all that is `planned` into `folder`, which must exist."""
    written = []
    for graph, batch, model in deployed_models(networks, precision, steps, planned, attention):
        path = folder / file_name(graph, batch, precision)
        path.write_bytes(model.SerializeToString(deterministic=True))
        written.append(path)
    return written
