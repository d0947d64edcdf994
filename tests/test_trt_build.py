"""Building plans without TensorRT: what is asked of it, what stands in the key, and what a user is told."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command import Run

from taro_rt.engines import backends
from taro_rt.engines.backends import available, choose_for
from taro_rt.engines.errors import BackendUnavailable, OptionsError
from taro_rt.engines.nets.config import PUBLISHED, SMALL
from taro_rt.engines.plans import PlanKey, write_plan
from taro_rt.engines.static import PLANNED, static_contracts
from taro_rt.export.tensorrt import (
    BuildOptions,
    build_flags,
    can_compile,
    free_ranges,
    is_whole,
    profile_text,
    timing_name,
)

NO_TENSORRT = pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
PUBLISHED_GEOMETRY = PUBLISHED.geometry()


@NO_TENSORRT
def test_generate_without_tensorrt_ends_with_4_and_the_extra(run: Run, video: Path) -> None:
    result = run("generate", video, "--backend", "tensorrt")
    assert result.exit_code == 4
    assert "pip install 'taro-rt[trt]'" in result.stderr and "tensorrt" in result.stderr
    assert [path.name for path in video.parent.iterdir()] == ["clip.mp4"]


@NO_TENSORRT
def test_plans_without_tensorrt_end_with_4_and_the_extras(
    run: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    result = run("plans", "--bundle", tiny_bundle, "--output", tmp_path / "plans")
    assert result.exit_code == 4
    assert "building plans needs tensorrt" in result.stderr
    assert "pip install 'taro-rt[trt,export]'" in result.stderr
    assert not (tmp_path / "plans").exists()


@NO_TENSORRT
def test_export_with_tensorrt_is_refused_before_anything_is_read(run: Run, tmp_path: Path) -> None:
    files = [f"--{name}={tmp_path}" for name in ("taro", "visual", "onset", "audioldm2")]
    result = run("export", *files, "-o", tmp_path / "bundle", "--tensorrt")
    assert result.exit_code == 4 and "building plans needs tensorrt" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"), [(["--precision", "int4"], "expected one of float32"), (["--level", "6"], "0 to 5")]
)
def test_options_that_cannot_be_end_with_2(
    run: Run, tiny_bundle: Path, options: list[str], words: str
) -> None:
    result = run("plans", "--bundle", tiny_bundle, *options)
    assert result.exit_code == 2 and words in result.stderr


def test_tensorrt_is_never_chosen_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = dict.fromkeys(available(), "")
    monkeypatch.setattr(backends, "available", lambda: {**everything, "cuda": "needs a GPU"})
    for device in (None, "cuda"):
        assert choose_for(1 << 30, device=device).backend != "tensorrt"


def test_tensorrt_computes_in_half_precision_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "available", lambda: dict.fromkeys(backends.NEEDS, ""))
    assert choose_for(1, "tensorrt").precision == "float16"
    assert choose_for(1, "tensorrt", precision="float32").precision == "float32"
    assert choose_for(1, precision="float16").backend == "tensorrt"
    with pytest.raises(OptionsError, match="tensorrt has no bfloat16; use cuda or openvino"):
        choose_for(1, "tensorrt", precision="bfloat16")
    with pytest.raises(OptionsError, match="tensorrt computes on an NVIDIA GPU only"):
        choose_for(1, "tensorrt", device="cpu")


def test_without_a_gpu_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    if not (reason := available()["tensorrt"]):
        pytest.skip("there is a GPU here")
    assert "NVIDIA GPU" in reason
    with pytest.raises(BackendUnavailable, match=r"backend tensorrt .*NVIDIA GPU"):
        choose_for(1, "tensorrt")


def test_only_frames_ahead_are_free() -> None:
    for batch in (1, 2):
        made = static_contracts(PUBLISHED_GEOMETRY, 25, batch)
        ranges = {graph: free_ranges(contract, PUBLISHED_GEOMETRY) for graph, contract in made.items()}
        assert ranges.pop("visual") == {"t": (32, 40)}
        assert not any(ranges.values())


def test_nothing_is_free_where_no_frames_lie_ahead() -> None:
    small = SMALL.geometry()
    assert not any(free_ranges(c, small) for c in static_contracts(small, 25, 1).values())


def test_a_key_names_every_input_and_its_range() -> None:
    made = static_contracts(PUBLISHED_GEOMETRY, 25, 2)
    assert profile_text(made["visual"], PUBLISHED_GEOMETRY) == "frames[2, 3, t, 224, 224]; t 32..40"
    assert profile_text(made["denoiser"], PUBLISHED_GEOMETRY).startswith(
        "latents[2, 8, 204, 16], tokens[2, 32, 768], modulation[2, 1, 142, 768], noise[2, 8, 204, 16]"
    )


@pytest.mark.parametrize(
    ("options", "flag"),
    [(BuildOptions(level=5), "level 5"), (BuildOptions(strip=True), "stripped")],
)
def test_how_it_is_built_stands_in_the_key(options: BuildOptions, flag: str) -> None:
    assert flag in build_flags(options, with_triton=False)
    assert flag not in build_flags(BuildOptions(), with_triton=False)


def test_plugins_stand_in_the_key_with_their_compiler() -> None:
    triton: Any = pytest.importorskip("triton")
    assert f"triton {triton.__version__}" in build_flags(BuildOptions(), with_triton=True)
    assert "plugins" not in build_flags(BuildOptions(plugins=False), with_triton=True)


def test_our_kernels_go_into_plans_for_gpus_that_are_known_only(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("triton")
    assert can_compile((9, 0)) and not caplog.records
    assert not can_compile((11, 0)) and "11.0 is not known" in caplog.text


@pytest.mark.parametrize(
    "options", [BuildOptions("float32", attention=True), BuildOptions(plugins=False, attention=True)]
)
def test_our_attention_is_for_half_precision_with_plugins(options: BuildOptions) -> None:
    with pytest.raises(OptionsError, match="attention: expected float16 and plugins"):
        options.check()
    assert "attention" in build_flags(BuildOptions(attention=True), with_triton=True)


def test_without_triton_there_are_no_plugins() -> None:
    assert "plugins" not in build_flags(BuildOptions(), with_triton=False)


def test_measured_times_are_kept_apart_by_version_and_gpu() -> None:
    assert timing_name("11.4.0.106", "NVIDIA A100/SXM") == "timing.11.4.0.106.NVIDIA-A100-SXM.cache"


def test_a_damaged_plan_is_told_and_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = PlanKey("onset", 1, "float16", "b", "s", "0", "11", "GPU", "9.0", "", 25, ())
    path = write_plan(tmp_path, key, b"plan")
    assert is_whole(path) and not is_whole(tmp_path / "none.plan")
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING, "taro_rt"):
        assert not is_whole(path)
    assert "truncated" in caplog.text


def test_every_graph_is_planned_for_one_row() -> None:
    assert all(1 in batches for batches in PLANNED.values())
    assert PLANNED["denoiser"] == (1, 2)
