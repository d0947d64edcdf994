import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import taro_rt

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"numpy", "av", "onnxruntime", "openvino", "torch", "soundfile", "rich"}


def imported(*arguments: str) -> set[str]:
    """Top-level names of all modules that a fresh Python imports while it runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    names = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines())
    return {name.partition(".")[0] for name in names}


def test_the_public_names_are_these() -> None:
    assert taro_rt.__all__ == [
        "Audio",
        "BackendUnavailable",
        "BuildError",
        "Bundle",
        "BundleError",
        "Cancelled",
        "CheckpointError",
        "ChecksumError",
        "Clip",
        "ContractError",
        "EngineError",
        "Finish",
        "ManifestError",
        "MediaError",
        "NoVideoError",
        "Onset",
        "Options",
        "OptionsError",
        "Pipeline",
        "Result",
        "Span",
        "TaroError",
        "UnreadableError",
        "__version__",
        "write_output",
    ]


@pytest.mark.parametrize("name", taro_rt.__all__)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(taro_rt, name).__name__ == name if name != "__version__" else taro_rt.__version__
    assert name in dir(taro_rt)


def test_the_declared_command_resolves_to_the_app() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, name = project["scripts"]["taro-rt"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Pipelin'"):
        taro_rt.Pipelin  # noqa: B018


def test_every_error_is_a_taro_error_with_an_exit_code() -> None:
    errors = [getattr(taro_rt, name) for name in taro_rt.__all__ if name != "__version__"]
    errors = [kind for kind in errors if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(errors) == 14
    assert all(issubclass(kind, taro_rt.TaroError) for kind in errors)
    assert {kind.exit_code for kind in errors} == {1, 2, 3, 4, 5, 130}


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert taro_rt.__version__ == project["version"]


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not HEAVY & imported("-c", "import taro_rt")


def test_the_help_text_imports_nothing_heavy() -> None:
    assert not HEAVY & imported("-m", "taro_rt", "--help")


def test_the_version_option_imports_nothing_heavy() -> None:
    assert not HEAVY & imported("-m", "taro_rt", "--version")
