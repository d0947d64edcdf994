"""What TensorRT's operator table refuses is found before a file is written."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from taro_rt.export.operators import faults


def tiny_model(node: onnx.NodeProto, shape: list[int], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y"))
    return helper.make_model(
        helper.make_graph([node], "g", [x], [y]),
        opset_imports=[helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)],
    )


@pytest.mark.parametrize(
    ("node", "shape", "words"),
    [
        (helper.make_node("Det", ["x"], ["y"]), [2, 2], "not in TensorRT's operator table"),
        (helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"), [2], "of domain com.microsoft"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2]), [1, 1, 4], "2 or 3 dimensions"),
        (helper.make_node("ReduceMean", ["x", "axes"], ["y"]), [2, 2], "axes is not a constant"),
    ],
)
def test_what_tensorrt_refuses_is_found(node: onnx.NodeProto, shape: list[int], words: str) -> None:
    assert any(words in fault for fault in faults(tiny_model(node, shape)))


def test_another_opset_is_found() -> None:
    model: Any = tiny_model(helper.make_node("Relu", ["x"], ["y"]), [2])
    model.opset_import[0].version = 25
    assert "opset 25" in faults(model)[0]


def test_double_is_found() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    assert any("DOUBLE" in fault for fault in faults(tiny_model(node, [2], TensorProto.DOUBLE)))
