"""
What the settings of ``cluster`` come to: one value, or none, and what is wrong with them.

The times have an order that safety rests on: an active gateway stops itself (``renewDeadlineMs``), is
ended by the kernel if it does not (``Cluster.kill_s``), and only then may another take over (``leaseMs``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from openclaw_gateway.host.address import is_loopback
from openclaw_gateway.settings.location import Origin
from openclaw_gateway.settings.model import KILL_SHARE, Cluster
from openclaw_gateway.settings.sources import Secret
from openclaw_gateway.settings.values import duration_ms

_GOODBYE_SHARE = 0.1
"""Of the lease, at least, between the time to stop and the kernel's end: what goodbyes have."""

_WILDCARDS = ("0.0.0.0", "::")


def settle_cluster(
    values: dict[str, Any],
    origins: dict[str, Origin],
    *,
    asked_for: Origin,
    password: Callable[[], tuple[Secret, Origin] | None],
    absolute: Callable[[str, Origin], str],
    host_name: str,
) -> list[str]:
    """
    Turn the values of ``cluster`` into one.

    Args:
        values: Changed: ``cluster``, and ``cluster.password`` if there is one.
        origins: Likewise.
        asked_for: Where it stands that there is to be a cluster.
        password: Reads etcd's password; called if a user is named, ``None`` if there is none.
        absolute: Makes a path of the settings absolute.
        host_name: This host's.

    Returns:
        What is doubtful, a sentence each.

    Raises:
        ConfigurationError: Something is missing, or contradicts something else.
    """
    endpoints, name, user = (values[f"cluster.{field}"] for field in ("endpoints", "name", "user"))
    if not endpoints:
        raise asked_for.error(
            "names no etcd", hint='set cluster.endpoints, as ["https://etcd-a.example.org:2379"]'
        )
    if name is None:
        raise asked_for.error(
            "has no name", hint="set cluster.name, the same on all hosts of the cluster"
        )
    encrypted = _encrypted(endpoints, origins["cluster.endpoints"])
    paths = _certificates(values, origins, encrypted=encrypted, absolute=absolute)
    _check_times(values, origins)
    secret = None
    if user is not None:
        found = password()
        if found is None:
            raise origins["cluster.user"].error(
                "is set, but there is no password",
                hint="give one with cluster.passwordPath, cluster.password or the credential "
                "openclaw-gateway.cluster-password",
            )
        secret, origins["cluster.password"] = found
        values["cluster.password"] = secret
    values["cluster"] = Cluster(
        endpoints,
        name,
        values["cluster.url"] or _own_url(values, host_name),
        values["cluster.lease_s"],
        values["cluster.renew_deadline_s"],
        values["cluster.retry_s"],
        user,
        secret,
        *paths,
    )
    origins["cluster"] = asked_for
    return list(_doubts(values, origins, encrypted=encrypted))


def _encrypted(endpoints: tuple[str, ...], origin: Origin) -> bool:
    schemes = {urlsplit(endpoint).scheme for endpoint in endpoints}
    if len(schemes) > 1:
        raise origin.error(
            "are http and https at once",
            hint="one connection in the clear is as good as all of them",
        )
    return schemes == {"https"}


def _certificates(
    values: Mapping[str, Any],
    origins: Mapping[str, Origin],
    *,
    encrypted: bool,
    absolute: Callable[[str, Origin], str],
) -> tuple[str | None, str | None, str | None]:
    """Return the paths of CA, certificate and key. Raises ``ConfigurationError`` if they don't fit together."""
    given = {field: values[f"cluster.{field}"] for field in ("ca", "certificate", "key")}
    origin = {field: origins[f"cluster.{field}"] for field in given}
    for field, path in given.items():
        if path and not encrypted:
            raise origin[field].error(
                "is set, but the endpoints are http, and nothing would be encrypted",
                hint="write https:// in cluster.endpoints",
            )
    if encrypted and not given["ca"]:
        raise origins["cluster.endpoints"].error(
            "are https, and nothing says who signed etcd's certificates",
            hint="set cluster.caPath; /etc/ssl/certs/ca-certificates.crt if it was a public authority",
        )
    for field, other, key in (
        ("certificate", "key", "keyPath"),
        ("key", "certificate", "certPath"),
    ):
        if given[field] and not given[other]:
            raise origin[field].error(f"is set without cluster.{key}", hint=f"set cluster.{key}")
    ca, certificate, key_path = (
        absolute(path, origin[field]) if path else None for field, path in given.items()
    )
    return ca, certificate, key_path


def _check_times(values: Mapping[str, Any], origins: Mapping[str, Origin]) -> None:
    lease_s, deadline_s, retry_s = (
        values[f"cluster.{field}"] for field in ("lease_s", "renew_deadline_s", "retry_s")
    )
    latest_s = lease_s * (KILL_SHARE - _GOODBYE_SHARE)
    if deadline_s > latest_s:
        where = origins["cluster.renew_deadline_s"]
        where = where if where.source != "default" else origins["cluster.lease_s"]
        raise where.error(
            f"leaves no time to stop: renewDeadlineMs ({duration_ms(deadline_s)}) must be at most "
            f"{duration_ms(latest_s)}, 7/10 of leaseMs ({duration_ms(lease_s)})",
            hint="leave out all three times: 15000, 10000 and 2000 fit",
        )
    if retry_s * 2 > deadline_s:
        where = origins["cluster.retry_s"]
        where = where if where.source != "default" else origins["cluster.renew_deadline_s"]
        raise where.error(
            f"leaves no second chance: retryMs ({duration_ms(retry_s)}) must be at most "
            f"{duration_ms(deadline_s / 2)}, half of renewDeadlineMs ({duration_ms(deadline_s)})",
            hint="leave out all three times: 15000, 10000 and 2000 fit",
        )


def _own_url(values: Mapping[str, Any], host_name: str) -> str:
    """Return where this host's gateway can be reached, as far as the settings say."""
    host = values["host"]
    if host in _WILDCARDS or is_loopback(host):
        host = host_name
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if values['tls'] else 'http'}://{shown}:{values['port']}"


def _doubts(
    values: Mapping[str, Any], origins: Mapping[str, Origin], *, encrypted: bool
) -> list[str]:
    """Return what works, and is probably not meant."""
    cluster: Cluster = values["cluster"]
    hosts = {endpoint: urlsplit(endpoint).hostname or "" for endpoint in cluster.endpoints}
    remote = [e for e, host in hosts.items() if host != "localhost" and not is_loopback(host)]
    doubts = []
    if remote and not encrypted:
        what = "etcd's password goes" if cluster.user else "the record goes"
        doubts.append(
            f"{origins['cluster.endpoints']}: {what} to {remote[0]} in the clear; "
            "use https, or a network that is closed to others"
        )
    if values["cluster.password_path"] and not cluster.user:
        doubts.append(f"{origins['cluster.password_path']}: has no effect without cluster.user")
    return doubts
