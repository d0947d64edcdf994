"""Which ONNX operators TensorRT's parser takes, and in which floating-point types.

From the operator table published with its parser for TensorRT 10.15 (opset 9 to 24); 11.0 takes what is used
here all the same. Only operators with at least one floating-point or boolean type are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

OPSETS = range(9, 25)
_ALL_FLOATS = """
Abs Acos Acosh Add ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization Cast CastLike
Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace Div Dropout
Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GroupNormalization GRU HardSigmoid
HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual
Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod
Mul Neg OneHot Pad Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike
Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RMSNormalization RNN RotaryEmbedding Round Scan
Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu
Unsqueeze Upsample Where
"""
_NO_BFLOAT16 = (
    "BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression NonZero RoiAlign"
)
TYPES: dict[str, frozenset[str]] = {
    **dict.fromkeys(_ALL_FLOATS.split(), frozenset({"FLOAT", "FLOAT16", "BFLOAT16"})),
    **dict.fromkeys(_NO_BFLOAT16.split(), frozenset({"FLOAT", "FLOAT16"})),
    "STFT": frozenset({"FLOAT"}),
    **dict.fromkeys(("And", "Not", "Or", "Xor"), frozenset[str]()),
}
"""Floating-point types by operator of the domain ai.onnx."""
POOLS = {"AveragePool", "MaxPool", "LpPool"}
CONSTANT_INPUT = {
    **{name: 1 for name in TYPES if name.startswith("Reduce")},
    "CumSum": 1, "Squeeze": 1, "Unsqueeze": 1, "OneHot": 1, "TopK": 1,
}  # fmt: skip
"""The input that must be known when a plan is built."""


def faults(model: onnx.ModelProto) -> list[str]:
    """What TensorRT would refuse in `model`, function bodies included; empty if nothing."""
    known = {(f.domain, f.name) for f in model.functions}
    versions = {each.domain: each.version for each in model.opset_import}
    found = (
        []
        if versions.get("") in OPSETS
        else [f"opset {versions.get('')}: expected {OPSETS[0]} to {OPSETS[-1]}"]
    )
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    values = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    types = {v.name: v.type.tensor_type for v in values}
    constants = {i.name for i in model.graph.initializer}
    constants |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    found += _of_nodes(model.graph.node, known, types, constants)
    for function in model.functions:
        inner = {n.output[0] for n in function.node if n.op_type == "Constant"}
        found += _of_nodes(function.node, set(), {}, inner)
    return found


def _of_nodes(
    nodes: Iterable[onnx.NodeProto],
    functions: set[tuple[str, str]],
    types: dict[str, onnx.TypeProto.Tensor],
    constants: set[str],
) -> Iterator[str]:
    for node in nodes:
        where = f"{node.op_type} {node.name or node.output[0]}"
        if node.domain:
            if (node.domain, node.op_type) not in functions:
                yield f"{where}: of domain {node.domain}, without a function body"
            continue
        if node.op_type not in TYPES:
            yield f"{where}: not in TensorRT's operator table"
            continue
        for name in {*node.input, *node.output} & set(types):
            kind = onnx.TensorProto.DataType.Name(types[name].elem_type)
            if "FLOAT" in kind and kind not in TYPES[node.op_type]:
                yield f"{where}: {name} is {kind}"
            if kind == "DOUBLE":
                yield f"{where}: {name} is {kind}, which TensorRT narrows"
        yield from _limits(node, where, types, constants)


def _limits(
    node: onnx.NodeProto, where: str, types: dict[str, onnx.TypeProto.Tensor], constants: set[str]
) -> Iterator[str]:
    """What the table restricts beyond types, as far as our networks could meet it."""
    given = [a for a in node.attribute if not a.ref_attr_name]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in given}
    place = CONSTANT_INPUT.get(node.op_type)
    if place is not None and place < len(node.input) and node.input[place] not in constants:
        yield f"{where}: {node.input[place]} is not a constant"
    rank = len(types[node.input[0]].shape.dim) if node.input and node.input[0] in types else None
    if node.op_type in POOLS and (rank not in (4, 5, None) or len(node.output) > 1):
        yield f"{where}: expected pooling over 2 or 3 dimensions with one output, got rank {rank}"
    if node.op_type in POOLS and any(d != 1 for d in attributes.get("dilations", ())):
        yield f"{where}: a pool with dilation"
    if node.op_type == "LayerNormalization" and len([o for o in node.output if o]) > 1:
        yield f"{where}: expected one output"
    if node.op_type == "Attention" and (rank not in (4, None) or len(node.input) > 4 or len(node.output) > 1):
        yield f"{where}: expected 4-D queries, keys and values alone, got rank {rank}"
    if node.op_type == "Resize" and attributes.get("antialias"):
        yield f"{where}: antialiasing"
    if node.op_type == "ScatterND" and attributes.get("reduction", b"none") != b"none":
        yield f"{where}: a reduction"
