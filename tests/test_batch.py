"""Many videos in one run, on real encoded clips and the tiny bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Run, invoke, names
from media import read_sound
from typer.testing import Result

from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.batch import expand, generate_many, is_many
from taro_rt.runtime.commands import Job, Machine
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.runtime.progress import Progress, Silent


@pytest.fixture
def folder(tmp_path: Path, encoded: Path) -> Path:
    """Two videos, one broken file between them, and something that is no video."""
    made = tmp_path / "in"
    made.mkdir()
    for name in ("a.mp4", "c.mp4"):
        shutil.copy(encoded, made / name)
    (made / "b.mp4").write_text("no video")
    (made / "notes.txt").write_text("no video either")
    return made


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_folder_gives_one_output_per_video_and_a_bad_one_does_not_stop_the_rest(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    result = run("generate", folder, "--out-dir", tmp_path / "out")
    assert result.exit_code == 5
    assert names(tmp_path / "out") == ["a.taro.mp4", "c.taro.mp4"]
    assert all(read_sound(path)[1].size for path in (tmp_path / "out").iterdir())
    first, bad, last, total = result.stdout.splitlines()
    assert first.startswith(f"ok    {folder / 'a.mp4'} -> ") and last.startswith("ok ")
    assert bad.startswith(f"FAIL  {folder / 'b.mp4'}: ") and total == "2 written, 0 skipped, 1 failed"
    assert "Traceback" not in result.output


def test_json_gives_a_record_per_video_and_a_summary(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run("generate", folder, "--out-dir", tmp_path, "--json")
    *each, total = records(result)
    assert [record["video"] for record in each] == [str(folder / f"{name}.mp4") for name in "abc"]
    assert each[1]["error"]["type"] == "UnreadableError" and each[1]["error"]["exit_code"] == 5
    assert each[0]["takes"] == [{"output": str(tmp_path / "a.taro.mp4"), "seed": 0}]
    assert total == {"written": 2, "skipped": 0, "failed": 1, "exit_code": 5}
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line["stage"] for line in lines].count("load") == 2, "the engines load once: 0 % and 100 %"
    assert {line.get("video") for line in lines} >= {str(folder / "a.mp4"), str(folder / "c.mp4")}


def test_existing_outputs_are_skipped_if_asked_and_else_refused(run: Run, folder: Path) -> None:
    (folder / "b.mp4").unlink()
    (folder / "a.taro.mp4").write_text("mine")
    refused = records(run("generate", folder, "--json"))
    assert "exists already" in refused[0]["error"]["message"] and refused[-1]["failed"] == 1
    again = run("generate", folder, "--skip-existing", "--json")
    assert records(again)[0] == {"video": str(folder / "a.mp4"), "skipped": str(folder / "a.taro.mp4")}
    assert records(again)[-1] == {"written": 0, "skipped": 2, "failed": 0, "exit_code": 0}
    assert again.exit_code == 0 and (folder / "a.taro.mp4").read_text() == "mine"


def test_two_videos_of_one_name_do_not_overwrite_each_other(
    run: Run, folder: Path, tmp_path: Path, encoded: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(encoded, other / "a.mp4")
    pair = (folder / "a.mp4", other / "a.mp4")
    result = run("generate", *pair, "--out-dir", tmp_path / "out", "--force", "--json")
    assert f"already the output of {pair[0]}" in records(result)[1]["error"]["message"]


def test_a_bundle_that_cannot_be_used_stops_the_run_at_once(folder: Path) -> None:
    result = invoke("generate", folder, "--bundle", folder)
    assert result.exit_code == 3 and result.stdout == ""


def test_folders_patterns_and_files_are_expanded_once_each_in_order(folder: Path) -> None:
    (folder / "a.taro.mp4").touch()
    (folder / ".hidden.mp4").touch()
    expected = [folder / "c.mp4", folder / "a.mp4", folder / "b.mp4"]
    assert expand([folder / "c.mp4", folder]) == expected
    assert expand([folder / "[ac].*"]) == [folder / "a.mp4", folder / "c.mp4"]
    assert expand([folder.parent / "**" / "b.mp4"]) == [folder / "b.mp4"]


def test_a_pattern_that_is_a_files_name_is_that_file(folder: Path) -> None:
    odd = folder / "take [1].mp4"
    odd.touch()
    assert not is_many([odd]) and expand([odd]) == [odd]


def test_a_pattern_without_a_video_is_named(folder: Path) -> None:
    with pytest.raises(OptionsError, match=r"\*\.mkv: expected videos"):
        expand([folder / "*.mkv"])


def test_a_video_that_another_run_has_just_done_is_skipped_if_asked(folder: Path, tiny_bundle: Path) -> None:
    video, theirs, said = folder / "a.mp4", folder / "a.taro.mp4", Silent()

    class Other(Machine):
        def pipeline(self, progress: Progress) -> Pipeline:
            theirs.write_text("theirs")
            return super().pipeline(progress)

    with Other(str(tiny_bundle), threads=1) as machine:
        (record,) = generate_many(machine, [video], None, Job(), True, said)
        assert record == {"video": str(video), "skipped": str(theirs)} and theirs.read_text() == "theirs"
        theirs.unlink()
        (record,) = generate_many(machine, [video], None, Job(), False, said)
        assert "exists already" in record["error"]["message"]
