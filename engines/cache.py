"""Where compiled models are kept between runs: a folder of the user's that may be deleted at any time."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from taro_rt.engines.bundle import Bundle

VARIABLE = "TARO_CACHE"
"""Another folder for the cache, or "off" for none."""


def cache_folder(backend: str, bundle: Bundle) -> Path | None:
    """The folder for what `backend` compiles of `bundle`; None where it is off or cannot be made.

    Named after the content of the bundle's files: a backend that looks at names and times alone would take
    old weights for new ones.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked == "off":
        return None
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = (Path(asked) if asked else user / "taro-rt") / backend / content_of(bundle)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def content_of(bundle: Bundle) -> str:
    """What tells the content of a bundle's files from any other's."""
    files = sorted((name, entry.sha256) for name, entry in bundle.manifest.files.items())
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]
