"""`taro-rt export` as its users run it: a bundle that generates, or exit code 3 and nothing written."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import golden
import pytest
from make_released import SIZES, make_released
from media import encode, numbered
from released import export_command, write_released
from typer.testing import CliRunner, Result

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.nets.config import PUBLISHED
from taro_rt.export.checkpoints import Released
from taro_rt.runtime.cli import app


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
    assert manifest.provenance["skipped of taro_ckpt.pt"].startswith("model; opt; args; steps; projectors")
    assert len(manifest.provenance["sha256 of taro_ckpt.pt"]) == 64
    assert "CC BY-NC-SA 4.0" in manifest.licence
    assert manifest.sampler.guidance == 8.0
    assert manifest.geometry.latent_scale == 0.18215


def test_the_record_names_parity_and_what_was_skipped(exported: tuple[Path, Result]) -> None:
    record = json.loads(exported[1].stdout.splitlines()[-1])
    assert record["parity"]["denoiser"]["relative_rms"] < 1e-5
    assert "projectors" in record["skipped"]["taro_ckpt.pt"]


def test_progress_is_told_on_the_way(exported: tuple[Path, Result]) -> None:
    stages = [json.loads(line)["stage"] for line in exported[1].stderr.splitlines()]
    assert list(dict.fromkeys(stages)) == ["checkpoints", "fold", "export", "parity"]


def test_a_bundle_that_is_there_is_kept(exported: tuple[Path, Result], files: Released) -> None:
    before = (exported[0] / "manifest.json").read_bytes()
    result = export(files, exported[0])
    assert result.exit_code == 3
    assert "--force" in result.stderr or "force" in result.stderr
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
    assert not target.exists() or not any(target.iterdir())


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
