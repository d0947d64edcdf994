"""Bodies and options that the service refuses; docs/serve.md has the same list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Client, form, serving

MIB = 1 << 20
FORM = "multipart/form-data; boundary=x"
NAMED = b"--x\r\nContent-Disposition: form-data; name="


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that requests may name files in."""
    return tmp_path_factory.mktemp("allowed")


@pytest.fixture(scope="module")
def client(tiny_bundle: Path, allowed: Path) -> Iterator[Client]:
    with serving(tiny_bundle, allow=(allowed,), max_upload=MIB) as client:
        yield client


def test_an_upload_that_says_it_is_too_large(client: Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(10 * MIB)}
    answer = client.ask("POST", "/v1/generate", headers=headers)
    assert answer.status == 413 and f"at most {3 * MIB} bytes" in answer.message


@pytest.mark.parametrize("n_bytes", [MIB + 1, 3 * MIB])
def test_an_upload_that_turns_out_to_be_too_large(client: Client, n_bytes: int) -> None:
    body, content_type = form(bytes(n_bytes))
    answer = client.ask("POST", "/v1/generate", iter([body]), {"Content-Type": content_type})  # chunked
    assert answer.status == 413


def test_a_document_that_is_too_large(client: Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert client.ask("POST", "/v1/generate", b" " * (MIB + 1), headers).status == 413
    assert client.ask("POST", "/v1/generate", iter([b" " * (MIB + 1)]), headers).status == 413
    assert client.upload("generate", b"x", b" " * (MIB + 1)).status == 413


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=" + "x" * 300, b"", 400),
        (FORM, b"", 400),
        (FORM, b"garbage", 400),
        (FORM, b"--x\r\n" + b"A" * 100_000, 400),
        (FORM, NAMED + b'"video"\r\n\r\nabc', 400),
        (FORM, NAMED + b'"a"\r\n\r\nb\r\n--x--', 422),
        (FORM, b"--x\r\nContent-Type: a/b\r\n\r\nabc\r\n--x--", 422),
        (FORM, NAMED + b'"request"\r\n\r\n{}\r\n--x--\r\n', 422),
        ("application/json", b"", 400),
        ("application/json", b"{", 400),
        ("application/json", b"\xff", 400),
        ("application/json", b"[" * 100_000, 400),
        ("application/json", b'{"video": NaN}', 400),
        ("application/json", b'{"video": ' + b"9" * 5000 + b"}", 400),
        ("application/json", b"[]", 422),
        ("application/json", b"null", 422),
        ("application/json", b"{}", 422),
        ("text/plain", b"{}", 415),
        ("application/x-www-form-urlencoded", b"video=a", 415),
        ("", b"{}", 415),
    ],
)  # fmt: skip
def test_a_malformed_body(client: Client, content_type: str, body: bytes, status: int) -> None:
    answer = client.ask("POST", "/v1/generate", body, {"Content-Type": content_type})
    assert answer.status == status and answer.message


def test_a_form_that_has_a_part_twice(client: Client) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\nabc\r\n'
    answer = client.ask(
        "POST",
        "/v1/generate",
        part + part + b"--x--\r\n",
        {"Content-Type": FORM},
    )
    assert answer.status == 422 and "video twice" in answer.message


@pytest.mark.parametrize(
    "document",
    [
        {"options": {"steps": 0}},
        {"options": {"steps": "2"}},
        {"options": {"steps": True}},
        {"options": {"seed": -1}},
        {"options": {"seed": 0.5}},
        {"options": {"takes": 101}},
        {"options": {"guidance": 1e9}},
        {"options": {"guidance_low": 0.9, "guidance_high": 0.1}},
        {"options": {"method": "magic"}},
        {"options": {"start_s": -1}},
        {"options": {"start_s": 2, "end_s": 1}},
        {"options": {"onsets": [{"time_s": -1}]}},
        {"options": {"onsets": [{"time_s": 1, "strength": 2}]}},
        {"options": {"onsets": [{"strength": 1}]}},
        {"options": {"onsets": 1}},
        {"options": {"unknown": 1}},
        {"output": {"format": "exe"}},
        {"output": {"audio": "loud"}},
        {"output": {"gain_db": 99}},
        {"output": {"loudness": 0}},
        {"output": {"rate_hz": 1}},
        {"output": {"channels": 3}},
        {"output": {"channels": True}},
        {"output": {"unknown": 1}},
        {"unknown": 1},
    ],
)
def test_an_option_that_cannot_be(client: Client, allowed: Path, document: dict[str, object]) -> None:
    answer = client.ask("POST", "/v1/generate", {"video": str(allowed / "a.mp4"), **document})
    assert answer.status == 422 and answer.json["error"]["exit_code"] == 2


@pytest.mark.parametrize("target", ["a.exe", "a.avi", "a"])
def test_a_kind_of_output_that_is_not_written(client: Client, allowed: Path, target: str) -> None:
    assert client.generate(allowed / "a.mp4", {"path": str(allowed / target)}).status == 422


def test_too_many_onsets(client: Client, allowed: Path) -> None:
    answer = client.generate(allowed / "a.mp4", onsets=[{"time_s": 0}] * 10_001)
    assert answer.status == 422 and "at most 10000" in answer.message


def test_a_whole_number_that_no_float_holds(client: Client, allowed: Path, encoded: Path) -> None:
    (allowed / "clip.mp4").write_bytes(encoded.read_bytes())
    assert client.made(allowed / "clip.mp4", seed=10**400)["state"] == "done"


def test_unknown_jobs_takes_uploads_and_routes(client: Client, allowed: Path, encoded: Path) -> None:
    clip = allowed / "clip.mp4"
    clip.write_bytes(encoded.read_bytes())
    job = client.made(clip)["job"]
    for path in (
        "jobs/0",
        "jobs/0/events",
        "jobs/0/takes/1",
        f"jobs/{job}/takes/2",
        "jobs/..%2f..",
        "../etc/passwd",
    ):
        assert client.ask("GET", f"/v1/{path}").status == 404, path
    assert client.ask("DELETE", "/v1/jobs/0").status == 404
    assert client.generate("upload:0").status == 404
    assert client.ask("GET", f"/v1/jobs/{job}/takes/0").status == 422
    assert client.ask("GET", "/v1/nothing").message == "GET /v1/nothing: Not Found"
    refused = client.ask("PUT", f"/v1/jobs/{job}")
    assert refused.status == 405 and refused.message and refused.headers["allow"] == "DELETE, GET"


def test_the_take_of_a_job_that_has_none(client: Client) -> None:
    record = client.wait(client.upload("generate", b"no video").json["job"])
    assert client.ask("GET", f"/v1/jobs/{record['job']}/takes/1").status == 409
