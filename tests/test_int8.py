"""The denoiser's linear layers in 8 bits."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taro_rt import Bundle, Options, Pipeline
from taro_rt.engines import int8
from taro_rt.engines.backends import choose, load_engines
from taro_rt.engines.errors import BackendUnavailable, BuildError
from taro_rt.engines.stages import typical_inputs
from taro_rt.runtime.bench.gate import relative_rms


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return Bundle.open("default")


@given(seed=st.integers(0, 10**6), k=st.integers(1, 40), n=st.integers(1, 40))
def test_a_rounded_weight_is_off_by_half_a_step_of_its_column_at_most(seed: int, k: int, n: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((k, n)).astype(np.float32)
    values, scale = int8.round_columns(weight)
    assert (np.abs(values * scale - weight) <= 0.501 * scale).all()


def test_a_column_of_zeros_stays_zero() -> None:
    values, scale = int8.round_columns(np.zeros((3, 2), np.float32))
    assert not values.any() and np.isfinite(scale).all()


def test_all_linear_layers_of_the_blocks_are_in_8_bits_and_those_around_them_are_not(
    embedded: Bundle, tmp_path: Path
) -> None:
    n = int8.write(embedded.graph("denoiser"), tmp_path / "denoiser.onnx")
    before = Counter(node.op_type for node in onnx.load(embedded.graph("denoiser")).graph.node)
    after = Counter(node.op_type for node in onnx.load(tmp_path / "denoiser.onnx").graph.node)
    assert after[int8.OPERATOR] == n == before["MatMul"] - 2 and after["MatMul"] == 2


def test_a_velocity_in_8_bits_is_a_few_per_cent_from_the_exact_one(embedded: Bundle) -> None:
    exact, rounded = (
        load_engines(embedded, "onnxruntime", threads=1, precision=p) for p in ("float32", "int8")
    )
    feed = typical_inputs(exact.denoiser.contract, seed=1, b=2)
    off = relative_rms(rounded.denoiser(**feed)["velocity"], exact.denoiser(**feed)["velocity"])
    assert 0.001 < off < 0.1  # what the gate of `taro-rt bench` allows


def test_only_the_denoiser_is_in_8_bits(embedded: Bundle) -> None:
    exact, rounded = (
        load_engines(embedded, "onnxruntime", threads=1, precision=p) for p in ("float32", "int8")
    )
    feed = typical_inputs(exact.vocoder.contract, seed=1, b=1)
    assert np.array_equal(rounded.vocoder(**feed)["wave"], exact.vocoder(**feed)["wave"])


def test_int8_chooses_the_backend_that_has_it(embedded: Bundle) -> None:
    choice = choose(embedded, precision="int8")
    assert (choice.backend, choice.precision) == ("onnxruntime", "int8")


def test_the_graph_is_made_once_and_then_read_without_onnx(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, video: Path
) -> None:
    monkeypatch.setenv("TARO_CACHE", str(tmp_path / "cache"))
    with Pipeline.load(tiny_bundle, threads=1, precision="int8") as pipeline:
        first = pipeline.generate(video, Options(steps=2)).audio.samples
    monkeypatch.setattr(int8, "find_spec", lambda name: None)
    with Pipeline.load(tiny_bundle, threads=1, precision="int8") as pipeline:
        assert np.array_equal(pipeline.generate(video, Options(steps=2)).audio.samples, first)
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [int8.NAME]


def test_a_damaged_graph_in_the_cache_is_refused_and_made_anew_next_time(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TARO_CACHE", str(tmp_path))
    bundle = Bundle.open(tiny_bundle)
    load_engines(bundle, threads=1, precision="int8").close()
    (kept,) = tmp_path.rglob(int8.NAME)
    kept.write_bytes(kept.read_bytes()[:1000])
    with pytest.raises(BuildError, match=r"denoiser: ONNX Runtime .* cannot load"):
        load_engines(bundle, threads=1, precision="int8")
    load_engines(bundle, threads=1, precision="int8").close()


def test_weights_of_7_bits_sum_in_pairs_without_overflow() -> None:
    values, _ = int8.round_columns(np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32), 7)
    assert 2 * 255 * int(np.abs(values).max()) < 2**15


def test_without_onnx_the_extra_that_brings_it_is_named(
    embedded: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"int8 needs onnx .*'taro-rt\[int8\]'"):
        load_engines(embedded, precision="int8")
