"""Backends: which exist, which are installed, and how one loads a bundle's six engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array, Contract
from taro_rt.engines.errors import BackendUnavailable, OptionsError
from taro_rt.engines.watch import Watch

NEEDS = {"onnxruntime": ("cpu", ("onnxruntime",)), "eager": ("export", ("torch", "safetensors"))}
"""The extra that installs each backend and the import names it needs, best backend first."""
DEVICES = ("cpu", "cuda")


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
class Engines:
    """The six engines of a bundle, all of one backend."""

    onset: Engine
    visual: Engine
    conditioner: Engine
    denoiser: Engine
    decoder: Engine
    vocoder: Engine
    backend: str
    watch: Watch = field(default_factory=Watch)
    """Who is asked during long runs; `eager` asks nobody: Python hears Ctrl-C between its operations."""

    def close(self) -> None:
        """Close all six."""
        for engine in (self.onset, self.visual, self.conditioner, self.denoiser, self.decoder, self.vocoder):
            engine.close()
        self.watch.close()


def available() -> dict[str, str]:
    """Every backend, with "" where it is installed, else the reason why it is not. Imports none of them."""
    reasons = {}
    for name, (extra, packages) in NEEDS.items():
        missing = [package for package in packages if find_spec(package) is None]
        reasons[name] = f"needs {' and '.join(missing)}: pip install 'taro-rt[{extra}]'" if missing else ""
    return reasons


def load_engines(
    bundle: Bundle, backend: str = "auto", device: str | None = None, threads: int | None = None
) -> Engines:
    """Load all six graphs of `bundle`.

    `backend` "auto" takes the first that is installed, `device` None means "cpu". `threads` bounds
    the CPU threads of one operation; by default all usable physical cores work. Raises `OptionsError`,
    `BackendUnavailable`, `BuildError`, or `BundleError` for weights that do not fit.
    """
    if device is not None and device not in DEVICES:
        raise OptionsError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise OptionsError(f"threads: expected 1 to {MOST_THREADS}, got {threads}")
    name = _choose(backend)
    engines: Mapping[str, Engine]
    watch = Watch()
    if name == "onnxruntime":
        from taro_rt.engines.ort import load_ort

        engines = load_ort(bundle, device or "cpu", threads, watch)
    else:
        from taro_rt.engines.eager import load_eager

        engines = load_eager(bundle, device or "cpu", threads)
    return Engines(**engines, backend=name, watch=watch)


def _choose(backend: str) -> str:
    reasons = available()
    ready = [name for name, reason in reasons.items() if not reason]
    if backend == "auto":
        if not ready:
            raise BackendUnavailable(f"no backend is installed; {'; '.join(reasons.values())}")
        return ready[0]
    if backend not in reasons:
        raise OptionsError(f"backend: expected auto, {', '.join(reasons)}, got {backend!r}")
    if reasons[backend]:
        others = f"available here: {', '.join(ready)}" if ready else "no other backend is installed"
        raise BackendUnavailable(f"backend {backend} {reasons[backend]}; {others}")
    return backend
