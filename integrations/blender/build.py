"""Zips the add-on for Blender's "Install from Disk": `python integrations/blender/build.py OUT.zip`."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ADDON = Path(__file__).with_name("taro_rt_blender")


def build(target: Path) -> None:
    """Write the zip; the same sources make the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(ADDON.glob("*.py")):
            entry = zipfile.ZipInfo(f"{ADDON.name}/{path.name}")
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
