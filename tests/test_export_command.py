"""`taro-rt export` as its users run it: a bundle that generates, or exit code 3 and nothing written."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import golden
import parity
import pytest
from make_released import SIZES, make_released
from media import encode, numbered
from released import export_command, write_released
from typer.testing import CliRunner, Result

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.errors import BuildError
from taro_rt.engines.nets.config import PUBLISHED
from taro_rt.export.layouts import Released
from taro_rt.runtime.cli import app

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return make_released(tmp_path_factory.mktemp("released"))


def arguments(files: Released, bundle: Path, *more: str) -> list[str]:
    return [*export_command(files, bundle), "--networks", str(files.taro.parent / SIZES), *more]


def export(files: Released, bundle: Path, *more: str) -> Result:
    return CliRunner().invoke(app, arguments(files, bundle, *more))


@pytest.fixture(scope="module")
def exported(files: Released, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    bundle = tmp_path_factory.mktemp("exported") / "bundle"
    result = export(files, bundle, "--json")
    assert result.exit_code == 0, result.output
    return bundle, result


def test_a_bundle_of_published_weights_gives_a_video_its_sound(
    exported: tuple[Path, Result], tmp_path: Path
) -> None:
    video = encode(tmp_path / "clip.mp4", numbered(30), fps=25)
    command = ["generate", str(video), "--bundle", str(exported[0]), "--steps", "2"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "clip.taro.mp4")) as container:
        assert len(container.streams.audio) == 1


def test_the_manifest_tells_what_the_bundle_was_made_from(
    exported: tuple[Path, Result], files: Released
) -> None:
    manifest = Bundle.open(exported[0]).manifest
    assert manifest.provenance["skipped of transformer (taro_ckpt.pt)"].startswith(
        "model; opt; args; steps; projectors"
    )
    assert len(manifest.provenance["sha256 of transformer (taro_ckpt.pt)"]) == 64
    assert "CC BY-NC-SA 4.0" in manifest.licence
    assert manifest.sampler.guidance == 8.0
    assert manifest.geometry.latent_scale == 0.18215
    assert manifest.geometry.resize == "released"


def test_the_record_names_parity_and_what_was_skipped(exported: tuple[Path, Result]) -> None:
    record = json.loads(exported[1].stdout.splitlines()[-1])
    assert record["parity"]["denoiser"]["relative_rms"] < 1e-5
    assert "projectors" in record["skipped"]["transformer (taro_ckpt.pt)"]


def test_progress_is_told_on_the_way(exported: tuple[Path, Result]) -> None:
    stages = [json.loads(line)["stage"] for line in exported[1].stderr.splitlines()]
    assert list(dict.fromkeys(stages)) == ["checkpoints", "fold", "export", "parity"]


def test_a_bundle_that_is_there_is_kept(exported: tuple[Path, Result], files: Released) -> None:
    before = (exported[0] / "manifest.json").read_bytes()
    result = export(files, exported[0])
    assert result.exit_code == 3
    assert "replace it with --force" in result.stderr
    assert (exported[0] / "manifest.json").read_bytes() == before


def without_config(files: Released) -> None:
    (files.audioldm2 / "vae" / "config.json").unlink()


def cut_short(files: Released) -> None:
    files.taro.write_bytes(files.taro.read_bytes()[:5000])


def swapped(files: Released) -> None:
    files.visual.write_bytes(files.onset.read_bytes())


def of_another_width(files: Released) -> None:
    (files.taro.parent / SIZES).unlink()
    sizes = json.loads((make_released(files.taro.parent / "other").taro.parent / SIZES).read_text())
    sizes["transformer"]["width"], sizes["transformer"]["heads"] = 128, 2
    (files.taro.parent / SIZES).write_text(json.dumps(sizes))


def with_unknown_sizes(files: Released) -> None:
    (files.taro.parent / SIZES).write_text('{"onset": {}}')


@pytest.mark.parametrize("damage", [without_config, cut_short, swapped, of_another_width, with_unknown_sizes])
def test_files_that_cannot_be_exported_end_with_code_3_one_line_and_no_bundle(
    tmp_path: Path, damage: Callable[[Released], None]
) -> None:
    files = make_released(tmp_path / "released")
    damage(files)
    target = tmp_path / "bundles"
    result = export(files, target / "b")
    assert result.exit_code == 3
    assert len(result.stderr.strip().splitlines()) == 1
    assert not target.exists()


def test_a_folder_that_holds_anything_else_is_never_replaced(files: Released, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"schema": 2, "files": {"a.onnx": {}}}')
    (tmp_path / "web" / "precious.js").write_text("x")
    result = export(files, tmp_path / "web", "--force")
    assert result.exit_code == 3
    assert "got other files (precious.js)" in result.stderr
    assert (tmp_path / "web" / "precious.js").read_text() == "x"


def test_the_current_folder_is_not_taken_for_a_bundle(
    files: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = export(files, Path("."))
    assert result.exit_code == 3
    assert "got the current one" in result.stderr


def test_too_little_room_on_the_disk_is_told_before_anything_is_written(
    files: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1_000_000))
    result = export(files, tmp_path / "new" / "b")
    assert result.exit_code == 3
    assert "MB free on this disk, got 1 MB" in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_library_swallows_still_stops_the_export(
    files: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def interrupted(*_: object) -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise BuildError("onset: cannot be exported") from error

    monkeypatch.setattr("taro_rt.export.package.export_graph", interrupted)
    result = export(files, tmp_path / "new" / "b")
    assert result.exit_code == 130
    assert "interrupted: no unfinished output is left" in result.stderr
    assert not (tmp_path / "new").exists()


def test_sizes_of_networks_are_found_in_the_manifest_of_a_bundle(
    exported: tuple[Path, Result], files: Released, tmp_path: Path
) -> None:
    manifest = exported[0] / "manifest.json"
    result = CliRunner().invoke(app, [*export_command(files, tmp_path / "b"), "--networks", str(manifest)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("change", [("transformer", "heads", 7), ("vae", "groups", 0)])
def test_sizes_that_fit_no_network_are_refused(
    files: Released, tmp_path: Path, change: tuple[str, str, int]
) -> None:
    sizes = json.loads((files.taro.parent / SIZES).read_text())
    sizes[change[0]][change[1]] = change[2]
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    command = [*export_command(files, tmp_path / "b"), "--networks", str(tmp_path / "sizes.json")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 3
    assert "expected sizes that fit a network" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_disk_that_fills_up_leaves_no_half_written_bundle(files: Released, tmp_path: Path) -> None:
    target = tmp_path / "bundles"
    target.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "taro_rt", *arguments(files, target / "b")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.returncode == 3, done.stderr
    assert "cannot be written" in done.stderr
    assert list(target.iterdir()) == []


def test_an_unknown_storage_is_a_usage_error(files: Released, tmp_path: Path) -> None:
    result = export(files, tmp_path / "b", "--storage", "int4")
    assert result.exit_code == 2
    assert "float32 or float16" in result.stderr


@pytest.mark.slow
def test_files_of_the_published_size_become_a_bundle_that_generates(tmp_path: Path) -> None:
    files = write_released(tmp_path / "released", golden.states(PUBLISHED, seed=1))
    result = CliRunner().invoke(app, export_command(files, tmp_path / "bundle"))
    assert result.exit_code == 0, result.output
    video = encode(tmp_path / "clip.mp4", numbered(30), fps=25)
    command = ["generate", str(video), "--bundle", str(tmp_path / "bundle"), "--steps", "2"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "clip.taro.mp4").stat().st_size > video.stat().st_size


@pytest.mark.slow
def test_the_original_modules_numbers_come_out_of_every_backend(tmp_path: Path) -> None:
    rows = parity.verify(parity.read_fixtures(GOLDEN, []), ["eager", "onnxruntime"], tmp_path)
    assert len(rows) > 100
    assert not [str(row) for row in rows if not row.ok]
