"""The README says what the records say."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from taro_rt.runtime.bench.record import summary

ROOT = Path(__file__).parents[1]


def test_figures_of_every_page_are_those_of_the_committed_records() -> None:
    table = made_by("table")
    pages = table.pages()
    assert {path.name for path in pages} == {"README.md", "speed.md"}
    for path, text in pages.items():
        assert path.read_text("utf-8") == text, path.name
    assert "file to file" in table.figures()


def test_plots_are_those_of_the_committed_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plot = made_by("plot")
    monkeypatch.setattr(plot, "DOCS", tmp_path)
    plot.main()
    drawn = sorted(tmp_path.iterdir())
    assert len(drawn) > 3
    for path in drawn:
        assert path.read_bytes() == (ROOT / "docs" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", ["evaluation", "edits", "fast", "bench-embedded"])
def test_figures_of_the_embedded_bundle_are_of_the_one_that_is_shipped(name: str) -> None:
    manifest = json.loads((ROOT / "engines/default/manifest.json").read_text("utf-8"))
    record = json.loads((ROOT / f"benchmarks/results/cpu-2-cores/{name}.json").read_text("utf-8"))
    of = record.get("workload", record)
    assert of["transformer_sha256"] == manifest["files"]["transformer.safetensors"]["sha256"]
    if name != "bench-embedded":  # times do not depend on weights
        assert of["onset_sha256"] == manifest["files"]["onset.safetensors"]["sha256"]


def test_first_screen_names_two_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    block = re.search(r"```sh\n(.*?)```", readme, re.DOTALL)
    assert block
    commands = [line.split("#")[0].split() for line in block.group(1).strip().splitlines()]
    targets = (ROOT / "Makefile").read_text("utf-8")
    assert [command[0] for command in commands] == ["make", "make"]
    assert all(re.search(rf"^{command[1]}:", targets, re.MULTILINE) for command in commands)


def made_by(name: str) -> ModuleType:
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def bench_record() -> dict[str, object]:
    """Two rows that were timed, one that was not, and a fast one."""
    runs = [{"wall": 1.0, "denoiser": 0.6, "read": 0.2}]
    times = {"cold_s": 2.0, "load_s": 0.5, "load_empty_cache_s": 4.0, "peak_mb": 300.0, "runs": 1}
    times["deviation"] = {"trajectory": 0.0102}
    timed = {**times, **summary(runs, {"denoiser": 10.0}, {"denoiser": 100.0}), "timed": True}
    rows = [
        {"name": name, "backend": backend, "precision": "float32", "ratio": ratio, **timed}
        for name, backend, ratio in (("released recipe", "released", 1.0), ("new", "eager", 2.0))
    ]
    refused = {"name": "odd", "timed": False, "why_not": "velocity 1.0e-01, 1.0e-04 allowed"}
    return {
        "device": {"cores": 2, "processor": "P", "vectors": "AVX2"},
        "versions": {"taro-rt": "0.1.0"},
        "commit": "1234567890",
        "workload": {
            "bundle": "b",
            "parameters_mb": 15,
            "seconds": 8.0,
            "height": 720,
            "takes": 1,
            "threads": 2,
            "sampler": {"steps": 25, "guidance": 8.0},
        },
        "roofline": {"gemm_gflops": {"float32": 181.0}, "copy_gb_s": 30.0},
        "exact": [*rows, refused],
        "takes": {"name": "new", "takes": 4, "beside": 1, "ratio": 2.1, "ratio_from_to": [2.0, 2.2], **timed},
        "fast": [
            {"name": f"new, {p}", "options": {"steps": 12}, "precision": p, **timed, "ratio": 4.0}
            for p in ("float32", "int8")
        ],
    }


def test_a_benchmark_becomes_tables_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, plot = made_by("speed_tables"), made_by("plot")
    folder = tmp_path / "device"
    folder.mkdir()
    (folder / "bench-b.json").write_text(json.dumps(bench_record()))
    figures = {"onset_f1": {"100": 0.8}, "fd": 6.0, "class_accuracy": 0.3}
    float32, int8 = {"precision": "float32"}, {"precision": "int8"}
    settings = {
        "exact": {"options": {}, "computed": float32, "generated": figures},
        "less": {"options": {"steps": 12}, "computed": float32, "generated": figures},
        "int8": {"options": {"steps": 12}, "computed": int8, "generated": {**figures, "fd": 7.0}},
    }
    manifest = json.loads((ROOT / "engines/default/manifest.json").read_text("utf-8"))
    sha256 = manifest["files"]["transformer.safetensors"]["sha256"]
    costs = {"settings": settings, "transformer_sha256": sha256, "clips": 42}
    (folder / "fast.json").write_text(json.dumps(costs))
    text = table.tables(tmp_path)
    assert "| new | 2.00 | 1.00 | 1.00 | 1.00 | 1 | 2.0 | 0.50 (4.0) | 300 | 10% | 17% | 1.02% |" in text
    assert "4 takes at once (new): 1.00 s, 2.10 times as long as 1 (2.00 to 2.20, pairs in turn: 1)." in text
    assert "| odd | not timed: velocity" in text and "0.60 (17%)" in text
    assert "embedded bundle, 42 held-out clips" in text
    assert "| new, float32 | 4.00 | 1.00 | 0.80 | 6.00 | 30% |" in text
    assert "| new, int8 | 4.00 | 1.00 | 0.80 | 7.00 | 30% |" in text
    assert "| TARO | 0.58 | 258 |" in text and "not measured here" in text
    (folder / "fast.json").write_text(json.dumps({**costs, "transformer_sha256": "older"}))
    assert "| new, int8 | 4.00 | 1.00 | not measured | | |" in table.tables(tmp_path)
    row = "| b | P, AVX2 | 1.00 (float32) | 1.00 (new) | 2.00 | 10% | 17% | 0.5 | 1.00 (float32) | 4.00 |"
    assert f"{row} 4: 2.10 |" in table.summary(tmp_path)
    (folder / "bench-b.json").write_text(json.dumps({**bench_record(), "fast": [], "takes": None}))
    assert "| 2.00 | 10% | 17% | 0.5 |  |  |  |" in table.summary(tmp_path)
    (folder / "bench-b-takes.json").write_text(json.dumps(bench_record()))
    assert "| 2.00 | 10% | 17% | 0.5 |  |  | 4: 2.10 |" in table.summary(tmp_path)
    assert table.tables(tmp_path).count("## b, AVX2") == 1 and "4 takes at once" in table.tables(tmp_path)
    drawn = ElementTree.fromstring(plot.latency(bench_record()))
    assert sum(element.tag.endswith("rect") for element in drawn) == 1 + 9 + 2 * (9 + 1)


def test_every_picture_that_the_readme_shows_is_there() -> None:
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert [path for path in shown if not (ROOT / path).is_file()] == []
