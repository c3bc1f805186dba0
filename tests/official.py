"""The official client and the protocol's published schema, from a cache outside of the checkout."""

from __future__ import annotations

import functools
import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema

import npm
from given import CAP_S

_SOURCE = Path(__file__).parent / "client"


@functools.cache
def installed() -> Path:
    """Return the folder with the official client and our driver of it; the test is left out without."""
    try:
        folder = npm.installed(_SOURCE, "client")
    except npm.Unavailable as missing:
        npm.leave_out(missing, "THE OFFICIAL CLIENT")
    # Node looks for packages beside the script's real path.
    driver = f"driver-{os.getpid()}.mjs"
    for stale in folder.glob("driver-*.mjs"):
        if not Path(f"/proc/{stale.stem.partition('-')[2]}").exists():
            stale.unlink(missing_ok=True)
    shutil.copy(_SOURCE / "driver.mjs", folder / driver)
    return folder


class OfficialClient:
    """The official client in a process of its own."""

    def __init__(self, port: int, *, before: Sequence[str] = (), **options: Any) -> None:
        """
        Start it.

        Args:
            port: Of the gateway, on 127.0.0.1.
            before: What stands before its command, to have it run elsewhere.
            **options: The client's own.
        """
        folder = installed()
        self._process = subprocess.Popen(
            [
                *before,
                npm.node(folder),
                folder / f"driver-{os.getpid()}.mjs",
                f"ws://127.0.0.1:{port}",
                json.dumps(options),
            ],
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.seen: list[dict[str, Any]] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return the next thing of this kind, and for an event or answer of this name."""
        while True:
            line = self._lines.get(timeout=CAP_S)
            assert line is not None, f"ended before any {kind}: {self.seen}"
            happened: dict[str, Any] = json.loads(line)
            self.seen.append(happened)
            inner = happened.get("event", happened)
            if happened["kind"] == kind and all(inner.get(k) == v for k, v in fields.items()):
                return happened

    def ask(self, method: str, params: Any = None) -> None:
        assert self._process.stdin
        request = {"method": method} if params is None else {"method": method, "params": params}
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()

    def call(self, method: str, params: Any = None) -> Any:
        self.ask(method, params)
        return self.wait_for("answer", method=method)["payload"]

    def fail(self, method: str, params: Any = None) -> dict[str, Any]:
        self.ask(method, params)
        error: dict[str, Any] = self.wait_for("error", method=method)["error"]
        return error

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(CAP_S)
        finally:
            self._process.kill()
            self._reader.join(CAP_S)
            self._process.stdout.close()


@functools.cache
def _definitions() -> dict[str, Any]:
    path = installed() / "node_modules/@openclaw/gateway-protocol/protocol.schema.json"
    definitions: dict[str, Any] = json.loads(path.read_text())["definitions"]
    return definitions


@functools.cache
def _validator(definition: str) -> jsonschema.Draft7Validator:
    name, _, inner = definition.partition(".")
    schema = _definitions()[name]
    return jsonschema.Draft7Validator(schema["properties"][inner] if inner else schema)


def assert_valid(value: Any, definition: str) -> None:
    """Check a value against a definition of the official schema: ``HelloOk``, ``Snapshot.health``."""
    _validator(definition).validate(value)


_PAYLOADS = {"tick": "TickEvent", "shutdown": "ShutdownEvent", "health": "Snapshot.health"}
_RESULTS = {"connect": "HelloOk", "logs.tail": "LogsTailResult"}


def assert_valid_frame(text: str, *, method: str = "") -> dict[str, Any]:
    """
    Check a frame that the gateway sent, envelope and payload, and return it.

    The schema leaves open what the envelope holds, and so do some methods; for those that have one,
    ``method`` says what was asked.
    """
    frame: dict[str, Any] = json.loads(text)
    if frame.get("type") == "event":
        assert_valid(frame, "EventFrame")
        payload = frame["payload"]
        if frame["event"] in _PAYLOADS:
            assert_valid(payload, _PAYLOADS[frame["event"]])
        if frame["event"] == "presence":
            for entry in payload["presence"]:
                assert_valid(entry, "PresenceEntry")
        if frame["event"] != "connect.challenge":
            assert frame["seq"] > 0
        if "stateVersion" in frame:
            assert_valid(frame["stateVersion"], "StateVersion")
        return frame
    assert_valid(frame, "ResponseFrame")
    assert ("payload" in frame, "error" in frame) == (frame["ok"], not frame["ok"])
    if "error" in frame:
        assert_valid(frame["error"], "ErrorShape")
        if frame["error"].get("details", {}).get("code") == "MISSING_SCOPE":
            assert_valid(frame["error"]["details"], "MissingScopeErrorDetails")
    elif method in _RESULTS:
        assert_valid(frame["payload"], _RESULTS[method])
    return frame
