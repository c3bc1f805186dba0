"""Real etcd nodes for tests: on loopback, started and ended by the test, with data of their own."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from conftest import CAP_S, clean_environ, free_port

if TYPE_CHECKING:
    from cryptography.x509 import KeyUsage

HEARTBEAT_MS, ELECTION_MS = 100, 1000
"""etcd's defaults; a stopped leader is replaced after one to two of the latter."""


def leave_out(why: str) -> NoReturn:
    """Leave the running test out, loudly; with ``ETCD_TESTS=required``, which CI sets, fail it."""
    if os.environ.get("ETCD_TESTS") == "required":
        pytest.fail(f"tests with etcd are required: {why}")
    pytest.skip(f"TESTS WITH etcd LEFT OUT: {why}")


def program() -> str:
    """Return where etcd is, or leave the test out."""
    found = shutil.which("etcd")
    if found is None:
        leave_out("apt-get install etcd-server (etcd on older releases)")
    return found


def version() -> str:
    """Return etcd's version."""
    said = subprocess.run([program(), "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"etcd Version: (\S+)", said.stdout)
    assert found
    return found[1]


class Node:
    """One member of an etcd cluster."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        listen: str = "",
        options: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.name, self.folder, self.host = name, folder, host
        self._tls, self.scheme = tls, "https" if tls else "http"
        self._listen = listen or host
        self.port, self.peer_port = free_port(), free_port()
        self._options, self._prefix = options, prefix
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / f"{name}.log"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def peer_url(self) -> str:
        return f"http://{self.host}:{self.peer_port}"

    def start(self, initial: str) -> None:
        """Start it with the data that it has, if any."""
        command = [
            *self._prefix,
            program(),
            *("--name", self.name, "--data-dir", str(self.folder / self.name)),
            *("--listen-client-urls", f"{self.scheme}://{self._listen}:{self.port}"),
            *("--advertise-client-urls", self.url),
            *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", initial, "--initial-cluster-token", "tests"),
            *("--heartbeat-interval", str(HEARTBEAT_MS), "--election-timeout", str(ELECTION_MS)),
            "--unsafe-no-fsync" if _knows_no_fsync() else "--log-level=error",
            *self._options,
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environ()
            )

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once; also one that is stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(CAP_S)
            self._process = None

    def ask(self, path: str, body: dict[str, Any], *, token: str = "", timeout_s: float = 5) -> Any:
        """POST to the JSON gateway without any code of ours."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        if self._tls is not None:
            connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=timeout_s, context=self._tls
            )
        try:
            connection.request(
                "POST", path, json.dumps(body), {"Authorization": token} if token else {}
            )
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def status(self) -> Any:
        return self.ask("/v3/maintenance/status", {})

    def log(self) -> str:
        return self._log.read_text(errors="replace")


@cache
def _knows_no_fsync() -> bool:
    """Whether this etcd can do without waiting for the disk, which tests don't pull the plug of."""
    said = subprocess.run([program(), "--help"], capture_output=True, text=True, check=False)
    return "unsafe-no-fsync" in said.stdout + said.stderr


class Nodes:
    """A whole etcd cluster."""

    def __init__(self, members: Sequence[Node]) -> None:
        self.members = list(members)
        self._initial = ",".join(f"{node.name}={node.peer_url}" for node in members)

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.members]

    def start(self) -> None:
        for node in self.members:
            node.start(self._initial)
        self.settle()

    def restart(self, node: Node) -> None:
        node.start(self._initial)

    def settle(self) -> None:
        """Wait until every member that runs answers, and knows a leader."""
        for node in self.members:
            if node.runs:
                until_leads(node)

    def leader(self) -> Node:
        """Return the member that leads, by its own word."""
        deadline_s = time.monotonic() + CAP_S
        while time.monotonic() < deadline_s:
            for node in self.members:
                try:
                    said = node.status() if node.runs else {}
                except (OSError, ValueError):
                    continue
                if said.get("leader") and said["leader"] == said["header"]["member_id"]:
                    return node
            time.sleep(0.05)
        raise AssertionError("etcd has no leader")

    def stop(self) -> None:
        for node in self.members:
            node.kill()


def until_leads(node: Node) -> None:
    """Wait until a node answers, and knows a leader."""
    # With passwords turned on it refuses to say; then it answers, and that has to do.
    _until(lambda: (said := node.status()).get("leader") or said.get("code"), node)


def _until(true: Any, node: Node) -> None:
    deadline_s = time.monotonic() + CAP_S
    while True:
        try:
            if true():
                return
        except (OSError, ValueError, http.client.HTTPException):
            pass
        assert node.runs, f"etcd ended:\n{node.log()[-3000:]}"
        assert time.monotonic() < deadline_s, f"etcd does not answer:\n{node.log()[-3000:]}"
        time.sleep(0.05)


def authenticate(node: Node) -> str:
    """Turn on passwords, with a user who may touch the records only; return a token of root's."""
    for name, password in (("root", "of-root"), ("gateway", "of-gateway")):
        node.ask("/v3/auth/user/add", {"name": name, "password": password})
    for role in ("root", "records"):
        node.ask("/v3/auth/role/add", {"name": role})
    first, last = (b64encode(key).decode() for key in (b"openclaw/", b"openclaw0"))
    permission = {"permType": "READWRITE", "key": first, "range_end": last}
    node.ask("/v3/auth/role/grant", {"name": "records", "perm": permission})
    node.ask("/v3/auth/user/grant", {"user": "root", "role": "root"})
    node.ask("/v3/auth/user/grant", {"user": "gateway", "role": "records"})
    node.ask("/v3/auth/enable", {})
    said = node.ask("/v3/auth/authenticate", {"name": "root", "password": "of-root"})
    return str(said["token"])


def certificates(folder: Path) -> dict[str, str]:
    """
    Make an authority and certificates of 127.0.0.1: a server's, and a client's without a common name and with one.

    Returns:
        The path of each, by ``ca``, ``server``, ``client`` and ``named``; those of their keys by ``server-key`` and so on.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone")])
    subjects = {"ca": authority, "named": named}
    authority_key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    paths = {}
    for name in ("ca", "server", "client", "named"):
        key = authority_key if name == "ca" else ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subjects.get(name, x509.Name([])))
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(name == "ca", None), critical=True)
            # Critical where there is no subject, and the rest: Python 3.13 wants what RFC 5280 does.
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=name not in subjects,
            )
            .add_extension(identifier, critical=False)
            .add_extension(_usage(signs=name == "ca"), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(authority_key, hashes.SHA256())
        )
        pem, private = folder / f"{name}.pem", folder / f"{name}.key"
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        private.chmod(0o600)
        paths |= {name: str(pem), f"{name}-key": str(private)}
    return paths


def _usage(*, signs: bool) -> KeyUsage:
    """Return what a key is for: an authority's signs certificates, all others' handshakes."""
    from cryptography.x509 import KeyUsage

    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    unused = dict.fromkeys((*others, "crl_sign", "encipher_only", "decipher_only"), False)
    return KeyUsage(digital_signature=not signs, key_cert_sign=signs, **unused)


def speaking_tls(paths: dict[str, str]) -> dict[str, Any]:
    """Return what ``running`` is given for nodes that speak TLS, and only to who has a certificate of the authority's."""
    context = ssl.create_default_context(cafile=paths["ca"])
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by itself
    context.load_cert_chain(paths["client"], paths["client-key"])
    options = ("--cert-file", paths["server"], "--key-file", paths["server-key"])
    options += ("--trusted-ca-file", paths["ca"], "--client-cert-auth")
    return {"tls": context, "options": options}


@contextmanager
def running(folder: Path, count: int = 1, **made: Any) -> Iterator[Nodes]:
    """Run a cluster of so many nodes for a ``with`` block."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = Nodes([Node(f"n{number}", folder, **made) for number in range(count)])
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


STOP, CONTINUE = signal.SIGSTOP, signal.SIGCONT
