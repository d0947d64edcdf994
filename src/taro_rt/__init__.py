"""Sound for silent video: the optimised runtime of TARO.

    from taro_rt import Pipeline

    with Pipeline.load() as pipeline:
        result = pipeline.generate("clip.mp4")
    result.audio.samples, result.audio.rate_hz

Names are imported on first use, so that `import taro_rt` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taro_rt.engines.bundle import Bundle
    from taro_rt.engines.errors import (
        BackendUnavailable,
        BuildError,
        BundleError,
        Cancelled,
        CheckpointError,
        ChecksumError,
        ContractError,
        EngineError,
        ManifestError,
        MediaError,
        NoVideoError,
        OptionsError,
        TaroError,
        UnreadableError,
    )
    from taro_rt.runtime.audio import Audio
    from taro_rt.runtime.clip import Clip
    from taro_rt.runtime.finish import Finish
    from taro_rt.runtime.mux import write_output
    from taro_rt.runtime.onsets import Onset
    from taro_rt.runtime.options import Options
    from taro_rt.runtime.pipeline import Pipeline, Result
    from taro_rt.runtime.source import Span

__version__ = "0.1.0"

_HOMES = {
    "Audio": "runtime.audio",
    "BackendUnavailable": "engines.errors",
    "BuildError": "engines.errors",
    "Bundle": "engines.bundle",
    "BundleError": "engines.errors",
    "Cancelled": "engines.errors",
    "CheckpointError": "engines.errors",
    "ChecksumError": "engines.errors",
    "Clip": "runtime.clip",
    "ContractError": "engines.errors",
    "EngineError": "engines.errors",
    "Finish": "runtime.finish",
    "ManifestError": "engines.errors",
    "MediaError": "engines.errors",
    "NoVideoError": "engines.errors",
    "Onset": "runtime.onsets",
    "Options": "runtime.options",
    "OptionsError": "engines.errors",
    "Pipeline": "runtime.pipeline",
    "Result": "runtime.pipeline",
    "Span": "runtime.source",
    "TaroError": "engines.errors",
    "UnreadableError": "engines.errors",
    "write_output": "runtime.mux",
}

__all__ = [
    "Audio",
    "BackendUnavailable",
    "BuildError",
    "Bundle",
    "BundleError",
    "Cancelled",
    "CheckpointError",
    "ChecksumError",
    "Clip",
    "ContractError",
    "EngineError",
    "Finish",
    "ManifestError",
    "MediaError",
    "NoVideoError",
    "Onset",
    "Options",
    "OptionsError",
    "Pipeline",
    "Result",
    "Span",
    "TaroError",
    "UnreadableError",
    "__version__",
    "write_output",
]


if not TYPE_CHECKING:  # a checker must see the imports above, and nothing else

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'taro_rt' has no attribute {name!r}")
        value = getattr(import_module(f"taro_rt.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
