"""The static ONNX files of the tiny networks, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from make_tiny_bundle import tiny_config, tiny_networks

from taro_rt.engines.contract import Array
from taro_rt.engines.nets.config import TransformerConfig
from taro_rt.engines.nets.networks import Networks
from taro_rt.engines.ort import OrtEngine
from taro_rt.engines.static import PLANNED, static_contracts
from taro_rt.export.deploy import DTYPES, file_name, write_deployed

STEPS = 2
"""Times in one call of the conditioner: fewer than a sampler has."""


@dataclass(frozen=True)
class Files:
    """The files of one form in both precisions, and the networks they are of."""

    networks: Networks
    folder: Path
    planned: Mapping[str, tuple[int, ...]]

    def model(self, graph: str, batch: int, precision: str) -> onnx.ModelProto:
        return onnx.load(self.folder / file_name(graph, batch, precision))

    def engine(self, graph: str, batch: int, precision: str = "float32") -> OrtEngine:
        contract = static_contracts(self.networks.config.geometry(), STEPS, batch)[graph]
        return OrtEngine(self.folder / file_name(graph, batch, precision), contract, threads=1)

    def written(self) -> Iterator[tuple[str, int]]:
        """Graph and batch of every file of a precision."""
        for graph, batches in self.planned.items():
            yield from ((graph, batch) for batch in batches)


def write_files(
    form: TransformerConfig, folder: Path, planned: Mapping[str, tuple[int, ...]] = PLANNED
) -> Files:
    """Write all that is planned in both precisions into `folder`."""
    networks = tiny_networks(tiny_config(form)).fold()
    for precision in DTYPES:
        write_deployed(networks, folder, precision, STEPS, planned)  # type: ignore[arg-type]
    return Files(networks, folder, planned)


def expected(networks: Networks, graph: str, feed: dict[str, Array]) -> list[Array]:
    """What the plain networks make of it; of the denoiser, guidance and step in NumPy."""
    given = {name: torch.from_numpy(array) for name, array in feed.items()}
    with torch.inference_mode():
        if graph != "denoiser":
            made = networks.graphs()[graph](**given)
            return [part.numpy() for part in (made if isinstance(made, tuple) else (made,))]
        names = ("latents", "tokens", "modulation")
        v = networks.graphs()[graph](**{name: given[name] for name in names}).numpy()
    keep, push, spread = feed["update"]
    mixed = np.einsum("ij,jchw->ichw", feed["mix"], v)
    return [keep * feed["latents"] + push * mixed + spread * feed["noise"]]
