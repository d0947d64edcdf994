"""All measurements of a benchmark, one process after the other, and the record they make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from taro_rt.engines import cache
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.errors import BackendUnavailable, EngineError, OptionsError
from taro_rt.runtime.bench import gate, workload
from taro_rt.runtime.bench.record import Record, commit, device, summary, versions, workload_of
from taro_rt.runtime.bench.variant import RELEASED, Variant, exact_variants, fast_variants
from taro_rt.runtime.progress import Progress, report

SLOW_RUNS = 3
"""Of a variant in plain PyTorch at most: it takes minutes and is steady."""


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    bundle: str = "default"
    backend: str = "auto"
    runs: int = 5
    seconds: float = 8.0
    """Length of the video."""
    size: int = 720
    """Height of its picture."""
    takes: int = 1
    threads: int | None = None
    fast: bool = True
    """Measure the settings that change the sound too."""
    roofline: tuple[int, int] | None = None
    """Side of the matrices and bytes copied; None for sizes that fill a machine."""

    def __post_init__(self) -> None:
        limits = {"runs": (1, 1000), "seconds": (0.5, 3600), "size": (32, 4320), "takes": (1, 100)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise OptionsError(f"{name}: expected {low:g} to {high:g}, got {getattr(self, name)!r}")


def measure(plan: Plan, progress: Progress | None = None) -> Record:
    """The record of a benchmark. Raises `OptionsError`, `BundleError`, `EngineError` or `Cancelled`."""
    bundle, variants = Bundle.open(plan.bundle), exact_variants(plan.backend)
    if not variants:
        raise BackendUnavailable("no backend is installed; pip install 'taro-rt[cpu]'")
    with TemporaryDirectory(prefix="taro-bench-") as folder, _own_cache(Path(folder) / "cache"):
        bench = _Bench(plan, bundle, Path(folder))
        workload.write_video(bench.video, plan.seconds, plan.size)
        report(progress, "bench", 0.0)
        roofline = bench.ask("roofline", **({"sizes": plan.roofline} if plan.roofline else {}))
        exact = []
        for k, variant in enumerate(variants):
            report(progress, "bench", (k + 1) / (len(variants) + 2))
            exact.append(bench.row(variant, roofline))
        fast = bench.fast_rows(variants, exact, roofline) if plan.fast else []
    base = exact[0]
    for row in (*exact, *fast):
        if row["timed"] and base["timed"]:
            row["ratio"] = round(base["wall_s"]["p50"] / row["wall_s"]["p50"], 3)
    report(progress, "bench", 1.0)
    return {
        "device": device(),
        "versions": versions(),
        "commit": commit(),
        "workload": workload_of(bundle, plan.seconds, plan.size, plan.takes, plan.threads),
        "roofline": roofline,
        "reference": bench.reference_name,
        "exact": exact,
        "fast": fast,
    }


class _Bench:
    """The state of one benchmark: its video, the float32 numbers that others are held against."""

    def __init__(self, plan: Plan, bundle: Bundle, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._bundle = str(bundle.folder)
        self.video = folder / "clip.mp4"
        self._reference: Path | None = None
        self.reference_name = ""
        self._released_trajectory: float | None = None

    def ask(self, task: str, **more: Any) -> Record:
        """Have `task` done in a process of its own. Raises `EngineError` with its last words."""
        asked = {"task": task, "bundle": self._bundle, "threads": self._plan.threads, **more}
        command = [sys.executable, "-m", "taro_rt.runtime.bench.worker", json.dumps(asked)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                out, err = process.communicate()
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            last = err.strip().splitlines()[-1] if err.strip() else f"exit code {process.returncode}"
            raise EngineError(
                f"bench: {task} of {more.get('variant', {}).get('name', 'machine')} failed: {last}"
            )
        return dict(json.loads(out.strip().splitlines()[-1]))

    def row(self, variant: Variant, roofline: Record) -> Record:
        """Gate and times of one exact variant."""
        passed = self._gate(variant)
        head = {"name": variant.name, "backend": variant.backend, "precision": variant.precision, **passed}
        return {**head, **self._times(variant, roofline)} if passed["timed"] else head

    def fast_rows(
        self, variants: Sequence[Variant], exact: Sequence[Record], roofline: Record
    ) -> list[Record]:
        """Times of the settings that change the sound, on the fastest exact variant."""
        timed = [(row["wall_s"]["p50"], k) for k, row in enumerate(exact) if row["timed"]]
        timed = [each for each in timed if variants[each[1]].backend != RELEASED]
        if not timed:
            return []
        best = variants[min(timed)[1]]
        return [
            {
                "name": fast.name,
                "backend": fast.backend,
                "precision": fast.precision,
                "options": fast.options,
                "timed": True,
                **self._times(fast, roofline),
            }
            for fast in fast_variants(best)
        ]

    def _gate(self, variant: Variant) -> Record:
        file = self._file(variant)
        reference = self._referenced()
        made = self.ask("outputs", variant=variant.as_json(), file=str(file))
        found = gate.deviations(file, reference)
        if variant.backend == RELEASED:
            if not variant.without:
                self._released_trajectory = found["trajectory"]
            limits = gate.tolerances("bfloat16", None)
        else:
            limits = gate.tolerances(variant.precision, self._released_trajectory)
        wrong = gate.faults(found, limits)
        return {
            "deviation": {name: float(f"{value:.2e}") for name, value in found.items()},
            "tolerance": limits,
            "load_empty_cache_s": made["load_s"],
            "timed": not wrong,
            **({"why_not": "; ".join(wrong)} if wrong else {}),
        }

    def _referenced(self) -> Path:
        """float32 by plain PyTorch, else by ONNX Runtime, whose graphs were held against it at export."""
        if self._reference is None:
            names = {v.backend: v for v in exact_variants() if v.precision == "float32"}
            variant = next(names[name] for name in ("eager", "onnxruntime", "openvino") if name in names)
            self.reference_name, self._reference = variant.name, self._folder / "reference.npz"
            self.ask("outputs", variant=variant.as_json(), file=str(self._reference))
        return self._reference

    def _times(self, variant: Variant, roofline: Record) -> Record:
        plan = self._plan
        slow = variant.backend in (RELEASED, "eager")
        runs = min(plan.runs, SLOW_RUNS) if slow else plan.runs
        asked = {
            "variant": variant.as_json(),
            "video": str(self.video),
            "output": str(self._folder / "out.mp4"),
            "takes": plan.takes,
        }
        started = time.perf_counter()
        self.ask("generate", runs=1, **asked)
        cold_s = time.perf_counter() - started
        warm = self.ask("generate", runs=runs + 1, **asked)
        return {
            "cold_s": round(cold_s, 3),
            "load_s": warm["load_s"],
            "peak_mb": warm["peak_mb"],
            "runs": runs,
            **summary(warm["runs"][1:], warm["gflop"], roofline["gemm_gflops"], variant.precision),
        }

    def _file(self, variant: Variant) -> Path:
        return self._folder / f"{variant.name.encode().hex()[:60]}.npz"


@contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """Compiled models go to `folder` meanwhile: the first load of every variant is one without a cache."""
    before = os.environ.get(cache.VARIABLE)
    os.environ[cache.VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[cache.VARIABLE]
        if before is not None:
            os.environ[cache.VARIABLE] = before
