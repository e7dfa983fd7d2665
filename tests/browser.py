"""A headless Chromium, driven over the pipe of its DevTools protocol: pages as a reader's browser has them."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

PATIENCE = 60.0
"""Seconds for an answer, a page or a condition; far more than any takes on an idle machine."""

SILENCE = 0.3
"""Seconds without a request after which a loaded page is at rest. Chromium's own ``networkIdle`` comes up to 5 s late."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)


class Browser:
    """One Chromium that shows one page at a time; a context manager.

    Attributes:
        problems: what went wrong since the last :meth:`visit`: errors on the console, exceptions, requests that failed.
    """

    def __init__(self, command: str) -> None:
        self.problems: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._addresses: dict[str, str] = {}
        self._count = 0
        self._heard = 0.0
        self._session = ""
        self._size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._media = "screen"
        self._rest = b""
        self._profile = tempfile.mkdtemp(prefix="browser-")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        def third_and_fourth() -> None:  # where Chromium looks for the pipe
            one, other = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(one, 3)
            os.dup2(other, 4)

        self._process = subprocess.Popen(
            [command, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=third_and_fourth,
            close_fds=False,
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._session = ""
            self._ask("Browser.close")
            self._process.wait(10)
        except Exception:
            self._process.kill()
            self._process.wait()
        finally:
            os.close(self._in)
            os.close(self._out)
            shutil.rmtree(self._profile, ignore_errors=True)

    def window(self, width: int, height: int, *, phone: bool = False, media: str = "screen") -> None:
        """Give this page and those after it a size in CSS pixels, and show them as on a screen or in print."""
        self._size |= {"width": width, "height": height, "mobile": phone}
        self._media = media
        if self._session:
            self._resize()

    def visit(self, address: str) -> None:
        """Load a page afresh, in a tab of its own, and wait until nothing of it is on its way."""
        self._open()
        self._events.clear()
        self.problems.clear()
        begun = self._ask("Page.navigate", url=address)
        if begun.get("errorText"):
            self.problems.append(f"{address}: {begun['errorText']}")
            return

        def loaded() -> bool:
            ends = [event["params"] for event in self._events if event["method"] == "Page.lifecycleEvent"]
            return any(end["name"] == "load" and end["loaderId"] == begun["loaderId"] for end in ends)

        def quiet() -> bool:
            waiting: set[str] = set()
            for event in self._events:
                request = event["params"].get("requestId", "")
                if event["method"] == "Network.requestWillBeSent":
                    waiting.add(request)
                elif event["method"] in ("Network.loadingFinished", "Network.loadingFailed"):
                    waiting.discard(request)
            return not waiting and time.monotonic() - self._heard > SILENCE

        self._until(loaded, f"{address} to load")
        self._until(quiet, f"{address} to come to rest")

    def _open(self) -> None:
        if self._session:
            self._ask("Page.close")
            self._session = ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")
        self._ask("Page.setLifecycleEventsEnabled", enabled=True)
        self._ask("Page.bringToFront")
        self._resize()

    def _resize(self) -> None:
        self._ask("Emulation.setDeviceMetricsOverride", **self._size)
        self._ask("Emulation.setEmulatedMedia", media=self._media)

    def run(self, script: str) -> Any:
        """Return what an expression of the page's own language is worth; promises are waited for."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"].get("description", answer))
        return answer["result"].get("value")

    def wait(self, script: str) -> Any:
        """Return the first value of an expression that counts as true."""
        found: list[Any] = []

        def true() -> bool:
            found.append(self.run(script))
            return bool(found[-1])

        self._until(true, script)
        return found[-1]

    def press(self, key: str) -> None:
        """Press and release a key, such as ``ArrowRight``, where the focus is."""
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
        for kind in ("rawKeyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key]
            )

    def picture(self, selector: str | None = None) -> bytes:
        """Return the PNG of the window, or of one element."""
        clip: dict[str, Any] = {}
        if selector is not None:
            box = self.run(
                f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
                " return {x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height, scale: 1}; })()"
            )
            clip = {"clip": box, "captureBeyondViewport": True}
        answer = self._ask("Page.captureScreenshot", format="png", **clip)
        return base64.b64decode(answer["data"])

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            answer = self._read(end, method)
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"waited {PATIENCE:g} s for {what}")
            if select.select([self._in], [], [], 0.02)[0]:
                self._read(end, what)

    def _read(self, end: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0]:
                raise AssertionError(f"Chromium did not answer within {PATIENCE:g} s: {what}")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise AssertionError(f"Chromium ended during {what}")
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self._events.append(message)
            if message["method"].startswith("Network."):
                self._heard = time.monotonic()
            problem = self._problem(message["method"], message["params"])
            if problem:
                self.problems.append(problem)
        return message

    def _problem(self, method: str, params: dict[str, Any]) -> str | None:
        if method == "Network.requestWillBeSent":
            self._addresses[params["requestId"]] = params["request"]["url"]
        if method == "Network.loadingFailed" and not params.get("canceled"):
            return f"{self._addresses.get(params['requestId'], 'a request')[:200]}: {params['errorText']}"
        if method == "Network.responseReceived" and params["response"]["status"] >= 400:
            return f"{params['response']['url'][:200]}: {params['response']['status']}"
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            return str(details.get("exception", {}).get("description") or details["text"])
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            return " ".join(str(part.get("value", part.get("description"))) for part in params["args"])
        if method == "Log.entryAdded" and params["entry"]["level"] == "error":
            return f"{params['entry']['text']} {params['entry'].get('url', '')[:200]}"
        return None


def address(path: Path, fragment: str = "") -> str:
    """Return the address of a file, with a fragment."""
    return path.resolve().as_uri() + (f"#{fragment}" if fragment else "")
