"""`make default-bundle` in small: clips, every network, the export, by the one command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from media import encode, numbered

from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.training.fit import STATE

WATCH = """
from argparse import Namespace
from pathlib import Path
from taro_rt.runtime.interrupts import Interrupts
from taro_rt.training.parts import WATCHING, side_by_side
how = Namespace(runs=Path("runs"), steps=10**6, clips=24, minutes=1e9, device="cpu", bf16=False, threads=2)
how.from_nothing, how.other_sounds = True, False
with Interrupts():
    side_by_side(WATCHING, how)
"""


@pytest.mark.slow
def test_one_command_makes_a_bundle_from_nothing_that_gives_a_video_its_sound(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "taro_rt.training", "all", "--from-nothing", "--steps", "2"]
    command += ["--clips", "24", "--threads", "1", "--no-bf16", "--output", str(tmp_path / "bundle")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--runs", str(tmp_path / "runs")], check=True, env=environment)
    video = encode(tmp_path / "a.mp4", numbered(20, 64, 48))
    with Pipeline.load(tmp_path / "bundle", threads=1) as pipeline:
        samples = pipeline.generate(video, Options(steps=2)).audio.samples
        provenance = pipeline.bundle.manifest.provenance
    assert len(samples) == 0.8 * 16000
    assert np.isfinite(samples).all() and samples.any()
    assert provenance["transformer"].startswith("2 steps in ") and "CPU cores" in provenance["machine"]


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_a_kill_stops_both_trainings_that_run_side_by_side_and_keeps_what_they_have(
    tmp_path: Path, kill: signal.Signals
) -> None:
    process = subprocess.Popen([sys.executable, "-c", WATCH], cwd=tmp_path)
    logs = [tmp_path / "runs" / part / "log.jsonl" for part in ("onset", "visual")]
    until = time.monotonic() + 300
    while not all(log.exists() for log in logs):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.5)
    process.send_signal(kill)
    assert process.wait(60) != 0
    while not all((log.parent / STATE).exists() for log in logs):
        assert time.monotonic() < until
        time.sleep(0.5)
    before = [log.read_text() for log in logs]
    time.sleep(5)
    assert [log.read_text() for log in logs] == before  # nobody trains on
