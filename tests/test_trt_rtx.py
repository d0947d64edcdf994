"""TensorRT-RTX parses and builds the files that TensorRT is given, without a GPU. Opt-in: TARO_RTX=1.

`tensorrt-rtx` is under NVIDIA's proprietary licence, is no dependency and is not TensorRT: another builder,
with the same parser in front. Our operators are there only as their function bodies.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from make_tiny_bundle import FRAME_WISE, GLOBAL, tiny_config, tiny_networks

from taro_rt.engines.nets.config import TransformerConfig
from taro_rt.engines.static import static_contracts
from taro_rt.export.deploy import Precision, deployed_models
from taro_rt.export.tensorrt import for_parser, free_ranges

pytestmark = [
    pytest.mark.trt,
    pytest.mark.skipif(os.environ.get("TARO_RTX") != "1", reason="opt-in: TARO_RTX=1, and tensorrt-rtx"),
]
STEPS = 5


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("form", [FRAME_WISE, GLOBAL], ids=["frame-wise", "global"])
def test_every_file_is_parsed_and_built(
    form: TransformerConfig, precision: Precision, tmp_path: Path
) -> None:
    rtx: Any = pytest.importorskip("tensorrt_rtx")
    networks = tiny_networks(tiny_config(form)).fold()
    geometry = networks.config.geometry()
    log = rtx.Logger(rtx.Logger.ERROR)
    for graph, batch, model in deployed_models(networks, precision, STEPS):
        builder = rtx.Builder(log)
        network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = rtx.OnnxParser(network, log)
        parsed = parser.parse(for_parser(model.SerializeToString(), plugins=False))
        assert parsed, (graph, batch, [parser.get_error(i).desc() for i in range(parser.num_errors)])
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(rtx.ComputeCapability.SM89, 0)
        contract = static_contracts(geometry, STEPS, batch)[graph]
        if ranges := free_ranges(contract, geometry):
            profile = builder.create_optimization_profile()
            for spec in contract.inputs:
                low, high = (
                    tuple(ranges[n][i] if isinstance(n, str) else n for n in spec.shape) for i in (0, 1)
                )
                profile.set_shape(spec.name, low, high, high)
            config.add_optimization_profile(profile)
        assert builder.build_serialized_network(network, config) is not None, (graph, batch)
