"""docs/python.md: its code runs, in order, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from taro_rt.engines import bundle

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, encoded: Path) -> dict[str, Any]:
    """The page's names after all of its blocks, run beside a clip.mp4 with the tiny bundle as the default."""
    folder, names = tmp_path_factory.mktemp("page"), {"__name__": "page"}
    (folder / "clip.mp4").write_bytes(encoded.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(bundle, "DEFAULT", tiny_bundle)
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    return {**names, "folder": folder}


def test_every_block_of_code_on_the_page_runs(ran: dict[str, Any]) -> None:
    assert len(BLOCKS) == PAGE.read_text("utf-8").count("```") / 2 == 10
    assert np.array_equal(ran["from_file"].audio.samples, ran["result"].audio.samples)


def test_the_page_says_what_comes_out(ran: dict[str, Any]) -> None:
    assert ran["result"].audio.rate_hz == 16000 and ran["several"].seeds == (7, 8)
    assert len(ran["several"].audio.samples) == 16000
    assert ran["struck"].onsets == ran["edited"]
    again, before = ran["again"].audio.samples, ran["several"].audio.samples
    assert np.array_equal(again[:8000], before[:8000]) and not np.array_equal(again, before)


def test_the_page_writes_what_it_says(ran: dict[str, Any]) -> None:
    assert soundfile.info(ran["folder"] / "sound.wav").channels == 2
    assert (ran["folder"] / "with-sound.mp4").stat().st_size > 1000
