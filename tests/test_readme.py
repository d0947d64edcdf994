"""The README says what the records say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_readme_figures_are_those_of_the_committed_records() -> None:
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "table.py")
    assert spec and spec.loader
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert table.with_figures(readme) == readme
    assert "file to file" in table.figures()


def test_first_screen_names_two_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    block = re.search(r"```sh\n(.*?)```", readme, re.DOTALL)
    assert block
    commands = [line.split("#")[0].split() for line in block.group(1).strip().splitlines()]
    targets = (ROOT / "Makefile").read_text("utf-8")
    assert [command[0] for command in commands] == ["make", "make"]
    assert all(re.search(rf"^{command[1]}:", targets, re.MULTILINE) for command in commands)
