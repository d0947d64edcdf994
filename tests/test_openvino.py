"""The OpenVINO backend: the same numbers, bfloat16 where there is any, a cache, runs that can be stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from media import encode, numbered
from onnx import TensorProto, helper

from taro_rt.engines import backends
from taro_rt.engines.backends import choose, load_engines
from taro_rt.engines.bundle import Bundle, FileEntry
from taro_rt.engines.cache import cache_folder
from taro_rt.engines.contract import Contract, TensorSpec
from taro_rt.engines.errors import BackendUnavailable, BuildError, Cancelled, ContractError, OptionsError
from taro_rt.engines.stages import GRAPHS
from taro_rt.engines.watch import Watch
from taro_rt.export.parity import LIMITS, compare
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline

pytest.importorskip("openvino")
ov = pytest.importorskip("taro_rt.engines.ov")
without_transposed = pytest.importorskip("taro_rt.engines.ov_upsampling").without_transposed
HAS_BFLOAT16 = "bfloat16" in ov.precisions()
needs_bfloat16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no bfloat16")
BFLOAT16_RMS = 0.05
"""Of tiny random networks; the published size stays below (see the benchmark's parity gate)."""


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


def enlarged(bundle: Bundle) -> Bundle:
    """The same bundle, said to be large."""
    files = {**bundle.manifest.files, "x": FileEntry("0" * 64, backends.LARGE_BYTES)}
    return replace(bundle, manifest=replace(bundle.manifest, files=files))


def test_nobody_is_told_that_openvino_is_used(tmp_path: Path) -> None:
    """Importing it alone would send a message over the network."""
    (tmp_path / "openvino_telemetry.py").write_text("print('told')")
    program = "import taro_rt.engines.ov, sys; assert 'openvino_telemetry' not in sys.modules"
    source = Path(__file__).parents[1] / "src"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{source}"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_ctrl_c_is_heard_after_the_processor_was_asked(tiny_bundle: Path) -> None:
    """Two of OpenVINO's cores that overlap would leave a freed stack for signals behind."""
    program = (
        "import gc, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored\n"
        "from taro_rt.engines.backends import load_engines\n"
        "from taro_rt.engines.bundle import Bundle\n"
        "from taro_rt.engines.ov import precisions\n"
        "from taro_rt.engines.ov import _core\n"
        "precisions()\n"
        "assert _core() is _core()\n"
        "load_engines(Bundle.open(sys.argv[1]), 'openvino').close()\n"
        "gc.collect()\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    print('heard')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-c", program, str(tiny_bundle)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "heard\n", "")


@pytest.mark.parametrize("graph", GRAPHS)
def test_float32_is_as_near_to_pytorch_as_an_export_must_be(bundle: Bundle, graph: str) -> None:
    engines = load_engines(bundle, "openvino", threads=1, precision="float32")
    oracle = load_engines(bundle, "eager", threads=1)
    _, faults = compare(getattr(engines, graph), getattr(oracle, graph), LIMITS[graph])
    assert faults == []


@given(
    stride=st.integers(1, 5),
    kernel=st.integers(1, 16),
    begin=st.integers(0, 6),
    end=st.integers(0, 6),
    length=st.integers(4, 9),
    batch=st.integers(1, 2),
)
def test_a_transposed_convolution_is_computed_as_a_convolution(
    stride: int, kernel: int, begin: int, end: int, length: int, batch: int
) -> None:
    """The same numbers as those of the operator itself, whatever its kernel, stride and padding."""
    assume((length - 1) * stride + kernel > begin + end)
    x = np.random.default_rng(0).standard_normal((batch, 3, length), np.float32)
    w = np.random.default_rng(1).standard_normal((3, 2, kernel), np.float32)
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", None, None]) for name in "xy"]
    node = helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], strides=[stride], pads=[begin, end], kernel_shape=[kernel]
    )
    weights = [helper.make_tensor("w", TensorProto.FLOAT, w.shape, w.tobytes(), raw=True)]
    graph = helper.make_graph([node], "g", named[:1], named[1:], weights)
    model = ov.ov.Core().read_model(helper.make_model(graph).SerializeToString())
    model.reshape({"x": [-1, 3, length]})
    without_transposed(model)
    assert "ConvolutionBackpropData" not in {op.get_type_name() for op in model.get_ops()}
    got = ov.ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    full = torch.conv_transpose1d(torch.from_numpy(x), torch.from_numpy(w), stride=stride).numpy()
    want = full[:, :, begin : full.shape[2] - end]
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
    "more", [{"output_padding": [1]}, {"dilations": [2]}, {"auto_pad": "SAME_UPPER"}, {"output_shape": [20]}]
)
def test_transposed_convolutions_of_other_kinds_are_left_alone(more: dict[str, list[int] | str]) -> None:
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None]) for name in "xy"]
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[3], kernel_shape=[5], **more)
    weights = [helper.make_tensor("w", TensorProto.FLOAT, (3, 2, 5), np.ones(30, np.float32).tolist())]
    model = helper.make_model(helper.make_graph([node], "g", named[:1], named[1:], weights))
    read = ov.ov.Core().read_model(model.SerializeToString())
    read.reshape({"x": [1, 3, 7]})
    without_transposed(read)
    assert "ConvolutionBackpropData" in {op.get_type_name() for op in read.get_ops()}


def test_the_vocoder_has_no_transposed_convolution(bundle: Bundle) -> None:
    path, contract = bundle.graph("vocoder"), bundle.contracts()["vocoder"]
    before = {op.get_type_name() for op in ov.ov.Core().read_model(path).get_ops()}
    compiled = ov._compile(path, contract, ov.properties("float32", 1, None))
    kept = {op.get_rt_info()["layerType"].astype(str) for op in compiled.get_runtime_model().get_ops()}
    assert "ConvolutionBackpropData" in before and not any("Deconvolution" in name for name in kept)


@needs_bfloat16
@pytest.mark.parametrize("graph", GRAPHS)
def test_bfloat16_is_close_and_is_bfloat16(bundle: Bundle, graph: str) -> None:
    engines = load_engines(bundle, "openvino", threads=1)
    oracle = load_engines(bundle, "onnxruntime", threads=1)
    assert engines.choice.precision == "bfloat16"
    feed = getattr(engines, graph).contract.example(b=2, s=3, t=33, n=20)
    got, want = getattr(engines, graph)(**feed), getattr(oracle, graph)(**feed)
    worst = max(
        float(np.sqrt(np.mean((got[k] - want[k]) ** 2) / np.mean(want[k].astype(np.float64) ** 2)))
        for k in want
    )
    assert 1e-5 < worst < BFLOAT16_RMS


def test_an_output_is_not_overwritten_by_the_next_run(bundle: Bundle) -> None:
    decoder = load_engines(bundle, "openvino", threads=1, precision="float32").decoder
    feed = decoder.contract.example(b=1)
    first = decoder(**feed)["mel"]
    kept = first.copy()
    decoder(latents=-feed["latents"])
    assert np.array_equal(first, kept)


def test_strided_inputs_give_the_same_as_contiguous_ones(bundle: Bundle) -> None:
    decoder = load_engines(bundle, "openvino", threads=1).decoder
    latents = decoder.contract.example(b=4)["latents"]
    assert np.array_equal(decoder(latents=latents[::2])["mel"], decoder(latents=latents[::2].copy())["mel"])


def test_a_whole_generation_is_close_to_that_of_onnx_runtime(bundle: Bundle, tmp_path: Path) -> None:
    video, sounds = encode(tmp_path / "a.mp4", numbered(30, 64, 48)), []
    for backend in ("onnxruntime", "openvino"):
        with Pipeline.load(bundle, backend, threads=1, precision="float32") as pipeline:
            sounds.append(pipeline.generate(video, Options(steps=3)).audio.samples)
    np.testing.assert_allclose(sounds[0], sounds[1], atol=1e-4)


def test_large_bundles_take_openvino_in_what_the_processor_has_and_say_why(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = enlarged(bundle)
    monkeypatch.setattr(ov, "precisions", lambda: ("bfloat16", "float32"))
    assert str(choose(large)) == ("openvino in bfloat16: this processor computes in bfloat16")
    asked = choose(large, precision="float32")
    assert (asked.backend, asked.precision) == ("openvino", "float32") and "asked for" in asked.reason
    monkeypatch.setattr(ov, "precisions", lambda: ("float32",))
    got = choose(large)
    assert (got.backend, got.precision) == ("openvino", "float32") and "no bfloat16" in got.reason


def test_small_bundles_and_other_devices_leave_openvino_alone(bundle: Bundle) -> None:
    assert choose(bundle).backend == "onnxruntime" and "small" in choose(bundle).reason
    assert choose(enlarged(bundle), device="cuda").backend == "onnxruntime"


def test_a_precision_that_the_processor_lacks_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ov, "precisions", lambda: ("float32",))
    with pytest.raises(BackendUnavailable, match="precision bfloat16: this processor computes in float32"):
        load_engines(bundle, precision="bfloat16")


def test_a_precision_that_only_openvino_has_chooses_it(bundle: Bundle) -> None:
    assert choose(bundle, precision="bfloat16").backend == "openvino"
    with pytest.raises(OptionsError, match="openvino computes on the CPU only, got 'cuda'"):
        choose(bundle, "openvino", device="cuda")


def test_a_graph_that_does_not_fit_is_refused_in_one_line(bundle: Bundle, tmp_path: Path) -> None:
    contract = bundle.contracts()["decoder"]
    other = replace(contract, inputs=(TensorSpec("latents", ("b", 9, 204, 16)),))
    with pytest.raises(
        ContractError, match=r"inputs: expected float32 latents\[\?, 9, 204, 16\], got .*\[\?, 8"
    ):
        ov.OvEngine(bundle.graph("decoder"), other)
    path = tmp_path / "decoder.onnx"
    shutil.copy(bundle.graph("decoder"), path)  # its weights do not lie beside it
    with pytest.raises(BuildError, match=r"decoder: OpenVINO .* cannot load decoder.onnx: ") as caught:
        ov.OvEngine(path, contract)
    assert "\n" not in str(caught.value)


def test_compiled_models_are_kept_in_the_users_cache_by_the_bundles_content(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TARO_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    feed = bundle.contracts()["vocoder"].example(b=1)
    first = load_engines(bundle, "openvino", threads=1).vocoder(**feed)["wave"]
    folder = cache_folder("openvino", bundle)
    assert folder and folder.parent == tmp_path / "xdg" / "taro-rt" / "openvino"
    blobs = sorted(folder.glob("*/*.blob"))
    assert len(blobs) == len(GRAPHS)
    again = load_engines(bundle, "openvino", threads=1).vocoder(**feed)["wave"]
    assert np.array_equal(again, first) and sorted(folder.glob("*/*.blob")) == blobs
    assert cache_folder("openvino", enlarged(bundle)) != folder
    for blob in blobs:  # as a run leaves them that was killed while it wrote
        blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])
    assert np.array_equal(load_engines(bundle, "openvino", threads=1).vocoder(**feed)["wave"], first)


DENOISED = """
import hashlib, sys
from taro_rt.engines.backends import load_engines
from taro_rt.engines.bundle import DEFAULT, Bundle
engines = load_engines(Bundle.open(DEFAULT), "openvino", threads=2, precision=sys.argv[1])
made = engines.denoiser(**engines.denoiser.contract.example(b=1, n=32))["velocity"]
print(hashlib.sha256(made.tobytes()).hexdigest())
"""


@needs_bfloat16
def test_one_cache_serves_both_precisions_from_process_to_process(tmp_path: Path) -> None:
    """OpenVINO names what it keeps without its precision: bfloat16 after float32 was a crash."""
    environment = os.environ | {"TARO_CACHE": str(tmp_path)}
    made = []
    for precision in ("float32", "bfloat16", "float32", "bfloat16"):
        command = [sys.executable, "-c", DENOISED, precision]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, (precision, ran.stderr[-500:])
        made.append(ran.stdout)
    assert made[:2] == made[2:] and made[0] != made[1]


def test_the_cache_can_be_elsewhere_or_off_and_a_locked_one_is_none(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder("openvino", bundle) is None, "off in tests"
    monkeypatch.setenv("TARO_CACHE", str(tmp_path / "mine"))
    folder = cache_folder("openvino", bundle)
    assert folder and folder.is_relative_to(tmp_path / "mine")
    (tmp_path / "file").touch()
    monkeypatch.setenv("TARO_CACHE", str(tmp_path / "file"))
    assert cache_folder("openvino", bundle) is None


def chain(path: Path, inputs: TensorSpec, outputs: TensorSpec, rounds: int, side: int = 512) -> Path:
    """Gives numbers of the outputs' shape after `rounds` products of matrices, each a node of its own."""
    names = ["first", *(f"y{k}" for k in range(rounds))]
    nodes = [
        helper.make_node("ReduceSum", [inputs.name], ["sum"], keepdims=0),
        helper.make_node("Mul", ["w", "sum"], ["first"]),
        *(helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)),
        helper.make_node("ReduceMax", [names[-1]], ["top"], keepdims=0),
        helper.make_node("Expand", ["top", "shape"], [outputs.name]),
    ]
    weights = np.random.default_rng(0).standard_normal((side, side), np.float32) / np.float32(side**0.5)
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info(inputs.name, TensorProto.FLOAT, inputs.shape)],
        [helper.make_tensor_value_info(outputs.name, TensorProto.FLOAT, outputs.shape)],
        [
            helper.make_tensor("w", TensorProto.FLOAT, [side, side], weights.tobytes(), raw=True),
            helper.make_tensor("shape", TensorProto.INT64, [len(outputs.shape)], outputs.shape),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_run_is_broken_off_in_the_middle_and_the_engine_works_on(tmp_path: Path) -> None:
    contract = Contract("slow", (TensorSpec("a", (2,)),), (TensorSpec("b", (3,)),))
    watch, calls = Watch(), iter([True])
    path = chain(tmp_path / "slow.onnx", contract.inputs[0], contract.outputs[0], 800)
    engine = ov.OvEngine(path, contract, threads=1, watch=watch)
    feed = {"a": np.ones(2, np.float32)}
    started = time.perf_counter()
    whole = engine(**feed)["b"]
    whole_s = time.perf_counter() - started

    def ask() -> None:
        if next(calls, False):
            raise Cancelled("enough")

    started = time.perf_counter()
    with watch.asking(ask), pytest.raises(Cancelled, match="enough"):
        engine(**feed)
    assert time.perf_counter() - started < whole_s / 2 + 0.2
    assert np.array_equal(engine(**feed)["b"], whole)
