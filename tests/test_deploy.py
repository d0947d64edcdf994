"""The static ONNX files that TensorRT reads: ONNX Runtime makes of the very same what the networks make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from deployed_files import STEPS, Files, expected
from onnx import TensorProto, helper

from taro_rt.engines.bundle import DEFAULT, Bundle
from taro_rt.engines.contract import Contract
from taro_rt.engines.eager import load_networks
from taro_rt.engines.stages import typical_inputs
from taro_rt.engines.static import (
    BATCHES,
)
from taro_rt.export.custom import DOMAIN, PLUGIN
from taro_rt.export.deploy import DTYPES, Precision, file_name, write_deployed
from taro_rt.export.operators import faults
from taro_rt.export.parity import LIMITS, deviation

HALF = {
    "onset": 2e-3, "visual": 2e-3, "conditioner": 2e-5, "denoiser": 3e-3, "decoder": 2e-3, "vocoder": 2e-3
}  # fmt: skip
"""Relative rms that half precision may be off; the conditioner computes in float32."""


@pytest.mark.parametrize("precision", DTYPES)
def test_onnx_runtime_computes_what_the_networks_do(static_files: Files, precision: str) -> None:
    for graph, batch in static_files.written():
        engine = static_files.engine(graph, batch, precision)
        feed = typical_inputs(engine.contract, seed=batch, t=35)
        got, want = engine(**feed), expected(static_files.networks, graph, feed)
        for name, array in zip(got, want, strict=True):
            found, scale = deviation(got[name], array), max(1.0, float(np.abs(array).max()))
            limit = HALF[graph] if precision == "float16" else LIMITS[graph].relative_rms
            assert found.relative_rms <= limit, (graph, batch, name)
            if precision == "float32":
                assert found.max_abs <= 1e-4 * scale, (graph, batch, name)


def test_files_of_two_rows_are_those_of_one_twice(frame_wise_files: Files, tmp_path: Path) -> None:
    """Nothing gives these graphs two rows today; a file for them is right all the same."""
    networks, planned = (
        frame_wise_files.networks,
        dict.fromkeys(("onset", "visual", "decoder", "vocoder"), (2,)),
    )
    write_deployed(networks, tmp_path, "float32", STEPS, planned)
    files = Files(networks, tmp_path, planned)
    for graph, batch in files.written():
        engine = files.engine(graph, batch)
        feed = typical_inputs(engine.contract, seed=3, t=35)
        found = deviation(next(iter(engine(**feed).values())), expected(networks, graph, feed)[0])
        assert found.relative_rms <= LIMITS[graph].relative_rms, graph


@pytest.fixture(scope="module")
def with_attention(static_files: Files, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The denoiser's files with attention as an operator of ours."""
    folder, planned = tmp_path_factory.mktemp("attention"), {"denoiser": BATCHES}
    for precision in DTYPES:
        write_deployed(static_files.networks, folder, precision, STEPS, planned, attention=True)  # type: ignore[arg-type]
    return Files(static_files.networks, folder, planned)


@pytest.mark.parametrize("precision", DTYPES)
def test_attention_as_an_operator_of_ours_computes_the_same(with_attention: Files, precision: str) -> None:
    for graph, batch in with_attention.written():
        model = with_attention.model(graph, batch, precision)
        names = [node.op_type for node in model.graph.node]
        depth = with_attention.networks.config.transformer.depth
        assert (names.count("AttendStreams"), names.count("Attend")) == (depth - 1, 1)
        assert "Attention" not in names and faults(model) == []
        engine = with_attention.engine(graph, batch, precision)
        feed = typical_inputs(engine.contract, seed=batch)
        found = deviation(engine(**feed)["latents_out"], expected(with_attention.networks, graph, feed)[0])
        limit = HALF[graph] if precision == "float16" else LIMITS[graph].relative_rms
        assert found.relative_rms <= limit


def test_attention_within_our_operator_is_marked_for_tensorrt_as_well(with_attention: Files) -> None:
    from taro_rt.export.tensorrt import for_parser

    content = (with_attention.folder / file_name("denoiser", 1, "float16")).read_bytes()
    model = onnx.load_from_string(for_parser(content, plugins=True))
    inner = [node for f in model.functions for node in f.node if node.op_type == "Attention"]
    assert len(inner) == 2
    assert all(helper.get_attribute_value(node.attribute[-1]) == 1 for node in inner)


def test_half_precision_is_off_by_more_than_float32(static_files: Files) -> None:
    """So the half files do compute in half precision."""
    engine = static_files.engine("denoiser", 1, "float16")
    feed = typical_inputs(engine.contract, seed=1)
    off = deviation(engine(**feed)["latents_out"], expected(static_files.networks, "denoiser", feed)[0])
    assert off.relative_rms > 1e-5


@pytest.mark.parametrize("precision", DTYPES)
def test_every_operator_is_in_tensorrts_table(static_files: Files, precision: str) -> None:
    found = {
        (graph, batch): faults(static_files.model(graph, batch, precision))
        for graph, batch in static_files.written()
    }
    assert not any(found.values()), found


def test_files_are_of_opset_23_and_static_but_for_the_frames_ahead(static_files: Files) -> None:
    for graph, batch in static_files.written():
        model = static_files.model(graph, batch, "float16")
        assert {o.domain: o.version for o in model.opset_import}[""] == 23
        free = {
            d.dim_param
            for v in (*model.graph.input, *model.graph.output)
            for d in v.type.tensor_type.shape.dim
        }
        assert free - {""} == ({"t"} if graph == "visual" else set())


def test_attention_stays_one_operator_and_adaln_is_ours(static_files: Files) -> None:
    nodes = list(static_files.model("denoiser", 2, "float16").graph.node)
    count = {name: sum(node.op_type == name for node in nodes) for name in {n.op_type for n in nodes}}
    depth = static_files.networks.config.transformer.depth
    assert count["Attention"] == depth
    assert (count["ModulateStreams"], count["GateModulateStreams"], count["GateModulate"]) == (
        1, 2 * (depth - 1), 2
    )  # fmt: skip
    assert "LayerNormalization" not in count and "Softmax" not in count


def test_our_operators_carry_what_a_plugin_is_found_by(static_files: Files) -> None:
    for node in static_files.model("denoiser", 1, "float16").graph.node:
        if node.domain != DOMAIN:
            continue
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert given["plugin_namespace"] == b"taro_rt" and given["plugin_version"] == b"1"
        assert given["aot"] == 1
        assert [int(k) for k in given["places"].split(b",")] == given["at"]


def test_half_files_hold_half_weights(static_files: Files) -> None:
    model = static_files.model("denoiser", 1, "float16")
    wide = [
        i.name for i in model.graph.initializer if i.data_type == TensorProto.FLOAT and len(i.raw_data) > 64
    ]
    assert wide == []


def test_files_tell_nothing_of_the_machine_they_were_made_on(static_files: Files) -> None:
    for path in static_files.folder.iterdir():
        content = path.read_bytes()
        assert b".py" not in content and b"/home" not in content and b"/tmp" not in content


def test_the_marked_copy_for_tensorrt_differs_in_attention_alone(static_files: Files) -> None:
    from taro_rt.export.tensorrt import for_parser

    content = (static_files.folder / file_name("denoiser", 1, "float16")).read_bytes()
    plain, marked = onnx.load_from_string(content), onnx.load_from_string(for_parser(content, plugins=True))
    for before, after in zip(plain.graph.node, marked.graph.node, strict=True):
        if before.op_type == "Attention":
            assert helper.get_attribute_value(after.attribute.pop()) == 1
        assert before == after


def test_the_copy_for_plans_without_plugins_names_none(static_files: Files) -> None:
    from taro_rt.export.tensorrt import for_parser

    content = (static_files.folder / file_name("denoiser", 1, "float16")).read_bytes()
    ours = [
        node for node in onnx.load_from_string(for_parser(content, plugins=False)).graph.node if node.domain
    ]
    named = {given.name for node in ours for given in node.attribute}
    assert ours and named and not named & set(PLUGIN)


@pytest.mark.parametrize("precision", DTYPES)
def test_the_embedded_bundles_vocoder_becomes_such_a_file_too(precision: Precision, tmp_path: Path) -> None:
    """It is a bank of oscillators; the tiny networks have the published one."""
    networks, planned = load_networks(Bundle.open(DEFAULT)), {"vocoder": (1,)}
    write_deployed(networks, tmp_path, precision, STEPS, planned)
    files = Files(networks, tmp_path, planned)
    assert not faults(files.model("vocoder", 1, precision))
    engine = files.engine("vocoder", 1, precision)
    feed = typical_inputs(engine.contract, seed=1)
    off = deviation(engine(**feed)["wave"], expected(networks, "vocoder", feed)[0]).relative_rms
    assert off <= (HALF["vocoder"] if precision == "float16" else 1e-4)


def test_a_network_that_tensorrt_would_refuse_is_not_written(static_files: Files) -> None:
    from taro_rt.engines.contract import TensorSpec
    from taro_rt.engines.errors import BuildError
    from taro_rt.export.custom import Rows
    from taro_rt.export.deploy import deployed_model

    class Determinant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.det(x)

    contract = Contract("onset", (TensorSpec("x", (1, 2, 2)),), (TensorSpec("y", (1,)),))
    with pytest.raises(BuildError, match=r"onset: TensorRT would refuse .*Det"):
        deployed_model(Determinant(), contract, Rows(1, 1, 1, 1, 1), torch.float32)


def test_the_precision_is_one_of_two() -> None:
    assert set(DTYPES) == {"float32", "float16"} == set(Precision.__args__)  # type: ignore[attr-defined]
