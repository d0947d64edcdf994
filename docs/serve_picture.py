"""Makes docs/serve.png: the page in a headless Chromium, embedded bundle, sample video, one onset moved.

python docs/serve_picture.py [--dark] [--output docs/serve.png]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from browser import browsing, find_browser  # noqa: E402  (of the tests, which are no package)
from service import TOKEN, serving  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "serve.png")
    args = parser.parse_args()
    program = find_browser()
    if program is None:
        raise SystemExit("expected a Chromium on the PATH, got none")
    with (
        TemporaryDirectory() as profile,
        serving("default") as client,
        browsing(program, Path(profile), 900, 940) as page,
    ):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if args.dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.open(f"http://{client.host}:{client.port}/#token={TOKEN}")
        page.choose_file("#file", ROOT / "samples" / "drumstick.mp4")
        page.until("words.length && document.querySelector('#state').dataset.state === 'idle'")
        page.drag(".mark:nth-of-type(3)", 40)
        page.run("document.querySelector('#ask').requestSubmit()")
        page.until("words.takes.length && document.querySelector('#state').dataset.state === 'idle'")
        page.run("video.currentTime = 1.45")
        page.until("!video.seeking && video.readyState >= 2")
        page.picture(args.output)
    print(args.output, args.output.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
