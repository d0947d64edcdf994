"""One generation: pictures → onsets and features → latents → mel → sound, flowing window by window.

Every arrow is a generator that pulls what it needs from the one before it, so nothing is ahead of its time
and nothing is kept behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from taro_rt.engines.backends import Engines
from taro_rt.engines.bundle import Manifest
from taro_rt.engines.contract import Array
from taro_rt.engines.window import Scene, Step, Window
from taro_rt.runtime.audio import Audio, Spool
from taro_rt.runtime.clip import Pictures
from taro_rt.runtime.loudness import limit_peak
from taro_rt.runtime.noise import START, STEP, draw_noise
from taro_rt.runtime.onsets import Onset, check_within, curve, pick_onsets, render_logits
from taro_rt.runtime.options import Options
from taro_rt.runtime.prepare import OnsetLogits, visual_features, visual_pixels
from taro_rt.runtime.progress import Progress, report
from taro_rt.runtime.sampler import evaluations, linear_steps, steps, time_grid
from taro_rt.runtime.source import Span
from taro_rt.runtime.timing import Timings
from taro_rt.runtime.velocity import LATENTS_PER_CALL, Asked, Conditions, Feed, velocities
from taro_rt.runtime.wavefront import Run, Wavefront
from taro_rt.runtime.windows import merge, plan, regroup

STAGE = "generate"
"""What progress calls the work of the engines."""


class Generation:
    """Pictures on their way through the engines. Raises `OptionsError` for onsets beyond the clip."""

    def __init__(
        self,
        engines: Engines,
        manifest: Manifest,
        pictures: Pictures,
        options: Options,
        progress: Progress | None,
        around: Span | None = None,
    ) -> None:
        """`around` restricts the work to the windows that cover any of that part; None makes all."""
        self._engines = engines
        self._pictures = pictures
        self._given = options.onsets
        self._progress = progress
        self._geometry = g = manifest.geometry
        self._guidance_every = options.guidance_every
        self._settings = options.resolve(manifest.sampler)
        self._times = time_grid(self._settings.method, self._settings.steps)
        whole = plan(pictures.duration_s, g)
        self._whole, self._around = whole, around
        self._windows = whole if around is None else whole.over(around.start_s, _end_s(around, pictures))
        self.seeds = tuple(options.seed + k for k in range(options.takes))
        self.timings = Timings()
        self._heard: OnsetLogits | None = None
        self._logits: Callable[[int], Array]
        if options.onsets is None:
            self._heard = OnsetLogits(engines.onset, pictures, g, self.timings)
            self._logits = self._heard.until
        else:
            check_within(options.onsets, pictures.duration_s)
            drawn = render_logits(options.onsets, whole.onset_length, g.onset_fps)
            self._logits = lambda n: drawn[:n]

    @property
    def start_s(self) -> float:
        """When the sounds begin: 0, or with the first window around a part."""
        return float(self._windows.starts_s[0])

    def takes(self, folder: Path | None) -> tuple[Audio, ...]:
        """The sounds, never clipped: exactly as long as the picture, or as the windows around a part."""
        rate_hz = self._geometry.rate_hz
        report(self._progress, STAGE, 0.0)
        self._pass_by()
        with ExitStack() as opened:
            spools = [opened.enter_context(closing(Spool(rate_hz, folder))) for _ in self.seeds]
            for samples in self._samples():
                for spool, take in zip(spools, samples, strict=True):
                    spool.add(take)
            if self._around is None:
                self._pictures.n_onset_frames()  # reads to the end: only now the length is certain
            n_samples = min(self._n_left(), spools[0].n_samples) if self._around else self._n_left()
            takes = [spool.audio(n_samples) for spool in spools]
        report(self._progress, STAGE, 1.0)
        return tuple(takes) if folder else tuple(Audio(limit_peak(a.samples), rate_hz) for a in takes)

    def onsets(self) -> tuple[Array, tuple[Onset, ...]]:
        """The onset curve [n] within the clip, and the onsets picked from it or given.

        Around a part, the curve from the clip's beginning up to where the windows end.
        """
        if self._around is None:
            n = self._pictures.n_onset_frames()
        else:
            n_likely = max(1, round(self._pictures.duration_s * self._geometry.onset_fps))
            n = min(n_likely, self._windows.onset_length)
        within = curve(self._logits(n))
        picked = pick_onsets(within, self._geometry.onset_fps) if self._given is None else self._given
        return within, tuple(picked)

    def _pass_by(self) -> None:
        """Let go of what lies before the windows, a window at a time: no frame waits for the whole way."""
        for onset, visual in zip(self._whole.onset_offsets, self._whole.visual_offsets, strict=True):
            if onset >= self._windows.onset_offsets[0]:
                return
            if self._given is None:
                self._logits(onset)
            else:
                self._pictures.onset_part(onset, 1)
            self._pictures.visual_part(visual, 1)

    def _n_left(self) -> int:
        """Samples from the first window to the end of the picture."""
        n_samples = round(self._pictures.duration_s * self._geometry.rate_hz)
        return max(1, n_samples - self._windows.sample_offsets[0])

    def _samples(self) -> Iterator[Array]:
        """Samples [takes, n], piece by piece."""
        g, w = self._geometry, self._windows
        fixed = linear_steps(self._settings, self._times) if self._guidance_every == 1 else None
        if (window := self._engines.window) is not None and fixed is not None and len(self._whole) == 1:
            yield self._at_once(window, fixed)
            return
        latents = regroup(self._latents(), w.latent_offsets, g.latent_frames, axis=2)
        mels = merge(self._each("decoder", latents, self._mel), w.mel_offsets, axis=1)
        windows = regroup(mels, w.mel_offsets, g.mel_frames, axis=1)
        yield from merge(self._each("vocoder", windows, self._wave), w.sample_offsets, axis=1)

    def _at_once(self, window: Window, fixed: tuple[Step, ...]) -> Array:
        """The only window [takes, n], all of it on the device that has it."""
        g, onset, frames = self._geometry, None, None
        if self._heard is not None:
            frames = self._heard.pixels_until(g.onset_values)
        else:
            self._pictures.onset_part(0, 1)  # nobody looks at them: else they would pile up
            onset = self._logits(g.onset_values)
        with self.timings("read"):
            seen = visual_pixels(self._pictures.visual_part(0, g.visual_encode), 0, g)

        def noise(k: int, first: int, n: int) -> Array:
            stream, step = (START, 0) if k == 0 else (STEP, k - 1)
            return draw_noise(self.seeds[first : first + n], stream, step, 0, g.latent_frames, g)

        made = window(Scene(frames, onset, seen, fixed, len(self.seeds), noise))
        if self._heard is not None and made.logits is not None:
            self._heard.add(made.logits)
        self.timings.seconds.update(made.seconds)
        return made.wave

    def _latents(self) -> Iterator[Array]:
        """Finished latents [takes, channels, time, bins], piece by piece."""
        g, settings, every = self._geometry, self._settings, self._guidance_every

        def start(low: int, high: int) -> Run:
            noise = draw_noise(self.seeds, START, 0, low, high, g)
            step = lambda i: draw_noise(self.seeds, STEP, i, low, high, g)  # noqa: E731
            return steps(noise, step, settings, self._times)

        total, n_evaluated, feed = evaluations(settings) * len(self._windows), 0, Feed()

        def evaluate(asked: list[Asked]) -> list[Array]:
            nonlocal n_evaluated
            report(self._progress, STAGE, n_evaluated / total)
            n_evaluated += len(asked)
            denoiser, guidance = self._engines.denoiser, settings.guidance
            return velocities(denoiser, asked, guidance, self.timings, every, feed)

        per_call = max(1, LATENTS_PER_CALL // len(self.seeds))
        front = Wavefront(
            self._windows.latent_offsets, g.latent_frames, start, self._enter, evaluate, per_call
        )
        return front.pieces()

    def _enter(self, window: int) -> Conditions:
        g, w, engines = self._geometry, self._windows, self._engines
        offset = w.onset_offsets[window]
        if self._given is not None:
            self._pictures.onset_part(offset, 1)  # nobody looks at them: else they would pile up
        onset = self._logits(offset + g.onset_values)[offset:][None]
        offset = w.visual_offsets[window]
        features = visual_features(engines.visual, self._pictures, offset, g, self.timings)
        n_sharing = min(len(w), 2 * evaluations(self._settings))
        return Conditions(engines.conditioner, self._times[:-1], onset, features, n_sharing)

    def _mel(self, latents: Array) -> Array:
        return np.stack([self._engines.decoder(latents=take[None])["mel"][0] for take in latents])

    def _wave(self, mels: Array) -> Array:
        return np.stack([self._engines.vocoder(mel=mel[None])["wave"][0] for mel in mels])

    def _each(self, stage: str, windows: Iterator[Array], work: Callable[[Array], Array]) -> Iterator[Array]:
        for window in windows:
            with self.timings(stage):
                made = work(np.ascontiguousarray(window))
            yield made


def _end_s(span: Span, pictures: Pictures) -> float:
    return pictures.duration_s if span.end_s is None else span.end_s
