"""Files made to break the reader, the writer and the manifest parser. `make fuzz` tries many more of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from corpus import crafted, make_seeds, mutated, mutated_text
from hostile import attempt, partial_output
from media import encode, numbered

from taro_rt.engines.bundle import DEFAULT, MANIFEST, Bundle, Manifest, file_entry
from taro_rt.engines.errors import BundleError, MediaError
from taro_rt.engines.stages import Geometry
from taro_rt.engines.strict import parse, read
from taro_rt.runtime import playback, source
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.commands import Job, Machine, generate_file
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.options import Options
from taro_rt.runtime.probe import probe
from taro_rt.runtime.progress import Silent

SMALL = Geometry(onset_resize=16, onset_crop=16, visual_size=16, resize="fast")


@pytest.fixture(scope="module")
def machine(tiny_bundle: Path) -> Iterator[Machine]:
    with Machine(str(tiny_bundle), threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def lies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return crafted(tmp_path_factory.mktemp("crafted"))


def test_whole_seeds_are_all_made(machine: Machine, seeds: list[Path], tmp_path: Path) -> None:
    for seed in seeds:
        path = Path(shutil.copy(seed, tmp_path / seed.name))
        record, _ = generate_file(machine, path, None, Job(Options(steps=1)), Silent())
        assert not partial_output(Path(record["output"]), record["audio_s"]), seed.name
        Path(record["output"]).unlink()


def test_mutated_videos_are_made_or_refused_and_nothing_else(
    machine: Machine, seeds: list[Path], tmp_path: Path, fuzz_cases: int
) -> None:
    outcomes: Counter[str] = Counter()
    for k in range(fuzz_cases):
        seed = seeds[k % len(seeds)]
        path = tmp_path / f"{k}{seed.suffix}"
        path.write_bytes(mutated(seed.read_bytes(), 1_000_000 + k))
        outcome = attempt(machine, path, tmp_path, k)
        assert outcome in ("made", "refused"), f"{path.name} of {seed.name}: {outcome}"
        outcomes[outcome] += 1
        path.unlink()
    assert min(outcomes["made"], outcomes["refused"]) > fuzz_cases // 10, (
        "mutations are too weak or too strong"
    )


def test_mutated_manifests_are_read_or_refused_and_nothing_else(fuzz_cases: int) -> None:
    text = (DEFAULT / MANIFEST).read_text("utf-8")
    refused = 0
    for k in range(5 * fuzz_cases):
        try:
            faults: list[str] = []
            read(Manifest, parse(mutated_text(text, k), MANIFEST), MANIFEST, faults)
            refused += bool(faults)
        except BundleError:
            refused += 1
    assert refused > fuzz_cases


def test_mutated_manifests_of_a_real_bundle_open_or_are_refused(
    tiny_bundle: Path, tmp_path: Path, fuzz_cases: int
) -> None:
    copied = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    text = (copied / MANIFEST).read_text("utf-8")
    for k in range(fuzz_cases // 2):
        (copied / MANIFEST).write_text(mutated_text(text, k), "utf-8", errors="surrogatepass")
        try:
            Bundle.open(copied)
        except BundleError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("huge-picture", "no decodable frame"),
        ("billions-of-frames", "unreadable"),
        ("frame-of-ages", "at most 600 s between two frames"),
        ("no-time-scale", "at most 600 s between two frames"),
        ("many-streams", "at most 256 streams, got 300"),
        ("playlist", "unreadable"),
        ("concat", "unreadable"),
    ],
)
def test_a_lie_that_cannot_be_seen_through_is_refused(lies: dict[str, Path], name: str, reason: str) -> None:
    with pytest.raises(MediaError, match=reason) as caught:
        probe(lies[name])
    assert str(caught.value).startswith(f"{lies[name]}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["huge-sample-entry", "endless-header", "nan-duration"])
def test_what_a_header_says_is_not_believed(lies: dict[str, Path], name: str) -> None:
    assert Clip.read(lies[name], SMALL).duration_s == pytest.approx(0.56)


def test_a_bomb_of_frames_is_just_a_clip(lies: dict[str, Path]) -> None:
    info = probe(lies["frame-bomb"])
    assert (info.n_frames, info.duration_s) == (3000, pytest.approx(60))


def test_a_picture_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", numbered(3, 160, 96))
    monkeypatch.setattr(source, "MAX_PIXELS", 160 * 96 - 1)
    with pytest.raises(MediaError, match="at most 15359 pixels, got 160 x 96; shrink the video"):
        probe(path)


def test_a_picture_that_grows_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = (
        encode(tmp_path / f"{n}.h264", numbered(5, n, 48), time_base=Fraction(1, 25)) for n in (64, 640)
    )
    path = tmp_path / "grows.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    monkeypatch.setattr(source, "MAX_PIXELS", 64 * 64)
    with pytest.raises(MediaError, match="at most 4096 pixels, got 640 x 48"):
        Clip.read(path, SMALL)


def test_a_picture_too_damaged_to_be_copied_is_refused_after_all(tmp_path: Path) -> None:
    video = encode(tmp_path / "a.mp4", numbered(5, 64, 48))
    found = probe(video)
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4 if data.index(b"moov") > start else len(data)
    data[start:end] = b"\x5a" * (end - start)
    video.write_bytes(data)
    with pytest.raises(MediaError, match=r"too damaged to be copied; write \.wav"):
        write_output(found, Audio(np.zeros(3200, np.float32), 16000), tmp_path / "out.mp4")


def test_more_frames_than_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", numbered(30, 64, 48))
    monkeypatch.setattr(playback, "MAX_FRAMES", 20)
    with pytest.raises(MediaError, match="at most 20 frames, got more"):
        Clip.read(path, SMALL)


def test_a_linked_output_is_replaced_and_not_written_through(machine: Machine, tmp_path: Path) -> None:
    video = encode(tmp_path / "a.mp4", numbered(5, 64, 48))
    treasure, link = tmp_path / "treasure.wav", tmp_path / "out.wav"
    treasure.write_text("mine")
    link.symlink_to(treasure)
    with pytest.raises(MediaError, match="exists already"):
        generate_file(machine, video, link, Job(Options(steps=1)), Silent())
    generate_file(machine, video, link, Job(Options(steps=1), force=True), Silent())
    assert treasure.read_text() == "mine" and not link.is_symlink() and link.stat().st_size > 44


def test_a_manifest_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / MANIFEST).open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(BundleError, match="at most 16777216 bytes, got 8589934592"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("other", [b"..//./x.safetensors", b"/tmp/./x.safetensor", b"nowhere.safetensors"])
def test_weights_outside_the_bundle_are_not_read(tiny_bundle: Path, tmp_path: Path, other: bytes) -> None:
    """A graph whose weights lie elsewhere, in a bundle whose checksums are all right."""
    copied = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    shutil.copy(copied / "vocoder.safetensors", tmp_path / "x.safetensors")
    graph = copied / "vocoder.onnx"
    graph.write_bytes(graph.read_bytes().replace(b"vocoder.safetensors", other))
    manifest = json.loads((copied / MANIFEST).read_text())
    entry = file_entry(graph)
    manifest["files"]["vocoder.onnx"] = {"sha256": entry.sha256, "bytes": entry.bytes}
    (copied / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"vocoder\.onnx: expected weights in files of this bundle, got"):
        Bundle.open(copied)
