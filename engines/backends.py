"""Backends: which exist, which are installed, which one suits a bundle, and how it loads its six engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

from taro_rt.engines import gpu
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array, Contract
from taro_rt.engines.errors import BackendUnavailable, OptionsError
from taro_rt.engines.watch import Watch
from taro_rt.engines.window import Window

NEEDS = {
    "cuda": ("gpu", ("torch", "triton", "safetensors")),
    "onnxruntime": ("cpu", ("onnxruntime",)),
    "openvino": ("openvino", ("openvino",)),
    "tensorrt": ("trt", ("tensorrt", "cuda.bindings")),
    "eager": ("export", ("torch", "safetensors")),
}
"""The extra that installs each backend and the import names it needs, best backend first."""
ON_GPU = ("cuda", "tensorrt")
"""Backends that compute on an NVIDIA GPU only. TensorRT is never chosen by itself: it needs plans."""
DEVICES = ("cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8", "fp8")
"""int8 and fp8 are the denoiser's linear layers only, and only when asked for: they change the sound."""
ONLY = {
    "bfloat16": ("cuda", "openvino"),
    "float16": ("tensorrt",),
    "int8": ("onnxruntime",),
    "fp8": ("cuda",),
}
"""The backends that have a precision, best first."""
LARGE_BYTES = 100_000_000
"""Bundles of more weights than this repay the seconds and the memory that OpenVINO takes to load."""


class Engine(Protocol):
    """One graph, ready to run. Not to be used from two threads at once."""

    contract: Contract
    backend: str

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Outputs by name, for inputs by name. Raises `ContractError` or another `EngineError`."""
        ...

    def close(self) -> None:
        """Give its memory back; it must not be called afterwards."""
        ...


MOST_THREADS = 512
"""More than any machine this is for has cores; thousands take minutes to start."""


@dataclass(frozen=True)
class Choice:
    """What computes, in which precision, and why that."""

    backend: str
    precision: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend} in {self.precision}: {self.reason}"


@dataclass(frozen=True)
class Engines:
    """The six engines of a bundle, all of one backend."""

    onset: Engine
    visual: Engine
    conditioner: Engine
    denoiser: Engine
    decoder: Engine
    vocoder: Engine
    choice: Choice
    window: Window | None = None
    """All of them chained on a device, where the backend has that."""
    watch: Watch = field(default_factory=Watch)
    """Who is asked during long runs; `eager` asks nobody: Python hears Ctrl-C between its operations."""

    @property
    def backend(self) -> str:
        """The one that computes."""
        return self.choice.backend

    def close(self) -> None:
        """Close all."""
        for engine in (self.onset, self.visual, self.conditioner, self.denoiser, self.decoder, self.vocoder):
            engine.close()
        if self.window is not None:
            self.window.close()
        self.watch.close()


def available() -> dict[str, str]:
    """Every backend, with "" where it is installed, else the reason why it is not. Imports none of them."""
    reasons = {}
    for name, (extra, packages) in NEEDS.items():
        missing = [package for package in packages if not is_installed(package)]
        reasons[name] = f"needs {' and '.join(missing)}: pip install 'taro-rt[{extra}]'" if missing else ""
    for name in ON_GPU:
        reasons[name] = reasons[name] or gpu.why_not()
    return reasons


def is_installed(package: str) -> bool:
    """Whether `package` can be found; it is not imported, only what it lies in is."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def load_engines(
    bundle: Bundle,
    backend: str = "auto",
    device: str | None = None,
    threads: int | None = None,
    precision: str = "auto",
) -> Engines:
    """Load all six graphs of `bundle`.

    `backend` and `precision` "auto" take what suits the bundle and the machine (`choose`), `device` None
    means "cpu". `threads` bounds the CPU threads of one operation; by default all usable physical cores
    work. Raises `OptionsError`, `BackendUnavailable`, `BuildError`, or `BundleError` for weights that do not
    fit.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise OptionsError(f"threads: expected 1 to {MOST_THREADS}, got {threads}")
    choice, watch = choose(bundle, backend, device, precision), Watch()
    engines: Mapping[str, Engine]
    if choice.backend == "cuda":
        from taro_rt.engines.cuda import load_cuda

        loaded = load_cuda(bundle, choice.precision)
        return Engines(**loaded.graphs, choice=choice, window=loaded.window, watch=watch)
    if choice.backend == "tensorrt":
        try:
            from taro_rt.engines.trt import load_plans, load_trt
            from taro_rt.engines.trt_window import TrtWindow
        except (ImportError, OSError) as error:  # found, but its libraries do not load
            raise BackendUnavailable(
                f"backend tensorrt: TensorRT is installed and cannot be loaded ({error}); in a fresh "
                "environment: pip install 'taro-rt[trt]'"
            ) from error

        plans = load_plans(bundle, choice.precision)
        chained = TrtWindow(plans, bundle.manifest.geometry)
        return Engines(**load_trt(bundle, plans), choice=choice, window=chained, watch=watch)
    if choice.backend == "onnxruntime":
        from taro_rt.engines.ort import load_ort

        engines = load_ort(bundle, device or "cpu", threads, watch, choice.precision)
    elif choice.backend == "openvino":
        from taro_rt.engines.ov import load_ov

        engines = load_ov(bundle, choice.precision, threads, watch)
    else:
        from taro_rt.engines.eager import load_eager

        engines = load_eager(bundle, device or "cpu", threads)
    return Engines(**engines, choice=choice, window=None, watch=watch)


def choose(
    bundle: Bundle, backend: str = "auto", device: str | None = None, precision: str = "auto"
) -> Choice:
    """The backend and precision that will compute, and why. Loads nothing of the bundle.

    Raises as `choose_for` does.
    """
    return choose_for(bundle.n_bytes, backend, device, precision)


def choose_for(
    n_bytes: int, backend: str = "auto", device: str | None = None, precision: str = "auto"
) -> Choice:
    """The same for any bundle of so many bytes.

    Raises `OptionsError` for what does not exist or does not go together, `BackendUnavailable`.
    """
    if device is not None and device not in DEVICES:
        raise OptionsError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    if precision not in PRECISIONS:
        raise OptionsError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if backend != "auto":
        return _asked_for(backend, device, precision)
    reasons = available()
    ready = [name for name, reason in reasons.items() if not reason]
    if not ready:
        raise BackendUnavailable(f"no backend is installed; {'; '.join(reasons.values())}")
    # Not by itself where there is a GPU: no whole record of one is there yet.
    if device == "cuda" and "cuda" in ready and "cuda" in ONLY.get(precision, ("cuda",)):
        return _asked_for("cuda", device, precision, "device cuda was asked for")
    if precision in ONLY:
        return _asked_for(ONLY[precision][-1], device, precision)
    if (why_not := _why_not_openvino(n_bytes, reasons["openvino"], device)) is None:
        return _openvino(precision)
    usable = [name for name in ready if name not in ON_GPU and (name != "openvino" or device != "cuda")]
    if not usable:
        raise BackendUnavailable(f"device {device}: {reasons['onnxruntime']}")
    return Choice(usable[0], "float32", "float32 was asked for" if precision == "float32" else why_not)


def _why_not_openvino(n_bytes: int, missing: str, device: str | None) -> str | None:
    """Why it is not what suits best; None if it is."""
    if device == "cuda":
        return "openvino has no CUDA"
    if missing:
        return f"openvino {missing}"
    if n_bytes < LARGE_BYTES:
        return "the bundle is small: from process start to sound openvino takes as long, in more memory"
    return None


def _openvino(precision: str) -> Choice:
    """It, for a bundle that is large."""
    from taro_rt.engines.ov import precisions

    if precision == "float32":
        return Choice("openvino", "float32", "float32 was asked for; it is the fastest for large bundles")
    if "bfloat16" in precisions():
        return Choice("openvino", "bfloat16", "this processor computes in bfloat16")
    return Choice("openvino", "float32", "the fastest for large bundles; this processor has no bfloat16")


def _asked_for(backend: str, device: str | None, precision: str, why: str = "asked for") -> Choice:
    """The choice of the one who named a backend, or a precision that only few have."""
    reasons = available()
    if backend not in reasons:
        raise OptionsError(f"backend: expected auto, {', '.join(reasons)}, got {backend!r}")
    if reasons[backend]:
        ready = [name for name, reason in reasons.items() if not reason]
        others = f"available here: {', '.join(ready)}" if ready else "no other backend is installed"
        raise BackendUnavailable(f"backend {backend} {reasons[backend]}; {others}")
    if backend not in ONLY.get(precision, (backend,)):
        raise OptionsError(f"precision: {backend} has no {precision}; use {' or '.join(ONLY[precision])}")
    if backend in ON_GPU:
        return Choice(backend, _on_gpu(backend, device, precision), why)
    if precision == "int8" and device == "cuda":
        raise OptionsError("precision: int8 is for the CPU only, got device 'cuda'; leave it out")
    if backend != "openvino":
        return Choice(backend, "int8" if precision == "int8" else "float32", why)
    if device == "cuda":
        raise OptionsError("device: openvino computes on the CPU only, got 'cuda'; use onnxruntime")
    if precision == "auto":
        from taro_rt.engines.ov import precisions

        precision = precisions()[0]
    return Choice(backend, precision, why)


def _on_gpu(backend: str, device: str | None, precision: str) -> str:
    """The precision of a backend for GPUs. Raises for what it cannot do."""
    if device == "cpu":
        raise OptionsError(
            f"device: {backend} computes on an NVIDIA GPU only, got 'cpu'; use another backend"
        )
    if precision == "fp8" and (why_not := gpu.why_not(gpu.FP8)):
        raise BackendUnavailable(f"precision fp8 {why_not}; use bfloat16")
    fastest = "float16" if backend == "tensorrt" else "bfloat16"
    return fastest if precision == "auto" else precision
