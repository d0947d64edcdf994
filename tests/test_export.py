"""Export: graphs that compute what the networks do, weights stored once, and nothing written that fails."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from make_tiny_bundle import GLOBAL, make_tiny_bundle, tiny_config, tiny_networks
from onnx.external_data_helper import ExternalDataInfo
from safetensors.numpy import load_file

from taro_rt.engines.backends import Engines, load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.eager import EagerEngine
from taro_rt.engines.errors import BuildError, BundleError
from taro_rt.engines.nets.networks import WEIGHTS_OF
from taro_rt.engines.nets.vae import Vae
from taro_rt.engines.ort import OrtEngine
from taro_rt.engines.stages import GRAPHS, contracts, typical_inputs
from taro_rt.export.onnx import export_graph
from taro_rt.export.package import export_bundle, inference_form, put_in_place, renew_graphs
from taro_rt.export.parity import BATCHES, LIMITS, SIZES, compare, deviation, measure
from taro_rt.export.weights import Storage, write_weights


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def backends(bundle: Bundle) -> tuple[Engines, Engines]:
    return load_engines(bundle, "onnxruntime", threads=1), load_engines(bundle, "eager", threads=1)


def initializers(bundle: Bundle, graph: str) -> Iterator[onnx.TensorProto]:
    yield from onnx.load(bundle.graph(graph), load_external_data=False).graph.initializer


def write_graph(
    folder: Path, graph: str, transformer: bool = False, storage: Storage = "float32"
) -> tuple[OrtEngine, EagerEngine]:
    """One graph of the tiny networks, without a bundle around it: in both backends."""
    networks = inference_form(tiny_networks(tiny_config(GLOBAL) if transformer else tiny_config()), storage)
    net = networks.by_name()[WEIGHTS_OF[graph]]
    stored = write_weights(folder / f"{WEIGHTS_OF[graph]}.safetensors", net, storage)
    live = net.state_dict(keep_vars=True)
    contract, path = contracts(networks.config.geometry())[graph], folder / f"{graph}.onnx"
    module = networks.graphs()[graph]
    export_graph(path, module, contract, {id(live[key]): place for key, place in stored.items()})
    return OrtEngine(path, contract, threads=1), EagerEngine(module, contract)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_onnx_runtime_agrees_with_eager_pytorch(
    backends: tuple[Engines, Engines], graph: str, batch: int
) -> None:
    runtime, eager = (getattr(engines, graph) for engines in backends)
    feed = typical_inputs(runtime.contract, seed=batch, b=batch, **SIZES)
    got, want = runtime(**feed), eager(**feed)
    for name in want:
        found, limit = deviation(got[name], want[name]), LIMITS[graph]
        assert found.relative_rms <= limit.relative_rms
        assert found.max_abs <= limit.max_abs * max(1.0, float(np.abs(want[name]).max()))


def test_the_manifest_tells_the_measured_parity(bundle: Bundle) -> None:
    assert set(bundle.manifest.parity) == set(GRAPHS)
    assert all(0 < found.relative_rms < 1e-4 for found in bundle.manifest.parity.values())


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_is_valid_opset_23_without_foreign_operators(bundle: Bundle, graph: str) -> None:
    onnx.checker.check_model(bundle.graph(graph), full_check=True)
    model = onnx.load(bundle.graph(graph), load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 23)]
    assert not model.metadata_props and not any(node.metadata_props for node in model.graph.node)


def test_the_transformer_keeps_attention_and_layer_norm_whole(bundle: Bundle) -> None:
    nodes = [
        node.op_type for node in onnx.load(bundle.graph("denoiser"), load_external_data=False).graph.node
    ]
    assert nodes.count("Attention") == 2 and "Softmax" not in nodes
    assert (
        nodes.count("LayerNormalization") == 8
    )  # four per block, less two in the last one, and the final layer


@pytest.mark.parametrize("graph", ["onset", "visual"])
def test_the_networks_that_watch_move_no_maps_about(bundle: Bundle, graph: str) -> None:
    """Slices, joins and transpositions between convolutions once took half of their time."""
    nodes = list(onnx.load(bundle.graph(graph), load_external_data=False).graph.node)
    pooled = next(k for k, node in enumerate(nodes) if node.op_type == "ReduceMean")
    between = {node.op_type for node in nodes[:pooled]} - {"Constant", "Cast", "Shape"}
    assert between <= {"Conv", "Relu", "Add", "MaxPool"}


def test_no_weight_is_stored_twice_and_every_pointer_meets_its_tensor(bundle: Bundle) -> None:
    constants = 120 * 51 * 8 * 4 + 32 * 64 * 4  # the conditioner's onset windows and context table
    embedded, used = 0, set()
    for graph in GRAPHS:
        name = WEIGHTS_OF[graph]
        state = load_file(bundle.weights(name))
        data = bundle.weights(name).read_bytes()
        for tensor in initializers(bundle, graph):
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                embedded += len(tensor.raw_data)
                continue
            info = ExternalDataInfo(tensor)
            assert info.location == f"{name}.safetensors"
            key = tensor.name.removeprefix("net.") if name == "transformer" else tensor.name
            value = np.frombuffer(data[info.offset : info.offset + info.length], np.float32)
            np.testing.assert_array_equal(value.reshape(tuple(tensor.dims)), state[key])
            used.add((name, key))
    assert embedded - constants < 20_000
    stored = {(name, key) for name in set(WEIGHTS_OF.values()) for key in load_file(bundle.weights(name))}
    assert stored == used


def test_half_storage_halves_the_file_and_changes_no_parity(tmp_path: Path) -> None:
    runtime, eager = write_graph(tmp_path, "vocoder", storage="float16")
    _, faults = compare(runtime, eager, LIMITS["vocoder"])
    assert faults == []
    state = load_file(tmp_path / "vocoder.safetensors")
    assert {
        key: value.dtype for key, value in state.items() if value.ndim > 1 and value.dtype != np.float16
    } == {}
    assert state["conv_pre.bias"].dtype == np.float32


def test_one_row_of_modulation_exports_as_well(tmp_path: Path) -> None:
    runtime, eager = write_graph(tmp_path, "denoiser", transformer=True)
    assert runtime.contract.inputs[2].shape[1] == 1
    _, faults = compare(runtime, eager, LIMITS["denoiser"])
    assert faults == []


def test_a_graph_that_deviates_is_named_with_measure_and_limit(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "tiny"))
    model = onnx.load(folder / "decoder.onnx", load_external_data=False)
    scale = next(node for node in model.graph.node if node.op_type == "Div").input[1]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == scale)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(0.2, np.float32), scale))
    (folder / "decoder.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BuildError) as caught:
        measure(Bundle(folder, bundle.manifest))
    message = str(caught.value)
    assert "decoder: mel at batch 1 deviates from eager PyTorch by" in message and "limit" in message
    assert "vocoder" not in message


def test_graphs_made_anew_from_a_bundle_are_those_it_had(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (folder / "denoiser.onnx").write_bytes((folder / "decoder.onnx").read_bytes())
    before = Bundle.open(tiny_bundle).manifest
    made = renew_graphs(Bundle(folder, before))
    assert replace(made, parity={}) == replace(before, parity={}) and made == Bundle.open(folder).manifest
    for name in before.files:
        assert (folder / name).read_bytes() == (tiny_bundle / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_graphs_are_not_made_anew_where_other_files_lie(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"other files \(notes\.txt\)"):
        renew_graphs(Bundle.open(folder))
    assert (folder / "notes.txt").read_text() == "mine"


def test_modulation_of_latents_is_not_written_out_by_the_token(bundle: Bundle) -> None:
    model = onnx.load(bundle.graph("denoiser"), load_external_data=False)
    assert not {"Expand", "Tile"} & {node.op_type for node in model.graph.node}


def test_values_that_are_not_finite_deviate_infinitely() -> None:
    want = np.ones(3, np.float32)
    assert deviation(np.array([1, np.nan, 1], np.float32), want).max_abs == float("inf")
    assert deviation(np.ones((3, 1), np.float32), want).relative_rms == float("inf")


def test_networks_that_cannot_be_stored_leave_nothing_behind(tmp_path: Path) -> None:
    networks = tiny_networks(tiny_config())
    with torch.no_grad():
        networks.vocoder.conv_pre.weight[0, 0, 0] = 1e6  # beyond half floats
    with pytest.raises(BuildError, match=r"vocoder: .* finite in float16, got others in conv_pre.weight"):
        export_bundle(networks, tmp_path / "b", "b", {}, "Apache-2.0", storage="float16")
    assert list(tmp_path.iterdir()) == []


def test_networks_of_other_sizes_than_their_config_are_refused(tmp_path: Path) -> None:
    config = tiny_config()
    other = replace(config, vocoder=replace(config.vocoder, channels=64))
    networks = replace(tiny_networks(config), config=other)
    with pytest.raises(BuildError, match=r"vocoder: conv_pre.weight: expected shape \[64, 64, 7\], got \[16"):
        export_bundle(networks, tmp_path / "b", "b", {}, "Apache-2.0")


def test_of_a_whole_vae_only_the_decoder_is_taken() -> None:
    networks = tiny_networks(tiny_config())
    whole = Vae(networks.config.vae, networks.config.latent_scale)
    whole.load_state_dict(networks.decoder.state_dict(), strict=False)
    made = inference_form(replace(networks, decoder=whole), "float32")
    latents = torch.zeros(1, 8, 204, 16)
    assert torch.equal(made.decoder(latents), networks.decoder(latents))


def test_a_failed_export_leaves_the_bundle_that_was_to_be_replaced(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "tiny"))
    networks = tiny_networks(tiny_config())
    with torch.no_grad():
        networks.onset.fc[0].bias[0] = float("nan")
    with pytest.raises(BuildError, match=r"onset: .* got others in fc.0.bias"):
        export_bundle(networks, folder, "b", {}, "Apache-2.0", force=True)
    assert Bundle.open(folder).manifest == bundle.manifest
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_a_finished_folder_takes_the_place_of_what_was_there(tmp_path: Path, there: bool) -> None:
    aside, folder = tmp_path / "aside", tmp_path / "bundle"
    aside.mkdir()
    (aside / "new").touch()
    if there:
        folder.mkdir()
        (folder / "old").touch()
    put_in_place(aside, folder)
    assert list(tmp_path.rglob("*")) == [folder, folder / "new"]


def test_a_taken_folder_is_refused_before_any_work(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a bundle is already there; replace it with --force"):
        make_tiny_bundle(tiny_bundle)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BundleError, match="expected a new folder or a bundle, got other files"):
        export_bundle(tiny_networks(tiny_config()), tmp_path, "b", {}, "Apache-2.0", force=True)
