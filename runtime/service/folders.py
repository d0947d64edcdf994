"""Which paths of a request may be touched: those below the allowed folders, after every link is followed."""

from __future__ import annotations

from pathlib import Path

from taro_rt.runtime.service.refusals import Refusal


class Folders:
    """The folders that requests may name files in; `allowed` are resolved."""

    def __init__(self, allowed: tuple[Path, ...]) -> None:
        self._allowed = allowed

    def resolve(self, text: str) -> Path:
        """The path with all links followed; whether there is a file is not looked at.

        Raises `Refusal`, with one sentence for whatever lies outside, so that nothing is learned about it.
        """
        outside = Refusal(403, f"{text}: expected an absolute path below a folder given by --allow")
        try:
            path = Path(text)
            if not path.is_absolute() or ".." in path.parts:
                raise outside
            resolved = path.resolve()
        except (OSError, ValueError, RuntimeError):  # a zero byte, no Unicode, a loop of links
            raise outside from None
        if not any(resolved.is_relative_to(folder) and resolved != folder for folder in self._allowed):
            raise outside
        return resolved
