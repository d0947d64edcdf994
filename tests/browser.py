"""A headless Chromium, driven by its own protocol over a web socket: a page is used as a person uses it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_S = 60


def find_browser() -> str | None:
    """The program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._n = socket, 0
        self.problems: list[str] = []
        """What the page's console and policy complained about."""

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol."""
        self._n += 1
        self._socket.send(json.dumps({"id": self._n, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if message.get("id") == self._n:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def run(self, script: str) -> Any:
        """What an expression is in the page; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        stop = time.monotonic() + PATIENCE_S
        while not self.run(f"!!({script})"):
            if time.monotonic() > stop:
                raise TimeoutError(f"{script}: still not; {self.run('document.body.innerText')}")
            time.sleep(0.05)

    def open(self, url: str) -> None:
        """Go there."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def choose_file(self, selector: str, path: Path) -> None:
        """As if chosen in a file dialogue."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def middle(self, selector: str) -> tuple[float, float]:
        """Where an element is in the window."""
        script = f"(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector({selector!r})"
        x, y = self.run(f"{script}.getBoundingClientRect())")
        return x, y

    def drag(self, selector: str, right: float) -> None:
        """Take an element with the mouse and move it by so many pixels."""
        x, y = self.middle(selector)
        self._mouse("mouseMoved", x, y)
        self._mouse("mousePressed", x, y)
        for k in range(1, 6):
            self._mouse("mouseMoved", x + right * k / 5, y)
        self._mouse("mouseReleased", x + right, y)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of it."""
        x, y = self.middle(selector)
        self._mouse("mousePressed", x, y)
        self._mouse("mouseReleased", x, y)

    def press(self, key: str, text: str = "") -> None:
        """A key, wherever the focus is."""
        more = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def picture(self, path: Path) -> None:
        """Of the window, as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(parameters["entry"]["text"])
        if message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))


@contextmanager
def browsing(program: str, profile: Path, width: int = 1000, height: int = 900) -> Iterator[Page]:
    """A fresh browser with one tab; `profile` is a folder for its files."""
    command = [
        program,
        "--headless=new",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        f"--window-size={width},{height}",
        "--autoplay-policy=no-user-gesture-required",
        "--mute-audio",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "about:blank",
    ]
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # which it refuses to have as root
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_tab(profile), max_size=None, compression=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log", "DOM"):
                page.call(f"{domain}.enable")
            page.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=False,
            )
            yield page
    finally:
        process.terminate()
        process.wait()


def _tab(profile: Path) -> str:
    """The address of the first tab's socket, once the browser has told its port."""
    from urllib.request import urlopen

    told, stop = profile / "DevToolsActivePort", time.monotonic() + PATIENCE_S
    while time.monotonic() < stop:
        if told.exists() and len(lines := told.read_text().splitlines()) == 2:
            with urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise TimeoutError("the browser did not start")
