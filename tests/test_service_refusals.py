"""Everything that the service refuses; docs/serve.md has the same list."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Run, command_line
from service import TOKEN, Client, form, serving

from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.service.settings import Settings

MIB = 1 << 20
FORM = "multipart/form-data; boundary=x"
NAMED = b"--x\r\nContent-Disposition: form-data; name="


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An allowed folder, beside a secret."""
    folder = tmp_path_factory.mktemp("place") / "allowed"
    folder.mkdir()
    (folder.parent / "secret.mp4").write_bytes(b"secret")
    (folder / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    (folder / "up").symlink_to(folder.parent)
    (folder / "round").symlink_to(folder / "round")
    return folder


@pytest.fixture(scope="module")
def client(tiny_bundle: Path, allowed: Path) -> Iterator[Client]:
    with serving(tiny_bundle, allow=(allowed,), max_upload=MIB) as client:
        yield client


@pytest.fixture(scope="module")
def closed(tiny_bundle: Path) -> Iterator[Client]:
    """One without an allowed folder."""
    with serving(tiny_bundle) as client:
        yield client


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "a-tökén"])
@pytest.mark.parametrize("path", ["/v1/info", "/v1/jobs/0", "/nothing", "//", "/v1/health/"])
def test_a_missing_or_wrong_token(client: Client, token: str | None, path: str) -> None:
    answer = client.ask(
        "GET", path, headers={"Authorization": f"Bearer {token}".encode()} if token else None, token=None
    )  # type: ignore[dict-item]
    assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer"


def test_a_token_in_another_place(client: Client) -> None:
    assert client.ask("GET", f"/v1/info?token={TOKEN}", token=None).status == 401
    assert client.ask("GET", "/v1/info", headers={"Authorization": f"Basic {TOKEN}"}).status == 401
    assert client.ask("GET", "/v1/info", headers={"Cookie": f"token={TOKEN}"}, token=None).status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.nip.io:{port}", ""]
)
def test_a_foreign_host_header(client: Client, host: str) -> None:
    answer = client.ask("GET", "/", headers={"Host": host.format(port=client.port)})
    assert answer.status in (400, 403)
    assert answer.status == 403 or not host, "only an empty one is the server's own to refuse"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "file://"]
)
def test_a_foreign_origin(client: Client, origin: str) -> None:
    answer = client.ask("GET", "/v1/info", headers={"Origin": origin.format(port=client.port)})
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers


def test_its_own_page_is_no_foreign_origin(client: Client) -> None:
    for host in ("127.0.0.1", "localhost"):
        headers = {"Host": f"{host}:{client.port}", "Origin": f"http://{host}:{client.port}"}
        assert client.ask("GET", "/v1/info", headers=headers).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "{allowed}/../secret.mp4",
        "{allowed}/./../secret.mp4",
        "{allowed}/link.mp4",
        "{allowed}/up/secret.mp4",
        "{allowed}/up/allowed/../secret.mp4",
        "{allowed}/round/a.mp4",
        "{allowed}",
        "{allowed}-beside/a.mp4",
        "/etc/passwd",
        "/proc/self/root{allowed}/../secret.mp4",
        "clip.mp4",
        "../clip.mp4",
        "~/clip.mp4",
        "file://{allowed}/clip.mp4",
        "http://evil.example/clip.mp4",
        "concat:{allowed}/clip.mp4",
        "",
        "\0",
        "{allowed}/a\0.mp4",
        "\ud800",
    ],
)
@pytest.mark.parametrize("place", ["video", "output"])
def test_a_path_outside_the_allowed_folders(client: Client, allowed: Path, path: str, place: str) -> None:
    path = path.format(allowed=allowed)
    document = (
        {"video": str(allowed / "clip.mp4"), "output": {"path": path}}
        if place == "output"
        else {"video": path}
    )
    answer = client.ask("POST", "/v1/generate", document)
    assert answer.status == 403
    assert "expected an absolute path below a folder given by --allow" in answer.message


def test_whether_a_file_outside_exists_is_not_told(client: Client, allowed: Path) -> None:
    there, not_there = allowed.parent / "secret.mp4", allowed.parent / "nothing.mp4"
    told = [client.generate(path).message.replace(str(path), "") for path in (there, not_there)]
    assert told[0] == told[1]


def test_any_path_without_an_allowed_folder(closed: Client, video: Path) -> None:
    assert closed.generate(video).status == 403


def test_the_input_as_output_and_an_existing_file_without_force(
    client: Client, allowed: Path, encoded: Path
) -> None:
    clip = allowed / "clip.mp4"
    clip.write_bytes(encoded.read_bytes())
    (allowed / "old.mp4").write_bytes(b"old")
    for target, force, says in (
        ("clip.mp4", True, "is the input itself"),
        ("old.mp4", False, "exists already"),
    ):
        record = client.made(clip, {"path": str(allowed / target), "force": force})
        assert record["state"] == "failed" and says in record["error"]["message"]
    assert (allowed / "old.mp4").read_bytes() == b"old" and clip.read_bytes() == encoded.read_bytes()


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


def test_a_link_that_took_the_place_of_a_result(client: Client, allowed: Path, encoded: Path) -> None:
    (allowed / "clip.mp4").write_bytes(encoded.read_bytes())
    target = allowed / "made.wav"
    record = client.made(allowed / "clip.mp4", {"path": str(target)})
    target.unlink()
    target.symlink_to(allowed.parent / "secret.mp4")
    assert client.ask("GET", f"/v1/jobs/{record['job']}/takes/1").status == 403
    target.unlink()


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
    assert client.ask("PUT", "/v1/generate").status == 405


def test_the_take_of_a_job_that_has_none(client: Client) -> None:
    record = client.wait(client.upload("generate", b"no video").json["job"])
    assert client.ask("GET", f"/v1/jobs/{record['job']}/takes/1").status == 409


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", "", "127.0.0.1.example.com"])
def test_an_address_that_others_can_reach(host: str) -> None:
    with pytest.raises(OptionsError, match="expected a loopback address"):
        Settings(host=host)


@pytest.mark.parametrize(
    "token", ["short", "with a space in between", "tökén-of-some-length", "x" * 20 + "\n"]
)
def test_a_token_that_is_too_weak_for_a_header(token: str) -> None:
    with pytest.raises(OptionsError, match="token: expected at least 16"):
        Settings(token=token)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="allow: expected an existing folder"):
        Settings(allow=(tmp_path / "nothing",))


def test_a_port_that_is_taken(run: Run, tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", port, "--bundle", tiny_bundle)
    assert done.exit_code == 2 and "choose another --port" in done.stderr


def test_without_its_packages_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'fastapi'\", name='fastapi')"
    )
    command, environment = command_line("serve")
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr == "taro-rt: serve needs fastapi: pip install 'taro-rt[serve]'\n"


def test_the_command_itself_does_not_know_the_service() -> None:
    _, environment = command_line("--help")
    code = "import sys, taro_rt.runtime.cli; sys.exit('fastapi' in sys.modules or 'uvicorn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
