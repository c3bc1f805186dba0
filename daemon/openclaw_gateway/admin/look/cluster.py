"""What doctor sees of a cluster: its etcd, the record, and what this host brings along."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import NamedTuple

from openclaw_gateway.admin.look.place import Place
from openclaw_gateway.cluster.etcd import Etcd, Member
from openclaw_gateway.errors import EtcdError

_TIMEOUT_S = 3.0
_CLOCK_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_COMMON_NAME = bytes.fromhex("0603550403")
"""id-at-commonName, 2.5.4.3, as DER has it. RFC 5280, appendix A.1."""


class ClusterFacts(NamedTuple):
    """What was seen of a cluster and its etcd."""

    name: str
    retry_s: float
    members: tuple[Member, ...]
    """What each endpoint says of itself."""
    user: str | None
    ca: str | None
    """The file with who signed etcd's certificates; ``None`` without TLS."""
    certificate: str | None
    """The file that is shown to etcd."""
    key: str | None
    """The file with that certificate's key."""
    has_common_name: bool
    """Whether that certificate's subject has a CN."""
    problem: str
    """Why the record can't be read; empty if it can."""
    code: int | None
    """gRPC's code, if etcd itself refused to show it."""
    clock_source: str
    """Of the kernel; empty if it does not say."""


def look(place: Place) -> ClusterFacts | None:
    """Ask etcd about the cluster that the settings name; ``None`` without one. Takes some seconds at the most."""
    cluster = place.cluster
    if cluster is None:
        return None
    etcd = Etcd(cluster, timeout_s=_TIMEOUT_S)
    problem, code = "", None
    try:
        members = tuple(etcd.status())
        try:
            etcd.read()
        except EtcdError as error:
            problem, code = str(error), error.code
    finally:
        etcd.close()
    return ClusterFacts(
        name=cluster.name,
        retry_s=cluster.retry_s,
        members=members,
        user=cluster.user,
        ca=cluster.ca_path,
        certificate=cluster.certificate_path,
        key=cluster.key_path,
        has_common_name=_has_common_name(cluster.certificate_path),
        problem=problem,
        code=code,
        clock_source=_clock_source(),
    )


def _has_common_name(path: str | None) -> bool:
    """Whether the first certificate in a PEM file has a CN in its subject; ``False`` where that can't be seen."""
    if path is None:
        return False
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(1 << 20)
        begin = text.index("-----BEGIN CERTIFICATE-----")
        end = text.index("-----END CERTIFICATE-----", begin)
        der = ssl.PEM_cert_to_DER_cert(text[begin:end] + "-----END CERTIFICATE-----\n")
        return _COMMON_NAME in subject(der)
    except (OSError, ValueError, IndexError):
        return False


def subject(der: bytes) -> bytes:
    """
    Return the subject of a certificate, as DER; pure.

    RFC 5280, section 4.1: a sequence of the signed part and more; in that a version in brackets, serial
    number, algorithm, issuer, validity, and then the subject.

    Raises:
        IndexError: It ends too early.
        ValueError: It is no certificate.
    """
    signed, _ = _inside(_inside(der)[0])
    fields = signed
    if fields[:1] == b"\xa0":
        _, fields = _inside(fields)
    for _ in range(4):
        _, fields = _inside(fields)
    if fields[:1] != b"\x30":
        raise ValueError("no certificate")
    return _inside(fields)[0]


def _inside(der: bytes) -> tuple[bytes, bytes]:
    """Return the content of the element that stands first, and what follows it. X.690, section 8.1."""
    length, at = der[1], 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(der[2 : 2 + count]), 2 + count
    if at + length > len(der):
        raise IndexError("cut off")
    return der[at : at + length], der[at + length :]


def _clock_source() -> str:
    with suppress(OSError), open(_CLOCK_SOURCE, encoding="ascii", errors="replace") as file:
        return file.read().strip()
    return ""
