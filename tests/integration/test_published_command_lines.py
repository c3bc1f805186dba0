"""Command lines that were published for OpenClaw start this gateway as well."""

from __future__ import annotations

from conftest import Start


def test_harmless_flags_are_warned_of_once_each_and_the_gateway_runs(
    start: Start, port: int
) -> None:
    daemon = start(
        "run", "--allow-unconfigured", "--bind", "loopback", "--port", str(port), "--verbose",
        "--ws-log", "compact", "--ambient-channels", "--tailscale", "off",
        "--token", "s3cret-s3cret-s3cret", OPENCLAW_GATEWAY_TOKEN="",
    ).ready()  # fmt: skip
    assert daemon.stop() == 0
    log = "\n".join(daemon.log)
    for flag in ("--verbose", "--ws-log", "--ambient-channels", "--token"):
        assert log.count(f"flag {flag}") == 1, log
    assert "s3cret" not in log


def test_flag_that_would_harm_others_keeps_the_gateway_from_starting(start: Start) -> None:
    daemon = start("--force")
    assert daemon.refused() == 2
    assert "--force is not taken" in daemon.log[0]
