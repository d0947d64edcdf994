"""The tests that are marked `gpu` because they launch kernels pass in Triton's interpreter, without a GPU.

They run in a process of their own: whether Triton interprets is decided when it is imported, for good.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

reason = "Triton's interpreter: older ones cannot loop under NumPy 2.4"
pytest.importorskip("triton", "3.9", reason=reason)
TESTS = Path(__file__).parent
FILES = sorted(
    path for name in ("test_kernel_*", "test_fused*", "test_plugin") for path in TESTS.glob(f"{name}.py")
)


def test_kernels_compute_what_their_references_do(
    tmp_path: Path, add_to_summary: Callable[[str], None]
) -> None:
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, f"--junitxml={report}", *FILES],
        cwd=TESTS.parent,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    counts = ElementTree.parse(report).getroot()[0].attrib
    assert int(counts["skipped"]) == 0
    add_to_summary(f"kernels: {counts['tests']} cases in Triton's interpreter, float32 and float16")
