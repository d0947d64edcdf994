"""The chain: clip → onsets and features → latents → mel → sound, for clips of any length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from taro_rt.engines.backends import Engines, load_engines
from taro_rt.engines.bundle import Bundle, SamplerDefaults
from taro_rt.engines.contract import Array
from taro_rt.engines.errors import EngineError
from taro_rt.engines.stages import Geometry
from taro_rt.runtime import prepare
from taro_rt.runtime.audio import Audio, fit_length
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.onsets import Onset, check_within, curve, pick_onsets, render_logits
from taro_rt.runtime.options import Options
from taro_rt.runtime.progress import Progress, report
from taro_rt.runtime.sampler import sample, time_grid
from taro_rt.runtime.timing import Timings
from taro_rt.runtime.velocity import CanvasVelocity, Conditions
from taro_rt.runtime.windows import Windows, cut, merge, plan

PEAK = 0.99
"""Louder sound is scaled down to this; nothing else is done to the level."""
START, STEP = 0, 1
"""Streams of noise: the latents at t = 1, and the steps of the SDE."""


@dataclass(frozen=True)
class Result:
    """What one generation made of a clip."""

    takes: tuple[Audio, ...]
    """One sound per take, each exactly as long as the picture."""
    seeds: tuple[int, ...]
    """The seed of each take: `Options(seed=...)` makes it again alone."""
    onsets: tuple[Onset, ...]
    """Picked from the curve, or those the caller gave."""
    onset_curve: Array
    """Probability of an onset [n] at the bundle's onset frame rate, within the clip."""
    timings: Mapping[str, float]
    """Seconds by stage."""

    @property
    def audio(self) -> Audio:
        """The first take."""
        return self.takes[0]


class Pipeline:
    """A bundle's engines, chained. One per thread; close it, or use it as a context manager."""

    def __init__(self, bundle: Bundle, engines: Engines) -> None:
        self.bundle = bundle
        self.engines = engines

    @classmethod
    def load(
        cls,
        bundle: Bundle | Path | str = "default",
        backend: str = "auto",
        device: str | None = None,
        threads: int | None = None,
    ) -> Pipeline:
        """Open the bundle and load its engines. Raises `BundleError` or `EngineError`."""
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return cls(opened, load_engines(opened, backend, device=device, threads=threads))

    @property
    def geometry(self) -> Geometry:
        """Sizes and rates of the bundle; `Clip.read` takes it."""
        return self.bundle.manifest.geometry

    def generate(
        self, clip: Clip | Path | str, options: Options | None = None, progress: Progress | None = None
    ) -> Result:
        """Give a clip its sound. Raises `MediaError`, `OptionsError`, `EngineError` or `Cancelled`."""
        options = options or Options()
        settings = options.resolve(self.bundle.manifest.sampler)
        run = self._run(clip, progress)
        if options.onsets is None:
            logits = run.onset_logits()
        else:
            check_within(options.onsets, run.clip.duration_s)
            logits = render_logits(options.onsets, run.windows.onset_length, self.geometry.onset_fps)
        seeds = tuple(options.seed + k for k in range(options.takes))
        latents = run.sample(settings, seeds, logits)
        waves = run.waves(run.mels(latents))
        within = curve(logits)[: len(run.clip.onset_frames)]
        picked = pick_onsets(within, self.geometry.onset_fps) if options.onsets is None else options.onsets
        return Result(
            takes=tuple(Audio(wave, self.geometry.rate_hz) for wave in waves),
            seeds=seeds,
            onsets=tuple(picked),
            onset_curve=within,
            timings=run.timings.seconds,
        )

    def onsets(
        self, clip: Clip | Path | str, progress: Progress | None = None
    ) -> tuple[Array, tuple[Onset, ...]]:
        """The onset curve [n] at the bundle's onset frame rate, and the onsets picked from it."""
        run = self._run(clip, progress)
        within = curve(run.onset_logits())[: len(run.clip.onset_frames)]
        return within, tuple(pick_onsets(within, self.geometry.onset_fps))

    def close(self) -> None:
        """Give the engines' memory back."""
        self.engines.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, clip: Clip | Path | str, progress: Progress | None) -> _Run:
        timings = Timings()
        if not isinstance(clip, Clip):
            with timings("read"):
                clip = Clip.read(clip, self.geometry, progress)
        prepare.check_frames(clip.onset_frames, clip.visual_frames, self.geometry)
        return _Run(self.engines, clip, plan(clip.duration_s, self.geometry), timings, progress)


@dataclass(frozen=True)
class _Run:
    """One clip on its way through the engines."""

    engines: Engines
    clip: Clip
    windows: Windows
    timings: Timings
    progress: Progress | None

    def onset_logits(self) -> Array:
        """What the onset network sees, [onset_length]."""
        with self.timings("onset"):
            return prepare.onset_logits(
                self.engines.onset, self.clip.onset_frames, self.windows, self.progress
            )

    def sample(self, settings: SamplerDefaults, seeds: tuple[int, ...], logits: Array) -> Array:
        """Latents of the whole clip, [takes, channels, time, bins]."""
        with self.timings("visual"):
            features = prepare.visual_rows(
                self.engines.visual, self.clip.visual_frames, self.windows, self.progress
            )
        onset = prepare.onset_rows(logits, self.windows)
        times = time_grid(settings.method, settings.steps)
        conditions = Conditions(self.engines.conditioner, times[:-1], onset, features)
        canvas = CanvasVelocity(
            self.engines.denoiser, conditions, self.windows, settings.guidance, self.timings
        )

        def velocity(latents: Array, t: float, guided: bool) -> Array:
            report(self.progress, "denoiser", 1 - t)
            return canvas(latents, t, guided)

        def noise(step: int) -> Array:
            return _noise(seeds, STEP, step, self.windows)

        latents = sample(velocity, _noise(seeds, START, 0, self.windows), noise, settings, times)
        report(self.progress, "denoiser", 1.0)
        return latents

    def mels(self, latents: Array) -> list[Array]:
        """Log-mel of every take, [frames, bins]; what neighbouring windows give is cross-faded."""
        w, length = self.windows, self.windows.geometry.latent_frames
        pieces = [[cut(take, offset, length, axis=1) for offset in w.latent_offsets] for take in latents]
        made = self._each("decoder", pieces, lambda x: self.engines.decoder(latents=x[None])["mel"][0])
        return [merge(parts, w.mel_offsets, axis=0) for parts in made]

    def waves(self, mels: list[Array]) -> list[Array]:
        """Samples of every take, exactly as long as the picture and never clipped."""
        w, length = self.windows, self.windows.geometry.mel_frames
        pieces = [[cut(mel, offset, length, axis=0) for offset in w.mel_offsets] for mel in mels]
        made = self._each("vocoder", pieces, lambda x: self.engines.vocoder(mel=x[None])["wave"][0])
        rate_hz = w.geometry.rate_hz
        n_samples = round(self.clip.duration_s * rate_hz)
        whole = [merge(parts, w.sample_offsets, axis=0) for parts in made]
        return [_limit(fit_length(samples, n_samples, rate_hz)) for samples in whole]

    def _each(
        self, stage: str, pieces: list[list[Array]], work: Callable[[Array], Array]
    ) -> list[list[Array]]:
        made: list[list[Array]] = [[] for _ in pieces]
        total, done = sum(map(len, pieces)), 0
        for parts, out in zip(pieces, made, strict=True):
            for piece in parts:
                report(self.progress, stage, done / total)
                with self.timings(stage):
                    out.append(work(np.ascontiguousarray(piece)))
                done += 1
        report(self.progress, stage, 1.0)
        return made


def _noise(seeds: tuple[int, ...], stream: int, step: int, windows: Windows) -> Array:
    """Standard normal canvas, keyed by seed, stream and step: no draw depends on an earlier one.

    Drawn time first, so that the noise of a moment does not depend on how long the clip goes on.
    """
    g = windows.geometry
    shape = (windows.latent_length, g.latent_channels, g.latent_bins)
    draws = [np.random.default_rng([seed, stream, step]).standard_normal(shape, np.float32) for seed in seeds]
    return np.ascontiguousarray(np.stack(draws).transpose(0, 2, 1, 3))  # [k, t, c, f] -> [k, c, t, f]


def _limit(samples: Array) -> Array:
    peak = float(np.abs(samples).max())
    if not np.isfinite(peak):
        raise EngineError("the sound: expected finite values, got others; try another backend or seed")
    return samples if peak <= PEAK else samples * np.float32(PEAK / peak)
