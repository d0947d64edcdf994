"""Which backend is chosen where there is a GPU, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from command import Run

from taro_rt.engines import backends, gpu
from taro_rt.engines.backends import available, choose_for, load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.errors import BackendUnavailable, OptionsError
from taro_rt.engines.gpu import Gpu

H200, A100, OLD = (
    Gpu("NVIDIA H200", (9, 0), 143771),
    Gpu("NVIDIA A100", (8, 0), 81920),
    Gpu("Tesla T4", (7, 5), 15360),
)
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Has a GPU, or in words why not, and lacks some packages; others that backends need are there."""

    def be(found: Gpu | str, without: tuple[str, ...] = ()) -> None:
        find: Callable[[str], ModuleSpec | None] = importlib.util.find_spec
        monkeypatch.setattr(gpu, "find_gpu", lambda: found)
        monkeypatch.setattr(
            backends,
            "find_spec",
            lambda name: (
                None if name in without else ModuleSpec(name, None) if name == "triton" else find(name)
            ),
        )

    return be


@pytest.mark.parametrize(
    ("precision", "chosen"), [("auto", "bfloat16"), ("float32", "float32"), ("fp8", "fp8")]
)
def test_a_gpu_is_taken_when_it_is_asked_for(machine: Machine, precision: str, chosen: str) -> None:
    machine(H200)
    choice = choose_for(1000, device="cuda", precision=precision)
    assert (choice.backend, choice.precision) == ("cuda", chosen)
    assert choice.reason == "device cuda was asked for"


def test_a_gpu_is_left_alone_unless_asked_for_and_for_eight_bits_of_the_cpu(machine: Machine) -> None:
    machine(H200)
    assert choose_for(1000).backend == "onnxruntime"
    assert choose_for(1000, device="cpu").backend == "onnxruntime"
    assert choose_for(1000, precision="int8").backend == "onnxruntime"


@pytest.mark.parametrize(
    ("found", "without", "reason"),
    [
        (H200, ("triton",), r"needs triton: pip install 'taro-rt\[gpu\]'"),
        (H200, ("torch", "triton"), r"needs torch and triton: pip install 'taro-rt\[gpu\]'"),
        (
            OLD,
            (),
            r"needs an NVIDIA GPU of compute capability 8.0 or newer, found Tesla T4 \(7.5, 15360 MB\)",
        ),
        ("finds no NVIDIA GPU: x", (), "finds no NVIDIA GPU: x"),
    ],
    ids=["no triton", "no torch", "too old", "none"],
)
def test_what_is_missing_is_named_and_what_is_there(
    machine: Machine, found: Gpu | str, without: tuple[str, ...], reason: str
) -> None:
    machine(found, without)
    assert choose_for(1000).backend == "onnxruntime" or "torch" in without
    with pytest.raises(BackendUnavailable, match=f"^backend cuda {reason}; available here: onnxruntime"):
        choose_for(1000, "cuda")


def test_fp8_is_refused_by_name_where_the_gpu_cannot(machine: Machine) -> None:
    machine(A100)
    expected = r"^precision fp8 needs an NVIDIA GPU of compute capability 9.0 or newer, found NVIDIA A100 "
    for backend in ("cuda", "auto"):
        with pytest.raises(BackendUnavailable, match=expected + r"\(8.0, 81920 MB\); use bfloat16"):
            choose_for(1000, backend, precision="fp8")


def test_fp8_is_refused_by_name_without_a_gpu(machine: Machine) -> None:
    machine("finds no NVIDIA GPU: x")
    with pytest.raises(BackendUnavailable, match="backend cuda finds no NVIDIA GPU: x; available here"):
        choose_for(1000, precision="fp8")


def test_a_cpu_is_no_device_for_it(machine: Machine) -> None:
    machine(H200)
    with pytest.raises(OptionsError, match="device: cuda computes on an NVIDIA GPU only, got 'cpu'"):
        choose_for(1000, "cuda", device="cpu")
    with pytest.raises(OptionsError, match="precision: cuda has no int8; use onnxruntime"):
        choose_for(1000, "cuda", precision="int8")


@pytest.mark.skipif(isinstance(gpu.find_gpu(), Gpu), reason="this machine has a GPU")
def test_this_machine_has_none_and_says_what_to_install() -> None:
    assert gpu.why_not().startswith("finds no NVIDIA GPU: ")
    assert available()["cuda"]


def test_the_command_refuses_it_with_the_exit_code_of_backends(
    run: Run, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "find_gpu", lambda: "finds no NVIDIA GPU: x; install NVIDIA's driver")
    result = run("generate", video, "--backend", "cuda")
    assert result.exit_code == 4
    assert "backend cuda " in result.stderr and "install" in result.stderr
    assert [path.name for path in video.parent.iterdir()] == [video.name]


def test_doctor_says_why_it_is_not_available(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from taro_rt.runtime import doctor

    monkeypatch.setattr(doctor, "available", lambda: {"cuda": "finds no NVIDIA GPU: x", "onnxruntime": ""})
    checks = json.loads(run("doctor", "--json").stdout)["checks"]
    found = next(check for check in checks if check["name"] == "backend cuda")
    assert found["ok"] and found["detail"] == "not available: finds no NVIDIA GPU: x"


def test_loading_it_goes_through_the_same_door(
    machine: Machine, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_engines` on a machine with a GPU, the device itself being this one's processor."""
    from taro_rt.engines import cuda

    machine(H200)
    load = cuda.load_cuda
    monkeypatch.setattr(cuda, "load_cuda", lambda bundle, precision: load(bundle, precision, "cpu", False))
    engines = load_engines(Bundle.open(tiny_bundle), device="cuda")
    assert (engines.backend, engines.choice.precision) == ("cuda", "bfloat16")
    assert engines.window is not None and engines.window.memory_mb > 0
    engines.close()
