"""Chromium without a window, spoken to through its DevTools protocol over two pipes: no driver, no library."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """A browser with one tab. A context manager: the process ends with it, and its profile goes.

    Attributes:
      requests: the addresses that pages asked for since the last `open`.
      messages: what pages wrote to their console, or raised, since the last `open`.
    """

    def __init__(self, timeout: float = 60) -> None:
        self._timeout = timeout
        self._numbers = itertools.count(1)
        self._unread = b""
        self.requests: list[str] = []
        self.messages: list[str] = []

    def __enter__(self) -> Self:
        assert CHROMIUM is not None
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        for_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        os.set_blocking(self._in, False)
        # Chromium reads commands from file 3 and writes to file 4. A shell moves them there.
        flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars"
        pipes = f"3<&{for_browser} 4>&{from_browser}"
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$0" {flags} --remote-debugging-pipe --user-data-dir="$1" about:blank {pipes}',
                CHROMIUM,
                self._profile,
            ],
            pass_fds=(for_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(for_browser)
        os.close(from_browser)
        self._target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._send("Browser.close")
            self._process.wait(20)
        except Exception:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)

    # The protocol: JSON, each message ended by a zero byte ------------------------------------------------------------

    def call(self, method: str, **arguments: Any) -> Any:
        """One command to the tab, and its answer."""
        return self._send(method, self._session, **arguments)

    def _send(self, method: str, session: str | None = None, **arguments: Any) -> Any:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": arguments}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda message: message.get("id") == number, method)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _wait(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        end = time.monotonic() + self._timeout
        while time.monotonic() < end:
            while b"\0" in self._unread:
                text, self._unread = self._unread.split(b"\0", 1)
                message = json.loads(text)
                self._note(message)
                if wanted(message):
                    return message
            try:
                read = os.read(self._in, 1 << 20)
                assert read, "the browser ended"
                self._unread += read
            except BlockingIOError:
                time.sleep(0.005)
        raise TimeoutError(what)

    def _note(self, message: dict[str, Any]) -> None:
        method, about = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.messages.append(str(about["exceptionDetails"].get("exception", about["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(argument.get("value")) for argument in about["args"]))
        elif method == "Log.entryAdded":
            self.messages.append(about["entry"]["text"])

    # What tests do ----------------------------------------------------------------------------------------------------

    def size(self, width: int, height: int = 1000) -> None:
        """Makes the window that wide."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, dark: bool = True) -> None:
        """Asks for dark pages, or light ones."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path | str) -> None:
        """Opens a file, or an address, and waits until it is loaded."""
        self.requests.clear()
        self.messages.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self._wait(lambda message: message.get("method") == "Page.loadEventFired", f"loading {page}")

    def arrives(self, address: str) -> bool:
        """Whether the tab comes to an address. The browser is asked: a page may be gone before it answers."""
        end = time.monotonic() + self._timeout
        while time.monotonic() < end:
            if self._send("Target.getTargetInfo", targetId=self._target)["targetInfo"]["url"] == address:
                return True
            time.sleep(0.02)
        return False

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, promises awaited."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector finds, as they are shown."""
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText)")

    def click(self, selector: str, text: str = "") -> None:
        """Presses the mouse on the first element that a selector finds, with that text in it."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})]"
        found += f".find((e) => e.innerText.includes({json.dumps(text)}))"
        self.run(f"{found}.scrollIntoView({{block: 'center'}})")
        self.settle()
        left, top, width, height = self.run(f"Object.values({found}.getBoundingClientRect().toJSON()).slice(0, 4)")
        x, y = left + width / 2, top + height / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Types into what has the focus, and gives the page a moment."""
        self.call("Input.insertText", text=text)
        self.run("new Promise((done) => setTimeout(done, 200))")

    def press(self, key: str) -> None:
        """Presses a key."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Escape": 27}.get(key, 0)
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)
        self.run("new Promise((done) => setTimeout(done, 50))")

    def settle(self) -> None:
        """Waits until the page has been drawn again."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def first_paint(self) -> float:
        """Milliseconds from the start of loading to the first paint with something in it."""
        return self.run(
            "new Promise((done) => new PerformanceObserver((list) => list.getEntries()"
            ".filter((entry) => entry.name === 'first-contentful-paint').forEach((entry) => done(entry.startTime)))"
            ".observe({type: 'paint', buffered: true}))"
        )

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Writes a PNG of the page."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))
