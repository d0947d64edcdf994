"""What each golden file asks of a runtime: the arrays of the file, made by the engines of a bundle.

Inputs follow from the seed (spec: golden vectors, sections 3 and 4); preparation, sampler and guidance are
the runtime's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import golden
import numpy as np
import numpy.typing as npt

from taro_rt.engines.backends import Engine, Engines
from taro_rt.engines.bundle import SamplerDefaults
from taro_rt.engines.contract import Array
from taro_rt.engines.nets.config import PUBLISHED
from taro_rt.runtime.prepare import IMAGENET_MEAN, IMAGENET_STD, onset_input
from taro_rt.runtime.resize import resize_bytes, resize_floats
from taro_rt.runtime.sampler import sample, time_grid
from taro_rt.runtime.timing import Timings
from taro_rt.runtime.velocity import Asked, Conditions, velocities

Arrays = dict[str, npt.NDArray[np.generic]]
GEOMETRY = PUBLISHED.geometry()
FRAMES = {"360x640": 20, "120x160": 20, "271x333": 1}
"""Sizes of the pictures to shrink, and the pixels of a cell in them."""
TIMES = (1.0, 0.7, 0.36, 0.04)
FEWER_TOKENS = (0.36, 20)
"""Time and number of context tokens of the fixture that has fewer of them."""
METHODS = {"em": "sde", "ode": "ode", "heun": "heun"}
"""What the files call the methods of the sampler."""
STRIDE = 17


def preprocess(seed: int, engines: Engines) -> Arrays:
    made: Arrays = {}
    for size, cell in FRAMES.items():
        height, width = map(int, size.split("x"))
        pixels = golden.blocky(f"frame.{size}", (3, height, width), cell, seed)
        frame = np.floor(pixels * np.float32(255) + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0)
        side = GEOMETRY.visual_size
        made[f"visual_{size}"] = resize_bytes(frame, side, side).transpose(2, 0, 1)
        small = resize_floats(frame, GEOMETRY.onset_resize, GEOMETRY.onset_resize)
        made[f"onset_{size}"] = onset_input(small[None], 0, GEOMETRY)[0, :, 0]
    return made


def visual(seed: int, engines: Engines) -> Arrays:
    frames = golden.blocky("visual_frames", (1, 40, 3, 224, 224), 16, seed)
    return {
        f"feats{n}": engines.visual(frames=channels_first(frames[:, :n]))["features"]
        for n in (GEOMETRY.visual_encode, GEOMETRY.visual_frames)
    }


def onset(seed: int, engines: Engines) -> Arrays:
    frames = normalised(golden.blocky("onset_frames", (2, 3, 30, 112, 112), 16, seed))
    return {
        "logits": engines.onset(frames=frames)["logits"],
        "logits_first_alone": engines.onset(frames=frames[:1])["logits"],
    }


def transformer(seed: int, engines: Engines) -> Arrays:
    made: Arrays = {}
    latents, y, context = golden.latents(seed), golden.onset(seed), golden.context(seed)
    for t in TIMES:
        rows = conditions(engines.conditioner, t, y, context)
        made[f"v_t{t}"] = velocity(engines.denoiser, latents, *next(rows))
        made[f"v_guided_t{t}"] = velocity(engines.denoiser, latents, *next(rows))
    return made


def transformer_depth4(seed: int, engines: Engines) -> Arrays:
    made = transformer(seed, engines)
    t, n = FEWER_TOKENS
    rows = conditions(engines.conditioner, t, golden.onset(seed), golden.context(seed)[:, :n])
    return {**made, f"v_ctx{n}_t{t}": velocity(engines.denoiser, golden.latents(seed), *next(rows))}


def conditions(conditioner: Engine, t: float, onset: Array, features: Array) -> Iterator[tuple[Array, Array]]:
    """Tokens and modulation of the conditional row, then of the batch [conditional, null]."""
    made = conditioner(times=np.array([t], np.float32), onset=onset, features=features)
    tokens, modulation, null = made["tokens"], made["modulation"][0], made["null_modulation"][0]
    yield tokens, modulation
    yield np.concatenate([tokens, np.zeros_like(tokens)]), np.concatenate([modulation, null])


def velocity(denoiser: Engine, latents: Array, tokens: Array, modulation: Array) -> Array:
    rows = np.repeat(latents, len(tokens), axis=0)
    return denoiser(latents=rows, tokens=tokens, modulation=modulation)["velocity"]


class Watched:
    """A denoiser that keeps the latents of every call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.contract, self.backend = engine.contract, engine.backend
        self.latents: list[Array] = []

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        self.latents.append(inputs["latents"])
        return self._engine(**inputs)

    def close(self) -> None:
        self._engine.close()


def trajectory(
    seed: int,
    engines: Engines,
    settings: SamplerDefaults,
    onset: Array,
    context: Array,
    times: Array | None = None,
) -> Arrays:
    """One run of the sampler, with what every call of the network was given."""
    times = time_grid(settings.method, settings.steps) if times is None else times
    denoiser, asked = Watched(engines.denoiser), list[tuple[float, bool]]()
    window = Conditions(engines.conditioner, times[:-1], onset, context)

    def velocity(latents: Array, t: float, guided: bool) -> Array:
        asked.append((t, guided))
        return velocities(denoiser, [Asked(latents, window, t, guided)], settings.guidance, Timings())[0]

    final = sample(velocity, golden.latents(seed), lambda step: golden.noise(step, seed), settings, times)
    return {
        "final": final,
        "states_stride17": np.stack([rows[0].ravel()[::STRIDE] for rows in denoiser.latents]),
        "eval_t": np.array([t for t, _ in asked]),
        "eval_batch": np.array([len(rows) for rows in denoiser.latents]),
        "eval_guided": np.array([guided for _, guided in asked]),
    }


def sampler(name: str) -> Callable[[int, Engines], Arrays]:
    """The case of one method at the published depth."""

    def case(seed: int, engines: Engines) -> Arrays:
        settings = SamplerDefaults(method=METHODS[name])
        return trajectory(seed, engines, settings, golden.onset(seed), golden.context(seed))

    return case


def sampler_depth4(seed: int, engines: Engines) -> Arrays:
    made: Arrays = {}
    for name in METHODS:
        made.update({f"{name}/{key}": value for key, value in sampler(name)(seed, engines).items()})
    y, context, settings = golden.onset(seed), golden.context(seed), SamplerDefaults()
    times = golden.BFLOAT16_TIMES
    rounded = trajectory(seed, engines, settings, y, context, times)
    plain = trajectory(seed, engines, SamplerDefaults(guidance=1.0), y, context)
    return {
        **made,
        "em_bf16grid/final": rounded["final"],
        "em_bf16grid/t": times,
        "em_nocfg/final": plain["final"],
    }


def vae(seed: int, engines: Engines) -> Arrays:
    return {"mel": engines.decoder(latents=golden.latents(seed))["mel"][:, None]}


def vocoder(seed: int, engines: Engines) -> Arrays:
    mel = golden.normal("mel", (GEOMETRY.mel_frames, GEOMETRY.mel_bins), seed)
    return {"wav": engines.vocoder(mel=mel[None])["wave"][0]}


def e2e_depth4(seed: int, engines: Engines) -> Arrays:
    frames = golden.blocky("e2e_visual", (1, 40, 3, 224, 224), 32, seed)
    context = engines.visual(frames=channels_first(frames))["features"][:, : GEOMETRY.visual_frames]
    frames = golden.blocky("e2e_onset", (120, 3, 112, 112), 16, seed)
    segments = channels_first(frames.reshape(-1, GEOMETRY.onset_segment, *frames.shape[1:]))
    rows = [engines.onset(frames=normalised(segment[None]))["logits"][0] for segment in segments]
    y = np.concatenate(rows)[None]
    latents = trajectory(seed, engines, SamplerDefaults(), y, context)["final"]
    mel = engines.decoder(latents=latents)["mel"]
    wave = engines.vocoder(mel=mel)["wave"][0]
    return {"context": context, "onset": y, "latents": latents, "mel": mel[:, None], "wav": wave}


def channels_first(frames: Array) -> Array:
    """[b, t, 3, h, w] as the engines read it, [b, 3, t, h, w]."""
    return np.ascontiguousarray(frames.swapaxes(1, 2))


def normalised(frames: Array) -> Array:
    """Frames [b, 3, t, h, w] in [0, 1] with ImageNet's mean and deviation."""
    column = (slice(None), None, None, None)
    return (frames - IMAGENET_MEAN[column]) / IMAGENET_STD[column]


Case = Callable[[int, Engines], Arrays]
CASES: dict[str, tuple[int, Case]] = {
    "preprocess": (4, preprocess),
    "visual": (4, visual),
    "onset": (4, onset),
    "vae": (4, vae),
    "vocoder": (4, vocoder),
    "transformer_depth4": (4, transformer_depth4),
    "sampler_depth4": (4, sampler_depth4),
    "e2e_depth4": (4, e2e_depth4),
    "transformer": (12, transformer),
    "sampler_em": (12, sampler("em")),
    "sampler_ode": (12, sampler("ode")),
    "sampler_heun": (12, sampler("heun")),
}
"""By file: the depth of the transformer in the bundle that runs it, and how. All else is as published."""
