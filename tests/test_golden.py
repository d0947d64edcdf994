"""The networks, preparation and sampler against the numbers that the original modules gave.

Eager PyTorch at the published sizes (the transformer at depth 4), with what tests/golden holds; every backend
and the published depth: benchmarks/parity.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import golden
import parity
import pytest
from released import write_released

from taro_rt.engines.backends import Choice, Engines
from taro_rt.engines.eager import EagerEngine
from taro_rt.engines.stages import contracts
from taro_rt.export.checkpoints import read_released

FOLDER = Path(__file__).parent / "golden"
CONFIG = golden.DEPTHS[4]
FILES = ("preprocess", "visual", "onset", "vae", "vocoder", "transformer_depth4")


@pytest.fixture(scope="module")
def fixtures() -> parity.Fixtures:
    return parity.read_fixtures(FOLDER, FILES)


@pytest.fixture(scope="module")
def engines(fixtures: parity.Fixtures, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Networks that went through the released files, batch norms folded."""
    folder = tmp_path_factory.mktemp("released")
    states = golden.states(CONFIG, fixtures.seed)
    parity.check_rule(fixtures, 4, states)
    networks = read_released(write_released(folder, states, CONFIG), CONFIG).networks.fold()
    shutil.rmtree(folder)
    promised = contracts(CONFIG.geometry())
    made = {name: EagerEngine(module, promised[name]) for name, module in networks.graphs().items()}
    yield Engines(**made, choice=Choice("eager", "float32", "asked for"))


@pytest.mark.parametrize("name", FILES)
def test_the_original_modules_numbers_come_out(
    name: str, fixtures: parity.Fixtures, engines: Engines
) -> None:
    rows = list(parity.compare(fixtures, name, engines))
    assert {row.key for row in rows} == set(fixtures.arrays[name])
    assert not [str(row) for row in rows if not row.ok]
