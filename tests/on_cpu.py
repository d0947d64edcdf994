"""The cuda backend without a GPU: the same engine on a CPU, where programs are called, not replayed."""

from __future__ import annotations

from dataclasses import replace

from taro_rt import Bundle, Pipeline
from taro_rt.engines.backends import Choice, Engines
from taro_rt.engines.cuda import load_cuda


def cuda_on_cpu(
    bundle: Bundle, precision: str = "float32", window: bool = True, fused: bool = False
) -> Pipeline:
    """A pipeline of the cuda backend; without its `window` every step is a call of its own."""
    loaded = load_cuda(bundle, precision, "cpu", fused)
    engines = Engines(**loaded.graphs, window=loaded.window, choice=Choice("cuda", precision, "for a test"))
    return Pipeline(bundle, engines if window else replace(engines, window=None))
