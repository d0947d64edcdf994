"""What a host program may rely on: taro-rt changes nothing of the process that it is imported into."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, locale, logging, os, random, signal, sys, threading, warnings
import numpy as np

def state():
    return {
        "environment": dict(os.environ),
        "signals": [str(signal.getsignal(s)) for s in sorted(signal.valid_signals())],
        "folder": os.getcwd(),
        "umask": (os.umask(0o22), os.umask(0o22))[0],
        "path": list(sys.path),
        "hooks": [id(sys.excepthook), id(threading.excepthook), id(sys.unraisablehook), id(sys.displayhook)],
        "random": [hash(random.getstate()), np.random.get_state()[1].tolist()[:5], np.random.get_state()[2]],
        "logging": [logging.root.level, len(logging.root.handlers)],
        "warnings": [str(f) for f in warnings.filters],
        "floats": np.geterr(),
        "locale": locale.setlocale(locale.LC_ALL),
        "recursion": sys.getrecursionlimit(),
        "switches": sys.getswitchinterval(),
    }

bundle, backend, *videos = sys.argv[1:]
before = state()
import taro_rt
from taro_rt import *
imported = state()
with taro_rt.Pipeline.load(bundle, backend=backend, threads=1, precision="float32") as pipeline:
    def work():
        for video in videos:
            result = pipeline.generate(video, taro_rt.Options(steps=2))
            pipeline.onsets(open(video, "rb"))
            pipeline.regenerate(video, result.audio, taro_rt.Span(0.2, 0.8), taro_rt.Options(steps=2))
    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    used = state()
others = [t for t in threading.enumerate() if t is not threading.main_thread()]
for thread in others:
    thread.join(10)  # one that is no longer needed ends by itself
threads = [thread.name for thread in others if thread.is_alive()]
with open("states.json", "w") as file:
    json.dump([before, imported, used, state(), threads], file)
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])  # importing PyTorch adds warning filters
def test_importing_and_generating_change_nothing_of_the_process_and_print_nothing(
    tmp_path: Path, tiny_bundle: Path, encoded: Path, backend: str
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    damaged = bytearray(encoded.read_bytes())
    middle = damaged.index(b"mdat") + 400
    damaged[middle : middle + 200] = bytes(200)
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    (tmp_path / "program.py").write_text(PROGRAM)
    source = Path(__file__).resolve().parents[1] / "src"
    done = subprocess.run(
        [sys.executable, "program.py", tiny_bundle, backend, encoded, "damaged.mp4"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    before, imported, used, after, threads = json.loads((tmp_path / "states.json").read_text())
    for name, value in before.items():
        assert imported[name] == value, f"{name} changed on import"
        assert used[name] == value, f"{name} changed while generating"
        assert after[name] == value, f"{name} changed on closing"
    assert threads == []
