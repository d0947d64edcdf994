"""All measurements of a benchmark, one process after the other, and the record they make."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from taro_rt.engines import cache
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.errors import BackendUnavailable, EngineError, OptionsError
from taro_rt.runtime.bench import gate, workload
from taro_rt.runtime.bench.record import Record, commit, device, percentiles, summary, versions, workload_of
from taro_rt.runtime.bench.roofline import has_bfloat16
from taro_rt.runtime.bench.variant import RELEASED, Variant, exact_variants, fast_variants
from taro_rt.runtime.options import number_faults
from taro_rt.runtime.progress import Progress, report

LEAST_RUNS, MOST_RUNS, RUNS_S = 3, 30, 20.0
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    bundle: str = "default"
    backend: str = "auto"
    runs: int | None = None
    """Warm runs of each row; None for as many as fit in `RUNS_S`, 3 to 30."""
    seconds: float = 8.0
    """Length of the video."""
    size: int = 720
    """Height of its picture."""
    takes: int = 1
    threads: int | None = None
    fast: bool = True
    """Measure the settings that change the sound too."""
    more_takes: int = 4
    """Also measure so many takes at once on the fastest exact row; 1 for not."""
    roofline: tuple[int, int] | None = None
    """Side of the matrices and bytes copied; None for sizes that fill a machine."""

    def __post_init__(self) -> None:
        faults = [
            *number_faults("runs", self.runs, 1, 1000, whole=True),
            *number_faults("seconds", self.seconds, 0.5, 3600, required=True),
            *number_faults("size", self.size, 32, 4320, whole=True, required=True),
            *number_faults("takes", self.takes, 1, 100, whole=True, required=True),
            *number_faults("more_takes", self.more_takes, 1, 100, whole=True, required=True),
        ]
        if faults:
            raise OptionsError("; ".join(faults))


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
        if not has_bfloat16(roofline):
            variants = [variant.without_bfloat16() for variant in variants]
        exact = []
        for k, variant in enumerate(variants):
            report(progress, "bench", (k + 1) / (len(variants) + 2))
            exact.append(bench.row(variant, roofline))
        best = bench.fastest(variants, exact)
        fast = bench.fast_rows(best, roofline) if plan.fast and best else []
        takes = bench.takes(best, roofline) if plan.more_takes > 1 and best else None
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
        "takes": takes,
    }


class _Bench:
    """The state of one benchmark: its video, the float32 numbers that others are held against."""

    def __init__(self, plan: Plan, bundle: Bundle, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._bundle = str(bundle.folder)
        self.video = folder / "clip.mp4"
        self._reference: Path | None = None
        self.reference_name = ""
        self._reference_made: Record = {}
        self._released_trajectory: float | None = None

    def ask(self, task: str, **more: Any) -> Record:
        """Have `task` done in a process of its own. Raises `EngineError` with its last words."""
        asked = {"task": task, "bundle": self._bundle, "threads": self._plan.threads, **more}
        command = [sys.executable, "-P", "-m", "taro_rt.runtime.bench.worker", json.dumps(asked)]
        environment = dict(os.environ)
        if self._plan.threads:  # NumPy's products, in the roofline, hear of it in no other way
            environment |= dict.fromkeys(THREADS, str(self._plan.threads))
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
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

    def fastest(self, variants: Sequence[Variant], exact: Sequence[Record]) -> Variant | None:
        """The exact variant of least time, if any of ours was timed."""
        timed = [(row["wall_s"]["p50"], k) for k, row in enumerate(exact) if row["timed"]]
        timed = [each for each in timed if variants[each[1]].backend != RELEASED]
        return variants[min(timed)[1]] if timed else None

    def fast_rows(self, best: Variant, roofline: Record) -> list[Record]:
        """Times of the settings that change the sound, on the fastest exact variant, which has passed its
        gate, and in 8 bits, which have one of their own."""
        rows, in_int8 = [], dict[str, Any]()
        for fast in fast_variants(best, self._plan.backend):
            passed: Record = {"timed": True}
            if fast.precision == "int8":
                in_int8 = in_int8 or self._gate(replace(fast, options={}))
                passed = in_int8
            head: Record = {"name": fast.name, "backend": fast.backend, "precision": fast.precision}
            head |= {"options": fast.options, **passed}
            rows.append({**head, **self._times(fast, roofline)} if passed["timed"] else head)
        return rows

    def takes(self, best: Variant, roofline: Record) -> Record:
        """What several takes at once cost: runs of one number and the other in turn, in one process,
        and the median of what each pair's ratio is. Load and memory are those of that process."""
        few, many = self._plan.takes, self._plan.more_takes
        warm = self._warm(best, (few, many))
        usual, made = (row["runs"] for row in warm["made"])
        ratios = [b["wall"] / a["wall"] for a, b in zip(usual, made, strict=True)]
        return {
            "name": best.name,
            "takes": many,
            "beside": few,
            "ratio": round(statistics.median(ratios), 3),
            "ratio_from_to": [round(min(ratios), 3), round(max(ratios), 3)],
            "beside_wall_s": percentiles([run["wall"] for run in usual]),
            **self._summary(best, roofline, warm, 1),
        }

    def _gate(self, variant: Variant) -> Record:
        reference = self._referenced()
        if variant.name == self.reference_name:
            file, made = reference, self._reference_made
        else:
            file = self._file(variant)
            made = self.ask("outputs", variant=variant.as_json(), file=str(file))
        found = gate.deviations(file, reference)
        if variant.backend == RELEASED:
            if variant.precision == "bfloat16" and not variant.without:
                self._released_trajectory = found["trajectory"]
            limits = gate.tolerances(variant.precision, None)
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
            self._reference_made = self.ask("outputs", variant=variant.as_json(), file=str(self._reference))
        return self._reference

    def _times(self, variant: Variant, roofline: Record) -> Record:
        takes = (self._plan.takes,)
        started = time.perf_counter()
        self._generate(variant, takes, warm_up=False, least=1, most=1, seconds=0.0)
        cold_s = time.perf_counter() - started
        warm = self._warm(variant, takes)
        return {"cold_s": round(cold_s, 3), **self._summary(variant, roofline, warm, 0)}

    def _warm(self, variant: Variant, takes: tuple[int, ...]) -> Record:
        """Runs of one process by each number of takes."""
        runs = self._plan.runs
        least, most = (LEAST_RUNS, MOST_RUNS) if runs is None else (runs, runs)
        seconds = RUNS_S * len(takes)
        return self._generate(variant, takes, warm_up=True, least=least, most=most, seconds=seconds)

    def _generate(self, variant: Variant, takes: tuple[int, ...], **how: Any) -> Record:
        files = {"video": str(self.video), "output": str(self._folder / "out.mp4")}
        return self.ask("generate", variant=variant.as_json(), takes=takes, **files, **how)

    def _summary(self, variant: Variant, roofline: Record, warm: Record, k: int) -> Record:
        """Figures of the runs with number `k` of the takes that were asked for."""
        runs, gflop = warm["made"][k]["runs"], warm["made"][k]["gflop"]
        rates = {graph: roofline["gemm_gflops"].get(variant.precision_of(graph)) for graph in gflop}
        return {
            "load_s": warm["load_s"],
            "peak_mb": warm["peak_mb"],
            "runs": len(runs),
            **summary(runs, gflop, rates),
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
