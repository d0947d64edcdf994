"""What the runtime survives: broken files, kill -9, Ctrl-C; where a click lands; memory of an hour of video.

    python benchmarks/media.py [--cases 2000] [--only fuzz kills clicks memory interrupts]

Cases are made on the spot from seeds; a tiny random bundle does the work, so that minutes are enough. Writes
benchmarks/results/<device>/media.json; a part that is run again replaces its own record.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE)]  # tests first: there is a media.py in both

import av  # noqa: E402
import corpus  # noqa: E402
from first_use import commit, machine  # noqa: E402
from hostile import partial_output  # noqa: E402
from media import burst, burst_time, encode, numbered, read_sound, video_frames  # noqa: E402
from media_worker import worker  # noqa: E402

from taro_rt.runtime.audio import Audio  # noqa: E402
from taro_rt.runtime.finish import Finish, Keeping  # noqa: E402
from taro_rt.runtime.mux import write_output  # noqa: E402
from taro_rt.runtime.probe import probe  # noqa: E402
from taro_rt.runtime.source import WHOLE, Span  # noqa: E402

CLICK_S = 0.7
CLICK_LIMITS_MS = {"wav": 1, "mp4": 1, "mov": 1, "mkv": 1, "webm": 1, "avi": 25, "ts": 25, "flv": 25}
"""avi, ts and flv are read and become mp4."""
PARTS_OF = ("wav", "mp4", "mov", "mkv")
FORMATS: dict[str, dict[str, Any]] = {
    "webm": {"codec": "libvpx"},
    "avi": {"codec": "mpeg4", "time_base": Fraction(1, 25)},
    "flv": {"time_base": Fraction(1, 1000)},
}


def fuzz(bundle: Path, folder: Path, cases: int) -> dict[str, Any]:
    """Mutated videos through the whole command, in processes of their own that may crash or hang."""
    seeds = corpus.make_seeds(new(folder, "seeds"))
    outcomes: Counter[str] = Counter()
    slowest, k, faults = 0.0, 0, []
    while k < cases:
        for done, outcome, seconds in worker(bundle, folder / "seeds", new(folder, f"work{k}"), k, cases):
            outcomes[outcome.split(":")[0]] += 1
            slowest = max(slowest, seconds)
            k = done + 1
            if outcome not in ("made", "refused"):
                faults.append({"case": done, "outcome": outcome})
    return {"files": cases, "seeds": len(seeds), "outcomes": dict(outcomes), "slowest_s": round(slowest, 2),
            "faults": faults}  # fmt: skip


def kills(bundle: Path, folder: Path, runs: int = 50) -> dict[str, Any]:
    """kill -9 at random moments of a run: the output must be absent or whole; the next run tidies up."""
    video = encode(folder / "kill.mp4", numbered(250, 320, 240), sound=burst(10, 1))
    command = generate(bundle, video, "--takes", "2", "--force")
    outputs = [folder / f"kill.taro.{k}.mp4" for k in (1, 2)]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    whole_s = time.perf_counter() - started
    rng, found, hidden = random.Random(0), Counter[str](), set[Path]()
    for _ in range(runs):
        for path in folder.glob("*.taro.*"):
            path.unlink()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.3, 1.05) * whole_s)
        process.kill()
        process.wait()
        for path in outputs:
            is_partial = path.exists() and partial_output(path, 10.0)
            found["partial" if is_partial else "whole" if path.exists() else "absent"] += 1
        hidden |= set(folder.glob(".taro-*"))
    found["hidden temporary file left"] = len(hidden)
    subprocess.run(command, check=True, capture_output=True)
    found["of them after one more run"] = len(list(folder.glob(".taro-*")))
    return {"runs": runs, "outputs_per_run": 2, "whole_run_s": round(whole_s, 2), "found": dict(found)}


def interrupts(bundle: Path, folder: Path, runs: int = 10) -> dict[str, Any]:
    """Ctrl-C at random moments of a generation with the embedded bundle: seconds until it is gone."""
    video = encode(folder / "long.mp4", numbered(600, 160, 90), fps=5)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    rng, waits, left = random.Random(1), [], 0
    for _ in range(runs):
        process = subprocess.Popen(
            [sys.executable, "-m", "taro_rt", "generate", str(video), "--json"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
        assert process.stderr
        for line in process.stderr:
            if "generate" in line:
                break
        time.sleep(rng.uniform(0, 4))
        started = time.perf_counter()
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        code = process.wait()
        waits.append(time.perf_counter() - started)
        left += len(list(folder.glob("*.taro.*"))) + len(list(folder.glob(".taro-*"))) + (code != 130)
    return {"runs": runs, "longest_s": round(max(waits), 2), "median_s": round(sorted(waits)[runs // 2], 2),
            "left_behind": left}  # fmt: skip


def clicks(bundle: Path, folder: Path) -> dict[str, Any]:
    """A click at a known time of the sound, found again after muxing; per container, and of parts."""
    found = {}
    for name, limit_ms in CLICK_LIMITS_MS.items():
        is_input = name in ("avi", "ts", "flv")
        suffix = name if is_input or name == "webm" else "mp4"
        source = encode(folder / f"click.{suffix}", numbered(50), **FORMATS.get(suffix, {}))
        found[name] = click(source, folder / f"click.out.{'mp4' if is_input else name}", WHOLE, limit_ms)
    # its own sound, mixed in, clicks; a part for mkv must begin at a key frame
    source = encode(folder / "part.mp4", numbered(100), b_frames=2, gop=25, sound=burst(4, 1.0 + CLICK_S))
    for name in PARTS_OF:
        for audio in ("replace", "mix"):
            target, span = folder / f"part.out.{name}", Span(1.0 if name == "mkv" else 1.32, 3.0)
            found[f"{name}, part, {audio}"] = click(source, target, span, CLICK_LIMITS_MS[name], audio)
    return found


def click(source: Path, target: Path, span: Span, limit_ms: float, audio: Keeping = "replace") -> Any:
    """How far off a click at `CLICK_S` is in the output; of a mix, the original's at 1.0 s + `CLICK_S`."""
    info = probe(source, span)
    at_s = 1.0 + CLICK_S - span.start_s if audio == "mix" else CLICK_S
    new = burst(info.duration_s, CLICK_S, 16000) * (audio == "replace")
    write_output(info, Audio(new, 16000), target, Finish(audio, loudness=None))
    start_s, samples, rate_hz = read_sound(target)
    first_s = 0.0 if target.suffix == ".wav" else float(video_frames(target)[0][0])
    error_ms = abs(start_s + burst_time(samples, rate_hz) - first_s - at_s) * 1000
    return {"error_ms": round(error_ms, 3), "limit_ms": limit_ms, "ok": error_ms <= limit_ms}


def memory(bundle: Path, folder: Path, minutes: int = 60) -> dict[str, Any]:
    """Peak memory of the command for an hour and a minute of one video, its own sound dropped or kept."""
    picture = encode(folder / "picture.mp4", numbered(600, 160, 90), fps=10)
    lengths = {"minute": 1, "hour": minutes}
    videos = {name: looped(picture, folder / f"{name}.mp4", n) for name, n in lengths.items()}
    record: dict[str, Any] = {"workload": "160x90, 10 fps H.264, tiny random bundle, 25 steps, AAC out"}
    for audio in ("replace", "mix", "duck"):
        made = {name: peak(bundle, video, audio) for name, video in videos.items()}
        made["ratio"] = round(made["hour"]["peak_mb"] / made["minute"]["peak_mb"], 3)
        record |= made if audio == "replace" else {audio: made}
    return record


def peak(bundle: Path, video: Path, audio: str) -> dict[str, float]:
    """Peak memory and time of the command, and how long the sound is that it made."""
    started = time.perf_counter()
    command = [word for word in generate(bundle, video, "--force") if word not in ("--steps", "2")]
    process = subprocess.Popen([*command, "--audio", audio], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{video.name}: exit {os.waitstatus_to_exitcode(status)}")
    with av.open(str(video.with_name(f"{video.stem}.taro.mp4"))) as container:
        sound = container.streams.audio[0]
        sound_s = float((sound.duration or 0) * (sound.time_base or 0))
    return {"peak_mb": round(usage.ru_maxrss / 1024, 1), "sound_s": round(sound_s, 2),
            "wall_s": round(time.perf_counter() - started, 1)}  # fmt: skip


def looped(source: Path, target: Path, times: int) -> Path:
    """The picture's packets of `source`, again and again, with a sound: a click a second, as AAC."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        copy, sound = out.add_stream_from_template(stream), out.add_stream("aac", rate=48000, layout="mono")
        packets = [(p.pts, p.dts, p.duration, p.is_keyframe, bytes(p))
                   for p in container.demux(stream) if p.size]  # fmt: skip
        period = max(pts + (duration or 0) for pts, _, duration, _, _ in packets)
        second, done = burst(1, 0.5)[None], 0
        for k in range(times):
            for pts, dts, duration, is_key, data in packets:
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.duration = pts + k * period, dts + k * period, duration
                packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, copy, is_key
                out.mux(packet)
            while done < (k + 1) * period * stream.time_base:
                frame = av.AudioFrame.from_ndarray(second, format="fltp", layout="mono")
                frame.sample_rate, frame.pts, done = 48000, 48000 * done, done + 1
                out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return target


def generate(bundle: Path, video: Path, *more: str) -> list[str]:
    command = [sys.executable, "-m", "taro_rt", "generate", str(video), "--bundle", str(bundle)]
    return [*command, "--threads", "1", "--steps", "2", *more]


def new(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def tiny_bundle(folder: Path) -> Path:
    """Made in a process of its own: it needs PyTorch, and memory that would count."""
    script = HERE.parent / "tests" / "make_tiny_bundle.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "clicks": clicks,
    "fuzz": fuzz,
    "kills": kills,
    "interrupts": interrupts,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="mutated files")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default=f"cpu-{os.cpu_count()}-cores", help="folder name under results/")
    args = parser.parse_args()
    target = HERE / "results" / args.device / "media.json"
    record = json.loads(target.read_text()) if target.exists() else {}
    with TemporaryDirectory() as scratch:
        bundle = tiny_bundle(Path(scratch) / "tiny")
        for name in args.only:
            extra = {"cases": args.cases} if name == "fuzz" else {}
            record[name] = {**PARTS[name](bundle, new(Path(scratch), name), **extra), "commit": commit()}
            print(json.dumps({name: record[name]}, indent=1), flush=True)
    record |= {
        "machine": machine(),
        "versions": {name: version(name) for name in ("taro-rt", "numpy", "av", "onnxruntime")},
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
