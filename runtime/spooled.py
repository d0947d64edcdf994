"""A video in an open file: brought to disk, since it is read several times and libav wants names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from taro_rt.engines.errors import MediaError, OptionsError, UnreadableError
from taro_rt.runtime.progress import Progress, report

Source = Path | str | BinaryIO
"""Where a video is: a path, or a file opened for reading bytes, which is read on from where it stands."""
BLOCK_BYTES = 1 << 20


@contextmanager
def on_disk(source: Source, progress: Progress | None = None) -> Iterator[Path]:
    """The video's path; that of a copy, which is gone after the block, for an open file.

    The file need not be seekable and stays open. `progress` is told of "read", always 0. Raises
    `OptionsError` for anything else, `MediaError` where there is no room, and `Cancelled`.
    """
    if isinstance(source, (str, PathLike)):
        yield Path(source)
        return
    if not callable(getattr(source, "read", None)):
        raise OptionsError(
            "clip: expected a path, a file opened with 'rb' or a Clip (of arrays: Clip.from_frames), "
            f"got {type(source).__name__}"
        )
    with TemporaryDirectory(prefix="taro-rt-") as folder:
        path = Path(folder) / "video"
        if not _copy(source, path, progress):
            raise UnreadableError(
                "clip: expected a video, got an open file with no bytes left; go to its beginning: seek(0)"
            )
        yield path


def _copy(source: BinaryIO, path: Path, progress: Progress | None) -> int:
    """Write all of `source` to `path`; the number of bytes."""
    n_bytes = 0
    with path.open("wb") as copy:
        while block := source.read(BLOCK_BYTES):
            if not isinstance(block, (bytes, bytearray, memoryview)):
                raise OptionsError(
                    f"clip: expected a file of bytes, got one that reads {type(block).__name__}; "
                    "open it with 'rb'"
                )
            report(progress, "read", 0.0)
            try:
                n_bytes += copy.write(block)
            except OSError as error:
                raise MediaError(
                    f"{path.parent}: the video cannot be kept there ({error.strerror}); "
                    "make room, or give its path"
                ) from error
    return n_bytes
