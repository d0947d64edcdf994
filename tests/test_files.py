"""Output files appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from taro_rt.engines.errors import MediaError
from taro_rt.runtime import files
from taro_rt.runtime.files import atomic_output, check_output, refuse_same_file


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with atomic_output(target, force=False) as path:
        path.write_text("sound")
        assert not target.exists()
        assert (path.parent, path.suffix) == (tmp_path, ".mp4")
        assert path.name.startswith(".")
        written = path.stat().st_ino
    assert target.stat().st_ino == written, "renamed, not copied"
    assert target.read_text() == "sound"
    assert os.listdir(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_behind_by_a_failure_or_an_interrupt(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), atomic_output(tmp_path / "out.mp4", force=False) as path:
        path.write_text("half")
        raise error
    assert os.listdir(tmp_path) == []


def test_a_failure_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("old")
    with pytest.raises(ValueError), atomic_output(target, force=True) as path:
        path.write_text("half")
        raise ValueError
    assert (os.listdir(tmp_path), target.read_text()) == (["out.mp4"], "old")


def test_an_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("old")
    with pytest.raises(MediaError, match="--force"), atomic_output(target, force=False):
        pytest.fail("the block must not run")
    with atomic_output(target, force=True) as path:
        path.write_text("new")
    assert target.read_text() == "new"


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with pytest.raises(MediaError, match="exists already"), atomic_output(target, force=False) as path:
        path.write_text("mine")
        target.write_text("theirs")
    assert (os.listdir(tmp_path), target.read_text()) == (["out.mp4"], "theirs")


def test_the_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_output(tmp_path / "out.mp4", force=False) as path:
        path.touch()
    assert (tmp_path / "out.mp4").stat().st_mode == (tmp_path / "plain").stat().st_mode


LINUX = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="only Linux tells boots apart")


def run_elsewhere(target: Path, then: str) -> subprocess.Popen[bytes]:
    """A process of its own that has begun to write `target`."""
    program = (
        "import os, sys, time, signal\n"
        "from pathlib import Path\n"
        "from taro_rt.runtime.files import atomic_output\n"
        "with atomic_output(Path(sys.argv[1]), force=False) as path:\n"
        "    path.write_text('half')\n"
        "    print('begun', flush=True)\n"
        f"    {then}\n"
    )
    source = Path(__file__).parents[1] / "src"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(target)],
        env=os.environ | {"PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout and process.stdout.readline() == b"begun\n"
    return process


@LINUX
def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    with run_elsewhere(tmp_path / "a.wav", "os.kill(os.getpid(), signal.SIGKILL)") as killed:
        killed.wait()
    assert [name[:6] for name in os.listdir(tmp_path)] == [".taro-"]
    with atomic_output(tmp_path / "b.wav", force=False) as path:
        path.write_text("whole")
    assert os.listdir(tmp_path) == ["b.wav"]


@LINUX
def test_the_file_of_a_run_that_goes_on_is_not_removed(tmp_path: Path) -> None:
    with run_elsewhere(tmp_path / "a.wav", "time.sleep(60)") as running:
        with atomic_output(tmp_path / "b.wav", force=False) as path:
            path.write_text("whole")
        left = os.listdir(tmp_path)
        running.kill()
    assert len(left) == 2 and "b.wav" in left


@pytest.mark.parametrize("name", [".taro-0123456789abcdef.mp4", ".taro-00000000-1-0123.mp4", ".taro-"])
def test_a_hidden_file_of_another_machine_is_not_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with atomic_output(tmp_path / "b.wav", force=False) as path:
        path.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == [name, "b.wav"]


@pytest.mark.parametrize("process", ["x", "0", "99999999999999999999", "²"])
def test_a_name_that_is_no_process_is_not_removed(tmp_path: Path, process: str) -> None:
    odd = tmp_path / f".taro-{files._neighbours()}-{process}-0.wav"
    odd.touch()
    with atomic_output(tmp_path / "b.wav", force=False) as path:
        path.write_text("whole")
    assert odd.exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere/out.mp4", "expected an existing output folder"),
        ("folder", "got a folder"),
        ("old.mp4", "exists already"),
        ("pipe", "got a device or pipe"),
        ("old.mp4/out.mp4", "expected an existing output folder"),
    ],
)
def test_a_place_that_cannot_take_the_file_is_found_early(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.mp4").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaError) as caught:
        check_output(tmp_path / name, force=False)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert reason in str(caught.value)


def test_force_never_replaces_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaError, match="device or pipe"):
        check_output(tmp_path / "pipe", force=True)


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder with a file in it, both read-only for whoever runs the test: root becomes another user."""
    with TemporaryDirectory() as name:  # tmp_path lies in a folder that another user may not even enter
        folder, is_root = Path(name), os.geteuid() == 0
        (folder / "old.mp4").touch(0o444)
        folder.chmod(0o555)
        if is_root:
            os.setresuid(65534, 65534, 0)
        try:
            yield folder
        finally:
            if is_root:
                os.setresuid(0, 0, 0)
            folder.chmod(0o755)


def test_a_write_protected_file_is_found_early(locked: Path) -> None:
    with pytest.raises(MediaError, match="write-protected"):
        check_output(locked / "old.mp4", force=True)


def test_a_locked_folder_is_found_early(locked: Path) -> None:
    with pytest.raises(MediaError, match="not writable"), atomic_output(locked / "new.mp4", force=False):
        pytest.fail("the block must not run")


def test_a_name_that_the_file_system_refuses_is_a_media_error(tmp_path: Path) -> None:
    target = tmp_path / f"{'x' * 300}.mp4"
    with pytest.raises(MediaError, match="File name too long"):
        check_output(target, force=False)


def test_the_input_is_recognised_behind_links(tmp_path: Path) -> None:
    source = tmp_path / "clip.mp4"
    source.touch()
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "hard.mp4").hardlink_to(source)
    for name in ("clip.mp4", "link.mp4", "hard.mp4", "../" + tmp_path.name + "/clip.mp4"):
        with pytest.raises(MediaError, match="is the input itself"):
            refuse_same_file(source, tmp_path / name)
    refuse_same_file(source, tmp_path / "other.mp4")


def test_a_link_to_nowhere_is_found_early(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").symlink_to("nowhere.mp4")
    with pytest.raises(MediaError, match="a link to nowhere"):
        check_output(tmp_path / "out.mp4", force=False)
    with atomic_output(tmp_path / "out.mp4", force=True) as path:
        path.write_text("new")
    assert os.listdir(tmp_path) == ["out.mp4"], "the link is replaced, not followed"
