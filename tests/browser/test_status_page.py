"""The status page in Debian's chromium: what an administrator sees, and what nobody gets to see."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from conftest import CAP_S, TOKEN, Daemon, Start, clean_environ
from openclaw_gateway.claim.record import Phase
from openclaw_gateway.client.conversation import begun
from openclaw_gateway.protocol.role import Role
from webdriver import ENTER, SPACE, TAB, Browser, Open
from wire import admitted, in_process, run


def enter(browser: Browser, port: int, secret: str = TOKEN) -> Browser:
    """Go the two steps to what the page shows: open, and type the secret where the cursor stands."""
    browser.open(f"http://127.0.0.1:{port}/")
    browser.until_text("#word", "locked")
    browser.press(secret, ENTER)
    browser.until_text("#age", "live")
    return browser


def configure(state_dir: Path, **gateway: object) -> None:
    state_dir.mkdir(mode=0o700)
    (state_dir / "openclaw.json").write_text(json.dumps({"gateway": gateway}))


def ask(port: int, method: str) -> Any:
    """Ask the gateway itself."""
    with begun(f"ws://127.0.0.1:{port}", timeout_s=CAP_S) as conversation:
        conversation.event("connect.challenge")
        hello = {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {"id": "test", "version": "1", "platform": "linux", "mode": "test"},
            "auth": {"token": TOKEN},
            "scopes": ["operator.read"],
        }
        conversation.ask("connect", hello)
        return conversation.ask(method, None)


def facts(browser: Browser) -> dict[str, str]:
    """Return every fact that the page lists, by its name."""
    rows = "[...document.querySelectorAll('dl div')]"
    return dict(
        browser.run(
            f"return {rows}.map((row) => [...row.children].map((cell) => cell.textContent))"
        )
    )


def is_old(browser: Browser) -> bool:
    return bool(browser.run("return document.querySelector('#facts').hasAttribute('data-old')"))


def test_page_shows_what_status_says_two_steps_after_it_is_opened(
    start: Start, browse: Open, port: int, state_dir: Path
) -> None:
    daemon = start().ready()
    browser = browse(f"http://127.0.0.1:{port}/")
    browser.until_text("#word", "locked")
    assert "Its token opens this page" in browser.text("#reason")
    assert "gateway.token" in browser.text("#hint")
    browser.press(TOKEN, ENTER)
    browser.until_text("#age", "live")
    status = ask(port, "status")
    assert browser.text("#word") == status["state"] == "unmanaged"
    assert browser.text("#reason") == status["reason"]
    shown = facts(browser)
    assert shown["version"] == status["runtimeVersion"]
    assert shown["phase"] == status["phase"]
    assert shown["failing"] == "nothing"
    assert shown["process"].startswith(f"pid {daemon.pid},")
    assert shown["state"] == status["claim"]["stateDir"] == str(state_dir)
    assert shown["settings"] == status["claim"]["configPath"]
    assert shown["owner"] == status["claim"]["ownerId"]
    assert shown["address"] == f"127.0.0.1 port {port}"
    locks = [path.removeprefix(f"{state_dir}/") for path in status["claim"]["lockPaths"]]
    assert shown["locks"].splitlines() == locks
    assert shown["secret"] == "token"
    names = "return [...document.querySelectorAll('#limits tr')].map((row) => row.children[0].textContent)"
    assert browser.run(names) == list(status["limits"])
    assert f"127.0.0.1:{port}" in browser.text("#where")
    assert browser.run("return document.title").startswith("unmanaged ·")
    assert browser.console() == []


def test_page_follows_a_client_that_comes_and_goes_and_a_line_of_the_log(
    start: Start, browse: Open, port: int
) -> None:
    daemon = start().ready()
    browser = enter(browse(f"http://127.0.0.1:{port}/"), port)
    browser.until_text("#log", "ready on")
    assert facts(browser)["connected"].startswith("1,")

    async def visit() -> None:
        async with admitted(port):
            browser.until_text("#clients", "2, this page among them")
            captions = (
                "return [...document.querySelectorAll('figcaption')].map((c) => c.textContent)"
            )
            assert "clients2" in browser.run(captions)

    run(visit())
    browser.until_text("#clients", "1, this page among them")
    daemon.signal(signal.SIGHUP)
    browser.until_text("#log", "settings reloaded")
    drawn = "return [...document.querySelectorAll('figure path:last-child')].every((p) => p.getAttribute('d').includes('L'))"
    browser.until(drawn)
    assert browser.console() == []


def test_log_keeps_the_last_lines_and_its_place(start: Start, browse: Open, port: int) -> None:
    daemon = start().ready()
    browser = enter(browse(f"http://127.0.0.1:{port}/"), port)
    for _ in range(60):
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("settings reloaded")
    browser.until(
        "const items = document.querySelectorAll('#log li');"
        "return items.length === 50 && items[0].textContent.includes('reloaded')"
    )
    at_its_end = "const l = document.querySelector('#log'); return l.scrollHeight - l.scrollTop - l.clientHeight < 2"
    assert browser.run(at_its_end)
    browser.run("document.querySelector('#log').scrollTop = 0")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("settings reloaded")
    count = ask(port, "status")["served"]["calls"]
    browser.until(
        "return parseInt(document.querySelector('#clients').innerText.match(/(\\d+) calls/g)[1]) > arguments[0]",
        count,
    )
    assert not browser.run(at_its_end)


@pytest.fixture
def small_disk(tmp_path: Path, port: int) -> Iterator[tuple[Daemon, Path]]:
    """A gateway whose state directory is on a disk of its own, and a file there that may fill it."""
    if os.getuid() != 0:
        pytest.skip("needs root to mount")
    mount_point = tmp_path / "mnt"
    mount_point.mkdir()
    script = (
        f"mount -t tmpfs -o mode=0700,size=256k none {mount_point} && "
        f'exec {sys.executable} -m openclaw_gateway "$@"'
    )
    daemon = Daemon(
        *("--port", str(port), "--state-dir", str(mount_point)),
        environ=clean_environ(OPENCLAW_GATEWAY_TOKEN=TOKEN),
        words=("unshare", "--mount", "sh", "-c", script, "sh"),
    )
    try:
        daemon.ready()
        yield daemon, Path(f"/proc/{daemon.pid}/root{mount_point}/fill")
    finally:
        daemon.stop()


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def status_of(port: int, state_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", "status", f"--port={port}", *options],
        env=clean_environ(OPENCLAW_STATE_DIR=str(state_dir)),
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )


def test_page_terminal_json_and_metrics_never_disagree(
    small_disk: tuple[Daemon, Path], browse: Open, port: int, tmp_path: Path
) -> None:
    pytest.importorskip("prometheus_client")
    daemon, filler = small_disk
    browser = enter(browse(f"http://127.0.0.1:{port}/"), port)

    def agree(word: str) -> None:
        browser.until_text("#word", word)
        said = json.loads(status_of(port, tmp_path / "mnt", "--json").stdout)
        assert said["state"] == word
        assert ask(port, "status")["state"] == word
        scraped = requests.get(
            f"http://127.0.0.1:{port}/metrics",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=CAP_S,
        )
        assert scraped.status_code == 200, scraped.text
        is_degraded = int(word == "degraded")
        for name, value in (
            ("ready", 1 - is_degraded),
            ("degraded", is_degraded),
            ('failing{check="state-directory"}', is_degraded),
            ('phase{phase="ready"}', 1),
        ):
            assert f"\nopenclaw_gateway_{name} {value:.1f}\n" in scraped.text
        assert f" {word.upper()}: " in status_of(port, tmp_path / "mnt").stdout
        if word != "unmanaged":  # the terminal adds whose process it is
            assert browser.text("#reason") == said["reason"]
        commands = browser.run(
            "return [...document.querySelectorAll('#next code')].map((c) => c.textContent)"
        )
        advised = [step["command"] for step in said["next"]]
        assert [command.split()[:2] for command in commands] == [
            command.split()[:2] for command in advised
        ]

    agree("unmanaged")
    fill(filler)
    agree("degraded")
    assert facts(browser)["failing"] == "state-directory"
    assert browser.run("return document.body.dataset.tone") == "bad"
    filler.unlink()
    agree("unmanaged")
    assert browser.console() == []
    assert daemon.process.poll() is None


def test_page_survives_a_restart(start: Start, browse: Open, port: int) -> None:
    daemon = start().ready()
    browser = enter(browse(f"http://127.0.0.1:{port}/"), port)
    before = facts(browser)
    daemon.signal(signal.SIGTERM)
    browser.until("return ['stopping', 'restarting', 'unreachable'].includes(word.textContent)")
    assert is_old(browser) and browser.text("#age").startswith("as of ")
    daemon.finish()
    start().ready()
    browser.until_text("#age", "live")
    assert browser.text("#word") == "unmanaged" and not is_old(browser)
    assert facts(browser)["owner"] != before["owner"]
    browser.until_text("#log", "ready on")
    assert all("net::ERR_CONNECTION_REFUSED" in line for line in browser.console())


def test_gateway_that_hangs_or_is_gone_is_a_state_of_the_page(
    start: Start, browse: Open, port: int
) -> None:
    daemon = start().ready()
    browser = enter(browse(f"http://127.0.0.1:{port}/"), port)
    daemon.signal(signal.SIGSTOP)
    browser.until_text("#word", "not-serving")
    assert is_old(browser)
    assert f"openclaw-gateway status --port={port}" in browser.text("#next")
    daemon.signal(signal.SIGCONT)
    browser.until_text("#age", "live")
    assert browser.text("#word") == "unmanaged"
    assert browser.console() == []
    daemon.kill()
    browser.until_text("#word", "unreachable")
    assert f"nobody answers at 127.0.0.1:{port}" in browser.text("#reason")
    browser.until_text("#when", "Trying again in")
    # The browser itself notes each refused connection, and no script can prevent that; ours adds nothing.
    noted = browser.console()
    assert noted and all("net::ERR_CONNECTION_REFUSED" in line for line in noted)
    start().ready()
    browser.until_text("#age", "live")


def test_standby_says_who_is_active_and_the_page_follows_a_takeover(
    browse: Open, port: int, state_dir: Path
) -> None:
    active = Role("home", True, "gw-a", "http://gw-a:18789", 42, 1, "active (token 42)")
    other = active._replace(active=False, reason="gw-b is active (token 42)")

    async def serve() -> None:
        async with in_process(port, state_dir, []) as server:
            server.phase = Phase.READY
            server.show_role(other)
            browser = await asyncio.to_thread(browse, f"http://127.0.0.1:{port}/")
            said = await asyncio.to_thread(browser.until_text, "#word", "standby")
            reason = await asyncio.to_thread(browser.text, "#reason")
            assert (said, reason) == ("standby", "gw-b is active (token 42), at http://gw-a:18789")
            server.show_role(active)
            await asyncio.to_thread(enter, browser, port)
            shown = await asyncio.to_thread(facts, browser)
            assert shown["cluster"] == "home, fencing token 42"
            server.show_role(other._replace(token=43, reason="gw-b is active (token 43)"))
            await asyncio.to_thread(browser.until_text, "#reason", "gw-b is active (token 43)")
            assert await asyncio.to_thread(browser.text, "#word") == "standby"

    run(serve())


def test_page_follows_a_gateway_through_its_phases(
    browse: Open, port: int, state_dir: Path
) -> None:
    async def serve() -> None:
        async with in_process(port, state_dir, failing := []) as server:
            server.phase = Phase.STARTING
            browser = await asyncio.to_thread(browse, f"http://127.0.0.1:{port}/")
            await asyncio.to_thread(browser.until_text, "#word", "starting")
            server.phase = Phase.READY
            await asyncio.to_thread(enter, browser, port)
            assert await asyncio.to_thread(browser.text, "#word") == "unmanaged"
            failing.append("state-directory")
            await asyncio.to_thread(browser.until_text, "#word", "degraded")
            failing.clear()
            await asyncio.to_thread(browser.until_text, "#word", "unmanaged")
            server.phase = Phase.DRAINING
            await asyncio.to_thread(browser.until_text, "#word", "stopping")
            assert "sent away" in await asyncio.to_thread(browser.text, "#reason")
            await asyncio.to_thread(browser.refresh)
            await asyncio.to_thread(browser.until_text, "#word", "stopping")
            server.phase = Phase.READY
            await asyncio.to_thread(browser.until_text, "#word", "unmanaged")
            assert await asyncio.to_thread(browser.console) == []

    run(serve())


def test_gateway_that_wants_no_secret_is_shown_at_once(
    start: Start, browse: Open, port: int
) -> None:
    start("--auth", "none", OPENCLAW_GATEWAY_TOKEN="").ready()
    browser = browse(f"http://127.0.0.1:{port}/")
    browser.until_text("#age", "live")
    assert facts(browser)["secret"] == "none"
    assert browser.text("#ask") == browser.text("#forget") == ""
    assert browser.console() == []


class Way:
    """A way to a gateway that may be cut: what is on it ends, and what comes next goes through again."""

    def __init__(self, port: int) -> None:
        self._port, self._ends = port, set[socket.socket]()
        self.passes = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near = self._listener.accept()[0]
                self._ends.add(near)
                if not self.passes:
                    continue
                far = socket.create_connection(("127.0.0.1", self._port))
                self._ends.add(far)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # cut
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


def test_lost_connection_is_a_state_of_the_page_that_ends(
    start: Start, browse: Open, port: int
) -> None:
    start().ready()
    way = Way(port)
    try:
        browser = enter(browse(f"http://127.0.0.1:{way.port}/"), way.port)
        browser.run(
            "window.words = []; new MutationObserver(() => words.push(word.textContent))"
            ".observe(word, { childList: true })"
        )
        way.cut()
        browser.until("return words.includes('connecting') && words.at(-1) === 'unmanaged'")
        browser.until_text("#age", "live")
        assert browser.console() == []
        way.passes = False  # as where a network swallows what is sent
        way.cut()
        browser.until_text("#word", "not-serving")
        browser.until_text("#reason", f"No answer comes from 127.0.0.1:{way.port}")
        way.passes = True
        way.cut()
        browser.until_text("#age", "live")
    finally:
        way.close()


def test_wrong_token_is_refused_in_words_and_the_right_one_is_taken_then(
    start: Start, browse: Open, port: int
) -> None:
    daemon = start().ready()
    browser = browse(f"http://127.0.0.1:{port}/")
    browser.until_text("#word", "locked")
    browser.press("wrong", ENTER)
    browser.until_text("#reason", "This is not the gateway's token.")
    assert browser.text("#word") == "locked"
    assert browser.run(
        "return [document.querySelector('#secret').value, sessionStorage.length]"
    ) == ["", 0]
    assert browser.run("return document.activeElement.id") == "secret"
    browser.press(TOKEN, ENTER)
    browser.until_text("#age", "live")
    assert facts(browser)["secret"] == "token, wrong once"
    assert browser.console() == []
    daemon.wait_for("wrong token from 127.0.0.1")


def test_token_that_was_changed_meanwhile_is_asked_for_again(
    start: Start, browse: Open, port: int
) -> None:
    daemon = start().ready()
    browser = enter(browse(f"http://127.0.0.1:{port}/"), port)
    assert daemon.stop() == 0
    start(OPENCLAW_GATEWAY_TOKEN="another-token").ready()
    browser.until_text("#reason", "This is not the gateway's token.")
    assert browser.run("return sessionStorage.length") == 0
    assert browser.text("#facts") == "", (
        "what a former gateway said is not shown to who may not ask"
    )


def test_who_guesses_too_often_is_told_how_long_to_wait(
    start: Start, browse: Open, port: int, state_dir: Path
) -> None:
    limit = {"maxAttempts": 1, "lockoutMs": 5000, "exemptLoopback": False}
    configure(state_dir, auth={"rateLimit": limit})
    start().ready()
    browser = browse(f"http://127.0.0.1:{port}/")
    browser.until_text("#word", "locked")
    browser.press("wrong", ENTER)
    browser.until_text("#reason", "This is not the gateway's token.")
    browser.press(TOKEN, ENTER)
    browser.until_text("#reason", "Too many wrong tokens")
    assert browser.run("return document.querySelector('#secret').disabled")
    browser.until_text("#when", "Trying again in")
    browser.until_text("#age", "live")  # with what was typed meanwhile
    assert facts(browser)["secret"] == "token, wrong 2 times"
    assert browser.console() == []


def test_token_is_kept_for_the_tab_and_never_in_a_url_history_or_log(
    start: Start, browse: Open, port: int
) -> None:
    daemon = start().ready()
    browser = enter(browse(f"http://127.0.0.1:{port}/"), port)
    browser.refresh()
    browser.until_text("#age", "live")
    assert browser.run("return Object.values(sessionStorage)") == [TOKEN]
    assert browser.run("return [localStorage.length, document.cookie]") == [0, ""]
    assert browser.url == f"http://127.0.0.1:{port}/"
    asked = browser.requested()
    assert set(asked) == {
        *(f"http://127.0.0.1:{port}/{name}" for name in ("", "page.js", "page.css", "favicon.svg")),
        f"ws://127.0.0.1:{port}/",
    }
    assert browser.run("return history.length") <= 2
    assert TOKEN not in browser.run("return document.documentElement.outerHTML")
    assert browser.console() == []
    kept = [path for path in browser.profile.rglob("*") if path.is_file()]
    assert any(path.name == "History" for path in kept)
    secret = TOKEN.encode()
    assert not [
        path for path in kept if "Session Storage" not in path.parts and secret in path.read_bytes()
    ]
    daemon.stop()
    assert not [line for line in daemon.log if TOKEN in line]


def test_password_is_kept_in_memory_only(
    start: Start, browse: Open, port: int, state_dir: Path
) -> None:
    configure(state_dir, auth={"mode": "password", "password": "open sesame"})
    start().ready()
    browser = browse(f"http://127.0.0.1:{port}/")
    browser.until_text("#reason", "Its password opens this page")
    assert browser.text("label") == "Password"
    browser.press("open sesame", ENTER)
    browser.until_text("#age", "live")
    assert browser.run("return sessionStorage.length + localStorage.length") == 0
    browser.refresh()
    browser.until_text("#word", "locked")
    assert browser.console() == []


def test_page_works_by_keyboard_alone(start: Start, browse: Open, port: int) -> None:
    start().ready()
    browser = enter(browse(f"http://127.0.0.1:{port}/"), port)
    visited = []
    while "forget" not in visited and len(visited) < 10:
        browser.press(TAB)
        visited.append(browser.run("const e = document.activeElement; return e.id || e.localName"))
    assert visited == ["reached", "log", "forget"]
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.press(ENTER)
    browser.until_text("#word", "locked")
    assert browser.run("return sessionStorage.length") == 0
    browser.press(TOKEN, ENTER)
    browser.until_text("#age", "live")
    browser.run("reached.focus()")
    browser.press(SPACE)
    assert "maxConnections" in browser.text("#limits")
    assert browser.console() == []


def test_page_fits_a_phone_and_follows_the_colours_that_one_prefers(
    start: Start, browse: Open, port: int
) -> None:
    start().ready()
    browser = enter(browse(f"http://127.0.0.1:{port}/"), port)
    browser.click("summary")
    if folder := os.environ.get("SCREENSHOTS"):  # for who wants to look at it
        browser.shots(Path(folder))
    look = "return getComputedStyle(document.body).backgroundColor"
    light = browser.run(look)
    for width in (320, 390, 768, 1280, 1920):
        browser.resize(width, 800)
        assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.prefer("dark")
    assert browser.run(look) != light
    # WCAG 2.2, 1.4.3: text has a contrast of 4.5 to what is behind it.
    for scheme in ("dark", "light"):
        browser.prefer(scheme)
        for tone in ("quiet", "good", "warn", "bad"):
            browser.run("document.body.dataset.tone = arguments[0]", tone)
            for selector in ("#word", "#reason", "#age", "dt", "#log time", "figcaption"):
                assert browser.run(_CONTRAST, selector) >= 4.5, (scheme, tone, selector)


_CONTRAST = """
const luminance = (colour) => {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
  return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
};
let node = document.querySelector(arguments[0]);
const ink = luminance(getComputedStyle(node).color);
while (getComputedStyle(node).backgroundColor === 'rgba(0, 0, 0, 0)') node = node.parentElement;
const paper = luminance(getComputedStyle(node).backgroundColor);
return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
"""


def test_without_scripts_the_page_names_the_command(start: Start, browse: Open, port: int) -> None:
    start().ready()
    browser = browse("about:blank")
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(f"http://127.0.0.1:{port}/")
    browser.cdp("Emulation.setScriptExecutionDisabled", value=False)
    assert "openclaw-gateway status" in browser.text("noscript")
    assert browser.text("#ask") == ""


def test_page_works_over_tls(start: Start, browse: Open, port: int, state_dir: Path) -> None:
    pytest.importorskip("cryptography")
    configure(state_dir, tls={"enabled": True})
    start().ready()
    browser = browse(f"https://127.0.0.1:{port}/", insecure=True)
    browser.until_text("#word", "locked")
    browser.press(TOKEN, ENTER)
    browser.until_text("#age", "live")
    assert f"wss://127.0.0.1:{port}/" in browser.requested()
    assert browser.console() == []


@contextmanager
def serving(answer: Callable[[], bytes]) -> Iterator[tuple[int, list[str]]]:
    """Serve one page on a port of its own: another origin. Yields the port, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = answer()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join(CAP_S)


_INTRUDE = """
const [elsewhere] = arguments, blocked = [];
document.addEventListener('securitypolicyviolation', (event) => blocked.push(event.effectiveDirective));
const add = (name, attributes) => document.body.append(Object.assign(document.createElement(name), attributes));
add('script', { textContent: 'window.intruded = true' });
add('script', { src: elsewhere });
add('img', { src: elsewhere, onerror: null });
add('iframe', { src: elsewhere });
add('style', { textContent: 'body { display: none }' });
add('div', { innerHTML: '<b onclick="window.intruded = true">x</b>' });
document.body.lastChild.firstChild.click();
setTimeout(() => { try { eval('window.intruded = true') } catch { } }); // WebDriver's own script may
try { new WebSocket(elsewhere.replace('http', 'ws')) } catch { }
const form = Object.assign(document.createElement('form'), { action: elsewhere });
document.body.append(form);
form.submit();
return fetch(elsewhere).then(() => 'fetched', () => 'refused').then((fetched) => new Promise((done) =>
  setTimeout(() => done({ fetched, intruded: window.intruded || null, blocked: [...new Set(blocked)].sort() }), 300)));
"""


def test_policy_blocks_inline_scripts_and_everything_foreign(
    start: Start, browse: Open, port: int
) -> None:
    start().ready()
    browser = enter(browse(f"http://127.0.0.1:{port}/"), port)
    with serving(lambda: b"") as (elsewhere, asked):
        found = browser.run(_INTRUDE, f"http://127.0.0.1:{elsewhere}/")
    assert (found["fetched"], found["intruded"], asked) == ("refused", None, [])
    assert {
        "connect-src",
        "form-action",
        "frame-src",
        "img-src",
        "script-src-attr",
        "script-src-elem",
        "style-src-elem",
    } <= set(found["blocked"])
    assert browser.url == f"http://127.0.0.1:{port}/"


_SPY = """<!doctype html><title>elsewhere</title><script>
const got = {}, at = "http://127.0.0.1:PORT/";
const tries = {
  script: (done) => { const s = document.createElement("script"); s.src = at + "page.js";
    s.onload = () => done("loaded"); s.onerror = () => done("blocked"); document.head.append(s); },
  image: (done) => { const i = new Image(); i.onload = () => done("loaded"); i.onerror = () => done("blocked");
    i.src = at + "favicon.svg"; },
  fetch: (done) => fetch(at, { headers: { Accept: "text/html" } }).then(() => done("read"), () => done("blocked")),
  opaque: (done) => fetch(at + "page.css", { mode: "no-cors" }).then(() => done("read"), () => done("blocked")),
  socket: (done) => { const w = new WebSocket(at.replace("http", "ws"));
    w.onmessage = () => done("heard"); w.onclose = () => done("blocked"); },
};
Promise.all(Object.entries(tries).map(([name, attempt]) => new Promise(attempt).then((end) => { got[name] = end; })))
  .then(() => { window.got = got; });
</script><iframe src="http://127.0.0.1:PORT/"></iframe>"""


def test_page_of_another_origin_gets_nothing(start: Start, browse: Open, port: int) -> None:
    start().ready()
    with serving(lambda: _SPY.replace("PORT", str(port)).encode()) as (elsewhere, _):
        browser = browse(f"http://127.0.0.1:{elsewhere}/")
        got = browser.until("return window.got")
        assert set(got.values()) == {"blocked"}, got
        noted = "\n".join(browser.console())
    assert "frame-ancestors" in noted


def test_name_that_was_rebound_to_us_gets_nothing(start: Start, browse: Open, port: int) -> None:
    start().ready()
    browser = browse(
        f"http://rebound.example:{port}/",
        flags=["--host-resolver-rules=MAP rebound.example 127.0.0.1"],
    )
    assert "host not allowed" in browser.text("body")
    assert browser.run("return document.scripts.length") == 0
    answer = requests.get(
        f"http://127.0.0.1:{port}/page.js", headers={"Host": "rebound.example"}, timeout=CAP_S
    )
    assert answer.status_code == 403
