"""Fixtures that several test files share."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from command import Run
    from deployed_files import Files
    from typer.testing import Result

    from taro_rt import Clip, Pipeline

settings.register_profile("taro-rt", deadline=None)  # a busy machine is no failure
settings.load_profile("taro-rt")

SUMMARY = pytest.StashKey[list[str]]()


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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of a GPU are skipped where there is none; skipped here, they take one line of the summary."""
    if item.get_closest_marker("gpu") and not has_gpu():
        pytest.skip("gpu: there is no NVIDIA GPU here")


@cache
def has_gpu() -> bool:
    """Whether tests of kernels have what they run on: a GPU, or Triton's interpreter instead of one."""
    import torch

    return torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(autouse=True)
def full_float32(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a GPU, references convolve in float32, not in TF32."""
    if not request.node.get_closest_marker("gpu"):
        yield
        return
    import torch

    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture
def add_to_summary(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line that stands in the run's summary."""
    return request.config.stash.setdefault(SUMMARY, []).append


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What tests added to it."""
    for line in config.stash.get(SUMMARY, []):
        terminalreporter.write_line(line)


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


@pytest.fixture(scope="session")
def frame_wise_files(tmp_path_factory: pytest.TempPathFactory) -> "Files":
    """The static ONNX files of tiny networks of the frame-wise form, in both precisions."""
    from deployed_files import write_files
    from make_tiny_bundle import FRAME_WISE

    return write_files(FRAME_WISE, tmp_path_factory.mktemp("frame-wise"))


@pytest.fixture(scope="session", params=["frame-wise", "global"])
def static_files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Files":
    """The static ONNX files of both forms in turn."""
    from deployed_files import write_files
    from make_tiny_bundle import GLOBAL

    from taro_rt.engines.static import BATCHES

    if request.param == "frame-wise":
        found: Files = request.getfixturevalue("frame_wise_files")
        return found
    transformer = {"conditioner": (1,), "denoiser": BATCHES}  # of the global form only this is another
    return write_files(GLOBAL, tmp_path_factory.mktemp("global"), transformer)


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Iterator["Pipeline"]:
    """The engines of the tiny bundle, on one thread."""
    from taro_rt import Pipeline

    with Pipeline.load(tiny_bundle, backend="onnxruntime", threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clip(pipeline: "Pipeline") -> "Clip":
    """Three seconds of frames from memory."""
    import numpy as np
    from media import numbered

    from taro_rt import Clip

    return Clip.from_frames(numbered(75, 64, 48), np.arange(75) / 25, pipeline.geometry)


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A silent video of 1.2 s; copy it before changing it."""
    from media import encode, numbered

    return encode(tmp_path_factory.mktemp("videos") / "clip.mp4", numbered(30), fps=25)


@pytest.fixture
def video(tmp_path: Path, encoded: Path) -> Path:
    """A silent video, the only file in its folder."""
    return Path(shutil.copy(encoded, tmp_path / "clip.mp4"))


@pytest.fixture
def run(tiny_bundle: Path) -> "Run":
    """Run a command; `generate` and `onsets` use the tiny bundle on one thread and few steps."""
    from command import invoke

    def command(name: str, *arguments: Any, quick: bool = True) -> "Result":
        extra = ["--bundle", tiny_bundle, "--threads", 1] if quick and name in ("generate", "onsets") else []
        extra += ["--steps", 2] if quick and name == "generate" and "--steps" not in arguments else []
        return invoke(name, *arguments, *extra)

    return command
