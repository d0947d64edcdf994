"""One measurement in a process of its own, so that memory and start belong to one way of computing alone.

python -m taro_rt.runtime.bench.worker TASK      (JSON; the answer is the last line of stdout, JSON too)
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from taro_rt.engines.backends import Engine, Engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array
from taro_rt.engines.flops import flops
from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.stages import GRAPHS, typical_inputs
from taro_rt.runtime.bench import released, roofline
from taro_rt.runtime.bench.variant import RELEASED, Variant
from taro_rt.runtime.commands import Job, Machine, generate_file
from taro_rt.runtime.noise import START, STEP, draw_noise
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.runtime.progress import Silent
from taro_rt.runtime.sampler import sample, time_grid
from taro_rt.runtime.timing import Timings
from taro_rt.runtime.velocity import Asked, Conditions, velocities

Task = dict[str, Any]
VELOCITY_AT = 9
"""Step whose time the gate's one velocity is taken at, of pure noise and without guidance."""


def main() -> None:
    """Do the task that the command line names."""
    task = json.loads(sys.argv[1])
    answer = {"roofline": limits, "outputs": outputs, "generate": generate}[task["task"]](task)
    print(json.dumps({**answer, "peak_mb": peak_mb()}))


def limits(task: Task) -> Task:
    """The machine's own roofline."""
    return roofline.measure(task["threads"], *task.get("sizes", ()))


def outputs(task: Task) -> Task:
    """Write to `file` what the parity gate compares: every network's output, a velocity, a trajectory."""
    bundle, variant = Bundle.open(task["bundle"]), Variant.from_json(task["variant"])
    started = time.perf_counter()
    engines = variant.load(bundle, task["threads"])
    load_s = time.perf_counter() - started
    g, made = bundle.manifest.geometry, dict[str, Any]()
    for graph, free in (("onset", {}), ("visual", {"t": g.visual_encode}), ("decoder", {}), ("vocoder", {})):
        engine: Engine = getattr(engines, graph)
        answer = engine(**typical_inputs(engine.contract, seed=1, b=1, **free))
        made[graph] = next(iter(answer.values()))
    made["velocity"], made["trajectory"] = _sampled(engines, bundle, variant)
    np.savez(task["file"], **made)
    engines.close()
    return {"load_s": round(load_s, 3)}


def _sampled(engines: Engines, bundle: Bundle, variant: Variant) -> tuple[Array, Array]:
    """One velocity, and the latents at t = 0, for random conditions."""
    settings, g = bundle.manifest.sampler, bundle.manifest.geometry
    feed = typical_inputs(engines.conditioner.contract, seed=2, b=1, s=1, n=g.visual_frames)
    as_released = variant.backend == RELEASED and variant.precision == "bfloat16" and not variant.without
    times = released.time_grid(settings.steps) if as_released else time_grid(settings.method, settings.steps)
    on = Conditions(engines.conditioner, times[:-1], feed["onset"], feed["features"])

    def noise(stream: int, step: int) -> Array:
        return draw_noise((0,), stream, step, 0, g.latent_frames, g)

    def velocity(latents: Array, t: float, guided: bool, guidance: float = settings.guidance) -> Array:
        return velocities(engines.denoiser, [Asked(latents, on, t, guided)], guidance, Timings())[0]

    def both(latents: Array, t: float, guided: bool) -> list[Array]:
        scales = (1.0, 0.0) if guided else (1.0,)
        return [velocity(latents, t, guided, scale) for scale in scales]

    start = noise(START, 0)
    middle = float(times[min(VELOCITY_AT, settings.steps - 1)])
    one = velocity(start, middle, False)
    if as_released:
        return one, released.sample(both, start, lambda i: noise(STEP, i), settings)
    return one, sample(velocity, start, lambda i: noise(STEP, i), settings)


def generate(task: Task) -> Task:
    """Load once, then turn `video` into `output` again and again; seconds by stage of every run.

    `takes` lists how many are made at once. Several such numbers have their turns one after the other: run k
    of each is measured within seconds of run k of the others. With `warm_up` a run that is not counted comes
    first, and again whenever the number changes: the networks have not seen as many rows just before.
    """
    variant = Variant.from_json(task["variant"])
    started = time.perf_counter()
    bundle = Bundle.open(task["bundle"])
    counts = dict.fromkeys(GRAPHS, 0)
    pipeline = Pipeline(bundle, _counted(variant.load(bundle, task["threads"]), bundle, counts))
    load_s = time.perf_counter() - started
    machine = Machine.of(pipeline, task["bundle"])

    def run(job: Job) -> dict[str, float]:
        counts.update(dict.fromkeys(GRAPHS, 0))
        started = time.perf_counter()
        record, _ = generate_file(machine, Path(task["video"]), Path(task["output"]), job, Silent())
        return {"wall": time.perf_counter() - started, **record["timings_s"]}

    jobs = [Job(Options(takes=n, **variant.options), force=True) for n in task["takes"]]
    made: list[Task] = [{"runs": []} for _ in jobs]
    began, n_done, before = time.perf_counter(), 0, None
    while n_done < task["least"] or (n_done < task["most"] and time.perf_counter() - began < task["seconds"]):
        for job, row in zip(jobs, made, strict=True):
            if task["warm_up"] and job is not before:
                run(job)
            row["runs"].append(run(job))
            row["gflop"] = _in_gflop(counts, variant)
            before = job
        n_done += 1
    pipeline.close()
    return {"load_s": round(load_s, 3), "made": made}


def _in_gflop(counts: dict[str, int], variant: Variant) -> dict[str, float]:
    gflop = {graph: round(n / 1e9, 3) for graph, n in counts.items()}
    if variant.modulates_every_step:  # its conditioner only hands the conditions on
        gflop["denoiser"], gflop["conditioner"] = gflop["denoiser"] + gflop["conditioner"], 0.0
    return gflop


class Counted:
    """An engine whose useful operations are added to `counts`."""

    def __init__(self, engine: Engine, config: NetworkConfig, counts: dict[str, int]) -> None:
        self._engine, self._config, self._counts = engine, config, counts
        self.contract, self.backend = engine.contract, engine.backend

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run it, and count."""
        graph, sizes = self.contract.graph, {}
        for spec in self.contract.inputs:
            for letter, size in zip(spec.shape, inputs[spec.name].shape, strict=True):
                if isinstance(letter, str):
                    sizes[letter] = size
        self._counts[graph] += flops(self._config, graph, **sizes)
        return self._engine(**inputs)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def _counted(engines: Engines, bundle: Bundle, counts: dict[str, int]) -> Engines:
    config = bundle.manifest.networks
    counted = {name: Counted(getattr(engines, name), config, counts) for name in GRAPHS}
    return Engines(**counted, window=None, choice=engines.choice, watch=engines.watch)


def peak_mb() -> float | None:
    """The most memory this process held, where the system tells."""
    status = Path("/proc/self/status")
    if status.exists():  # not the figure of getrusage, which counts what the parent held before the start
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)
    try:
        import resource
    except ImportError:
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)


if __name__ == "__main__":
    main()
