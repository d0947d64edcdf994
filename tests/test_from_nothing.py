"""`make default-bundle` in small: clips, every network, the export, by the one command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from media import encode, numbered

from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline


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
