"""The counted operations are those that PyTorch counts while the networks run."""

from __future__ import annotations

import pytest
import torch
from make_tiny_bundle import GLOBAL, tiny_config
from torch.utils.flop_counter import FlopCounterMode

from taro_rt.engines.flops import flops
from taro_rt.engines.nets.config import PUBLISHED, SMALL, NetworkConfig
from taro_rt.engines.nets.networks import Networks
from taro_rt.engines.stages import GRAPHS, contracts

CONFIGS = {"tiny": tiny_config(), "global": tiny_config(GLOBAL), "embedded": SMALL, "published": PUBLISHED}


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_count_is_pytorchs(name: str, graph: str) -> None:
    config: NetworkConfig = CONFIGS[name]
    with torch.device("meta"):  # counts without computing
        module = Networks.build(config).graphs()[graph].to("meta")  # tables are made elsewhere
        sizes = {"b": 2, "s": 3, "t": 33, "n": 20}
        specs = contracts(config.geometry())[graph].inputs
        feed = {
            spec.name: torch.empty([sizes[k] if isinstance(k, str) else k for k in spec.shape])
            for spec in specs
        }
        with FlopCounterMode(display=False) as counter:
            module(**feed)
    named = {k for spec in specs for k in spec.shape}
    given = {k: v for k, v in sizes.items() if k in named}
    assert flops(config, graph, **given) == counter.get_total_flops()


def test_the_published_chain_costs_what_the_notes_say() -> None:
    """10.0 TFLOP for a window of 25 steps, 17 of them guided."""
    total = sum(
        calls * flops(PUBLISHED, graph, s=25)
        for graph, calls in (("onset", 4), ("visual", 1), ("denoiser", 42), ("decoder", 1), ("vocoder", 1))
    )
    assert total == pytest.approx(10.006e12, rel=0.01)
