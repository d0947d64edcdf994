"""The service does what the command does, for many clients, with progress and cancellation."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import Run, names
from media import encode, numbered
from service import STEPS, Client, serving

from taro_rt import __version__


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encoded: Path) -> Path:
    """The one folder that the service may touch."""
    folder = tmp_path_factory.mktemp("allowed")
    shutil.copy(encoded, folder / "clip.mp4")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path, tiny_bundle: Path) -> Iterator[Client]:
    with serving(tiny_bundle, allow=(folder,)) as client:
        yield client


@pytest.fixture
def clip(folder: Path) -> Path:
    return folder / "clip.mp4"


def test_a_path_gives_what_the_command_gives(client: Client, clip: Path, run: Run, tmp_path: Path) -> None:
    record = client.made(clip, {"format": "wav"}, seed=3)
    run("generate", clip, "-o", tmp_path / "a.wav", "--seed", 3)
    assert client.take(record) == (tmp_path / "a.wav").read_bytes()


def test_an_upload_gives_what_its_path_gives(client: Client, clip: Path) -> None:
    asked = {"options": {"steps": STEPS, "seed": 3}, "output": {"format": "wav"}}
    accepted = client.upload("generate", clip.read_bytes(), asked)
    assert accepted.status == 202
    assert client.take(client.wait(accepted.json["job"])) == client.take(
        client.made(clip, {"format": "wav"}, seed=3)
    )


def test_an_upload_can_be_used_again(client: Client, clip: Path) -> None:
    reference = client.upload("onsets", clip.read_bytes()).json["video"]
    record = client.made(reference, seed=3)
    assert record["state"] == "done" and record["video"] == "clip.mp4"


def test_a_video_is_made_unless_another_format_is_asked_for(client: Client, clip: Path) -> None:
    assert client.take(client.made(clip))[4:8] == b"ftyp"
    assert client.take(client.made(clip, {"format": "mkv"}))[:4] == b"\x1aE\xdf\xa3"


def test_every_take_is_a_file_of_its_own_seed(client: Client, clip: Path) -> None:
    record = client.made(clip, {"format": "wav"}, takes=2, seed=5)
    assert [take["seed"] for take in record["result"]["takes"]] == [5, 6]
    assert client.take(record, 2) == client.take(client.made(clip, {"format": "wav"}, seed=6))


def test_a_result_can_be_written_where_the_caller_wants_it(client: Client, clip: Path) -> None:
    target = clip.with_name("wanted.wav")
    record = client.made(clip, {"path": str(target)})
    assert record["result"]["output"] == str(target)
    assert client.take(record) == target.read_bytes()
    target.unlink()


def test_onsets_are_those_of_the_command(client: Client, clip: Path, run: Run) -> None:
    accepted = client.ask("POST", "/v1/onsets", {"video": str(clip)})
    told = json.loads(run("onsets", clip, "--json").stdout)
    assert client.wait(accepted.json["job"])["result"] == told


def test_edited_onsets_change_the_sound(client: Client, clip: Path) -> None:
    asked = [{"time_s": 0.4, "strength": 0.9}, {"time_s": 0.8}]
    record = client.made(clip, {"format": "wav"}, onsets=asked)
    assert [onset["time_s"] for onset in record["result"]["onsets"]] == [0.4, 0.8]
    assert client.take(record) != client.take(client.made(clip, {"format": "wav"}))


def test_a_part_of_a_video_can_be_asked_for(client: Client, clip: Path) -> None:
    record = client.made(clip, {"format": "wav"}, start_s=0.2, end_s=0.8)
    assert record["result"]["video_s"] == pytest.approx(0.6)


@pytest.mark.parametrize("content", [b"", b"no video at all", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"])
def test_a_bad_upload_fails_with_the_sentence_of_the_command(
    client: Client, run: Run, tmp_path: Path, content: bytes
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(content)
    told = json.loads(run("generate", bad, "--json").stdout)["error"]
    record = client.wait(client.upload("generate", content, filename="bad.mp4").json["job"])
    assert record["state"] == "failed"
    assert record["error"] == {**told, "message": told["message"].replace(str(bad), "bad.mp4")}


def test_an_option_out_of_range_fails_with_the_sentence_of_the_command(
    client: Client, clip: Path, run: Run
) -> None:
    told = json.loads(run("generate", clip, "--json", "--takes", 0, "--gain", 99).stdout)["error"]
    assert client.generate(clip, takes=0).json == {"error": told}


def test_events_tell_the_way_of_a_job_to_its_end(client: Client, clip: Path) -> None:
    records = client.events(client.generate(clip, steps=30).json["job"])
    states = [record["state"] for record in records]
    assert states == sorted(states, key=["queued", "running", "done"].index) and states[-1] == "done"
    assert {record["stage"] for record in records} >= {"generate", "write"}


def test_a_running_job_is_cancelled_within_a_second(client: Client, clip: Path) -> None:
    job = client.generate(clip, steps=10_000).json["job"]
    while client.ask("GET", f"/v1/jobs/{job}").json["stage"] != "generate":
        time.sleep(0.01)
    started = time.perf_counter()
    record = client.ask("DELETE", f"/v1/jobs/{job}").json
    assert time.perf_counter() - started < 1
    assert record["state"] == "cancelled" and record["error"]["exit_code"] == 130
    assert names(clip.parent) == ["clip.mp4"]


def test_a_waiting_job_is_cancelled_at_once(client: Client, clip: Path) -> None:
    first = client.generate(clip, steps=10_000).json["job"]
    second = client.generate(clip).json["job"]
    assert client.ask("GET", f"/v1/jobs/{second}").json["position"] == 0
    assert client.ask("DELETE", f"/v1/jobs/{second}").json["state"] == "cancelled"
    assert client.ask("DELETE", f"/v1/jobs/{first}").json["state"] == "cancelled"


def test_a_job_that_has_ended_is_forgotten_when_deleted(client: Client, clip: Path) -> None:
    record = client.made(clip)
    kept = Path(record["result"]["output"])
    assert kept.exists()
    assert client.ask("DELETE", f"/v1/jobs/{record['job']}").status == 200
    assert client.ask("GET", f"/v1/jobs/{record['job']}").status == 404
    assert not kept.exists()


def test_the_service_tells_what_it_is(client: Client, folder: Path) -> None:
    info = client.ask("GET", "/v1/info").json
    assert info["version"] == __version__ and info["bundle"]["licence"] == "Apache-2.0"
    assert info["computed"]["backend"] == "onnxruntime" and info["allow"] == [str(folder)]


def test_many_clients_at_once_get_each_their_own(client: Client, clip: Path) -> None:
    alone = [client.take(client.made(clip, {"format": "wav"}, seed=seed)) for seed in range(4)]

    def ask(k: int) -> bytes:
        return client.take(client.made(clip, {"format": "wav"}, seed=k % 4))

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(ask, range(24)))
    assert made == [alone[k % 4] for k in range(24)]


def test_health_needs_no_token(client: Client) -> None:
    assert client.ask("GET", "/v1/health", token=None).json == {"ok": True, "running": 0, "waiting": 0}


def test_an_odd_file_name_survives(client: Client, folder: Path) -> None:
    odd = encode(folder / "größe \U0001f941.mp4", numbered(10))
    record = client.made(odd)
    assert record["state"] == "done" and record["video"] == str(odd)
    answer = client.ask("GET", f"/v1/jobs/{record['job']}/takes/1")
    assert "gr%C3%B6%C3%9Fe" in answer.headers["content-disposition"]
    odd.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_file_name_that_is_no_unicode_survives(client: Client, folder: Path, clip: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.mp4"))
    shutil.copy(clip, odd)
    record = client.made(odd, {"path": str(odd.with_suffix(".wav"))})
    assert record["state"] == "done" and record["video"] == str(odd)
    assert client.take(record) == odd.with_suffix(".wav").read_bytes()
    odd.unlink()
    odd.with_suffix(".wav").unlink()


def test_a_name_that_is_too_long_fails_as_the_command_does(client: Client, folder: Path) -> None:
    record = client.made(folder / ("a" * 5000 + ".mp4"))
    assert record["state"] == "failed" and "File name too long" in record["error"]["message"]
