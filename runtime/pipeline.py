"""The engines of a bundle, chained: a clip or a video file in, its sound out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from taro_rt.engines.backends import Engines, load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array
from taro_rt.engines.stages import Geometry
from taro_rt.runtime import prepare
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.clip import Clip, Pictures, open_reel
from taro_rt.runtime.generation import Generation
from taro_rt.runtime.onsets import Onset, curve, pick_onsets
from taro_rt.runtime.options import Options
from taro_rt.runtime.prepare import OnsetLogits
from taro_rt.runtime.probe import probe
from taro_rt.runtime.progress import Progress, Repeated, report
from taro_rt.runtime.timing import Timings


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
        clip: Pictures | Path | str,
        options: Options | None = None,
        progress: Progress | None = None,
        folder: Path | None = None,
    ) -> Result:
        """Give a clip its sound, window by window: a file or `Reel` is decoded on the way, in flat memory.

        The samples are kept in memory, or in unnamed files in `folder` if given. `progress` is also called
        during long steps, several times a second. Raises `MediaError`, `OptionsError`, `EngineError` or
        `Cancelled`.
        """
        options, repeated = options or Options(), Repeated(progress)
        with self._pictures(clip) as pictures, self.engines.watch.asking(repeated.again):
            generation = Generation(self.engines, self.bundle.manifest, pictures, options, repeated)
            takes = generation.takes(folder)
            within, picked = generation.onsets()
        return Result(
            takes=takes,
            seeds=generation.seeds,
            onsets=picked,
            onset_curve=within,
            timings=generation.timings.seconds,
        )

    def onsets(
        self, clip: Pictures | Path | str, progress: Progress | None = None
    ) -> tuple[Array, tuple[Onset, ...]]:
        """The onset curve [n] at the bundle's onset frame rate, and the onsets picked from it."""
        repeated = Repeated(progress)
        with self._pictures(clip) as pictures, self.engines.watch.asking(repeated.again):
            logits = OnsetLogits(self.engines.onset, pictures, self.geometry, Timings())
            n_likely = max(1, round(pictures.duration_s * self.geometry.onset_fps))
            for n in range(0, n_likely, self.geometry.onset_segment):
                repeated("onset", n / n_likely)
                logits.until(n + self.geometry.onset_segment)
            within = curve(logits.until(pictures.n_onset_frames()))
        report(progress, "onset", 1.0)
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

    @contextmanager
    def _pictures(self, clip: Pictures | Path | str) -> Iterator[Pictures]:
        if isinstance(clip, (str, Path)):
            with open_reel(probe(Path(clip)), self.geometry) as reel:
                yield reel
        else:
            if isinstance(clip, Clip):
                prepare.check_frames(clip.onset_frames, clip.visual_frames, self.geometry)
            yield clip
