"""Opening a bundle: what is promised must be there, and every fault is told at once."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from taro_rt.engines import bundle as bundles
from taro_rt.engines.bundle import Bundle, file_entry
from taro_rt.engines.errors import BundleError, ChecksumError, ManifestError
from taro_rt.engines.nets.config import HifiGanConfig, OscillatorConfig
from taro_rt.engines.strict import read


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def refusal(folder: Path, kind: type[BundleError]) -> str:
    """The message of opening `folder`, which must be of exactly this kind and one line."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert caught.type is kind
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


def test_a_whole_bundle_opens_and_its_manifest_survives_the_round_trip(tiny_bundle: Path) -> None:
    bundle = Bundle.open(str(tiny_bundle))
    assert bundle.manifest.as_json() == (tiny_bundle / "manifest.json").read_text()
    assert bundle.manifest.networks.geometry() == bundle.manifest.geometry
    assert all(entry == file_entry(bundle.folder / name) for name, entry in bundle.manifest.files.items())


def test_one_flipped_byte_is_a_checksum_error_that_names_the_file(copied: Path) -> None:
    flip_last_byte(copied / "vocoder.safetensors")
    assert "vocoder.safetensors: expected sha256" in refusal(copied, ChecksumError)


def test_a_cut_off_file_is_told_by_its_size(copied: Path) -> None:
    path = copied / "visual.onnx"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:100])
    assert f"visual.onnx: expected {size} bytes, got 100" in refusal(copied, ChecksumError)


def test_all_faults_are_told_at_once(copied: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["contracts"]["onset"]["inputs"][0]["shape"][2] = 31
        data["sampler"]["steps"] = 0
        data["files"]["../outside"] = data["files"]["onset.onnx"]

    rewrite(copied, change)
    flip_last_byte(copied / "onset.onnx")
    (copied / "decoder.onnx").unlink()
    message = refusal(copied, ManifestError)
    for fault in (
        "contracts.onset: is not the one that the geometry implies",
        "sampler: expected steps >= 1",
        "plain file names inside the folder, got '../outside'",
        "onset.onnx: expected sha256",
        "decoder.onnx: missing",
    ):
        assert fault in message


def test_an_unreadable_manifest_does_not_hide_damaged_files(copied: Path) -> None:
    rewrite(copied, lambda data: data.update(colour="red", name=7))
    flip_last_byte(copied / "onset.onnx")
    (copied / "decoder.onnx").unlink()
    message = refusal(copied, ManifestError)
    for fault in (
        "unknown key 'colour'",
        "name: expected text, got 7",
        "onset.onnx: exp",
        "decoder.onnx: missing",
    ):
        assert fault in message


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda d: d.pop("licence"), "missing key 'licence'"),
        (lambda d: d.update(colour="red"), "unknown key 'colour'"),
        (lambda d: d["sampler"].update(colour="red"), "sampler: unknown key 'colour'"),
        (lambda d: d["sampler"].update(steps="25"), 'sampler.steps: expected a whole number, got "25"'),
        (lambda d: d["sampler"].update(steps=True), "sampler.steps: expected a whole number, got true"),
        (lambda d: d["sampler"].update(method="rk4"), "sampler.method: expected one of 'sde', 'ode', 'heun'"),
        (lambda d: d["sampler"].update(guidance_low=0.9), "guidance_low <= guidance_high"),
        (
            lambda d: d["networks"]["onset"].update(widths=[4, "4"]),
            "onset.widths[1]: expected a whole number",
        ),
        (lambda d: d["networks"]["transformer"].update(patch=[2]), "patch: expected 2 values, got 1"),
        (lambda d: d["networks"]["vocoder"].update(strides=[5]), "sizes that fit no network"),
        (lambda d: d["geometry"].update(latent_stride=0), "sizes that fit no network"),
        (lambda d: d["geometry"].update(onset_margin=-1), "onset_margin: expected 0 or more frames, got -1"),
        (lambda d: d["geometry"].update(hop=200), "geometry: is not the one that the networks imply"),
        (lambda d: d["contracts"].pop("vocoder"), "contracts.vocoder: is not the one"),
        (lambda d: d["contracts"].update(extra={}), "contracts.extra: is not the one"),
        (lambda d: d["files"].pop("denoiser.onnx"), "files: denoiser.onnx is not listed"),
        (lambda d: d["files"].update({"/etc/hostname": {"sha256": "", "bytes": 1}}), "got '/etc/hostname'"),
        (lambda d: d["files"].update({"a/../b": {"sha256": "", "bytes": 1}}), "got 'a/../b'"),
        (lambda d: d["files"]["onset.onnx"].pop("bytes"), "files.onset.onnx: missing key 'bytes'"),
        (lambda d: d.update(files=[]), "files: expected an object, got a list"),
        (lambda d: d.update(parity={"onset": 1}), "parity.onset: expected an object, got 1"),
        (lambda d: d.update(schema=1), "expected schema 2 in manifest.json, got 1"),
        (lambda d: d.pop("schema"), "expected schema 2 in manifest.json, got None"),
    ],
)
def test_a_manifest_is_read_strictly(copied: Path, change: Callable[..., Any], fault: str) -> None:
    rewrite(copied, change)
    assert fault in refusal(copied, ManifestError)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "expected JSON"),
        ("[1]", "expected a JSON object, got a list"),
        ("[" * 100_000, "expected JSON"),
        ('{"schema": 1, "schema": 1}', "the key 'schema' stands twice"),
        ('{"schema": 1, "sampler": {"steps": NaN}}', "expected finite numbers, got NaN"),
    ],
)
def test_text_that_is_no_manifest_is_refused(copied: Path, text: str, fault: str) -> None:
    (copied / "manifest.json").write_text(text)
    assert fault in refusal(copied, ManifestError)


def test_a_manifest_that_is_not_text_is_refused(copied: Path) -> None:
    (copied / "manifest.json").write_bytes(b"\xff\xfe\x00")
    assert "cannot read manifest.json" in refusal(copied, ManifestError)


def test_a_missing_folder_says_which_bundles_lie_beside_it(tiny_bundle: Path) -> None:
    message = refusal(tiny_bundle.parent / "tyni", BundleError)
    assert "no such folder; bundles beside it: tiny" in message


def test_a_folder_without_manifest_and_a_file_are_refused(tmp_path: Path) -> None:
    assert "expected manifest.json in this folder" in refusal(tmp_path, BundleError)
    (tmp_path / "clip.mp4").touch()
    assert "expected a folder, got a file" in refusal(tmp_path / "clip.mp4", BundleError)


def test_default_is_the_embedded_bundle_wherever_the_process_runs(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundles, "DEFAULT", copied)
    assert Bundle.open("default").folder == copied


def test_an_installation_without_the_embedded_bundle_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "DEFAULT", tmp_path / "default")
    with pytest.raises(BundleError, match=r"no manifest.json in .*default; install a release .* or name the"):
        Bundle.open("default")


def test_of_two_kinds_of_vocoder_the_one_with_these_keys_is_read() -> None:
    faults: list[str] = []
    for sizes in (HifiGanConfig(channels=8), OscillatorConfig(width=8)):
        data = json.loads(json.dumps(asdict(sizes)))
        assert read(HifiGanConfig | OscillatorConfig, data, "vocoder", faults) == sizes
    assert faults == []
    assert read(HifiGanConfig | OscillatorConfig, {"width": 8}, "vocoder", faults) is None and faults
