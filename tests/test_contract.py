"""Contracts: what they let through, what they refuse, and what follows from a geometry."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taro_rt.engines.contract import Contract, TensorSpec
from taro_rt.engines.errors import ContractError
from taro_rt.engines.stages import GRAPHS, Geometry, contracts

SMALL = Contract(
    "denoiser",
    (TensorSpec("latents", ("b", 3, 4)), TensorSpec("tokens", ("b", "s"))),
    (TensorSpec("velocity", ("b", 3, 4)),),
)
PUBLISHED = contracts(Geometry())


@given(b=st.integers(1, 5), s=st.integers(1, 5), seed=st.integers(0, 99))
def test_an_example_fits_its_contract_for_every_free_size(b: int, s: int, seed: int) -> None:
    feed = SMALL.example(seed=seed, b=b, s=s)
    SMALL.check(feed)
    assert feed["tokens"].shape == (b, s)


@given(shape=st.lists(st.integers(1, 5), max_size=4))
def test_a_shape_fits_only_when_its_fixed_sizes_are_equal(shape: list[int]) -> None:
    batch = shape[0] if shape else 1
    feed = {"latents": np.zeros(shape, np.float32), "tokens": np.zeros([batch, 2], np.float32)}
    if len(shape) == 3 and shape[1:] == [3, 4]:
        SMALL.check(feed)
    else:
        with pytest.raises(ContractError, match=r"denoiser: expected latents\[b, 3, 4\], got shape"):
            SMALL.check(feed)


def test_one_letter_means_one_size_within_a_call() -> None:
    feed = SMALL.example(b=2) | {"tokens": np.zeros((3, 2), np.float32)}
    with pytest.raises(ContractError, match=r"expected tokens\[b, s\], got shape \[3, 2\]"):
        SMALL.check(feed)


def test_another_dtype_is_refused_by_name() -> None:
    feed = {name: array.astype(np.float64) for name, array in SMALL.example().items()}
    with pytest.raises(ContractError, match=r"latents\[b, 3, 4\] must be float32, got float64"):
        SMALL.check(feed)


@pytest.mark.parametrize("feed", [{}, {"latents": 1}, {"latents": 1, "tokens": 1, "mel": 1}])
def test_missing_and_surplus_inputs_are_refused(feed: dict[str, int]) -> None:
    with pytest.raises(ContractError, match=r"denoiser: expected inputs \['latents', 'tokens'\], got"):
        SMALL.check(feed)


def test_the_published_geometry_has_the_lengths_of_the_spec() -> None:
    geometry = Geometry()
    assert (geometry.latent_frames, geometry.latent_bins, geometry.latent_fps) == (204, 16, 25.0)
    assert geometry.window_s == pytest.approx(8.16)
    assert PUBLISHED["vocoder"].outputs[0].shape == ("b", 130592)
    assert PUBLISHED["denoiser"].inputs[2].shape == ("b", 1, 142, 768)


def test_every_graph_has_a_contract_and_feeds_the_next_one() -> None:
    assert tuple(PUBLISHED) == GRAPHS
    assert PUBLISHED["denoiser"].outputs[0].shape == PUBLISHED["decoder"].inputs[0].shape
    assert PUBLISHED["decoder"].outputs == PUBLISHED["vocoder"].inputs
    assert PUBLISHED["conditioner"].outputs[2] == PUBLISHED["denoiser"].inputs[1]
    assert PUBLISHED["conditioner"].outputs[0].shape[1:] == PUBLISHED["denoiser"].inputs[2].shape


def test_the_exported_files_carry_the_names_and_axes_of_the_contracts(tiny_bundle: Path) -> None:
    import onnx

    from taro_rt.engines.bundle import Bundle

    bundle = Bundle.open(tiny_bundle)
    for name, contract in bundle.contracts().items():
        graph = onnx.load(bundle.graph(name), load_external_data=False).graph
        for specs, values in ((contract.inputs, graph.input), (contract.outputs, graph.output)):
            found = [
                TensorSpec(v.name, tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim))
                for v in values
            ]
            assert found == list(specs), name
