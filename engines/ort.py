"""The `onnxruntime` backend: one session per graph, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as status

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array, Contract, TensorSpec
from taro_rt.engines.errors import (
    BackendUnavailable,
    BuildError,
    ContractError,
    EngineError,
    attempt,
)
from taro_rt.engines.int8 import quantised
from taro_rt.engines.machine import usable_cores
from taro_rt.engines.watch import Watch

FATAL = 4  # what goes wrong comes back as an exception; nothing is printed
FAILURES = (
    status.EPFail,
    status.Fail,
    status.InvalidArgument,
    status.InvalidGraph,
    status.InvalidProtobuf,
    status.NoSuchFile,
    status.NotImplemented,
    status.RuntimeException,
)
CUDA = ("CUDAExecutionProvider", {"use_tf32": "0"})
CPU = "CPUExecutionProvider"


class OrtEngine:
    """One graph run by ONNX Runtime. Inputs and outputs are float32."""

    backend = "onnxruntime"

    def __init__(
        self,
        path: Path,
        contract: Contract,
        device: str = "cpu",
        threads: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Raises `BuildError` for a graph that cannot be loaded, `ContractError` for one of other tensors."""
        self.contract = contract
        self._watch = watch or Watch()
        providers: list[Any] = [CUDA, CPU] if device == "cuda" else [CPU]
        options, version = session_options(threads), ort.__version__
        session: ort.InferenceSession = attempt(
            FAILURES,
            lambda: self._watch.run(
                lambda: ort.InferenceSession(path, options, providers=providers),
                lambda: options.set_load_cancellation_flag(True),
            ),
            lambda why: BuildError(
                f"{contract.graph}: ONNX Runtime {version} cannot load {path.name}: {why}"
            ),
        )
        if device == "cuda" and CUDA[0] not in session.get_providers():
            raise BackendUnavailable(
                "device cuda: ONNX Runtime cannot load the CUDA libraries; use device cpu"
            )
        _check(f"{path.name}: inputs", contract.inputs, session.get_inputs())
        _check(f"{path.name}: outputs", contract.outputs, session.get_outputs())
        self._session: ort.InferenceSession | None = session

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """The outputs by name. Raises `ContractError` for inputs that do not fit, else `EngineError`.

        An interrupt, or what the watch raises, ends the run after the operation that is under way.
        """
        self.contract.check(inputs)
        session = self._session
        if session is None:
            raise EngineError(f"{self.contract.graph}: this engine is closed; load it again")
        names, run = [spec.name for spec in self.contract.outputs], ort.RunOptions()
        run.log_severity_level = FATAL
        outputs: list[Array] = attempt(
            FAILURES,
            lambda: self._watch.run(
                lambda: session.run(names, inputs, run), lambda: setattr(run, "terminate", True)
            ),
            lambda why: EngineError(f"{self.contract.graph}: ONNX Runtime stopped: {why}"),
        )
        return dict(zip(names, outputs, strict=True))

    def close(self) -> None:
        """Let the session go."""
        self._session = None


def load_ort(
    bundle: Bundle,
    device: str = "cpu",
    threads: int | None = None,
    watch: Watch | None = None,
    precision: str = "float32",
) -> dict[str, OrtEngine]:
    """An `OrtEngine` for each graph, all under one watch; with "int8" the denoiser is `int8.quantised`."""
    if device == "cuda" and CUDA[0] not in ort.get_available_providers():
        raise BackendUnavailable(
            "device cuda: this ONNX Runtime has no CUDA provider; use device cpu, or in a fresh environment: "
            "pip install 'taro-rt[gpu]'"
        )
    watch, contracts = watch or Watch(), bundle.contracts()
    engines = {}
    for name, contract in contracts.items():
        in_8_bits = precision == "int8" and name == "denoiser"
        with quantised(bundle) if in_8_bits else nullcontext(bundle.graph(name)) as path:
            engines[name] = OrtEngine(path, contract, device, threads, watch)
    return engines


def session_options(threads: int | None) -> ort.SessionOptions:
    """The settings that all sessions share."""
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = usable_cores() if threads is None else threads
    options.inter_op_num_threads = 1
    # Without an arena each network's scratch memory goes back after its run: six sessions never add up.
    options.enable_cpu_mem_arena = False
    return options


def _check(where: str, specs: tuple[TensorSpec, ...], found: list[Any]) -> None:
    expected = [str(spec) for spec in specs]
    got = [str(TensorSpec(node.name, tuple(node.shape))) for node in found]
    if expected != got or any(node.type != "tensor(float)" for node in found):
        kinds = sorted({node.type for node in found})
        raise ContractError(f"{where}: expected float32 {', '.join(expected)}, got {kinds} {', '.join(got)}")
