"""The status page of a fresh installation, in this host's browser: open it, paste the token."""

from __future__ import annotations

import json

from machine import PORT, SERVICE, Machine

from webdriver import ENTER, Open

_AS_STATUS = "return [word, reason].map((id) => id.textContent)"


def test_fresh_installation_shows_its_page_in_two_steps(machine: Machine, browse: Open) -> None:
    service = machine.unit()
    # As the page itself says where the token is.
    token = machine.run(["cat", f"{service.state_dir}/gateway.token"]).stdout.strip()
    with machine.forwarded(PORT) as port:
        browser = browse(f"http://127.0.0.1:{port}/")
        browser.until_text("#word", "locked")
        assert f"{service.state_dir}/gateway.token" in browser.text("#hint")
        browser.press(token, ENTER)
        browser.until_text("#age", "live")
        said = json.loads(machine.run("openclaw-gateway status --json").stdout)
        assert browser.run(_AS_STATUS) == [said["state"], said["reason"]] == ["running", "healthy"]
        assert said["next"] == [] and browser.text("#next") == ""
        shown = browser.text("#facts")
        for fact in (SERVICE, service.state_dir, service.config_path, f"pid {service.pid}"):
            assert fact in shown
        assert "systemd waits" in shown
        browser.until_text("#log", "ready on")  # from the journal, which the service may read
        assert browser.console() == []

        pid = service.pid
        browser.run(
            "window.words = []; new MutationObserver(() => words.push(word.textContent))"
            ".observe(word, { childList: true })"
        )
        service.restart()
        assert service.pid != pid
        browser.until_text("#gateway", f"pid {service.pid},")
        browser.until_text("#age", "live")
        # The listener outlives the restart, so that nothing is refused meanwhile: the console stays empty.
        words = browser.run("return words")
        assert (words[0], words[-1]) == ("restarting", "running"), words
        assert browser.console() == []

        service.stop()
        browser.until_text("#word", "unreachable")
        service.start()
        browser.until_text("#age", "live")
        assert token not in machine.run(["journalctl", "--all", "--output=export"]).stdout
