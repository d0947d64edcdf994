"""Every error taro-rt raises on purpose, in one tree.

    TaroError                      exit code of the CLI
    ├── OptionsError (ValueError)  2  the caller asked for something that cannot be
    ├── BundleError                3  a bundle is missing, damaged or inconsistent
    │   ├── ManifestError             its manifest.json is unreadable or of another schema
    │   ├── ChecksumError             a file is not the one the manifest promises
    │   └── CheckpointError           a released file cannot be read, or its tensors do not fit
    ├── EngineError                4  a backend cannot do the work
    │   ├── BackendUnavailable        its package is not installed
    │   ├── ContractError             a tensor does not fit its contract
    │   └── BuildError                an engine could not be made
    ├── MediaError                 5  a video or audio file cannot be read or written
    │   ├── UnreadableError           it is empty, cut off, or no video at all
    │   └── NoVideoError              it can be read and has no moving picture
    └── Cancelled                130  the caller's progress callback asked to stop

A message says what was expected, what came, and what to do. Knows nothing of the rest of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class TaroError(Exception):
    """Root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class OptionsError(TaroError, ValueError):
    """An option or argument is out of its range."""

    exit_code = 2


class BundleError(TaroError):
    """A bundle cannot be used; the message lists every fault found."""

    exit_code = 3


class ManifestError(BundleError):
    """manifest.json is missing, unreadable or of an unknown schema."""


class ChecksumError(BundleError):
    """A file of the bundle differs from what the manifest promises."""


class CheckpointError(BundleError):
    """A checkpoint to export cannot be read or does not fit; the message lists every fault of every file."""


class EngineError(TaroError):
    """A backend cannot do the work."""

    exit_code = 4


class BackendUnavailable(EngineError):
    """The package a backend needs is not installed."""


class ContractError(EngineError):
    """A tensor does not fit its contract: names the tensor, what was expected and what came."""


class BuildError(EngineError):
    """An engine or an ONNX graph could not be made."""


class MediaError(TaroError):
    """A media file cannot be read or written."""

    exit_code = 5


class UnreadableError(MediaError):
    """A file is empty, cut off before its index, or none that libav knows."""


class NoVideoError(MediaError):
    """A file is sound, cover art or a still image only."""


class Cancelled(TaroError):
    """Work was stopped by the caller; no unfinished output is left."""

    exit_code = 130


def attempt(
    failures: type[Exception] | tuple[type[Exception], ...],
    work: Callable[[], Result],
    error: Callable[[str], TaroError],
) -> Result:
    """What `work` gives; a library's `failures` become `error` of what they say, in one line."""
    try:
        return work()
    except failures as failure:
        raise error(" ".join(str(failure).split())) from failure
