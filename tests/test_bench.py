"""The benchmark: what it gates, counts and says, on real engines of a tiny bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import BFLOAT16_TIMES
from typer.testing import CliRunner

from taro_rt.engines.backends import available
from taro_rt.engines.bundle import Bundle, SamplerDefaults
from taro_rt.engines.errors import EngineError, OptionsError
from taro_rt.engines.machine import vectors
from taro_rt.runtime.bench import gate, released, roofline, run, worker, workload
from taro_rt.runtime.bench.record import STAGES, percentiles, summary
from taro_rt.runtime.bench.run import Plan, measure
from taro_rt.runtime.bench.show import lines, matrix_rates, of_networks
from taro_rt.runtime.bench.variant import RELEASED, Variant, exact_variants, fast_variants
from taro_rt.runtime.cli import app
from taro_rt.runtime.probe import probe
from taro_rt.runtime.sampler import guide, sample

SMALL = {"runs": 1, "seconds": 0.5, "size": 64, "threads": 1, "roofline": (64, 1 << 20)}


@pytest.fixture(scope="module")
def record(tiny_bundle: Path) -> dict[str, Any]:
    """A benchmark of ONNX Runtime beside the baseline."""
    return measure(Plan(bundle=str(tiny_bundle), backend="onnxruntime", **SMALL))


def test_the_baseline_is_row_one_and_others_are_ratios_to_it(record: dict[str, Any]) -> None:
    names = [row["name"] for row in record["exact"]]
    baseline = "released recipe" if roofline.has_bfloat16(record["roofline"]) else "released recipe, float32"
    assert names == [baseline, "onnxruntime float32"]
    first, second = record["exact"]
    assert first["ratio"] == 1
    assert second["ratio"] == pytest.approx(first["wall_s"]["p50"] / second["wall_s"]["p50"], abs=1e-2)
    assert [row["options"] for row in record["fast"]] and all("ratio" in row for row in record["fast"])


def test_8_bits_pass_a_gate_of_their_own_before_they_are_timed(record: dict[str, Any]) -> None:
    rows = [row for row in record["fast"] if row["precision"] == "int8"]
    assert len(rows) == 2 and all(row["tolerance"] == gate.TOLERANCES["int8"] for row in rows)
    assert all(row["deviation"]["vocoder"] < 1e-4 < row["deviation"]["velocity"] for row in rows)


def test_a_backend_that_was_asked_for_is_measured_without_the_others() -> None:
    best = Variant("openvino bfloat16", "openvino", "bfloat16")
    assert {v.backend for v in fast_variants(best, "openvino")} == {"openvino"}
    assert "onnxruntime" in {v.backend for v in fast_variants(best)}


def test_several_takes_are_measured_beside_one(record: dict[str, Any]) -> None:
    takes, one = record["takes"], record["exact"][1]
    assert takes["takes"] == 4 and takes["name"] == one["name"]
    assert takes["stages"]["denoiser"]["gflop"] == pytest.approx(
        4 * one["stages"]["denoiser"]["gflop"], rel=1e-3
    )
    assert takes["stages"]["onset"]["gflop"] == one["stages"]["onset"]["gflop"]
    assert takes["beside"] == 1 and takes["ratio_from_to"] == [takes["ratio"], takes["ratio"]]  # one pair


def test_numbers_of_takes_have_their_turns_in_one_process(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = tmp_path / "clip.mp4"
    workload.write_video(video, 0.5, 64)
    asked = {"bundle": str(tiny_bundle), "threads": 1, "least": 2, "most": 2, "seconds": 0.0, "warm_up": True}
    variant = Variant("onnxruntime float32", "onnxruntime", "float32").as_json()
    files = {"video": str(video), "output": str(tmp_path / "out.mp4")}
    turns: list[int] = []
    made = worker.generate_file

    def watched(machine: Any, video: Path, output: Path, job: Any, progress: Any) -> Any:
        turns.append(job.options.takes)
        return made(machine, video, output, job, progress)

    monkeypatch.setattr(worker, "generate_file", watched)
    one, four = worker.generate({"takes": [1, 4], "variant": variant, **files, **asked})["made"]
    assert turns == [1, 1, 4, 4, 1, 1, 4, 4], "the first of each pair warms up"
    assert len(one["runs"]) == len(four["runs"]) == 2
    assert four["gflop"]["denoiser"] == pytest.approx(4 * one["gflop"]["denoiser"], rel=1e-3)


def test_the_ratio_of_takes_is_the_median_of_pairs(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls = {1: [1.0, 2.0, 4.0], 4: [2.0, 5.0, 9.0]}

    def ask(bench: run._Bench, task: str, **more: Any) -> dict[str, Any]:
        assert task == "generate" and more["takes"] == (1, 4)
        made = [{"runs": [{"wall": s} for s in walls[n]], "gflop": {}} for n in more["takes"]]
        return {"load_s": 0.1, "peak_mb": 1.0, "made": made}

    monkeypatch.setattr(run._Bench, "ask", ask)
    bench = run._Bench(Plan(), Bundle.open(tiny_bundle), tmp_path)
    best = Variant("onnxruntime float32", "onnxruntime", "float32")
    takes = bench.takes(best, {"gemm_gflops": {}})
    assert takes["ratio"] == 2.25 and takes["ratio_from_to"] == [2.0, 2.5] and takes["runs"] == 3
    assert takes["wall_s"]["p50"] == 5.0 and takes["beside_wall_s"]["p50"] == 2.0


def test_modulation_at_every_step_is_work_of_the_released_denoiser(record: dict[str, Any]) -> None:
    released, ours = (row["stages"] for row in record["exact"])
    assert "gflop" not in released["conditioner"]
    both = ours["denoiser"]["gflop"] + ours["conditioner"]["gflop"]
    assert released["denoiser"]["gflop"] == pytest.approx(both, abs=2e-3)


def test_a_row_tells_stages_percentiles_memory_and_what_was_reached(record: dict[str, Any]) -> None:
    row = record["exact"][1]
    stages = row["stages"]
    assert list(stages) == list(STAGES)
    total = sum(stage["p50"] for stage in stages.values())
    assert row["cold_s"] > row["wall_s"]["p50"] == pytest.approx(total, abs=1e-3)  # one run: they add up
    assert row["peak_mb"] > 20 and row["load_s"] > 0 and row["load_empty_cache_s"] > 0
    denoiser, rate = stages["denoiser"], record["roofline"]["gemm_gflops"]["float32"]
    assert denoiser["gflops"] == pytest.approx(denoiser["gflop"] / denoiser["p50"], rel=0.05)
    assert denoiser["of_roofline"] == pytest.approx(denoiser["gflops"] / rate, rel=0.05)
    assert {"gflop"} & set(stages["read"]) == set()


def test_the_record_says_on_what_and_with_what_it_was_made(record: dict[str, Any]) -> None:
    assert set(record) == {
        "device",
        "versions",
        "commit",
        "workload",
        "roofline",
        "reference",
        "exact",
        "fast",
        "takes",
    }
    assert record["reference"] == "eager float32"
    assert {"taro-rt", "numpy", "onnxruntime"} <= set(record["versions"])
    assert record["workload"]["seconds"] == 0.5 and record["workload"]["sampler"]["steps"] == 25
    assert json.loads(json.dumps(record)) == record


def test_a_processor_that_is_held_back_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    free = vectors()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert vectors() == f"{free}, held to AVX2"


def test_the_table_has_a_line_for_every_row(record: dict[str, Any]) -> None:
    text = list(lines(record))
    for row in (*record["exact"], *record["fast"]):
        assert sum(line.startswith(row["name"]) for line in text) >= 1


def test_a_rate_next_to_nothing_is_not_shown_as_nothing() -> None:
    rates = {"gemm_gflops": {"float32": 158.7, "bfloat16": 0.32}}
    assert dict(matrix_rates(rates)) == {"float32": "159", "bfloat16": "0.3"}


def test_what_is_beyond_its_tolerance_is_not_timed(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: dict[str, Any]
) -> None:
    def ask(bench: run._Bench, task: str, **more: Any) -> dict[str, Any]:
        off = 2e-4 if "reference" not in more["file"] else 0.0
        arrays = {name: np.full(3, 1 + off * (name == "velocity")) for name in gate.TOLERANCES["float32"]}
        np.savez(more["file"], **arrays)
        return {"load_s": 0.1}

    monkeypatch.setattr(run._Bench, "ask", ask)
    bench = run._Bench(Plan(), Bundle.open(tiny_bundle), tmp_path)
    row = bench.row(Variant("onnxruntime float32", "onnxruntime", "float32"), {})
    assert not row["timed"] and "wall_s" not in row and row["why_not"].startswith("velocity 2.0e-04")
    shown = lines({**record, "exact": [record["exact"][0], row]})
    assert any("not timed: velocity" in line for line in shown)


def test_every_installed_way_of_computing_is_a_variant() -> None:
    found = exact_variants()
    assert [v.name for v in found][:4] == [
        "released recipe",
        "… no alignment head",
        "… modulation once",
        "… no surplus frames",
    ]
    assert {v.backend for v in found} == {
        RELEASED,
        *(b for b, why in available().items() if not why and b != "cuda"),
    }
    for variant in (*found, *(v.without_bfloat16() for v in found)):
        assert Variant.from_json(json.loads(json.dumps(variant.as_json()))) == variant
    with pytest.raises(OptionsError, match=r"backend: expected auto, .*, got 'abacus'"):
        exact_variants("abacus")


@pytest.mark.parametrize(("name", "value"), [("runs", 0), ("seconds", 0.1), ("size", 1), ("takes", 0)])
def test_a_plan_that_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(OptionsError, match=f"{name}: expected "):
        replace(Plan(), **{name: value})


def test_a_worker_that_fails_says_what_it_said(tiny_bundle: Path, tmp_path: Path) -> None:
    bench = run._Bench(Plan(), Bundle.open(tiny_bundle), tmp_path)
    with pytest.raises(EngineError, match=r"bench: outputs of odd failed: .*abacus"):
        bench.ask("outputs", variant=Variant("odd", "abacus", "float32").as_json(), file="x")


def test_percentiles_and_sums_are_those_of_the_runs() -> None:
    runs = [{"wall": float(k), "denoiser": k / 2} for k in (1, 2, 3)]
    made = summary(runs, {"denoiser": 10.0}, {"denoiser": 100.0})
    assert made["wall_s"] == {"p50": 2.0, "p90": 2.8, "p99": 2.98} == percentiles([1, 2, 3])
    assert made["stages"]["denoiser"]["gflops"] == 10.0 and made["of_roofline"] == 0.05
    assert made["stages"]["other"]["p50"] == 1.0
    assert summary(runs, {"denoiser": 10.0}, {})["stages"]["denoiser"].get("of_roofline") is None


def test_the_share_of_the_roofline_takes_every_stage_at_its_own_rate() -> None:
    rates = {"denoiser": 100.0, "vocoder": 50.0}
    made = summary(
        [{"wall": 1.0, "denoiser": 0.5, "vocoder": 0.4}], {"denoiser": 30.0, "vocoder": 10.0}, rates
    )
    assert (
        made["stages"]["denoiser"]["of_roofline"] == 0.6 and made["stages"]["vocoder"]["of_roofline"] == 0.5
    )
    assert made["of_roofline"] == 0.5 and of_networks(made) == "56%"  # 0.5 s of the 0.9 s in networks
    assert "of_roofline" not in summary([{"wall": 1.0}], {"denoiser": 1.0, "onset": 1.0}, rates)


def test_every_graph_is_held_against_the_rate_of_its_own_precision() -> None:
    whole = Variant("released recipe", RELEASED, "bfloat16")
    assert [whole.precision_of(g) for g in ("onset", "denoiser")] == ["float32", "bfloat16"]
    in_int8 = Variant("onnxruntime int8", "onnxruntime", "int8")
    assert [in_int8.precision_of(g) for g in ("conditioner", "denoiser")] == ["float32", "int8"]
    assert Variant("openvino bfloat16", "openvino", "bfloat16").precision_of("vocoder") == "bfloat16"


def test_the_gate_sees_what_is_missing_misshapen_or_not_finite(tmp_path: Path) -> None:
    good = np.ones((2, 3), np.float32)
    assert gate.relative_rms(good * np.float32(1.01), good) == pytest.approx(0.01, rel=1e-3)
    assert gate.relative_rms(good[:1], good) == float("inf")
    assert gate.relative_rms(good * np.float32("nan"), good) == float("inf")
    np.savez(tmp_path / "want.npz", a=good, b=good)
    np.savez(tmp_path / "got.npz", a=good)
    found = gate.deviations(tmp_path / "got.npz", tmp_path / "want.npz")
    assert found == {"a": 0.0, "b": float("inf")}
    assert gate.faults({"a": float("nan")}, {"a": 1.0}) == ["a nan, 1.0e+00 allowed"]


def test_a_trajectory_in_bfloat16_is_held_to_that_of_the_released_recipe() -> None:
    assert gate.tolerances("bfloat16", 0.014)["trajectory"] == 0.014
    assert gate.tolerances("float32", 0.014) == gate.TOLERANCES["float32"]


def test_the_roofline_knows_every_precision_that_is_installed() -> None:
    made = roofline.measure(1, side=64, copied_bytes=1 << 20)
    assert made["gemm_gflops"]["float32"] > 0 and made["copy_gb_s"] > 0
    assert set(made["gemm_gflops_by_library"]["float32"]) >= {"numpy"}


def test_a_precision_is_one_of_its_own_where_its_products_are_not_far_slower() -> None:
    def rates(bfloat16: float) -> dict[str, Any]:
        return {"gemm_gflops_by_library": {"float32": {"torch": 143.0}, "bfloat16": {"torch": bfloat16}}}

    assert roofline.has_bfloat16(rates(81.0)), "half of float32's, as on AVX-512 without it"
    assert not roofline.has_bfloat16(rates(1.0)), "as on AVX2"


def test_what_takes_long_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    roofline._shortest(lambda: calls.append(1))
    assert len(calls) == 1 + roofline.REPEATS
    calls.clear()
    monkeypatch.setattr(roofline, "LONG_S", 0.0)
    assert roofline._shortest(lambda: calls.append(1)) > 0 and len(calls) == 1


def test_where_bfloat16_is_emulated_the_released_recipe_is_computed_in_float32(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "has_bfloat16", lambda roofline: False)
    made = measure(Plan(bundle=str(tiny_bundle), backend="eager", fast=False, more_takes=1, **SMALL))
    first, second = made["exact"]
    assert (first["name"], first["precision"]) == ("released recipe, float32", "float32")
    assert first["tolerance"] == gate.TOLERANCES["float32"] and first["timed"], first
    assert second["name"] == "eager float32", "only the recipe changes"


def test_the_video_is_a_real_one(tmp_path: Path) -> None:
    workload.write_video(tmp_path / "a.mp4", 1.0, 90)
    info = probe(tmp_path / "a.mp4")
    assert (info.width, info.height, info.duration_s) == (160, 90, 1.0)


def test_the_released_grid_is_the_published_one() -> None:
    assert np.array_equal(released.time_grid(25), BFLOAT16_TIMES)
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    assert np.array_equal(released.rounded(values), torch.from_numpy(values).bfloat16().float().numpy())


def test_the_released_sampler_is_the_sampler_up_to_rounding() -> None:
    rng = np.random.default_rng(0)
    start, draws = rng.standard_normal(5000, np.float32), rng.standard_normal((25, 5000), np.float32)

    def both(x: np.ndarray, t: float, guided: bool) -> list[np.ndarray]:
        return [x * np.float32(0.7) + np.float32(0.1), x * np.float32(0.7)][: 1 + guided]

    def velocity(x: np.ndarray, t: float, guided: bool) -> np.ndarray:
        pair = both(x, t, guided)
        return guide(*pair, settings.guidance) if guided else pair[0]

    settings = SamplerDefaults()
    got = released.sample(both, start, draws.__getitem__, settings)
    want = sample(velocity, start, draws.__getitem__, settings)
    assert 1e-4 < gate.relative_rms(got, want) < 0.03


def test_the_command_writes_the_record_and_prints_the_table(
    record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr(run, "measure", lambda plan, progress: plans.append(plan) or record)
    target = tmp_path / "bench.json"
    asked = ["bench", "--runs", "2", "--seconds", "0.5", "--size", "64", "--no-fast", "-o", str(target)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert plans == [Plan(runs=2, seconds=0.5, size=64, fast=False)]
    assert done.stdout.splitlines() == list(lines(record)) and json.loads(target.read_text()) == record
    again = CliRunner().invoke(app, asked)
    assert again.exit_code == 5 and "bench.json" in again.stderr
    as_json = CliRunner().invoke(app, [*asked, "--force", "--json"])
    assert json.loads(as_json.stdout) == record
