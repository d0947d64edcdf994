"""The service's own folder: uploads and results, in a temporary place that goes when the service does."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from taro_rt.runtime.service.refusals import Refusal
from taro_rt.runtime.service.settings import Settings

UPLOAD = "upload:"


@dataclass(eq=False)
class Video:
    """A video of a request: a file of the caller's own, or an upload."""

    path: Path
    name: str
    """What messages call it: the path as resolved, or the upload's file name."""
    reference: str
    """What later requests may call it."""
    n_bytes: int = 0
    used_s: float = field(default_factory=time.monotonic)


class Shelf:
    """Uploads by their reference, and folders for results. Every method may be called from any thread."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        self._uploads: dict[str, Video] = {}
        self._lock = threading.Lock()

    def new_folder(self) -> Path:
        """An empty one."""
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir()
        return folder

    @contextmanager
    def receiving(self) -> Iterator[Path]:
        """A folder for an upload that comes; it is removed if the block ends with an exception."""
        folder = self.new_folder()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def add(self, path: Path, name: str) -> Video:
        """Keep an upload that lies whole in a folder of its own; it gets the suffix of `name`."""
        path = path.rename(path.with_suffix(Path(name).suffix))
        video = Video(path, name, f"{UPLOAD}{path.parent.name}", path.stat().st_size)
        with self._lock:
            self._uploads[video.reference] = video
        return video

    def find(self, reference: str) -> Video:
        """Raises `Refusal` if it was dropped."""
        with self._lock:
            if video := self._uploads.get(reference):
                video.used_s = time.monotonic()
                return video
        raise Refusal(404, f"{reference[:80]}: no such upload; old ones are dropped: send the video again")

    def drop_old(self, used: Collection[Video]) -> int:
        """Drop what is too old, too many or too large, save what is `used` and the newest; bytes left."""
        now, settings = time.monotonic(), self._settings
        with self._lock:
            videos = sorted(self._uploads.values(), key=lambda video: video.used_s)
            left, n_bytes = len(videos), sum(video.n_bytes for video in videos)
            for video in videos[:-1]:
                too_old = now - video.used_s > settings.keep_s
                too_much = left > settings.keep_jobs or n_bytes > settings.keep_bytes
                if (too_old or too_much) and video not in used:
                    del self._uploads[video.reference]
                    shutil.rmtree(video.path.parent, ignore_errors=True)
                    left, n_bytes = left - 1, n_bytes - video.n_bytes
            return n_bytes


@contextmanager
def temporary_shelf(settings: Settings) -> Iterator[Shelf]:
    """One in a temporary folder that only this user can read."""
    with TemporaryDirectory(prefix="taro-rt-serve-") as folder:
        yield Shelf(Path(folder).resolve(), settings)
