"""Callers, paths and settings that the service refuses; docs/serve.md has the same list."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Run, command_line
from service import TOKEN, Client, serving

from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.service.settings import Settings


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
    with serving(tiny_bundle, allow=(allowed,)) as client:
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


def test_a_link_that_took_the_place_of_a_result(client: Client, allowed: Path, encoded: Path) -> None:
    (allowed / "clip.mp4").write_bytes(encoded.read_bytes())
    target = allowed / "made.wav"
    record = client.made(allowed / "clip.mp4", {"path": str(target)})
    target.unlink()
    target.symlink_to(allowed.parent / "secret.mp4")
    assert client.ask("GET", f"/v1/jobs/{record['job']}/takes/1").status == 403
    target.unlink()


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
