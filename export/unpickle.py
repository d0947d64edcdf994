"""Opens a checkpoint file: the only place that unpickles, and only tensors, plain containers and Namespace.

What else a pickle names is refused, unmade. Knows nothing of networks.
"""

from __future__ import annotations

import argparse
import pickle
import pickletools
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from taro_rt.engines.errors import CheckpointError

PLAIN = ("torch", "collections", "argparse.Namespace")
"""Modules whose objects a checkpoint may name; which of them are safe is PyTorch's to say."""
PICKLES_BEFORE_DATA = 4
"""Of a file older than PyTorch 1.6: magic number, protocol, system, then what was saved."""
DAMAGE = (
    SafetensorError,
    OSError,
    EOFError,
    RuntimeError,  # also RecursionError
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
)
"""What reading a cut or altered file may end in: the readers check nothing before they use it."""


def read_file(path: Path) -> dict[str, Any]:
    """The dict in a checkpoint. Tensors stay on disk until they are used where the format allows.

    Raises `CheckpointError` for a file that cannot be read, holds more than data, or is no dict.
    """
    if not path.is_file():
        why = "another kind of thing" if path.exists() else "No such file or directory"
        raise CheckpointError(f"{path}: expected a checkpoint, got {why}; check the path")
    try:
        content = _load(path)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}: {_why_refused(path)}") from None
    except PermissionError as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint, got {error.strerror}; check its permissions"
        ) from None
    except DAMAGE as error:
        why = f"{type(error).__name__} {' '.join(str(error).split())[:200]}".strip()
        raise CheckpointError(
            f"{path}: expected a whole checkpoint, got a file that ends early, is damaged or is none "
            f"({why}); copy or download it again"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict of tensors, got {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _load(path: Path) -> Any:
    if _is_safetensors(path):
        return load_file(path)
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the age of a file
        return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))  # noqa: TID251


def _is_safetensors(path: Path) -> bool:
    """By content, as names differ: the length of a JSON header, then the header."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (
        start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    )


def _why_refused(path: Path) -> str:
    """Which objects a pickle would have made; none of them was."""
    try:
        named = _globals_of_zip(path) if zipfile.is_zipfile(path) else _globals_of_pickles(path)
    except (pickle.UnpicklingError, *DAMAGE):
        named = set()
    if strange := sorted(name for name in named if not name.startswith(PLAIN)):
        return (
            f"expected tensors, plain containers and argparse.Namespace, got also {', '.join(strange)}: "
            "refused, as unpickling them could run code; save the tensors alone as a safetensors file and "
            "name that"
        )
    return "expected a checkpoint, got a file that is damaged or none; copy or download it again"


def _globals_of_zip(path: Path) -> set[str]:
    return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))


def _globals_of_pickles(path: Path) -> set[str]:
    found, strings = set[str](), list[str]()
    with path.open("rb") as file:
        for _ in range(PICKLES_BEFORE_DATA):
            for code, argument, _place in pickletools.genops(file):
                if code.name == "GLOBAL":
                    found.add(str(argument).replace(" ", "."))
                elif code.name == "STACK_GLOBAL":
                    found.add(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
    return found
