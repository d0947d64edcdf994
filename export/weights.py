"""Weights as safetensors: each network's state dict once, and where in the file every tensor lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from taro_rt.engines.errors import BuildError

Storage = Literal["float32", "float16"]
HEADER = 8
"""Bytes that hold the length of a safetensors file's JSON header."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in which file."""

    file: str
    offset: int
    length: int
    half: bool


def round_weights(name: str, net: nn.Module, storage: Storage) -> None:
    """Give `net` the values its file will hold, in place, so that every backend computes with the same ones.

    Raises `BuildError` naming each tensor that does not fit into half floats.
    """
    faults, dtypes = [], stored_dtypes(net, storage)
    for key, value in net.state_dict().items():
        value.copy_(value.to(dtypes[key]))
        if not bool(torch.isfinite(value).all()):
            faults.append(key)
    if faults:
        raise BuildError(f"{name}: expected weights finite in {storage}, got others in {', '.join(faults)}")


def stored_dtypes(net: nn.Module, storage: Storage) -> dict[str, torch.dtype]:
    """Of every tensor in the state dict. Biases, norms and tables are small and always stay float32."""
    dtypes = dict.fromkeys(net.state_dict(), torch.float32)
    if storage == "float16":
        dtypes.update({key: torch.float16 for key, value in net.named_parameters() if value.ndim > 1})
    return dtypes


def write_weights(path: Path, net: nn.Module, storage: Storage) -> dict[str, Stored]:
    """Write the state dict of `net`. Returns the place of every tensor, by state-dict key."""
    dtypes = stored_dtypes(net, storage)
    state: dict[str, Tensor] = {
        key: value.to(dtypes[key]).contiguous() for key, value in net.state_dict().items()
    }
    save_file(state, path)
    path.chmod(0o644)  # some releases of safetensors keep others out
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER), "little")
        header = json.loads(file.read(length))
    places = {}
    for key, value in state.items():
        start, end = header[key]["data_offsets"]
        half = value.dtype is torch.float16
        places[key] = Stored(path.name, HEADER + length + start, end - start, half)
    return places
