"""Plans as files: what they were built for stands in them, and whatever does not fit is refused by name."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest

from taro_rt.engines import plans
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.cache import content_of
from taro_rt.engines.errors import BuildError, EngineError
from taro_rt.engines.plans import (
    NAMES,
    Here,
    PlanKey,
    find_plan,
    plans_folder,
    read_key,
    read_plan,
    source_version,
    write_plan,
)

PLAN = bytes(range(256)) * 20
HERE = Here("b" * 16, "s" * 16, "11.4.0.106", "NVIDIA H100 80GB HBM3", "9.0")
KEY = PlanKey(
    "denoiser", 2, "float16", HERE.bundle, HERE.sources, "0" * 64, HERE.tensorrt, HERE.gpu, HERE.capability,
    "latents[2, 8, 204, 16]", 25, ("strongly typed", "level 3"),
)  # fmt: skip
STEM = "denoiser.b2.float16"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return write_plan(tmp_path, KEY, PLAN)


def test_a_plan_is_read_back_as_it_was_written(plan: Path) -> None:
    assert read_key(plan) == KEY
    assert read_plan(plan) == PLAN
    assert find_plan(plan.parent, STEM, HERE) == (plan, KEY)


def test_nothing_but_the_plan_is_left_in_the_folder(plan: Path) -> None:
    assert list(plan.parent.iterdir()) == [plan]


@pytest.mark.parametrize("name", [field.name for field in fields(PlanKey)])
def test_a_change_of_anything_is_another_file(name: str) -> None:
    value = getattr(KEY, name)
    other = (
        (*value, "x") if isinstance(value, tuple) else value + 1 if isinstance(value, int) else value + "x"
    )
    assert replace(KEY, **{name: other}).file_name() != KEY.file_name()


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_for_something_else_is_refused_with_both_values(plan: Path, name: str) -> None:
    elsewhere = replace(HERE, **{name: "other"})
    with pytest.raises(BuildError) as caught:
        find_plan(plan.parent, STEM, elsewhere)
    said = str(caught.value)
    assert plan.name in said and getattr(KEY, name) in said and "other" in said and "taro-rt plans" in said


def test_of_several_plans_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    write_plan(tmp_path, replace(KEY, gpu="NVIDIA A100"), PLAN)
    mine = write_plan(tmp_path, KEY, PLAN)
    write_plan(tmp_path, replace(KEY, tensorrt="10.16.1.11"), PLAN)
    assert find_plan(tmp_path, STEM, HERE)[0] == mine


def test_of_several_that_fit_the_one_asked_for_last_is_taken(tmp_path: Path) -> None:
    plans = [write_plan(tmp_path, replace(KEY, flags=(flag,)), PLAN) for flag in ("plugins", "none")]
    for when_s, path in enumerate(reversed(plans)):
        os.utime(path, (when_s, when_s))
    assert find_plan(tmp_path, STEM, HERE)[0] == plans[0]


def test_what_is_missing_is_told_with_the_command_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="with taro-rt plans --bundle b --precision float32"):
        find_plan(tmp_path, STEM, HERE, "taro-rt plans --bundle b --precision float32")


def test_every_plan_that_does_not_fit_is_named(tmp_path: Path) -> None:
    made = [write_plan(tmp_path, replace(KEY, gpu=f"GPU {k}"), PLAN) for k in range(2)]
    with pytest.raises(BuildError) as caught:
        find_plan(tmp_path, STEM, HERE)
    assert all(path.name in str(caught.value) for path in made)


def test_no_plan_at_all_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"denoiser\.b2\.float16: no plan in .*taro-rt plans"):
        find_plan(tmp_path, STEM, HERE)


@pytest.mark.parametrize("n_bytes", [0, 5, 12, 40, 500])
def test_a_file_cut_off_early_is_refused_by_name(plan: Path, n_bytes: int) -> None:
    plan.write_bytes(plan.read_bytes()[:n_bytes])
    with pytest.raises(BuildError, match=rf"{plan.name} is refused"):
        read_plan(plan)


def test_a_truncated_plan_is_called_so(plan: Path) -> None:
    plan.write_bytes(plan.read_bytes()[:-1])
    with pytest.raises(
        BuildError, match=f"truncated: expected {len(PLAN)} bytes of plan, got {len(PLAN) - 1}"
    ):
        read_plan(plan)


def test_a_changed_plan_is_refused(plan: Path) -> None:
    content = bytearray(plan.read_bytes())
    content[-7] ^= 1
    plan.write_bytes(content)
    with pytest.raises(BuildError, match="its content was changed"):
        read_plan(plan)


def test_a_file_of_someone_elses_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{STEM}.0.plan"
    path.write_bytes(b"ptrt" + bytes(100))
    with pytest.raises(BuildError, match=r"no plan of taro-rt's.*Build it on this machine"):
        find_plan(tmp_path, STEM, HERE)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{}",
        b"nonsense",
        json.dumps({"graph": "denoiser", "plan_sha256": "", "plan_bytes": 1}).encode(),
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.plan"
    path.write_bytes(plans.MAGIC + len(header).to_bytes(8, "little") + header)
    with pytest.raises(BuildError, match=r"x\.plan is refused: its header is damaged|another version"):
        read_key(path)


def test_a_header_of_absurd_length_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.plan"
    path.write_bytes(plans.MAGIC + (1 << 62).to_bytes(8, "little"))
    with pytest.raises(BuildError, match="truncated within its header"):
        read_key(path)


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"cannot be written .*name another folder"):
        write_plan(tmp_path / "file", KEY, PLAN)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_plans_lie_where_the_user_says_or_in_the_cache(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(tiny_bundle)
    monkeypatch.setenv("TARO_CACHE", str(tmp_path))
    assert plans_folder(bundle) == tmp_path / "tensorrt" / content_of(bundle)
    monkeypatch.setenv("TARO_PLANS", str(tmp_path / "mine"))
    assert plans_folder(bundle) == tmp_path / "mine"
    assert plans_folder(bundle, tmp_path / "named") == tmp_path / "named"


def test_without_a_cache_a_folder_must_be_named(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TARO_PLANS", raising=False)
    monkeypatch.setenv("TARO_CACHE", "off")
    with pytest.raises(EngineError, match="set TARO_CACHE or TARO_PLANS to a folder"):
        plans_folder(Bundle.open(tiny_bundle))


def test_the_sources_version_covers_files_that_are_there() -> None:
    root = Path(plans.__file__).resolve().parents[1]
    assert all(list(root.glob(pattern)) for pattern in plans.SOURCES)
    assert len(source_version()) == 16 and source_version() == source_version()
