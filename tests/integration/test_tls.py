"""A gateway that the settings have speak TLS: with what certificate, to whom, and never in clear text."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from conftest import CAP_S, NotifySocket, Start, clean_environ
from openclaw_gateway.client.answer import Health
from openclaw_gateway.client.conversation import begun, fingerprint_of
from openclaw_gateway.client.health import check, probe

NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "openclaw-gateway")])


def configure(state_dir: Path, **tls: object) -> None:
    state_dir.mkdir(mode=0o700, exist_ok=True)
    settings = {"gateway": {"mode": "local", "tls": {"enabled": True, **tls}}}
    (state_dir / "openclaw.json").write_text(json.dumps(settings))


def pair(directory: Path, name: str = "own", *, days: int = 100) -> tuple[Path, Path]:
    """Make a certificate as OpenClaw does, RSA without other names, that ends in so many days."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate, private = directory / f"{name}-cert.pem", directory / f"{name}-key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    private.chmod(0o600)
    return certificate, private


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def shown(port: int) -> bytes:
    """Return the certificate that a listener shows, in DER."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))


def made_paths(state_dir: Path) -> tuple[Path, Path]:
    below = state_dir / "gateway" / "tls"
    return below / "gateway-cert.pem", below / "gateway-key.pem"


def test_certificate_is_made_once_and_is_private(start: Start, state_dir: Path, port: int) -> None:
    configure(state_dir)
    first = start()
    assert f"ready on wss://127.0.0.1:{port}" in first.wait_for("ready on")
    certificate, key = made_paths(state_dir)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (certificate, key)] == [0o600, 0o600]
    assert stat.S_IMODE(certificate.parent.stat().st_mode) == 0o700
    assert sorted(path.name for path in certificate.parent.iterdir()) == [
        certificate.name,
        key.name,
    ]
    before = certificate.read_bytes(), key.read_bytes()
    assert shown(port) == der(certificate)
    assert first.stop() == 0
    start().ready()
    assert (certificate.read_bytes(), key.read_bytes()) == before
    names = x509.load_pem_x509_certificate(before[0]).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]
    addresses = map(str, names.value.get_values_for_type(x509.IPAddress))
    assert sorted(addresses) == ["127.0.0.1", "::1"]


def test_a_certificate_of_openclaws_is_used_as_it_is(
    start: Start, state_dir: Path, port: int
) -> None:
    configure(state_dir)
    certificate, key = pair(made_paths(state_dir)[0].parent, "gateway")
    before = certificate.read_bytes(), key.read_bytes()
    start().ready()
    assert shown(port) == der(certificate)
    assert (certificate.read_bytes(), key.read_bytes()) == before


def test_one_that_ends_soon_is_renewed(start: Start, state_dir: Path, port: int) -> None:
    configure(state_dir)
    certificate, _ = pair(made_paths(state_dir)[0].parent, "gateway", days=29)
    before = der(certificate)
    start().ready()
    assert shown(port) == der(certificate) != before


def test_one_that_is_not_ours_to_make_is_left_to_end(
    start: Start, state_dir: Path, port: int, tmp_path: Path
) -> None:
    certificate, key = pair(tmp_path / "given", days=5)
    configure(state_dir, certPath=str(certificate), keyPath=str(key), autoGenerate=False)
    before = der(certificate)
    start().ready()
    assert shown(port) == before


@pytest.mark.parametrize("missing", ["certificate", "key", "both"])
def test_what_is_missing_is_78_and_never_clear_text(
    start: Start, state_dir: Path, port: int, tmp_path: Path, missing: str
) -> None:
    certificate, key = pair(tmp_path / "given")
    gone = [
        path
        for path, name in ((certificate, "certificate"), (key, "key"))
        if missing in (name, "both")
    ]
    for path in gone:
        path.unlink()
    configure(
        state_dir, certPath=str(certificate), keyPath=str(key), autoGenerate=missing != "both"
    )
    refused = start()
    assert refused.finish() == 78
    assert str(gone[0]) in "\n".join(refused.log)
    assert probe("127.0.0.1", port) is Health.REFUSED


def test_what_is_no_certificate_is_78(start: Start, state_dir: Path, tmp_path: Path) -> None:
    certificate, key = pair(tmp_path / "given")
    _, another = pair(tmp_path / "other")
    (tmp_path / "text").write_text("no PEM")
    for cert_path, key_path in ((certificate, another), (tmp_path / "text", key)):
        configure(state_dir, certPath=str(cert_path), keyPath=str(key_path))
        refused = start()
        assert refused.finish() == 78
        assert str(cert_path) in "\n".join(refused.log)


def test_start_that_died_before_the_last_step_is_finished(
    start: Start, state_dir: Path, port: int
) -> None:
    configure(state_dir)
    certificate, _ = pair(made_paths(state_dir)[0].parent, "gateway")
    expected = der(certificate)
    certificate.rename(f"{certificate}.new")
    start().ready()
    assert shown(port) == expected


def test_clear_text_and_old_tls_get_nothing(start: Start, state_dir: Path, port: int) -> None:
    configure(state_dir)
    start().ready()
    with socket.create_connection(("127.0.0.1", port), timeout=CAP_S) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = b""
        while data := plain.recv(4096):
            said += data
    assert b"HTTP" not in said
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", port), timeout=CAP_S) as connection,
        pytest.raises(OSError),
    ):
        old.wrap_socket(connection)
    assert probe("127.0.0.1", port) is Health.HEALTHY


def test_peers_that_say_nothing_do_not_hold_it_up(start: Start, state_dir: Path, port: int) -> None:
    configure(state_dir)
    start().ready()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    assert probe("127.0.0.1", port) is Health.HEALTHY
    for each in silent:
        each.close()


def test_probe_watchdog_and_status_speak_it(
    start: Start, state_dir: Path, port: int, notify: NotifySocket
) -> None:
    configure(state_dir)
    start(NOTIFY_SOCKET=notify.path, WATCHDOG_USEC="1500000")
    notify.wait_for("READY=1")
    for _ in range(2):
        notify.wait_for("WATCHDOG=1")
    fact = check("127.0.0.1", port)
    assert (fact.health, fact.ready, fact.scheme) == (Health.HEALTHY, True, "https")


def test_duplicate_beside_it_is_78(start: Start, state_dir: Path, notify: NotifySocket) -> None:
    configure(state_dir)
    start().ready()
    assert start(NOTIFY_SOCKET=notify.path).finish() == 78


def verb(state_dir: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = clean_environ(OPENCLAW_STATE_DIR=str(state_dir), OPENCLAW_GATEWAY_PORT=str(port))
    return subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=CAP_S,
        check=False,
    )


def test_call_pins_the_certificate_of_its_settings(
    start: Start, state_dir: Path, port: int
) -> None:
    configure(state_dir)
    start(OPENCLAW_GATEWAY_TOKEN="").ready()
    done = verb(state_dir, port, "call", "health")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True


def test_call_sends_no_secret_to_another_certificate(
    start: Start, state_dir: Path, port: int, tmp_path: Path
) -> None:
    configure(state_dir)
    start(OPENCLAW_GATEWAY_TOKEN="").ready()
    impostor, _ = pair(tmp_path / "impostor")
    made_paths(state_dir)[0].write_bytes(impostor.read_bytes())
    done = verb(state_dir, port, "call", "health")
    assert done.returncode == 1
    assert "another one than expected" in done.stderr


def test_call_takes_a_fingerprint(start: Start, state_dir: Path, port: int) -> None:
    configure(state_dir)
    start(OPENCLAW_GATEWAY_TOKEN="").ready()
    digest = fingerprint_of(der(made_paths(state_dir)[0]))
    url = f"wss://127.0.0.1:{port}"
    for right, code in ((digest, 0), (digest.upper(), 0), ("0" * 64, 1)):
        done = verb(state_dir, port, "call", "--url", url, "--tls-fingerprint", right, "health")
        assert done.returncode == code, done.stderr


def test_reload_shows_another_certificate_and_drops_nobody(
    start: Start, state_dir: Path, port: int, tmp_path: Path
) -> None:
    certificate, key = pair(tmp_path / "given")
    configure(state_dir, certPath=str(certificate), keyPath=str(key))
    daemon = start().ready()
    before = shown(port)
    with begun(
        f"wss://127.0.0.1:{port}", timeout_s=CAP_S, fingerprint=fingerprint_of(before)
    ) as conversation:
        conversation.event("connect.challenge")
        pair(tmp_path / "given")
        daemon.signal(1)
        daemon.wait_for("settings reloaded")
        assert shown(port) == der(certificate) != before
        params = {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {"id": "test", "version": "1", "platform": "linux", "mode": "test"},
            "auth": {"token": "the-token-of-the-tests"},
        }
        assert conversation.ask("connect", params)["type"] == "hello-ok"


def test_reload_with_a_bad_pair_keeps_the_old_one(
    start: Start, state_dir: Path, port: int, tmp_path: Path
) -> None:
    certificate, key = pair(tmp_path / "given")
    configure(state_dir, certPath=str(certificate), keyPath=str(key))
    daemon = start().ready()
    before = shown(port)
    key.write_text("no key")
    daemon.signal(1)
    assert str(certificate) in daemon.wait_for("reload refused")
    assert shown(port) == before
    assert probe("127.0.0.1", port, certificate=before) is Health.HEALTHY


def test_reload_that_turns_tls_on_says_that_it_waits(
    start: Start, state_dir: Path, port: int
) -> None:
    daemon = start().ready()
    configure(state_dir)
    daemon.signal(1)
    assert "a change of tls waits for a restart" in daemon.wait_for("settings reloaded")
    assert check("127.0.0.1", port).scheme == "http"


def test_clear_text_gateway_loads_no_tls(start: Start, state_dir: Path) -> None:
    daemon = start(PYTHONPROFILEIMPORTTIME="1")
    daemon.wait_for("ready on")
    assert daemon.stop() == 0
    loaded = {line.rpartition("|")[2].strip() for line in daemon.log if "import time" in line}
    assert not {"cryptography", "openclaw_gateway.server.certificate"} & loaded


@pytest.fixture
def custom_host() -> Iterator[str]:
    yield "127.0.0.3"


def test_custom_address_has_loopback_beside_it(
    start: Start, state_dir: Path, port: int, custom_host: str
) -> None:
    state_dir.mkdir(mode=0o700)
    settings = {"gateway": {"bind": "custom", "customBindHost": custom_host}}
    (state_dir / "openclaw.json").write_text(json.dumps(settings))
    start().ready()
    assert probe(custom_host, port) is Health.HEALTHY
    assert probe("127.0.0.1", port) is Health.HEALTHY
    assert probe("127.0.0.4", port) is Health.REFUSED


def test_nobody_else_gets_the_key(start: Start, state_dir: Path) -> None:
    configure(state_dir)
    start().ready()
    _, key = made_paths(state_dir)
    assert key.stat().st_uid == os.geteuid()
    assert "PRIVATE KEY" in key.read_text()
