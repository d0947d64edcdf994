"""What is measured: a way of computing, and how it is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from taro_rt.engines.backends import ON_GPU, Engines, available, load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.errors import OptionsError

RELEASED = "released"


@dataclass(frozen=True)
class Variant:
    """A row of the table."""

    name: str
    backend: str
    """One of the backends, or `RELEASED`: PyTorch as in the released script."""
    precision: str
    without: tuple[str, ...] = ()
    """Parts of the released recipe that are left out."""
    options: dict[str, Any] = field(default_factory=dict)
    """Sampler options that make it fast rather than exact."""

    @staticmethod
    def from_json(data: dict[str, Any]) -> Variant:
        """The inverse of `asdict`."""
        return Variant(**{**data, "without": tuple(data["without"])})

    def as_json(self) -> dict[str, Any]:
        """Plain containers."""
        return asdict(self)

    @property
    def modulates_every_step(self) -> bool:
        """Whether modulation is part of the denoiser's work."""
        return self.backend == RELEASED and "modulation_every_step" not in self.without

    def precision_of(self, graph: str) -> str:
        """What a graph is computed in: the released recipe keeps all but the transformer in float32, and 8
        bits are for the denoiser alone."""
        narrow = {RELEASED: ("conditioner", "denoiser"), "onnxruntime": ("denoiser",)}
        return self.precision if graph in narrow.get(self.backend, (graph,)) else "float32"

    def load(self, bundle: Bundle, threads: int | None) -> Engines:
        """Its engines. Raises `BundleError` or `EngineError`."""
        if self.backend != RELEASED:
            return load_engines(bundle, self.backend, None, threads, self.precision)
        from taro_rt.engines.released import Recipe, load_released

        return load_released(bundle, Recipe(**dict.fromkeys(self.without, False)), threads, self.precision)

    def without_bfloat16(self) -> Variant:
        """The same where PyTorch only emulates bfloat16: the released recipe is float32 throughout, and its
        first row says so."""
        if self.backend != RELEASED:
            return self
        return replace(self, precision="float32", name=self.name + ("" if self.without else ", float32"))


def exact_variants(backend: str = "auto") -> list[Variant]:
    """Every way of computing the same, as far as it is installed here: the released recipe, the same without
    one surplus part after the other, then the backends.

    With `backend` named only that one, beside the baseline. Raises `OptionsError`, also for one on a GPU.
    """
    reasons = available()
    if backend not in ("auto", *reasons):
        raise OptionsError(f"backend: expected auto, {', '.join(reasons)}, got {backend!r}")
    if backend in ON_GPU:
        raise OptionsError(f"backend: this measures processors, got {backend}; use benchmarks/gpu.py")
    wanted = [name for name, why in reasons.items() if not why and backend in ("auto", name)]
    found = [] if reasons["eager"] else _released(whole=backend != "auto")
    for name in ("eager", "onnxruntime", "openvino"):
        if name in wanted:
            found += [Variant(f"{name} {p}", name, p) for p in _precisions(name)]
    return found


def fast_variants(best: Variant, backend: str = "auto") -> list[Variant]:
    """Settings that change the sound, on the fastest exact way of computing; then 8-bit linear layers, which
    ONNX Runtime alone has, without and with the boldest of them."""
    made = [
        Variant(f"{best.name}, {name}", best.backend, best.precision, (), options)
        for name, options in FAST.items()
    ]
    if backend in ("auto", "onnxruntime") and not available()["onnxruntime"] and find_spec("onnx"):
        boldest = list(FAST)[-1]
        made.append(Variant("onnxruntime int8", "onnxruntime", "int8"))
        made.append(Variant(f"onnxruntime int8, {boldest}", "onnxruntime", "int8", (), FAST[boldest]))
    return made


FAST: dict[str, dict[str, Any]] = {
    "dpm++, 15 steps": {"method": "dpm++", "steps": 15},
    "dpm++2m, 12 steps": {"method": "dpm++2m", "steps": 12},
    "dpm++2m, 8 steps": {"method": "dpm++2m", "steps": 8},
    "guidance every 2nd": {"guidance_every": 2},
    "dpm++2m, 12 steps, guidance every 2nd": {"method": "dpm++2m", "steps": 12, "guidance_every": 2},
    "dpm++2m, 8 steps, guidance every 2nd": {"method": "dpm++2m", "steps": 8, "guidance_every": 2},
}
"""By name: options that trade likeness for time, the boldest last; benchmarks/fast.py measures what each
costs."""


def _released(whole: bool) -> list[Variant]:
    """The released recipe, and the same with one surplus after the other left out."""
    parts = ("alignment_head", "modulation_every_step", "surplus")
    names = ("released recipe", "… no alignment head", "… modulation once", "… no surplus frames")
    made = [Variant(name, RELEASED, "bfloat16", parts[:k]) for k, name in enumerate(names)]
    return made[:1] if whole else made


def _precisions(backend: str) -> tuple[str, ...]:
    if backend != "openvino":
        return ("float32",)
    from taro_rt.engines.ov import precisions

    return tuple(reversed(precisions()))
