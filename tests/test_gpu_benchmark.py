"""benchmarks/gpu.py, rehearsed on a CPU from end to end; its numbers mean nothing there."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import gpu
import gpu_kernels
import gpu_parity
import gpu_work
import pytest
import torch
from gpu_rows import BASE, OURS
from gpu_work import Plan, Work
from make_tiny_bundle import tiny_config

try:
    from taro_rt.kernels.attention import TILES
    from taro_rt.kernels.linear import LINEAR_TILES
except ImportError:  # without Triton
    TILES = LINEAR_TILES = ()

ROOT = Path(__file__).parents[1]
FULL = {"rehearsal": False, "bundle": None, "device": {"name": "NVIDIA H200"}}
"""What a record says of the device and the networks that the goals are for."""
PARTS = (
    "chain",
    "memory",
    "takes",
    "file",
    "reference",
    "ablation",
    "kernels",
    "vocoders",
    "cold_start",
    "others",
)
TINY = Plan(
    "cpu", rehearsal=True, runs=2, reference_runs=2, takes=(1,), steps=2, gemm_side=32, copy_bytes=1024,
    seconds=1e6,
)  # fmt: skip
"""Its time begins when the tests are collected, and they may take long."""


def rehearse(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    environment.pop("PYTHONSAFEPATH", None)  # a script finds the files beside it
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def record(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    target = tmp_path_factory.mktemp("rehearsal") / "gpu.json"
    done = rehearse("--device", "cpu", "--small", "--bundle", tiny_bundle, "-o", target)
    assert done.returncode == 0, done.stderr
    profile = json.loads(target.with_name("gpu-profile.json").read_text())
    assert sorted(path.name for path in target.parent.iterdir()) == ["gpu-profile.json", "gpu.json"]
    return {**json.loads(target.read_text()), "profile": profile}


def test_a_rehearsal_says_that_it_is_one_and_goes_through_every_part(record: dict[str, Any]) -> None:
    assert record["rehearsal"] is True and record["device"]["name"] == "processor, for a rehearsal"
    assert set(PARTS) <= set(record)
    assert record["commit"] and record["versions"]["torch"] == torch.__version__


def test_parity_stands_before_all_times(record: dict[str, Any]) -> None:
    parity = record["parity"]
    for precision in ("bfloat16", "fp8"):
        assert parity[precision]["passed"], parity[precision]["why_not"]
        assert set(parity[precision]["deviation"]) == {*gpu_parity.NETS, "trajectory"}
    assert parity["bfloat16"]["tolerance"]["trajectory"] == pytest.approx(
        parity["released_trajectory"], rel=0.01
    )
    assert 0 < parity["bfloat16"]["deviation"]["trajectory"] < parity["fp8"]["deviation"]["trajectory"]


def test_the_chain_has_percentiles_and_stages_that_sum_to_it(record: dict[str, Any]) -> None:
    chain = record["chain"]
    assert {"p50", "p90", "p99", "min", "runs"} == set(chain["frames_to_wave_ms"])
    stages = chain["stages_ms"]
    assert set(stages) == {"watch", "sampler", "sound", "host"}
    total = sum(stage["p50"] for stage in stages.values())
    assert total == pytest.approx(chain["frames_to_wave_ms"]["p50"], rel=0.5)
    assert all("tflops" in stages[name] for name in ("watch", "sampler", "sound"))


def test_every_optimisation_and_every_other_runtime_has_its_row(record: dict[str, Any]) -> None:
    names = [row["name"] for row in record["ablation"]]
    assert len(names) == 6 and names[-1] == "+ fp8 (another sound)"
    for row in (*record["ablation"], *record["others"]):
        assert ("sampler_ms" in row) != ("missing" in row)
    missing = {row["name"] for row in record["ablation"] if row.get("missing") == "triton is not installed"}
    assert len(missing) == (0 if find_spec("triton") else 3)
    assert record["ratios"][names[0]] == 1.0 and record["ratios"]["frames_to_wave"] > 0


def test_the_kernel_table_compares_with_what_the_device_can_do(record: dict[str, Any]) -> None:
    if not find_spec("triton"):
        assert record["kernels"] == [{"name": "all kernels", "missing": "triton is not installed"}]
        return
    names = [row["name"] for row in record["kernels"]]
    assert {row["rows"] for row in record["kernels"]} == {1, 2}
    assert sum("queries by" in name for name in names) == 2 * len(TILES)
    assert sum("tiles of" in name for name in names) == 2 * len(LINEAR_TILES)
    assert names.count("attention by PyTorch, streams joined") == 2
    assert all(row["us"] > 0 and row["of_copy"] >= 0 for row in record["kernels"])
    assert [row["name"] for row in record["kernels"] if "of_gemm" not in row] == 2 * [
        "norm and modulate", "gate, norm and modulate"
    ]  # fmt: skip


def test_goals_are_judged_by_the_device_and_networks_they_are_for(record: dict[str, Any]) -> None:
    assert "H200" in record["reached"]["not_judged"]


def test_a_goal_says_what_was_measured_for_it(record: dict[str, Any]) -> None:
    reached = gpu.reached({**record, **FULL})
    assert len(reached) == 8 and reached["must: sampler_ms"]["wanted"] == 24
    chain = record["chain"]["frames_to_wave_ms"]["p50"]
    assert reached["goal: frames_to_wave_ms"]["measured"] == chain
    assert reached["goal: frames_to_wave_ms"]["is_met"] == (chain <= 25)
    most = max(row["takes_per_s"] for row in record["takes"])
    assert reached["goal: takes_per_s"] == {"wanted": 65, "measured": most, "is_met": most >= 65}


@pytest.mark.parametrize(("ratio", "is_met"), [(0.95, True), (0.85, False)])
def test_the_samplers_of_both_backends_are_judged_on_any_device(ratio: float, is_met: bool) -> None:
    found = {"rehearsal": False, "bundle": "b", "device": {"name": "A100"}, "ratios": {gpu.TENSORRT: ratio}}
    reached = gpu.reached(found)
    assert reached[f"must: {gpu.TENSORRT}"]["is_met"] is is_met and "not_judged" in reached


def test_a_goal_that_nothing_was_measured_for_is_not_met() -> None:
    empty = {**FULL, "takes": [], "chain": {"failed": "x"}, "ratios": {}, "file": {"missing": "y"}}
    assert not any(each["is_met"] or each["measured"] for each in gpu.reached(empty).values())


def test_without_the_baseline_there_are_no_ratios_to_it() -> None:
    rows = [{"name": BASE, "failed": "x"}, {"name": OURS, "sampler_ms": {"p50": 8.0}}]
    assert gpu.ratios({"chain": {}, "reference": {}, "ablation": rows}) == {}
    rows[0] = {"name": BASE, "sampler_ms": {"p50": 50.0}}
    assert gpu.ratios({"chain": {}, "reference": {}, "ablation": rows})[OURS] == 6.25


def test_a_row_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(gpu_work, "PUBLISHED", tiny_config())
    taken = gpu_kernels.kernel_seconds

    def fail_at_attention(call: Any, device: str, **more: Any) -> float:
        if "joint_attention" in call.__code__.co_names + call.__code__.co_freevars:
            raise Exception("out of resources: shared memory")  # of no class of ours, as Triton's
        return taken(call, device, **more)

    monkeypatch.setattr(gpu_kernels, "kernel_seconds", fail_at_attention)
    rows = list(gpu_kernels.table(Work(TINY), {"gemm_tflops": 1.0, "copy_gb_s": 1.0}))
    failed = [row["name"] for row in rows if "failed" in row]
    assert failed and all("attention" in name for name in failed)
    assert sum("us" in row for row in rows) > len(failed)


def test_what_is_measured_is_kept_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_work, "PUBLISHED", tiny_config())
    target, seen = tmp_path / "gpu.json", list[set[str]]()

    def keep(record: dict[str, Any]) -> None:
        gpu.write(record, target)
        seen.append(set(json.loads(target.read_text())))

    gpu.timed(Work(replace(TINY, seconds=0.0)), {**FULL, "parity": {"fp8": {"missing": "for a test"}}}, keep)
    assert len(seen) >= len(PARTS) and all(early <= late for early, late in pairwise(seen))
    assert seen[-1] - seen[0] >= set(PARTS) - {"chain"}


def test_the_prediction_for_another_device_is_marked_as_one(record: dict[str, Any]) -> None:
    (prediction,) = record["predictions"]
    assert prediction["predicted"] is True and prediction["device"] == "A100"


def test_the_profile_lists_what_a_window_launched(record: dict[str, Any]) -> None:
    assert len(record["profile"]) > 10
    assert [row["us"] for row in record["profile"]] == sorted(
        (r["us"] for r in record["profile"]), reverse=True
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--device", "cpu"], "device: expected --small with cpu"),
        (["--device", "cpu", "--small"], "output: expected -o FILE with --small"),
        (
            ["--device", "cpu", "--small", "--backend", "tensorrt"],
            "small: expected no rehearsal with tensorrt",
        ),
        (
            ["--device", "cpu", "--small", "-o", ROOT / "benchmarks" / "results" / "x" / "gpu.json"],
            "output: expected no rehearsal under",
        ),
        pytest.param(
            ["-o", "x.json"],
            "device cuda: ",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
        ),
    ],
    ids=["whole on a CPU", "nowhere to write", "no plans", "among results", "without a GPU"],
)
def test_what_would_pass_for_a_measurement_is_refused(
    arguments: list[object], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, arguments)])
    with pytest.raises(SystemExit, match=f"gpu.py: {expected}"):
        gpu.main()
    assert not (ROOT / "benchmarks" / "results" / "x").exists()


def test_without_a_bundle_weights_follow_the_rule_of_the_golden_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The path of the published size, at a size that a test can afford."""
    monkeypatch.setattr(gpu_work, "PUBLISHED", tiny_config())
    work = Work(TINY)
    first, again = (work.networks().transformer.joint_blocks[0].x_block.attn.qkv.weight for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert work.stand_in().manifest.geometry == tiny_config().geometry()
    oracle = gpu_parity.Oracle(work)
    assert oracle.check("float32", 1.0)["passed"]


def test_what_fails_parity_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_work, "PUBLISHED", tiny_config())
    monkeypatch.setattr(gpu_parity.Oracle, "released", lambda self: 1e-6)
    record = gpu.measure(TINY)
    assert not record["parity"]["bfloat16"]["passed"]
    assert "trajectory" in record["parity"]["bfloat16"]["why_not"] and "chain" not in record


@pytest.mark.parametrize(("released", "most"), [(0.5, gpu_parity.RELEASED), (0.002, 0.002)])
def test_at_the_published_size_the_scripts_own_distance_bounds_the_gate(
    released: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, float] = {}

    def check(self: object, precision: str, limit: float) -> dict[str, Any]:
        asked[precision] = limit
        return {"passed": False, "why_not": "for a test"}

    monkeypatch.setattr(gpu_work, "PUBLISHED", tiny_config())
    monkeypatch.setattr(gpu_parity.Oracle, "released", lambda self: released)
    monkeypatch.setattr(gpu_parity.Oracle, "check", check)
    gpu.measure(TINY)
    assert asked["bfloat16"] == most


def test_records_of_other_networks_and_backends_have_names_of_their_own(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "device_slug", lambda: "gpu-of-a-test")

    def name(**more: object) -> str:
        args = {"output": None, "small": False, "bundle": None, "backend": "cuda", **more}
        return gpu.read_target(argparse.Namespace(**args)).name

    assert name() == "gpu.json"
    assert name(bundle=str(tiny_bundle)) == "gpu-tiny.json"
    assert name(bundle=str(tiny_bundle), backend="tensorrt") == "gpu-tiny-tensorrt.json"


def test_without_time_left_parts_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_work, "PUBLISHED", tiny_config())
    record: dict[str, Any] = {**FULL, "parity": {"fp8": {"missing": "for a test"}}}
    gpu.timed(Work(replace(TINY, seconds=0.0)), record)
    assert {record[part]["missing"] for part in PARTS} == {"not run: no time was left"}
    assert record["ratios"] == {}


def test_a_part_that_fails_says_so_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("CUDA error: no kernel image\nis available")

    monkeypatch.setattr(gpu_work, "PUBLISHED", tiny_config())
    for name in ("chain", "takes", "file_to_mp4", "profile", "reference_chain", "cold_start"):
        monkeypatch.setattr(gpu.chained, name, fail)
    for name in ("ablation", "table", "vocoders", "others"):
        monkeypatch.setattr(gpu, name, lambda *arguments: [])
    record: dict[str, Any] = {**FULL, "parity": {"fp8": {"missing": "for a test"}}}
    gpu.timed(Work(TINY), record)
    assert record["takes"]["failed"] == "RuntimeError: CUDA error: no kernel image is available"
    assert record["memory"]["pipeline_mb"] > 0 and len(gpu.failures(record)) == 6


def test_a_matrix_rate_next_to_nothing_is_not_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where bfloat16 is emulated: shares of it are taken."""
    monkeypatch.setattr(gpu_kernels, "kernel_seconds", lambda *_, **__: 1.0)
    most = gpu_kernels.ceilings(argparse.Namespace(plan=TINY))  # type: ignore[arg-type]
    assert most["gemm_tflops"] == pytest.approx(2e-12 * 32**3, rel=1e-3)
