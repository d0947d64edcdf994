"""Does decoding beside the networks that watch save time? Read, then watch, against both at once, in turn.

Both at once is the most that a reader in a thread of its own could gain: it never waits, and the networks
never wait for it. Writes benchmarks/results/<device>/overlap.json. Run it as a file, on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from first_use import about, in_own_process, write

from taro_rt.engines.backends import load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.runtime.bench.record import versions
from taro_rt.runtime.bench.workload import write_video
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.prepare import onset_input, visual_input

SECONDS, LINES = 8.0, 720


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default=f"cpu-{os.cpu_count()}-cores", help="folder name under results/")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        video = Path(folder) / "clip.mp4"
        in_own_process(write_video, video, SECONDS, LINES)
        record = measure(Bundle.open(args.bundle), video, args.rounds)
    write("overlap.json", record, args.device)


def measure(bundle: Bundle, video: Path, rounds: int) -> dict[str, Any]:
    """Seconds and processor seconds of reading, watching and both at once; medians of `rounds` in turn."""
    engines, g = load_engines(bundle), bundle.manifest.geometry
    clip = Clip.read(video, g)

    def read() -> None:
        Clip.read(video, g)

    def watch() -> None:
        for offset in range(0, g.onset_values, g.onset_segment):
            engines.onset(frames=onset_input(clip.onset_frames, offset, g))
        engines.visual(frames=visual_input(clip.visual_frames, 0, g))

    def both() -> None:
        reader = Thread(target=read)
        reader.start()
        watch()
        reader.join()

    works = {"read": read, "watch": watch, "both": both}
    for work in works.values():
        work()
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            rows[name].append(timed(work))
    ratios = [b[0] / (r[0] + w[0]) for r, w, b in zip(*rows.values(), strict=True)]
    computed = f"{engines.backend} {engines.choice.precision}"
    return {
        "workload": f"{SECONDS:g} s of {LINES} lines, {bundle.manifest.name}, {computed}",
        **about(bundle),
        "versions": versions(),
        "rounds": rounds,
        **{
            name: {
                "wall_s": round(statistics.median(wall for wall, _ in row), 4),
                "processor_s": round(statistics.median(used for _, used in row), 4),
            }
            for name, row in rows.items()
        },
        "both_of_one_after_the_other": {
            "median": round(statistics.median(ratios), 3),
            "from_to": [round(min(ratios), 3), round(max(ratios), 3)],
        },
    }


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and processor seconds."""
    used, started = time.process_time(), time.perf_counter()
    work()
    return time.perf_counter() - started, time.process_time() - used


if __name__ == "__main__":
    main()
