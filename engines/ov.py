"""The `openvino` backend: one compiled model per graph on the CPU, in float32 or bfloat16.

It reads the same ONNX files as ONNX Runtime, whose CPU kernels lack bfloat16, and is faster in float32, too.
It takes more memory, and longer to load for the first time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.cache import cache_folder
from taro_rt.engines.contract import Array, Contract, TensorSpec
from taro_rt.engines.errors import (
    BackendUnavailable,
    BuildError,
    ContractError,
    EngineError,
    attempt,
)
from taro_rt.engines.machine import usable_cores
from taro_rt.engines.watch import Watch


@contextmanager
def _silent() -> Iterator[None]:
    """Importing OpenVINO tells its makers over the network, unless its package for that cannot be found."""
    name = "openvino_telemetry"
    before = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None  # type: ignore[assignment]  # what makes an import fail
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(before)


with _silent():
    import openvino as ov

    from taro_rt.engines.ov_upsampling import without_transposed

T = TypeVar("T")
DEVICE = "CPU"
HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OvEngine:
    """One graph run by OpenVINO. Inputs and outputs are float32 whatever it computes in."""

    backend = "openvino"

    def __init__(
        self,
        path: Path,
        contract: Contract,
        precision: str = "float32",
        threads: int | None = None,
        watch: Watch | None = None,
        folder: Path | None = None,
    ) -> None:
        """`folder` is one for this bundle's compiled models.

        Raises `BuildError` for a graph that cannot be loaded, `ContractError` for one of other tensors.
        """
        self.contract = contract
        self._watch = watch or Watch()
        # A compilation cannot be broken off: an interrupt waits for its end.
        compiled = attempt(
            RuntimeError,
            lambda: self._watch.run(
                lambda: _compile(path, contract, properties(precision, threads, folder)), lambda: None
            ),
            lambda why: BuildError(
                f"{contract.graph}: OpenVINO {ov.__version__} cannot load {path.name}: {why}"
            ),
        )
        self._request: Any = compiled.create_infer_request()
        self._feed: dict[str, Array] = {}

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """The outputs by name. Raises `ContractError` for inputs that do not fit, else `EngineError`.

        An interrupt, or what the watch raises, ends the run after the operation that is under way.
        """
        self.contract.check(inputs)
        request = self._request
        if request is None:
            raise EngineError(f"{self.contract.graph}: this engine is closed; load it again")
        self._run(request, inputs)
        # The request writes its next outputs over these.
        return {
            spec.name: np.array(request.get_tensor(spec.name).data, np.float32)
            for spec in self.contract.outputs
        }

    def _run(self, request: Any, inputs: dict[str, Array]) -> None:
        # A shared tensor does not keep its array alive; an interrupt must not free it while it is read.
        self._feed = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        for name, array in self._feed.items():
            self._attempt(partial(request.set_tensor, name, ov.Tensor(array, shared_memory=True)))
        # here, so that there is a run to cancel whenever an interrupt comes
        self._attempt(request.start_async)
        # within the watch: a RuntimeError of the one who is asked is not OpenVINO's
        self._watch.run(lambda: self._attempt(request.wait), request.cancel)

    def _attempt(self, work: Callable[[], T]) -> T:
        return attempt(
            RuntimeError,
            work,
            lambda why: EngineError(f"{self.contract.graph}: OpenVINO stopped: {why}"),
        )

    def close(self) -> None:
        """Let the compiled model go."""
        self._request = None


def load_ov(
    bundle: Bundle, precision: str, threads: int | None = None, watch: Watch | None = None
) -> dict[str, OvEngine]:
    """An `OvEngine` for each graph, all under one watch; compiled models are kept in the user's cache."""
    if precision not in precisions():
        raise BackendUnavailable(
            f"precision {precision}: this processor computes in {', '.join(precisions())} with OpenVINO; "
            "leave --precision out"
        )
    watch, folder = watch or Watch(), cache_folder("openvino", bundle)
    if folder is not None:  # its files' names do not tell the precision: one would be loaded as the other
        folder = folder / precision
    return {
        name: OvEngine(bundle.graph(name), contract, precision, threads, watch, folder)
        for name, contract in bundle.contracts().items()
    }


@cache
def _core() -> Any:
    """One for all, never given back. Each core gives its thread a stack for signals and at its end puts the
    one before it back: of two that overlap, the later one puts back what the earlier one has freed, and the
    next Ctrl-C is a segmentation fault (2026.4)."""
    return ov.Core()


def precisions() -> tuple[str, ...]:
    """What this processor computes in, the fastest first."""
    able = _core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    return ("bfloat16", "float32") if "BF16" in able else ("float32",)


def matrix_product(a: Array, b: Array, precision: str, threads: int) -> Callable[[], None]:
    """Multiplies `a` by `b` when called: what this library can do at most."""
    from openvino import opset13 as ops

    left = ops.parameter(a.shape, np.float32)
    model = ov.Model([ops.matmul(left, ops.constant(b), False, False)], [left])
    request = (
        _core().compile_model(model, DEVICE, properties(precision, threads, None)).create_infer_request()
    )
    request.set_input_tensor(ov.Tensor(a, shared_memory=True))
    kept = a  # a shared tensor does not keep its array alive

    def run() -> None:
        request.infer()
        assert kept is a

    return run


def properties(precision: str, threads: int | None, folder: Path | None) -> dict[str, Any]:
    """The settings that all compiled models share."""
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": usable_cores() if threads is None else threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        **({} if folder is None else {"CACHE_DIR": str(folder)}),
    }


def _compile(path: Path, contract: Contract, settings: dict[str, Any]) -> Any:
    core = _core()
    model = core.read_model(path)
    _check(f"{path.name}: inputs", contract.inputs, model.inputs)
    _check(f"{path.name}: outputs", contract.outputs, model.outputs)
    without_transposed(model)
    return core.compile_model(model, DEVICE, settings)


def _check(where: str, specs: tuple[TensorSpec, ...], found: list[Any]) -> None:
    """Free axes have no letters here: each counts as "?"."""
    expected = [
        str(TensorSpec(spec.name, tuple("?" if isinstance(n, str) else n for n in spec.shape)))
        for spec in specs
    ]
    got = [
        str(TensorSpec(port.get_any_name(), tuple(_size(n) for n in port.get_partial_shape())))
        for port in found
    ]
    kinds = sorted({port.get_element_type().get_type_name() for port in found})
    if expected != got or kinds != ["f32"]:
        raise ContractError(f"{where}: expected float32 {', '.join(expected)}, got {kinds} {', '.join(got)}")


def _size(dimension: Any) -> int | str:
    return "?" if dimension.is_dynamic else int(dimension.get_length())
