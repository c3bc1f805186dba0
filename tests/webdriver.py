"""Debian's chromium, driven by plain WebDriver: JSON over HTTP to chromedriver, and nothing in between."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import requests

CAP_S = 60.0
"""A generous cap on anything that should take a moment. Not conftest's: in tests/system that is another one."""

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""WebDriver, section 12.2: the key by which an element is known."""

ENTER, TAB, SPACE = "\ue007", "\ue004", " "
"""WebDriver, section 17.4.2."""

_FLAGS = (
    "--headless=new --no-sandbox --no-proxy-server --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage"
).split()


def leave_out_without_chromium() -> None:
    """Leave the running test out, loudly, where there is no browser; with ``NPM_TESTS=required`` fail it."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        _leave_out(f"{' and '.join(missing)} not installed")


def _leave_out(why: str) -> NoReturn:
    # One switch for all that tests fetch from elsewhere; see npm.py.
    if os.environ.get("NPM_TESTS") == "required":
        raise AssertionError(f"tests in a browser are required: {why}")
    pytest.skip(f"TESTS IN A BROWSER LEFT OUT: {why}")


class Driver:
    """A chromedriver process, which has browsers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["chromedriver", "--port=0", "--log-level=WARNING"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout
        for line in self._process.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                self.url = f"http://127.0.0.1:{found[1]}"
                return
        raise AssertionError(f"chromedriver ended with {self._process.wait(CAP_S)}")

    def close(self) -> None:
        assert self._process.stdout
        self._process.terminate()
        self._process.wait(CAP_S)
        self._process.stdout.close()


class WebDriverError(Exception):
    """What chromedriver says went wrong."""


class Browser:
    """
    A browser of its own: no cookie, cache or history of another.

    Args:
        driver: Has it.
        profile: Its ``--user-data-dir``, new.
        flags: More of the command line.
        insecure: Whether any certificate will do.
    """

    def __init__(
        self, driver: Driver, profile: Path, *, flags: Sequence[str] = (), insecure: bool = False
    ) -> None:
        self.profile = profile
        self._session = requests.Session()
        self._session.trust_env = False
        options = {"args": [*_FLAGS, f"--user-data-dir={profile}", *flags]}
        wanted = {
            "browserName": "chrome",
            "acceptInsecureCerts": insecure,
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self._base = f"{driver.url}/session"
        made = self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self._base += f"/{made['sessionId']}"

    def _ask(self, verb: str, path: str, body: object = None) -> Any:
        answer = self._session.request(verb, f"{self._base}{path}", json=body, timeout=CAP_S)
        value = answer.json()["value"]
        if answer.status_code != 200:
            raise WebDriverError(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def refresh(self) -> None:
        self._ask("POST", "/refresh", {})

    @property
    def url(self) -> str:
        return str(self._ask("GET", "/url"))

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page, and return what it returns, once a promise has settled."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": arguments})

    def cdp(self, command: str, **params: object) -> Any:
        """Say something in Chromium's own protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def text(self, selector: str) -> str:
        """Return what an element shows; ``""`` if it is hidden."""
        script = "const e = document.querySelector(arguments[0]); return e.checkVisibility() ? e.innerText : ''"
        return str(self.run(script, selector))

    def until(self, script: str, *arguments: object) -> Any:
        """
        Wait until a script returns what is true, looked at anew with each frame that the page draws.

        A page that is left meanwhile is asked again, once there is another.
        """
        deadline_s = time.monotonic() + CAP_S
        body = f"const look = () => {{ {script} }}; const args = arguments;" + (
            "return new Promise((done) => { const end = performance.now() + 20000;"
            "const step = () => { let found; try { found = look.apply(null, args) } catch { }"
            "if (found || performance.now() > end) done(found || null); else setTimeout(step, 20); };"
            "step(); });"
        )
        while time.monotonic() < deadline_s:
            try:
                found = self.run(body, *arguments)
            except WebDriverError as error:
                if "javascript error" not in str(error):
                    raise
                continue
            if found:
                return found
        raise AssertionError(f"never: {script} {arguments}\n{self.text('body')}\n{self.console()}")

    def until_text(self, selector: str, part: str) -> str:
        """Wait until an element shows a text, and return all that it shows."""
        script = (
            "const e = document.querySelector(arguments[0]), text = e.checkVisibility() ? e.innerText : '';"
            "return text.includes(arguments[1]) && text"
        )
        return str(self.until(script, selector, part))

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        actions = [
            {"type": kind, "value": key}
            for text in keys
            for key in text
            for kind in ("keyDown", "keyUp")
        ]
        self._ask(
            "POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]}
        )

    def click(self, selector: str) -> None:
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        self._ask("POST", f"/element/{found[_ELEMENT]}/click", {})

    def console(self) -> list[str]:
        """Return what came to the console since the last call, by scripts and by the browser itself."""
        return [
            f"{entry['level']} {entry['source']}: {entry['message']}"
            for entry in self._ask("POST", "/se/log", {"type": "browser"})
        ]

    def requested(self) -> list[str]:
        """Return every address on the network that was asked for since the last call, WebSockets among them."""
        found = []
        for entry in self._ask("POST", "/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
            elif message["method"] == "Network.webSocketCreated":
                found.append(message["params"]["url"])
        return [url for url in found if url.partition(":")[0] in ("http", "https", "ws", "wss")]

    def resize(self, width: int, height: int) -> None:
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, colours: str) -> None:
        """Prefer ``dark`` or ``light`` colours, and see them at once."""
        wanted = {"prefers-color-scheme": colours, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> None:
        """Write the whole page, below what the window shows too, as PNG."""
        shot = self.cdp("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(b64decode(shot["data"]))

    def shots(self, folder: Path) -> None:
        """Write the whole page as it is, in both colours, for a desk and for a phone."""
        looks = {"light": (1280, "light"), "narrow": (390, "light"), "dark": (1280, "dark")}
        for name, (width, colours) in looks.items():
            self.prefer(colours)
            self.resize(width, 600)
            self.resize(width, self.run("return document.documentElement.scrollHeight"))
            self.screenshot(folder / f"{name}.png")
        self.cdp("Emulation.setEmulatedMedia", features=[])

    def close(self) -> None:
        self._ask("DELETE", "")
        self._session.close()


Open = Callable[..., Browser]
