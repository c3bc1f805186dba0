"""``probe``: is a gateway there, is it healthy, whose is it? One line and an exit code, for scripts."""

from __future__ import annotations

from urllib.parse import urlsplit

from openclaw_gateway.admin.judge.state import StatusCode
from openclaw_gateway.admin.look import endpoint
from openclaw_gateway.admin.look.selection import PORT_VARIABLE, Selection
from openclaw_gateway.admin.report import Report, document, to_json
from openclaw_gateway.claim.baseport import holder
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.health import HealthFact, check, check_url
from openclaw_gateway.errors import ConfigurationError
from openclaw_gateway.host import process
from openclaw_gateway.host.address import url

_CODES = {
    Health.HEALTHY: StatusCode.HEALTHY,
    Health.STARTING: StatusCode.STARTING,
    Health.MUTE: StatusCode.UNWELL,
    Health.FOREIGN: StatusCode.UNWELL,
    Health.REFUSED: StatusCode.NOT_RUNNING,
    Health.UNKNOWN: StatusCode.UNKNOWN,
}


def report(selection: Selection, *, address: str | None, timeout_s: float, as_json: bool) -> Report:
    """
    Be ``probe``.

    Args:
        selection: Which gateway is meant; of its settings only the address is used.
        address: A URL instead of the configured address: ``ws``, ``wss``, ``http`` or ``https``.
        timeout_s: Seconds for everything.
        as_json: Print the facts rather than a sentence.

    Returns:
        The answer, and a ``StatusCode``: 1 for a listener that is mute or no gateway.

    Raises:
        ConfigurationError: The address is none, or another flag is wrong.
    """
    if address is None:
        found = endpoint.find(selection, asks_manager=not selection.port)
        host, port, owner = found.host, found.port, found.holder
        port_known = selection.port or selection.environ.get(PORT_VARIABLE) or owner
        if found.place.problem and not port_known:
            return _untold(found.place.problem, as_json=as_json)
        fact = check(host, port, timeout_s=timeout_s)
    else:
        base, host, port = _parse(address)
        owner = holder(port) if endpoint.is_here(host) else None
        fact = check_url(base, timeout_s=timeout_s)
    who = process.describe(owner.pid, uid=owner.uid) if owner and owner.pid else None
    version = owner.record.version if owner and owner.record else None
    code = _CODES[fact.health]
    if as_json:
        values = {
            "url": address or url(host, port),
            "exit_code": int(code),
            **{key: value for key, value in _facts(fact).items() if key not in ("host", "port")},
            "owner": to_json(who),
            "version": version,
        }
        return Report(document(values), code)
    parts = [f"{address or url(host, port)}: {fact.health}"]
    if fact.ready is not None:
        parts.append(
            "ready" if fact.ready else f"not ready ({', '.join(fact.failing) or 'no reason given'})"
        )
    parts.append(f"{fact.took_s * 1000:.0f} ms")
    parts += [str(who)] if who else []
    parts += [f"version {version}"] if version else []
    return Report([", ".join(parts)], code)


def _untold(problem: str, *, as_json: bool) -> Report:
    """Say that nobody was asked, as the settings that should name the port are of no use."""
    code = StatusCode.UNKNOWN
    if not as_json:
        return Report([f"the port can't be told: {problem}; name it with --port"], code)
    empty = HealthFact("", 0, Health.UNKNOWN, 0.0)
    values = {
        "url": None,
        "exit_code": int(code),
        **{key: value for key, value in _facts(empty).items() if key not in ("host", "port")},
        "owner": None,
        "version": None,
        "problem": problem,
    }
    return Report(document(values), code)


def _facts(fact: object) -> dict[str, object]:
    facts = to_json(fact)
    assert isinstance(facts, dict)
    return facts


_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}


def _parse(address: str) -> tuple[str, str, int]:
    """Return the URL below which to ask, its host and its port."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not host or not host.isascii() or "@" in parts.netloc:
        raise ConfigurationError(
            "flag", "--url", "must be ws://HOST:PORT or wss://HOST:PORT",
            hint="http:// and https:// mean the same, and a path is one that a proxy has the gateway below",
        )  # fmt: skip
    port = port or (443 if scheme == "https" else 80)
    literal = f"[{host}]" if ":" in host else host
    return f"{scheme}://{literal}:{port}{parts.path}", host, port
