"""Output files that appear whole or not at all. Knows nothing of what is written."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
    if mode is None and os.path.islink(path) and not force:
        raise MediaError(f"{path}: is a link to nowhere; choose another name or pass --force to replace it")
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
    """`atomic_outputs` of one file."""
    with atomic_outputs([path], force) as (temporary,):
        yield temporary


@contextmanager
def atomic_outputs(paths: Sequence[Path], force: bool) -> Iterator[list[Path]]:
    """A hidden temporary name beside each path, renamed to it when the block ends without an exception.

    On any exception, an interrupt too, temporary files are removed and all paths stay as they were, also
    those renamed before one that fails. Suffixes are kept, so whoever writes by suffix writes the right one.
    What killed runs left in the folders is removed first. Raises `MediaError` as `check_output` does.
    """
    for path in paths:
        check_output(path, force)
    for folder in {path.parent for path in paths}:
        _remove_left(folder)
    temporaries, olds = [_hidden(path) for path in paths], [_hidden(path) for path in paths]
    done: list[tuple[Path, Path]] = []
    try:
        yield temporaries
        try:
            for temporary, path, old in zip(temporaries, paths, olds, strict=True):
                check_output(path, force)  # a file may have appeared while the block ran
                if force and len(paths) > 1:
                    _remember(path, old)
                _put(temporary, path, force)
                done.append((path, old))
        except BaseException:
            for path, old in done:
                if os.path.lexists(old):
                    old.replace(path)
                else:
                    path.unlink(missing_ok=True)
            raise
    finally:
        for hidden in (*temporaries, *olds):
            hidden.unlink(missing_ok=True)


def _hidden(path: Path) -> Path:
    return path.with_name(f".taro-{_neighbours()}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")


def _neighbours() -> str:
    """Names those processes whose numbers can be told apart: of one boot of one machine, or of one container.

    Elsewhere than on Linux it is a name that never comes again.
    """
    try:
        told = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        told = secrets.token_hex(8)
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _remove_left(folder: Path) -> None:
    """Remove hidden files of processes that were killed: of this boot of this machine, and surely dead."""
    for left in list(folder.glob(f".taro-{_neighbours()}-*")):
        if _is_dead(left.name.split("-")[2]):
            with suppress(OSError):  # another run may be at it too
                left.unlink()


def _is_dead(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):  # another user's, or no name of ours
        return False
    return False


def _remember(path: Path, old: Path) -> None:
    """A second name for what is about to be replaced, if there is something and the file system has links."""
    with suppress(OSError):
        os.link(path, old, follow_symlinks=False)


def _put(temporary: Path, path: Path, force: bool) -> None:
    """Give a file its name: with `force` in place of another, else only where there is none."""
    try:
        if force:
            temporary.replace(path)
            return
        try:
            os.link(temporary, path)  # unlike a rename it never replaces a file that has just appeared
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            temporary.replace(path)
        else:
            temporary.unlink()
    except FileExistsError as error:
        raise MediaError(
            f"{path}: exists already; choose another name or pass --force to replace it"
        ) from error
    except OSError as error:
        raise MediaError(f"{path}: cannot be written ({error.strerror}); choose another name") from error


def _mode(path: Path) -> int | None:
    """Kind of the file, links followed; None if there is none."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MediaError(f"{path}: cannot be written ({error.strerror}); choose another name") from error
