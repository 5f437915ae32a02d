"""A headless Chromium, driven over the DevTools protocol: no driver, and no package besides `websockets`."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1440, 900
WAIT_S = 60.0


def find_chromium() -> str | None:
    """The path of a Chromium, None where none is installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page of the browser."""

    def __init__(self, socket: ClientConnection):
        self._socket, self._number = socket, 0
        self.call("Page.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a command of the protocol."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(timeout=WAIT_S))
            if said.get("id") == self._number:
                assert "error" not in said, said
                return dict(said["result"])

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, address: str, until: str = "") -> None:
        """Go there, and wait until the page shows the text `until`."""
        self.call("Page.navigate", url=address)
        self.wait_for(until)

    def text(self) -> str:
        """What the page shows."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def wait_for(self, text: str, seconds: float = WAIT_S) -> None:
        """Return once the page shows the text; fails when it does not."""
        deadline = time.monotonic() + seconds
        while text not in self.text():
            assert time.monotonic() < deadline, f"no {text!r} within {seconds:.0f} s in:\n{self.text()[:4000]}"
            time.sleep(0.3)

    def click(self, text: str, kind: str = "button, a, [role=button], [role=menuitem]") -> None:
        """Click the first visible element of the `kind` (a CSS selector) whose text begins with `text`."""
        find = f"[...document.querySelectorAll({json.dumps(kind)})].find(e => e.offsetParent !== null && "
        find += f"e.innerText.trim().startsWith({json.dumps(text)}) && !e.disabled)"
        deadline = time.monotonic() + WAIT_S
        while not self.run(f"(e => {{ if (e) e.click(); return !!e }})({find})"):
            assert time.monotonic() < deadline, f"nothing to click called {text!r} in:\n{self.text()[:4000]}"
            time.sleep(0.3)

    def screenshot(self, file: Path) -> None:
        """Save what is seen as a PNG file."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(chromium: str) -> Iterator[Page]:
    """A page of a browser of its own, with a profile that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="ernie-browser-", ignore_cleanup_errors=True) as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += [f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [chromium, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            with connect(_address(Path(profile, "DevToolsActivePort")), max_size=None, proxy=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(30)


def _address(file: Path) -> str:
    """The WebSocket of the browser's first page, once it listens."""
    deadline = time.monotonic() + WAIT_S
    while not (file.is_file() and (port := file.read_text().partition("\n")[0])):
        assert time.monotonic() < deadline, "Chromium did not start"
        time.sleep(0.1)
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
            pages = [each for each in json.loads(answer.read()) if each["type"] == "page"]
        if pages:
            return str(pages[0]["webSocketDebuggerUrl"])
        assert time.monotonic() < deadline, "Chromium has no page"
        time.sleep(0.1)
