"""Plans built, kept, loaded and run from end to end, with stand-ins for NVIDIA's libraries (tests/nvidia).

The stand-ins compute with ONNX Runtime on the host's memory. That our side of every call fits together is
tested here; that TensorRT does what its documentation says is not.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorrt_rows
from command import Run
from media import numbered

from taro_rt import Bundle, Clip, Options, Pipeline, engines
from taro_rt.engines import gpu
from taro_rt.engines.errors import BackendUnavailable, BuildError, EngineError
from taro_rt.engines.plans import VARIABLE
from taro_rt.export import tensorrt as export
from taro_rt.export.tensorrt import BuildOptions, build_plans
from taro_rt.runtime.bench.gate import relative_rms

STAND_INS = Path(__file__).parent / "nvidia"
OURS = ("taro_rt.engines.trt", "taro_rt.engines.cudart")
"""What imports NVIDIA's packages."""
PLAIN = BuildOptions("float32", plugins=False)
N_PLANS = 7


@pytest.fixture(scope="module")
def nvidia() -> Iterator[Any]:
    """The stand-ins in the place of the packages, and a GPU that the driver would report."""

    def forget() -> None:
        for name in [n for n in sys.modules if n in OURS or n.split(".")[0] in ("cuda", "tensorrt")]:
            del sys.modules[name]
        for name in OURS:
            vars(engines).pop(name.rpartition(".")[2], None)

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STAND_INS)
        patch.setattr(gpu, "find_gpu", lambda: gpu.Gpu("Stand-in", (8, 9), 16384))
        forget()
        yield SimpleNamespace(
            tensorrt=importlib.import_module("tensorrt"),
            host=importlib.import_module("cuda.bindings.runtime").host,
        )
        forget()


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def exported(bundle: Bundle) -> Callable[..., Iterator[Any]]:
    """`deployed_models`, called once: the same files for every build."""
    made: dict[Any, list[Any]] = {}

    def models(networks: Any, precision: Any, steps: int, attention: bool) -> Iterator[Any]:
        asked = precision, steps, attention
        if asked not in made:
            made[asked] = list(original(networks, precision, steps, attention=attention))
        return iter(made[asked])

    original = export.deployed_models
    return models


@pytest.fixture(scope="module")
def plans(
    nvidia: Any, bundle: Bundle, exported: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder of plans in float32."""
    folder = tmp_path_factory.mktemp("plans")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "deployed_models", exported)
        build_plans(bundle, folder, PLAIN)
        yield folder


@pytest.fixture
def here(plans: Path, tmp_path: Path) -> Path:
    """A copy of the plans that a test may spoil."""
    return Path(shutil.copytree(plans, tmp_path / "plans"))


@pytest.fixture(autouse=True)
def nothing_left(nvidia: Any) -> Iterator[None]:
    """After every test all of the device's memory, streams, graphs and events are given back."""
    yield
    assert nvidia.host.left() == {}


def load(bundle: Bundle, folder: Path, precision: str = "float32") -> Pipeline:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        return Pipeline.load(bundle, "tensorrt", precision=precision)


def made(pipeline: Pipeline, options: Options | None = None, seconds: float = 3.0) -> np.ndarray:
    n = round(25 * seconds)
    clip = Clip.from_frames(numbered(n, 64, 48), np.arange(n) / 25, pipeline.geometry)
    options = options or Options(steps=6, takes=2, seed=3)
    return np.stack([take.samples for take in pipeline.generate(clip, options).takes])


def names(folder: Path, pattern: str = "*.plan") -> set[str]:
    return {path.name for path in folder.glob(pattern)}


def test_a_clip_of_one_window_is_one_graph_that_sounds_as_plain_pytorch(
    nvidia: Any, bundle: Bundle, plans: Path
) -> None:
    before = nvidia.host.launches
    with load(bundle, plans) as got, Pipeline.load(bundle, "eager") as oracle:
        assert relative_rms(made(got), made(oracle)) < 2e-4
        assert got.engines.window is not None and got.engines.window.reasons() == []  # type: ignore[attr-defined]
    assert nvidia.host.launches == before + 2  # one of each take


@pytest.mark.parametrize(
    ("options", "seconds"),
    [(Options(steps=3, method="heun"), 3.0), (Options(steps=4), 12.0)],
    ids=["a method that no fixed loop follows", "a clip of two windows"],
)
def test_what_is_no_single_loop_goes_plan_by_plan(
    bundle: Bundle, plans: Path, options: Options, seconds: float
) -> None:
    with load(bundle, plans) as got, Pipeline.load(bundle, "eager") as oracle:
        assert relative_rms(made(got, options, seconds), made(oracle, options, seconds)) < 2e-4


def test_where_nothing_can_be_recorded_the_same_is_enqueued_step_by_step(
    nvidia: Any, bundle: Bundle, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(bundle, plans) as pipeline:
        recorded = made(pipeline)
    monkeypatch.setattr(nvidia.host, "captures", False)
    with load(bundle, plans) as pipeline:
        np.testing.assert_array_equal(made(pipeline), recorded)
        (reason,) = pipeline.engines.window.reasons()  # type: ignore[union-attr]
    assert "cudaErrorStreamCaptureInvalidated" in reason


def test_the_command_takes_the_plans_that_it_built(
    run: Run, tiny_bundle: Path, plans: Path, video: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    built = run("plans", "--bundle", tiny_bundle, "-o", folder, "--precision", "float32", "--no-plugins")
    assert built.exit_code == 0, built.stderr
    assert names(folder) == names(plans)
    monkeypatch.setenv(VARIABLE, str(folder))
    asked = ("--bundle", tiny_bundle, "--backend", "tensorrt", "--precision", "float32", "--json")
    result = run("generate", video, *asked)
    assert result.exit_code == 0, result.stderr
    assert '"backend": "tensorrt"' in result.stdout


def test_half_precision_stays_near_float32(bundle: Bundle, plans: Path, tmp_path: Path) -> None:
    build_plans(bundle, tmp_path, BuildOptions("float16", plugins=False))
    with load(bundle, tmp_path, "float16") as got, Pipeline.load(bundle, "eager") as oracle:
        assert relative_rms(made(got), made(oracle)) < 0.05


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins are registered once in a process: as if they had not been."""
    plugin = pytest.importorskip("taro_rt.kernels.plugin")
    monkeypatch.setattr(plugin, "_registered", [])


@pytest.mark.parametrize("attention", [False, True])
def test_a_build_with_our_kernels_asks_each_for_all_it_needs_to_know(
    nvidia: Any, bundle: Bundle, plans: Path, tmp_path: Path, unregistered: None, attention: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(nvidia.tensorrt, "asked", {})
    build_plans(bundle, tmp_path, BuildOptions("float16", attention=attention))
    rows, both = ("ModulateStreams", "GateModulateStreams", "GateModulate"), ("AttendStreams", "Attend")
    expected = {f"taro_rt::{name}": 4 for name in (*rows, *(both if attention else ()))}
    assert nvidia.tensorrt.asked == expected
    with load(bundle, tmp_path, "float16") as got, Pipeline.load(bundle, "eager") as oracle:
        assert relative_rms(made(got), made(oracle)) < 0.05


def test_attention_without_what_compiles_it_is_refused(
    bundle: Bundle, plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "can_compile", lambda capability: False)
    with pytest.raises(BackendUnavailable, match="attention: our kernel needs Triton"):
        build_plans(bundle, tmp_path, BuildOptions("float16", attention=True))
    assert list(tmp_path.iterdir()) == []


LEAN = """
import sys
class Lean:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "triton", "onnx_ir", "onnxscript"):
            raise ModuleNotFoundError(f"{name} is not here", name=name)
sys.meta_path.insert(0, Lean())
from taro_rt.engines import gpu
gpu.find_gpu = lambda: gpu.Gpu("Stand-in", (8, 9), 16384)
from taro_rt.runtime.cli import app
app()
"""


def test_plans_run_without_pytorch_and_triton(
    tiny_bundle: Path, plans: Path, video: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    asked = ["--bundle", str(tiny_bundle), "--backend", "tensorrt", "--precision", "float32"]
    done = subprocess.run(
        [sys.executable, "-c", LEAN, "generate", str(video), "-o", str(output), *asked],
        env={
            **os.environ,
            VARIABLE: str(plans),
            "PYTHONPATH": os.pathsep.join([str(STAND_INS), str(STAND_INS.parents[1] / "src")]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert output.stat().st_size > 1000


def test_plans_that_are_there_are_kept_and_built_anew_only_when_asked(
    nvidia: Any, bundle: Bundle, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(here)
    monkeypatch.setattr(nvidia.tensorrt.Builder, "build_serialized_network", lambda *_: pytest.fail("built"))
    assert {path.name for path in build_plans(bundle, here, PLAIN).values()} == before
    monkeypatch.setattr(nvidia.tensorrt.Builder, "build_serialized_network", lambda *_: None)
    with pytest.raises(BuildError, match="TensorRT cannot build it"):
        build_plans(bundle, here, BuildOptions("float32", plugins=False, force=True))


def test_only_frames_that_look_ahead_get_a_profile(
    nvidia: Any, bundle: Bundle, plans: Path, exported: Any
) -> None:
    from taro_rt.engines.plans import read_plan

    found = {}
    for path in plans.glob("*.plan"):
        about = read_plan(path).removeprefix(nvidia.tensorrt.MAGIC).partition(b"\n")[0]
        found[path.name.split(".float32")[0]] = json.loads(about)["shapes"]
    size = bundle.manifest.geometry.visual_size
    low, most = ([1, 3, n, size, size] for n in (32, 40))
    assert found.pop("visual.b1") == {"frames": [low, most, most]}
    assert len(found) == N_PLANS - 1 and not any(found.values())


def test_measured_times_are_handed_on_and_damaged_ones_dropped(bundle: Bundle, here: Path) -> None:
    (timing,) = here.glob("timing.*.cache")
    assert timing.read_bytes() == b"times;" * N_PLANS
    timing.write_bytes(b"damaged")
    build_plans(bundle, here, BuildOptions("float32", plugins=False, force=True))
    assert timing.read_bytes() == b"times;" * N_PLANS


@pytest.mark.parametrize(("kind", "words"), [("refused", "cannot parse it: node"), ("unbuildable", "node")])
def test_a_build_that_fails_names_the_node_and_leaves_a_log_but_no_plan(
    nvidia: Any, bundle: Bundle, plans: Path, tmp_path: Path, kind: str, words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(nvidia.tensorrt, kind, {"Conv"})
    with pytest.raises(BuildError, match=words) as caught:
        build_plans(bundle, tmp_path, PLAIN)
    assert names(tmp_path) == set()
    (log,) = tmp_path.glob("*.log")
    assert str(log) in str(caught.value) and "onset" in log.read_text()


def test_a_stripped_plan_is_small_and_sounds_the_same_with_its_weights_back(
    bundle: Bundle, plans: Path, tmp_path: Path
) -> None:
    build_plans(bundle, tmp_path, BuildOptions("float32", plugins=False, strip=True))
    whole, stripped = (sum(p.stat().st_size for p in f.glob("*.plan")) for f in (plans, tmp_path))
    assert stripped < 0.8 * whole and len(names(tmp_path, "*.onnx")) == N_PLANS
    with load(bundle, plans) as got, load(bundle, tmp_path) as refitted:
        np.testing.assert_array_equal(made(refitted), made(got))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "is not what the plan was made of"),
    ],
    ids=["missing", "another"],
)
def test_a_stripped_plan_without_its_own_weights_is_refused(
    bundle: Bundle, plans: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    build_plans(bundle, tmp_path, BuildOptions("float32", plugins=False, strip=True))
    spoil(next(tmp_path.glob("vocoder*.onnx")))
    with pytest.raises(BuildError, match=words):
        load(bundle, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "no plan in"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "it is truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9] + bytes(9)), "its content was changed"),
    ],
    ids=["missing", "truncated", "changed"],
)
def test_a_plan_that_is_not_whole_is_refused_by_name(
    bundle: Bundle, here: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(next(here.glob("decoder*.plan")))
    with pytest.raises(BuildError, match=rf"decoder.*{words}"):
        load(bundle, here)


def test_a_plan_for_another_gpu_is_refused(
    bundle: Bundle, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "find_gpu", lambda: gpu.Gpu("Another", (9, 0), 16384))
    with pytest.raises(
        BuildError, match=r"built for the GPU Stand-in, here is Another; .* 8\.9, here is 9\.0"
    ):
        load(bundle, plans)


def test_a_plan_that_tensorrt_cannot_load_is_refused(
    nvidia: Any, bundle: Bundle, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvidia.tensorrt, "MAGIC", b"other")
    with pytest.raises(BuildError, match=r"TensorRT 11.4.* cannot load it: .*another magic tag"):
        load(bundle, plans)


def test_wherever_memory_runs_out_it_is_said_and_what_was_taken_given_back(
    nvidia: Any, bundle: Bundle, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for allowed in itertools.count():
        monkeypatch.setattr(nvidia.host, "most_allocations", allowed)
        try:
            with load(bundle, plans) as pipeline:
                made(pipeline, Options(steps=2), 1.0)
            break
        except EngineError as error:
            assert "cudaErrorMemoryAllocation" in str(error)
        assert nvidia.host.left() == {}, allowed
    assert allowed > 30  # buffers of seven plans, scratch memory, what the loop reads


def test_memory_that_cannot_be_cleared_is_given_back(
    nvidia: Any, bundle: Bundle, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = importlib.import_module("cuda.bindings.runtime")
    monkeypatch.setattr(runtime, "cudaMemset", lambda *_: (runtime.cudaError_t.cudaErrorInvalidValue,))
    with pytest.raises(EngineError, match="cudaErrorInvalidValue"):
        load(bundle, plans)


def test_the_benchmark_beside_the_cuda_backend_runs_through(
    bundle: Bundle, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(plans))
    record = tensorrt_rows.measure(bundle, "float32", runs=2)
    assert record["parity"]["why_not"] == "" and record["sampler_ms"]["p50"] > 0
