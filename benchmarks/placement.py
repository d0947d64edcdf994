"""How far the sound lies from its picture in an editor's mixdown, as the tests of Blender and melt have it.

Takes those of the hosts that are here (BPY_PYTHON may name a Python that has bpy). Writes
benchmarks/results/<device>/placement.json. Run it as a file.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the Makefile runs Python without the script's folder
from first_use import commit, machine, write

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/test_blender.py", "tests/test_handoff.py")
LAG = re.compile(r"^(.+): (-?[\d.]+) ms$", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default=f"cpu-{os.cpu_count()}-cores", help="folder name under results/")
    args = parser.parse_args()
    command = [sys.executable, "-m", "pytest", "-q", "-rP", "-p", "no:cacheprovider", *TESTS]
    asked = ["-k", "heard_with_its_picture or melt_plays"]
    ran = subprocess.run([*command, *asked], cwd=ROOT, capture_output=True, text=True)
    lags = {name: float(lag) for name, lag in LAG.findall(ran.stdout)}
    if ran.returncode or not lags:
        raise SystemExit(f"{ran.stdout[-2000:]}\nexpected lags of Blender, bpy or melt, got {len(lags)}")
    write("placement.json", {"machine": machine(), "commit": commit(), "lag_ms": lags}, args.device)


if __name__ == "__main__":
    main()
