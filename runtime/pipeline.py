"""The engines of a bundle, chained: a clip or a video in, its sound out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from taro_rt.engines.backends import Engines, load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array
from taro_rt.engines.stages import Geometry
from taro_rt.runtime import prepare
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.clip import Clip, Pictures, asking, open_reel
from taro_rt.runtime.generation import Generation
from taro_rt.runtime.onsets import Onset, curve, pick_onsets
from taro_rt.runtime.options import Options
from taro_rt.runtime.prepare import OnsetLogits
from taro_rt.runtime.probe import probe
from taro_rt.runtime.progress import Progress, Repeated, report
from taro_rt.runtime.region import EDGE_S, Region, check_part, with_part
from taro_rt.runtime.source import Span
from taro_rt.runtime.spooled import Source, on_disk
from taro_rt.runtime.timing import Timings
from taro_rt.runtime.turns import Turns


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
    start_s: float = 0.0
    """When the takes begin in the clip; above 0 only for those made `around` a part."""

    @property
    def audio(self) -> Audio:
        """The first take."""
        return self.takes[0]


class Pipeline:
    """A bundle's engines, chained; close it, or use it as a context manager.

    Threads may share one: calls take turns, and those that wait can be stopped by their progress callback.
    Several pipelines work side by side, each with threads and scratch memory of its own.
    """

    def __init__(self, bundle: Bundle, engines: Engines) -> None:
        self.bundle = bundle
        self.engines = engines
        self._turns = Turns()

    @classmethod
    def load(
        cls,
        bundle: Bundle | Path | str = "default",
        backend: str = "auto",
        device: str | None = None,
        threads: int | None = None,
        precision: str = "auto",
    ) -> Pipeline:
        """Open the bundle and load its engines. Raises `BundleError` or `EngineError`."""
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return cls(opened, load_engines(opened, backend, device, threads, precision))

    @property
    def geometry(self) -> Geometry:
        """Sizes and rates of the bundle; `Clip.read` takes it."""
        return self.bundle.manifest.geometry

    def generate(
        self,
        clip: Pictures | Source,
        options: Options | None = None,
        progress: Progress | None = None,
        folder: Path | None = None,
        around: Span | None = None,
    ) -> Result:
        """Give a clip its sound, window by window: a file or `Reel` is decoded on the way, in flat memory.

        `clip` is a path, a file opened for reading bytes, a `Clip` or a `Reel`. The samples are kept in
        memory, or in unnamed files in `folder` if given. `around` makes the windows that cover any of that
        part only, see `Result.start_s`. `progress` is also called during long steps, several times a second,
        always in the calling thread; what it raises ends the work, and so does False, as `Cancelled`. Raises
        `MediaError`, `OptionsError` or `EngineError`.
        """
        repeated = Repeated(progress)
        with self._at_work(clip, repeated) as pictures:
            if around is not None:
                check_part(around, pictures.duration_s)
            return self._made(pictures, options or Options(), repeated, folder, around)

    def regenerate(
        self,
        clip: Pictures | Source,
        previous: Audio,
        part: Span,
        options: Options | None = None,
        progress: Progress | None = None,
        edge_s: float = EDGE_S,
    ) -> Result:
        """`previous`, a sound of the whole clip at any rate and level, with `part` of it made anew.

        Every sample outside the part is that of `previous`, bit for bit; inside, the new sound has its level
        and is faded in and out over `edge_s`. Only the windows around the part are made. Raises as `generate`
        does, and `OptionsError` for a sound that is not as long as the clip or a part that is not within it.
        """
        repeated = Repeated(progress)
        with self._at_work(clip, repeated) as pictures:
            n_samples, rate_hz = len(previous.samples), previous.rate_hz
            region = Region.of(part, n_samples, rate_hz, pictures.duration_s, edge_s)
            made = self._made(pictures, options or Options(), repeated, None, part)
        takes = tuple(with_part(previous, take, made.start_s, region) for take in made.takes)
        return replace(made, takes=takes, start_s=0.0)

    def onsets(
        self, clip: Pictures | Source, progress: Progress | None = None
    ) -> tuple[Array, tuple[Onset, ...]]:
        """The onset curve [n] at the bundle's onset frame rate, and the onsets picked from it."""
        repeated = Repeated(progress)
        with self._at_work(clip, repeated) as pictures:
            logits = OnsetLogits(self.engines.onset, pictures, self.geometry, Timings())
            n_likely = max(1, round(pictures.duration_s * self.geometry.onset_fps))
            for n in range(0, n_likely, self.geometry.onset_segment):
                repeated("onset", n / n_likely)
                logits.until(n + self.geometry.onset_segment)
            within = curve(logits.until(pictures.n_onset_frames()))
        report(progress, "onset", 1.0)
        return within, tuple(pick_onsets(within, self.geometry.onset_fps))

    def close(self) -> None:
        """Give the engines' memory back, once the work of other threads is over."""
        with self._turns.over():
            self.engines.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _made(
        self,
        pictures: Pictures,
        options: Options,
        progress: Progress,
        folder: Path | None,
        around: Span | None,
    ) -> Result:
        generation = Generation(self.engines, self.bundle.manifest, pictures, options, progress, around)
        takes = generation.takes(folder)
        within, picked = generation.onsets()
        return Result(
            takes=takes,
            seeds=generation.seeds,
            onsets=picked,
            onset_curve=within,
            timings=generation.timings.seconds,
            start_s=generation.start_s,
        )

    @contextmanager
    def _at_work(self, clip: Pictures | Source, repeated: Repeated) -> Iterator[Pictures]:
        """The clip's pictures while it is this thread's turn; `repeated` is asked during long steps."""
        again = repeated.again
        with (
            self._pictures(clip, repeated) as pictures,
            self._turns.taken(repeated),
            self.engines.watch.asking(again),
            asking(pictures, again),
        ):
            yield pictures

    @contextmanager
    def _pictures(self, clip: Pictures | Source, progress: Progress) -> Iterator[Pictures]:
        if isinstance(clip, Clip):
            prepare.check_frames(clip.onset_frames, clip.visual_frames, self.geometry)
            yield clip
        elif isinstance(clip, Pictures):
            yield clip
        else:
            with on_disk(clip, progress) as path, open_reel(probe(path), self.geometry) as reel:
                yield reel
