"""Mutated videos through the whole command, in a process that may crash or hang; for benchmarks/media.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
LONGEST_CASE_S = 20


def worker(bundle: Path, seeds: Path, work: Path, first: int, cases: int) -> Iterator[tuple[int, str, float]]:
    """Outcome and seconds of cases from `first` on, up to the first that ends the process."""
    command = [sys.executable, __file__, str(bundle), str(seeds), str(work), str(first), str(cases)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        k = first
        for line in process.stdout:
            k, outcome, seconds = json.loads(line)
            yield k, outcome, seconds
            k += 1
    if process.returncode and k < cases:
        ended = signal.Signals(-process.returncode).name if process.returncode < 0 else process.returncode
        yield k, "hang" if ended == "SIGALRM" else f"crash: {ended}", LONGEST_CASE_S


def work_through(bundle: Path, seeds: Path, work: Path, first: int, cases: int) -> None:
    """The worker's side: one line per case; an alarm ends a case that takes too long."""
    sys.path[:0] = [str(HERE.parent / "tests"), str(HERE)]
    import corpus
    from hostile import attempt

    from taro_rt.runtime.commands import Machine

    sources = sorted(seeds.iterdir())
    with Machine(str(bundle), threads=1) as loaded:
        for k in range(first, cases):
            source = sources[k % len(sources)]
            path = work / f"{k}{source.suffix}"
            path.write_bytes(corpus.mutated(source.read_bytes(), k))
            signal.alarm(LONGEST_CASE_S)
            started = time.perf_counter()
            outcome = attempt(loaded, path, work, k)
            signal.alarm(0)
            print(json.dumps([k, outcome, time.perf_counter() - started]), flush=True)
            path.unlink()


if __name__ == "__main__":
    *folders, first, cases = sys.argv[1:]
    work_through(*map(Path, folders), int(first), int(cases))
