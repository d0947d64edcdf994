"""The static ONNX files that TensorRT reads: ONNX Runtime makes of the very same what the networks make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from deployed_files import STEPS, Files, write_files
from make_tiny_bundle import GLOBAL, tiny_config
from onnx import TensorProto, helper

from taro_rt.engines.bundle import DEFAULT, Bundle
from taro_rt.engines.contract import Array, Contract
from taro_rt.engines.eager import load_networks
from taro_rt.engines.errors import ContractError, EngineError
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.nets.networks import Networks
from taro_rt.engines.stages import typical_inputs
from taro_rt.engines.static import (
    BATCHES,
    STRIDE,
    ConditionerEngine,
    RowEngine,
    coefficients,
    filled,
    mixing,
    onset_tensor,
    pieces,
    visual_tensor,
)
from taro_rt.engines.window import Step
from taro_rt.export.custom import DOMAIN, PLUGIN
from taro_rt.export.deploy import DTYPES, Precision, file_name, write_deployed
from taro_rt.export.operators import faults
from taro_rt.export.parity import LIMITS, deviation
from taro_rt.runtime.sampler import guide, linear_steps, sample, time_grid

HALF = {
    "onset": 2e-3, "visual": 2e-3, "conditioner": 2e-5, "denoiser": 3e-3, "decoder": 2e-3, "vocoder": 2e-3
}  # fmt: skip
"""Relative rms that half precision may be off; the conditioner computes in float32."""


@pytest.fixture(scope="module", params=["frame-wise", "global"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    if request.param == "frame-wise":
        found: Files = request.getfixturevalue("frame_wise_files")
        return found
    transformer = {"conditioner": (1,), "denoiser": BATCHES}  # of the global form only this is another
    return write_files(GLOBAL, tmp_path_factory.mktemp("global"), transformer)


def expected(networks: Networks, graph: str, feed: dict[str, Array]) -> list[Array]:
    """What the plain networks make of it; of the denoiser, guidance and step in NumPy."""
    given = {name: torch.from_numpy(array) for name, array in feed.items()}
    with torch.inference_mode():
        if graph != "denoiser":
            made = networks.graphs()[graph](**given)
            return [part.numpy() for part in (made if isinstance(made, tuple) else (made,))]
        names = ("latents", "tokens", "modulation")
        v = networks.graphs()[graph](**{name: given[name] for name in names}).numpy()
    keep, push, spread = feed["update"]
    mixed = np.einsum("ij,jchw->ichw", feed["mix"], v)
    return [keep * feed["latents"] + push * mixed + spread * feed["noise"]]


@pytest.mark.parametrize("precision", DTYPES)
def test_onnx_runtime_computes_what_the_networks_do(files: Files, precision: str) -> None:
    for graph, batch in files.written():
        engine = files.engine(graph, batch, precision)
        feed = typical_inputs(engine.contract, seed=batch, t=35)
        got, want = engine(**feed), expected(files.networks, graph, feed)
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
def with_attention(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The denoiser's files with attention as an operator of ours."""
    folder, planned = tmp_path_factory.mktemp("attention"), {"denoiser": BATCHES}
    for precision in DTYPES:
        write_deployed(files.networks, folder, precision, STEPS, planned, attention=True)  # type: ignore[arg-type]
    return Files(files.networks, folder, planned)


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


def test_half_precision_is_off_by_more_than_float32(files: Files) -> None:
    """So the half files do compute in half precision."""
    engine = files.engine("denoiser", 1, "float16")
    feed = typical_inputs(engine.contract, seed=1)
    off = deviation(engine(**feed)["latents_out"], expected(files.networks, "denoiser", feed)[0])
    assert off.relative_rms > 1e-5


@pytest.mark.parametrize("precision", DTYPES)
def test_every_operator_is_in_tensorrts_table(files: Files, precision: str) -> None:
    found = {(graph, batch): faults(files.model(graph, batch, precision)) for graph, batch in files.written()}
    assert not any(found.values()), found


def test_files_are_of_opset_23_and_static_but_for_the_frames_ahead(files: Files) -> None:
    for graph, batch in files.written():
        model = files.model(graph, batch, "float16")
        assert {o.domain: o.version for o in model.opset_import}[""] == 23
        free = {
            d.dim_param
            for v in (*model.graph.input, *model.graph.output)
            for d in v.type.tensor_type.shape.dim
        }
        assert free - {""} == ({"t"} if graph == "visual" else set())


def test_attention_stays_one_operator_and_adaln_is_ours(files: Files) -> None:
    nodes = list(files.model("denoiser", 2, "float16").graph.node)
    count = {name: sum(node.op_type == name for node in nodes) for name in {n.op_type for n in nodes}}
    depth = files.networks.config.transformer.depth
    assert count["Attention"] == depth
    assert (count["ModulateStreams"], count["GateModulateStreams"], count["GateModulate"]) == (
        1, 2 * (depth - 1), 2
    )  # fmt: skip
    assert "LayerNormalization" not in count and "Softmax" not in count


def test_our_operators_carry_what_a_plugin_is_found_by(files: Files) -> None:
    for node in files.model("denoiser", 1, "float16").graph.node:
        if node.domain != DOMAIN:
            continue
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert given["plugin_namespace"] == b"taro_rt" and given["plugin_version"] == b"1"
        assert given["aot"] == 1
        assert [int(k) for k in given["places"].split(b",")] == given["at"]


def test_half_files_hold_half_weights(files: Files) -> None:
    model = files.model("denoiser", 1, "float16")
    wide = [
        i.name for i in model.graph.initializer if i.data_type == TensorProto.FLOAT and len(i.raw_data) > 64
    ]
    assert wide == []


def test_files_tell_nothing_of_the_machine_they_were_made_on(files: Files) -> None:
    for path in files.folder.iterdir():
        content = path.read_bytes()
        assert b".py" not in content and b"/home" not in content and b"/tmp" not in content


def test_the_marked_copy_for_tensorrt_differs_in_attention_alone(files: Files) -> None:
    from taro_rt.export.tensorrt import for_parser

    content = (files.folder / file_name("denoiser", 1, "float16")).read_bytes()
    plain, marked = onnx.load_from_string(content), onnx.load_from_string(for_parser(content, plugins=True))
    for before, after in zip(plain.graph.node, marked.graph.node, strict=True):
        if before.op_type == "Attention":
            assert helper.get_attribute_value(after.attribute.pop()) == 1
        assert before == after


def test_the_copy_for_plans_without_plugins_names_none(files: Files) -> None:
    from taro_rt.export.tensorrt import for_parser

    content = (files.folder / file_name("denoiser", 1, "float16")).read_bytes()
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


def row_engine(files: Files, graph: str, contract: Contract, batches: tuple[int, ...]) -> RowEngine:
    return RowEngine(contract, {batch: files.engine(graph, batch) for batch in batches})


@pytest.fixture(scope="module")
def contracts(files: Files) -> dict[str, Contract]:
    from taro_rt.engines import stages

    return stages.contracts(files.networks.config.geometry())


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_any_number_of_rows_is_cut_to_the_batches_there_are(
    files: Files, contracts: dict[str, Contract], rows: int
) -> None:
    engine = row_engine(files, "denoiser", contracts["denoiser"], BATCHES)
    feed = typical_inputs(
        engine.contract, seed=rows, b=rows, n=files.networks.config.geometry().visual_frames
    )
    with torch.inference_mode():
        want = files.networks.graphs()["denoiser"](
            **{n: torch.from_numpy(a) for n, a in feed.items()}
        ).numpy()
    assert deviation(engine(**feed)["velocity"], want).max_abs < 1e-4 * float(np.abs(want).max())


@pytest.mark.parametrize("times", [1, 2, 5])
def test_any_number_of_times_is_conditioned_in_pieces(
    files: Files, contracts: dict[str, Contract], times: int
) -> None:
    engine = ConditionerEngine(contracts["conditioner"], files.engine("conditioner", 1))
    n = files.networks.config.geometry().visual_frames
    feed = typical_inputs(engine.contract, seed=times, b=2, s=times, n=n)
    want = expected(files.networks, "conditioner", feed)
    for (name, got), array in zip(engine(**feed).items(), want, strict=True):
        assert deviation(got, array).max_abs < 1e-4, name


def test_context_of_another_length_is_refused_by_name(files: Files, contracts: dict[str, Contract]) -> None:
    if files.networks.config.transformer.time_positions > 1:
        pytest.skip("the frame-wise form takes one length only")
    engine = row_engine(files, "denoiser", contracts["denoiser"], (1,))
    with pytest.raises(ContractError, match=r"denoiser: expected tokens\[1, 32"):
        engine(**typical_inputs(engine.contract, seed=0, b=1, n=7))


@pytest.mark.parametrize("method", ["sde", "ode", "dpm++"])
def test_a_chain_of_plans_is_the_sampler(files: Files, method: str) -> None:
    """As the window of TensorRT plans chains them."""
    from taro_rt.engines.bundle import SamplerDefaults

    settings = SamplerDefaults(steps=4, guidance=3.0, method=method)  # type: ignore[arg-type]
    times = time_grid(method, 4)
    steps = linear_steps(settings, times)
    assert steps is not None and {step.guided for step in steps} == {True, False}
    plans = {batch: files.engine("denoiser", batch) for batch in BATCHES}
    contract = plans[1].contract
    drawn = typical_inputs(contract, seed=3)
    tokens = drawn["tokens"]
    modulation = [typical_inputs(contract, seed=10 + i)["modulation"] for i in range(4)]
    null = [typical_inputs(contract, seed=20 + i)["modulation"] for i in range(4)]
    noise = [typical_inputs(contract, seed=30 + i)["noise"] for i in range(4)]
    numbers, state = coefficients(steps), drawn["latents"]
    for i, step in enumerate(steps):
        rows = 2 if step.guided else 1
        made = plans[rows](
            latents=np.repeat(state, rows, 0), noise=np.repeat(noise[i], rows, 0), update=numbers[i, :3],
            tokens=np.concatenate([tokens, np.zeros_like(tokens)])[:rows],
            modulation=np.concatenate([modulation[i], null[i]])[:rows], mix=mixing(steps, rows),
        )  # fmt: skip
        state = made["latents_out"][:1]

    def velocity(latents: Array, t: float, guided: bool) -> Array:
        i = int(np.argmin(np.abs(times[:-1] - np.float32(t))))
        of = lambda c, m: run(files.networks.transformer, latents, c, m)  # noqa: E731
        v = of(tokens, modulation[i])
        return guide(v, of(np.zeros_like(tokens), null[i]), 3.0) if guided else v

    want = sample(velocity, drawn["latents"], lambda i: noise[i], settings, times)
    assert deviation(state, want).relative_rms < 2e-5


def run(net: MMDiT, *inputs: Array) -> Array:
    with torch.inference_mode():
        made: Array = net.velocity(*(torch.from_numpy(array) for array in inputs)).numpy()
        return made


def test_one_scale_of_guidance_per_loop() -> None:
    step = Step(0.5, 1.0, 1.0, 0.0, guidance=3.0)
    assert mixing((step, replace(step, guidance=1.0)), 2).tolist() == [[3.0, -2.0], [3.0, -2.0]]
    with pytest.raises(EngineError, match="one guidance scale"):
        mixing((step, replace(step, guidance=4.0)), 2)


def test_coefficients_of_a_step_begin_where_a_copy_is_fast() -> None:
    made = coefficients((Step(1.0, 2.0, 3.0, 4.0),) * 2)
    assert made.shape == (2, STRIDE) and made[1, :4].tolist() == [2.0, 3.0, 4.0, 0.0]


def test_pieces_and_times_are_all_there() -> None:
    assert list(pieces(5, (2, 1))) == [(0, 2), (2, 2), (4, 1)]
    parts = filled(np.arange(7, dtype=np.float32), 5)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3, 4], [5, 6, 6, 6, 6]]


def test_pixels_become_what_the_pipeline_feeds() -> None:
    from taro_rt.runtime.prepare import onset_input, visual_input

    geometry = tiny_config().geometry()
    rng = np.random.default_rng(0)
    side, crop = geometry.onset_resize, geometry.onset_crop
    frames = rng.integers(0, 256, (30, side, side, 3), np.uint8)
    edge = (side - crop) // 2
    inner = frames[:, edge : edge + crop, edge : edge + crop]
    assert np.array_equal(onset_tensor(inner), onset_input(frames, 0, geometry))
    seen = rng.integers(0, 256, (40, geometry.visual_size, geometry.visual_size, 3), np.uint8)
    assert np.array_equal(visual_tensor(seen), visual_input(seen, 0, geometry))


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


def test_a_network_that_tensorrt_would_refuse_is_not_written(files: Files) -> None:
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
