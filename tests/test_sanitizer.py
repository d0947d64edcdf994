"""One pass of a guided step in bfloat16 and float16 under compute-sanitizer, on a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SANITIZER = "compute-sanitizer"
TESTS = Path(__file__).parent


@pytest.mark.gpu
@pytest.mark.skipif(not shutil.which(SANITIZER), reason=f"gpu: {SANITIZER} is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "initcheck"])
def test_a_guided_step_touches_only_memory_that_is_its_own(tool: str) -> None:
    """Every tensor in an allocation of its own, so that nothing hides a write behind its end."""
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    pass_of = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    pass_of += [str(TESTS / "test_fused.py"), "-k", "guided_step_of_kernels_in_the_types"]
    ran = subprocess.run(
        [SANITIZER, "--tool", tool, "--error-exitcode", "9", *pass_of],
        cwd=TESTS.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
