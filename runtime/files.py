"""Output files that appear whole or not at all. Knows nothing of what is written."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taro_rt.engines.errors import MediaError


def check_output(path: Path, force: bool) -> None:
    """Raise `MediaError` unless a file can be put at `path`: call it before the work, not after."""
    folder = path.parent
    if not path.name:
        raise MediaError(f"{path}: expected an output file, got a folder; add a file name")
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long or locked
        raise MediaError(f"{path}: expected an existing output folder, got {folder}; create it first")
    mode = _mode(path)
    if mode is not None:
        if stat.S_ISDIR(mode):
            raise MediaError(f"{path}: expected an output file, got a folder; add a file name")
        if not stat.S_ISREG(mode):
            raise MediaError(f"{path}: expected a regular file, got a device or pipe; choose another name")
        if not force:
            raise MediaError(f"{path}: exists already; choose another name or pass --force to replace it")
        if not os.access(path, os.W_OK):
            raise MediaError(f"{path}: is write-protected; change its permissions or choose another name")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MediaError(f"{path}: the folder {folder} is not writable; choose another folder")


def refuse_same_file(source: Path, target: Path) -> None:
    """Raise `MediaError` if both names lead to one file, through links too."""
    if os.path.exists(target) and os.path.exists(source) and os.path.samefile(target, source):
        raise MediaError(f"{target}: is the input itself, which is never overwritten; choose another name")


@contextmanager
def atomic_output(path: Path, force: bool) -> Iterator[Path]:
    """A hidden temporary name beside `path`, renamed to `path` when the block ends without an exception.

    On any exception, an interrupt too, the temporary file is removed and `path` stays as it was. The suffix
    is kept, so whoever writes by suffix writes the right format. Raises `MediaError` as `check_output` does.
    """
    check_output(path, force)
    temporary = path.with_name(f".taro-{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        check_output(path, force)  # a file may have appeared while the block ran
        try:
            temporary.replace(path)
        except OSError as error:
            raise MediaError(f"{path}: cannot be written ({error.strerror}); choose another name") from error
    finally:
        temporary.unlink(missing_ok=True)


def _mode(path: Path) -> int | None:
    """Kind of the file, links followed; None if there is none."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MediaError(f"{path}: cannot be written ({error.strerror}); choose another name") from error
