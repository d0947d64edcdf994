"""The tensorrt backend on the GPU of this machine: does it compute the same, and what does a window take.

    taro-rt plans --bundle B
    python benchmarks/tensorrt_rows.py --bundle B [-o FILE]

Parity comes first, and what fails it is not timed. Needs no PyTorch; where it is installed it is the oracle,
else ONNX Runtime on the CPU is. `measure` is for gpu.py, which puts what it returns beside its own rows.
Not run yet: there was no machine with a GPU and TensorRT.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from taro_rt.engines import gpu
from taro_rt.engines.backends import Engines, load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array
from taro_rt.engines.errors import EngineError
from taro_rt.engines.stages import GRAPHS, Geometry, typical_inputs
from taro_rt.engines.window import Scene, Sound
from taro_rt.runtime.bench.gate import relative_rms
from taro_rt.runtime.noise import START, STEP, draw_noise
from taro_rt.runtime.sampler import linear_steps, time_grid

Record = dict[str, Any]
TOLERANCES = {"float16": 1e-2, "float32": 1e-4}
"""Relative rms from float32, of one network. A window's wave is held to its own plans, run one by one."""
WAVE = 2e-2
STAGES = ("watch", "sampler", "sound")


def measure(bundle: Bundle, precision: str = "float16", runs: int = 50) -> Record:
    """Deviations, then milliseconds of a window. Raises `EngineError` where the backend cannot be had."""
    started = time.perf_counter()
    engines = load_engines(bundle, "tensorrt", precision=precision)
    with closing(engines):
        record: Record = {
            "backend": "tensorrt", "precision": precision, "device": str(gpu.find_gpu()),
            "load_s": round(time.perf_counter() - started, 3), "parity": parity(bundle, engines, precision),
        }  # fmt: skip
        if not record["parity"]["why_not"]:
            record |= timed(bundle, engines, runs)
    return record


def parity(bundle: Bundle, engines: Engines, precision: str) -> Record:
    """Every network against float32, and the chained window against the same plans one by one."""
    oracle = load_engines(bundle, "eager" if find_spec("torch") else "onnxruntime")
    g, found = bundle.manifest.geometry, {}
    sizes = {"b": 1, "s": 3, "n": g.visual_frames, "t": g.visual_encode}
    for name in GRAPHS:
        ours, theirs = getattr(engines, name), getattr(oracle, name)
        feed = typical_inputs(theirs.contract, seed=1, **{**sizes, "b": 2 if name == "denoiser" else 1})
        want = theirs(**feed)
        got = ours(**feed)
        found[name] = max(relative_rms(got[output], want[output]) for output in want)
    oracle.close()
    scene = a_scene(bundle)
    found["window"] = relative_rms(_at_once(engines, scene).wave, one_by_one(bundle, engines, scene))
    limits = {**dict.fromkeys(GRAPHS, TOLERANCES[precision]), "window": WAVE}
    wrong = [f"{k} is off by {found[k]:.2g} of {limits[k]:g}" for k in found if not found[k] <= limits[k]]
    return {"deviation": {k: float(f"{v:.3g}") for k, v in found.items()}, "why_not": "; ".join(wrong)}


def timed(bundle: Bundle, engines: Engines, runs: int) -> Record:
    """A window on the device and on the wall clock. `not_recorded` says why, where the loop is no graph."""
    scene = a_scene(bundle)
    rows: Record = {"frames_to_wave_ms": [], **{f"{stage}_ms": [] for stage in STAGES}}
    for k in range(runs + 3):
        started = time.perf_counter()
        made = _at_once(engines, scene)
        if k < 3:  # the first ones set up and record
            continue
        rows["frames_to_wave_ms"].append(1e3 * (time.perf_counter() - started))
        for stage in STAGES:
            rows[f"{stage}_ms"].append(1e3 * made.seconds[stage])
    assert engines.window is not None
    return {
        **{name: percentiles(values) for name, values in rows.items()},
        "not_recorded": getattr(engines.window, "reasons", list)(),
        "memory_mb": engines.window.memory_mb,
    }


def a_scene(bundle: Bundle) -> Scene:
    """Frames of noise, sampled as the bundle is meant to be."""
    g, settings = bundle.manifest.geometry, bundle.manifest.sampler
    rng = np.random.default_rng(0)
    segments = -(-g.onset_values // g.onset_segment)
    onset = rng.integers(0, 256, (segments, g.onset_seen, g.onset_crop, g.onset_crop, 3), np.uint8)
    seen = rng.integers(0, 256, (g.visual_encode, g.visual_size, g.visual_size, 3), np.uint8)
    settings = settings if settings.method in ("sde", "ode") else replace(settings, method="sde")
    steps = linear_steps(settings, time_grid(settings.method, settings.steps))
    assert steps is not None
    return Scene(onset, None, seen, steps, 1, lambda k, first, n: _noise(k, g))


def _noise(k: int, g: Geometry) -> Array:
    stream, step = (START, 0) if k == 0 else (STEP, k - 1)
    return draw_noise((0,), stream, step, 0, g.latent_frames, g)


def _at_once(engines: Engines, scene: Scene) -> Sound:
    if engines.window is None:
        raise EngineError("tensorrt: expected a window of plans, got none")
    return engines.window(scene)


def one_by_one(bundle: Bundle, engines: Engines, scene: Scene) -> Array:
    """The same scene with every plan called from the host."""
    from taro_rt.engines.static import onset_tensor, visual_tensor

    g = bundle.manifest.geometry
    assert scene.onset_frames is not None
    heard = [engines.onset(frames=onset_tensor(part))["logits"][0] for part in scene.onset_frames]
    features = engines.visual(frames=visual_tensor(scene.visual_frames))["features"][:, : g.visual_frames]
    times = np.array([step.t for step in scene.steps], np.float32)
    onset = np.concatenate(heard)[None, : g.onset_values]
    made = engines.conditioner(times=times, onset=onset, features=features)
    tokens, x = made["tokens"], scene.noise(0, 0, 1)
    for i, step in enumerate(scene.steps):
        v = engines.denoiser(latents=x, tokens=tokens, modulation=made["modulation"][i])["velocity"]
        if step.guided:
            null = np.broadcast_to(made["null_modulation"][i], made["modulation"][i].shape)
            feed = {"latents": x, "tokens": np.zeros_like(tokens), "modulation": np.ascontiguousarray(null)}
            of_null = engines.denoiser(**feed)["velocity"]
            v = of_null + step.guidance * (v - of_null)
        x = (step.keep * x + step.push * v + step.spread * scene.noise(i + 1, 0, 1)).astype(np.float32)
    mel = engines.decoder(latents=x)["mel"]
    wave: Array = engines.vocoder(mel=mel)["wave"]
    return wave


def percentiles(values: list[float]) -> Record:
    """p50, p90 and p99, and how many."""
    return {**{f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 90, 99)}, "runs": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--precision", default="float16", choices=tuple(TOLERANCES))
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    text = json.dumps(measure(Bundle.open(args.bundle), args.precision, args.runs), indent=1)
    if args.output:
        args.output.write_text(text + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
