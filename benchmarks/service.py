"""What the service costs over the pipeline, and whether it stays whole and flat under load. Tiny bundle.

Overhead: the same work through `generate_file` and through HTTP (request, events to the end, the take's
bytes), in turns, in one process with the same engines; the difference of each pair. Load: a process of its
own, 8 clients, half of the requests with uploads; every result must equal the one of its seed made alone. A
pair or result that differs is a failure, and nothing is written. Writes
benchmarks/results/<device>/service.json. Run it as a file, on an otherwise idle machine.

    python benchmarks/service.py [--pairs 100] [--requests 200] [--clients 8]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from taro_rt.runtime.bench.workload import write_video
from taro_rt.runtime.commands import Job, Machine, generate_file
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.options import Options
from taro_rt.runtime.progress import Silent
from taro_rt.runtime.service.server import Address, Server, serve
from taro_rt.runtime.service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]
from first_use import RESULTS, commit, machine  # noqa: E402  (the Makefile runs Python without these folders)
from make_tiny_bundle import make_tiny_bundle  # noqa: E402
from service_client import TOKEN, Client  # noqa: E402

SEEDS, SECONDS, LINES, WARM_UP = 10, 8.0, 180, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--device", default=f"cpu-{os.cpu_count()}-cores", help="folder name under results/")
    parser.add_argument("--dry-run", action="store_true", help="print the record, do not write it")
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        bundle, video = folder / "tiny", folder / "clip.mp4"
        make_tiny_bundle(bundle)
        write_video(video, SECONDS, LINES)
        with Machine(str(bundle), threads=1) as engines:
            record = {
                "workload": f"{SECONDS:g} s, {LINES} lines H.264 in, wav out, tiny random bundle, 25 steps",
                "machine": machine(),
                "commit": commit(),
                "overhead": overhead(engines, video, args.pairs),
            }
            alone = [made_alone(engines, video, seed) for seed in range(SEEDS)]
        record["load"] = load(bundle, video, alone, args.requests, args.clients)
    print(json.dumps(record, indent=2))
    if not args.dry_run:
        target = RESULTS / args.device / "service.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(record, indent=2) + "\n")


def made_alone(engines: Machine, video: Path, seed: int) -> bytes:
    """The .wav of a seed, without a service."""
    output = video.with_name("alone.wav")
    generate_file(engines, video, output, Job(Options(seed=seed), Finish(), force=True), Silent())
    return output.read_bytes()


def overhead(engines: Machine, video: Path, pairs: int) -> dict[str, Any]:
    """Seconds of work alone and of what a request by path, and one with an upload, takes longer."""
    found: list[tuple[Address, Server]] = []
    started = threading.Event()

    def ready(address: Address, server: Server) -> None:
        found.append((address, server))
        started.set()

    settings = Settings(token=TOKEN, port=0, allow=(video.parent,))
    thread = threading.Thread(target=serve, args=(engines, settings, ready))
    thread.start()
    started.wait()
    ((address, server),) = found
    with Client(address.host, address.port) as client:
        ways = {
            "alone": partial(made_alone, engines, video),
            "path": partial(client.made, video, False),
            "upload": partial(client.made, video, True),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for k in range(WARM_UP + pairs):
            results = {}
            order = list(ways) if k % 2 else list(reversed(ways))
            for way in order:
                began = time.perf_counter()
                results[way] = ways[way](k)
                seconds[way].append(time.perf_counter() - began)
            if len(set(results.values())) > 1:
                raise SystemExit(
                    f"seed {k}: the service's sound differs from the pipeline's; nothing is timed"
                )
    server.should_exit = True
    thread.join()
    kept = {way: np.array(values[WARM_UP:]) for way, values in seconds.items()}
    return {
        "pairs": pairs,
        "upload_bytes": video.stat().st_size,
        "alone_s": quantiles(kept["alone"]),
        "path_ms": quantiles(1000 * (kept["path"] - kept["alone"])),
        "upload_ms": quantiles(1000 * (kept["upload"] - kept["alone"])),
    }


def load(bundle: Path, video: Path, alone: list[bytes], requests: int, clients: int) -> dict[str, Any]:
    """What `requests` of `clients` at once come to, and the service's memory after half and all of them."""
    command = [sys.executable, "-m", "taro_rt", "serve", "--json", "--bundle", str(bundle), "--threads", "1"]
    command += ["--port", "0", "--allow", str(video.parent)]
    environment = {**os.environ, "TARO_TOKEN": TOKEN}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
        first = memory_mb(process.pid)
        outcomes: list[str] = []
        after = []
        began = time.perf_counter()
        for half in (range(requests // 2), range(requests // 2, requests)):
            with ThreadPoolExecutor(clients) as pool:
                outcomes += pool.map(partial(one_request, port, video, alone), half)
            after.append(memory_mb(process.pid))
        elapsed = time.perf_counter() - began
        process.terminate()
        process.wait()
    counts = {kind: outcomes.count(kind) for kind in ("right", "wrong", "lost")}
    if counts["right"] != requests:
        raise SystemExit(f"of {requests} results: {counts}")
    return {
        "requests": requests,
        "clients": clients,
        **counts,
        "wall_s": round(elapsed, 2),
        "rss_mb": {"before": first, "after_half": after[0], "after_all": after[1]},
    }


def one_request(port: int, video: Path, alone: list[bytes], k: int) -> str:
    """right, wrong or lost."""
    try:
        with Client("127.0.0.1", port) as client:
            return "right" if client.made(video, k % 2 == 0, k % SEEDS) == alone[k % SEEDS] else "wrong"
    except (OSError, RuntimeError) as error:
        print(f"request {k}: {error}", file=sys.stderr)
        return "lost"


def memory_mb(process: int) -> float:
    """Resident memory of a process now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024, 1)


def quantiles(values: Any) -> dict[str, float]:
    """p50, p90 and the mean."""
    return {
        "p50": round(float(np.percentile(values, 50)), 3),
        "p90": round(float(np.percentile(values, 90)), 3),
        "mean": round(statistics.fmean(values), 3),
    }


if __name__ == "__main__":
    main()
