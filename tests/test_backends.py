"""Backends: choice, refusals, and engines that keep their contract."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from taro_rt.engines.backends import Engines, available, load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import TensorSpec
from taro_rt.engines.errors import (
    BackendUnavailable,
    BuildError,
    BundleError,
    ContractError,
    EngineError,
    OptionsError,
)
from taro_rt.engines.machine import usable_cores
from taro_rt.engines.ort import OrtEngine
from taro_rt.engines.stages import GRAPHS

HAS_OPENVINO = find_spec("openvino") is not None
BACKENDS = [
    "onnxruntime",
    "eager",
    pytest.param("openvino", marks=pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")),
]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def engines(bundle: Bundle) -> Engines:
    return load_engines(bundle, "onnxruntime", threads=1)


def test_auto_takes_onnx_runtime(bundle: Bundle) -> None:
    reasons = available()
    assert list(reasons) == ["cuda", "onnxruntime", "openvino", "tensorrt", "eager"]
    assert (reasons["onnxruntime"], reasons["eager"]) == ("", "")
    loaded = load_engines(bundle)
    assert loaded.backend == "onnxruntime"
    assert {loaded.backend} == {getattr(loaded, graph).backend for graph in GRAPHS}


def test_auto_falls_back_to_eager_without_onnx_runtime(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert load_engines(bundle).backend == "eager"


def test_a_missing_backend_tells_the_command_and_what_is_there(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        BackendUnavailable,
        match=r"needs onnxruntime: pip install 'taro-rt\[cpu\]'; available here: eager",
    ):
        load_engines(bundle, "onnxruntime")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendUnavailable, match=r"no backend is installed; .*\[cpu\].*\[export\]"):
        load_engines(bundle)


def test_unknown_choices_are_usage_errors_that_list_the_known_ones(bundle: Bundle) -> None:
    with pytest.raises(
        OptionsError, match="expected auto, cuda, onnxruntime, openvino, tensorrt, eager, got 'tensorflow'"
    ):
        load_engines(bundle, "tensorflow")
    with pytest.raises(OptionsError, match="expected one of cpu, cuda, got 'tpu'"):
        load_engines(bundle, device="tpu")
    with pytest.raises(OptionsError, match="threads: expected 1 to 512, got 0"):
        load_engines(bundle, threads=0)
    with pytest.raises(
        OptionsError, match="expected one of auto, float32, bfloat16, float16, int8, fp8, got 'int4'"
    ):
        load_engines(bundle, precision="int4")
    with pytest.raises(OptionsError, match="precision: onnxruntime has no bfloat16; use cuda or openvino"):
        load_engines(bundle, "onnxruntime", precision="bfloat16")
    with pytest.raises(OptionsError, match="precision: eager has no int8; use onnxruntime"):
        load_engines(bundle, "eager", precision="int8")
    with pytest.raises(OptionsError, match="int8 is for the CPU only, got device 'cuda'"):
        load_engines(bundle, device="cuda", precision="int8")


@pytest.mark.parametrize("backend", ["onnxruntime", "eager"])
def test_cuda_without_a_usable_gpu_is_unavailable(bundle: Bundle, backend: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendUnavailable, match=r"device cuda: .*use device cpu"):
        load_engines(bundle, backend, device="cuda")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_engine_gives_what_its_contract_says(bundle: Bundle, backend: str) -> None:
    engines = load_engines(bundle, backend, threads=1)
    for graph in GRAPHS:
        engine = getattr(engines, graph)
        sizes = {"b": 1, "s": 1, "t": 33, "n": 7}
        outputs = engine(**engine.contract.example(**sizes))
        assert list(outputs) == [spec.name for spec in engine.contract.outputs]
        for spec in engine.contract.outputs:
            array = outputs[spec.name]
            expected = tuple(sizes[n] if isinstance(n, str) else n for n in spec.shape)
            assert (array.shape, array.dtype) == (expected, np.float32)
            assert np.isfinite(array).all() and array.std() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_engine_refuses_feeds_that_do_not_fit_and_calls_after_close(bundle: Bundle, backend: str) -> None:
    engines = load_engines(bundle, backend, threads=1)
    mel = np.zeros((1, 815, 64), np.float32)
    with pytest.raises(ContractError, match=r"vocoder: expected mel\[b, 816, 64\], got shape \[1, 815, 64\]"):
        engines.vocoder(mel=mel)
    engines.close()
    with pytest.raises(EngineError, match="vocoder: this engine is closed"):
        engines.vocoder(**engines.vocoder.contract.example())


def test_strided_inputs_give_the_same_as_contiguous_ones(engines: Engines) -> None:
    latents = engines.decoder.contract.example(b=4)["latents"]
    strided = engines.decoder(latents=latents[::2])["mel"]
    np.testing.assert_array_equal(strided, engines.decoder(latents=latents[::2].copy())["mel"])


def test_the_guided_batch_of_two_equals_its_rows_alone(engines: Engines) -> None:
    feed = engines.denoiser.contract.example(b=2)
    both = engines.denoiser(**feed)["velocity"]
    alone = engines.denoiser(**{name: array[1:] for name, array in feed.items()})["velocity"]
    np.testing.assert_allclose(both[1:], alone, rtol=0, atol=1e-4)


def test_a_graph_of_another_contract_is_refused(bundle: Bundle) -> None:
    contract = bundle.contracts()["decoder"]
    other = replace(contract, inputs=(TensorSpec("latents", ("b", 9, 204, 16)),))
    with pytest.raises(
        ContractError, match=r"decoder.onnx: inputs: expected float32 latents\[b, 9, 204, 16\]"
    ):
        OrtEngine(bundle.graph("decoder"), other)


def test_a_graph_that_cannot_be_loaded_is_a_build_error_of_one_line(
    bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "decoder.onnx"
    shutil.copy(bundle.graph("decoder"), path)  # its weights do not lie beside it
    with pytest.raises(BuildError, match=r"decoder: ONNX Runtime .* cannot load decoder.onnx: ") as caught:
        OrtEngine(path, bundle.contracts()["decoder"])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_weights_that_do_not_fit_are_all_listed(bundle: Bundle, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(bundle.folder, tmp_path / "tiny"))
    state = load_file(folder / "vocoder.safetensors")
    state["surplus"] = state.pop("conv_pre.bias")
    state["conv_post.bias"] = state["conv_post.bias"].repeat(2)
    save_file(state, folder / "vocoder.safetensors")
    (folder / "onset.safetensors").write_bytes(b"none")
    with pytest.raises(BundleError) as caught:
        load_engines(Bundle(folder, bundle.manifest), "eager")
    for fault in (
        "onset.safetensors: expected a safetensors file",
        "vocoder.safetensors: missing conv_pre.bias",
        "vocoder.safetensors: unexpected surplus",
        "vocoder.safetensors: conv_post.bias: expected shape [1], got [2]",
    ):
        assert fault in str(caught.value)


def test_usable_cores_stay_within_what_the_process_may_use() -> None:
    assert 0 <= usable_cores() <= (os.cpu_count() or 1)


def test_running_onnx_runtime_leaves_torch_out_of_the_process(tiny_bundle: Path) -> None:
    program = (
        "import sys, taro_rt\n"
        "assert not {'numpy', 'onnxruntime', 'av', 'torch'} & set(sys.modules), 'importing taro_rt'\n"
        "from taro_rt.engines.backends import load_engines\n"
        "assert 'onnxruntime' not in sys.modules, 'importing backends'\n"
        "engines = load_engines(taro_rt.Bundle.open(sys.argv[1]))\n"
        "import taro_rt.runtime.pipeline\n"
        "for graph in taro_rt.engines.stages.GRAPHS:\n"
        "    engine = getattr(engines, graph)\n"
        "    engine(**engine.contract.example(b=1, s=1))\n"
        "assert 'onnxruntime' in sys.modules and 'torch' not in sys.modules\n"
    )
    source = Path(__file__).parents[1] / "src"
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tiny_bundle)],
        env=os.environ | {"PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
