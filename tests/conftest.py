"""Fixtures that several test files share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("taro-rt", deadline=None)  # a busy machine is no failure
settings.load_profile("taro-rt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-cases", type=int, default=120, help="mutated files that the fuzz tests try")


@pytest.fixture(scope="session")
def fuzz_cases(request: pytest.FixtureRequest) -> int:
    """How many mutated files to try."""
    return int(request.config.getoption("--fuzz-cases"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests are skipped, and counted, unless they are asked for."""
    if "slow" in config.getoption("-m"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: minutes; run with -m slow"))


@pytest.fixture(scope="session", autouse=True)
def no_cache() -> Iterator[None]:
    """No test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TARO_CACHE", "off")
        yield


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle of very small random networks; copy it before changing it."""
    from make_tiny_bundle import make_tiny_bundle

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    make_tiny_bundle(folder)
    return folder
