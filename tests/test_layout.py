"""The house: who may import whom, links, the package list, the version."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import taro_rt

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FOLDERS = ("kernels", "engines", "runtime", "export", "training")
MAY_IMPORT = {
    "kernels": {"kernels"},
    "engines": {"engines"},
    "runtime": {"runtime", "engines"},
    "export": {"export", "engines", "kernels"},
    "training": {"training", "runtime", "export", "engines", "kernels"},
    "integrations": set(),
}
"""Arrows point down only (by folder)."""
TORCH_IN_ENGINES = re.compile(
    r"engines/(nets/(?!config\.py).*|eager\.py|released\.py|fused(_vocoder)?\.py|cuda(_\w+)?\.py)"
)
"""Where an engine may know PyTorch and our kernels."""
OPENVINO = ("engines/ov.py", "engines/ov_upsampling.py")
HEAVY = {"torch", "onnxruntime", "openvino", "av", "soundfile", "numpy"}
AT_START = ("runtime/cli.py", "runtime/tools.py", "runtime/arguments.py", "src/taro_rt/__init__.py")
"""What `taro-rt --help` imports."""


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """Every imported module, and whether that happens with the file's own import, not in a function."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield from ((f"{child.module}.{alias.name}", at_import) for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue  # such imports never run
            else:
                later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_import and not later)

    return walk(ast.parse(source), True)


def broken_rules(path: str, source: str) -> list[str]:
    """What the file at `path` (relative to the checkout) imports against the rules."""
    folder, found = path.split("/")[0], []
    allowed = MAY_IMPORT.get(folder, set(FOLDERS))
    for module, at_import in imports(source):
        top, *rest = module.split(".")
        ours = rest[0] if top == "taro_rt" and rest else ""
        in_command = path == "runtime/tools.py" and ours == "export" and not at_import
        special = bool(TORCH_IN_ENGINES.fullmatch(path))
        if ours in FOLDERS and ours not in allowed and not in_command and not (special and ours == "kernels"):
            found.append(f"{path} imports {module}: {folder} must not know {ours}")
        if top == "torch" and ((folder == "engines" and not special) or (folder == "runtime" and at_import)):
            found.append(f"{path} imports torch")
        if top in HEAVY and at_import and path in AT_START:
            found.append(f"{path} imports {top} before a command needs it")
        if top == "onnxruntime" and folder in FOLDERS and path != "engines/ort.py":
            found.append(f"{path} imports onnxruntime: only engines/ort.py knows it")
        if top == "openvino" and folder in FOLDERS and path not in OPENVINO:
            found.append(f"{path} imports openvino: only {' and '.join(OPENVINO)} know it")
        if top in ("fastapi", "starlette", "uvicorn", "pydantic") and not path.startswith("runtime/service/"):
            found.append(f"{path} imports {top}: only runtime/service knows it")
        if folder == "integrations" and top == "taro_rt":
            found.append(f"{path} imports ours: integrations speak to the command line or HTTP only")
    return found


def sources() -> list[Path]:
    roots = [ROOT / folder for folder in (*FOLDERS, "integrations")] + [
        ROOT / "src" / "taro_rt" / "__init__.py"
    ]
    return [path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob("*.py")))]


def test_imports_only_point_down() -> None:
    found = sources()
    assert len(found) > 40
    broken = [
        rule
        for path in found
        for rule in broken_rules(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engines/ort.py", "from taro_rt.runtime.clip import Clip"),
        ("engines/bundle.py", "def f():\n    import torch"),
        ("engines/nets/config.py", "from torch import nn"),
        ("engines/backends.py", "import taro_rt.kernels.adaln"),
        ("engines/backends.py", "import onnxruntime as ort"),
        ("engines/ort.py", "import openvino as ov"),
        ("runtime/pipeline.py", "from torch import nn"),
        ("runtime/pipeline.py", "def f():\n    from taro_rt.export import package"),
        ("runtime/tools.py", "from taro_rt.export import package"),
        ("runtime/cli.py", "import av"),
        ("src/taro_rt/__init__.py", "import numpy as np"),
        ("export/onnx.py", "from taro_rt import runtime"),
        ("kernels/adaln.py", "from taro_rt.engines.errors import TaroError"),
        ("integrations/resolve.py", "import taro_rt"),
        ("runtime/commands.py", "import fastapi"),
    ],
)
def test_the_walk_sees_an_import_that_points_up(path: str, source: str) -> None:
    assert broken_rules(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("runtime/tools.py", "def export():\n    from taro_rt.export.package import export_bundle"),
        ("runtime/pipeline.py", "def f():\n    import torch"),
        ("engines/nets/mmdit.py", "import torch\nfrom taro_rt.kernels.adaln import adaln"),
        ("src/taro_rt/__init__.py", "if TYPE_CHECKING:\n    import numpy"),
        ("training/clips.py", "from taro_rt.runtime.clip import Clip"),
    ],
)
def test_the_walk_lets_pass_what_the_house_allows(path: str, source: str) -> None:
    assert broken_rules(path, source) == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout has the links")
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_package_link_leads_to_its_folder(folder: str) -> None:
    assert (ROOT / "src" / "taro_rt" / folder).resolve() == ROOT / folder


def test_every_folder_with_python_is_packaged() -> None:
    places = PROJECT["tool"]["setuptools"]["package-dir"]
    found = {"taro_rt"}
    for name in FOLDERS:
        for path in (ROOT / places[f"taro_rt.{name}"]).rglob("*.py"):
            inner = path.parent.relative_to(ROOT / places[f"taro_rt.{name}"]).parts
            found.add(".".join(("taro_rt", name, *inner)))
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_packaged_folder_is_a_package() -> None:
    for name in PROJECT["tool"]["setuptools"]["packages"]:
        assert (ROOT / "src" / Path(*name.split(".")) / "__init__.py").is_file(), name


def test_the_version_is_the_newest_of_the_changelog() -> None:
    assert PROJECT["project"]["version"] == taro_rt.__version__
    changelog = ROOT / "CHANGELOG.md"
    if changelog.exists():
        headings = re.findall(r"^## \[(\d[^\]]*)\]", changelog.read_text("utf-8"), re.MULTILINE)
        assert headings[0] == taro_rt.__version__
