"""The certificate that the listener shows: read, made once where the settings say so, renewed before it ends."""

from __future__ import annotations

import os
import ssl
import time
from contextlib import suppress
from typing import NamedTuple

from openclaw_gateway.errors import ConfigurationError, StorageError
from openclaw_gateway.settings.model import Tls

_NAME = "openclaw-gateway"
_DAYS = 3650
"""As long as OpenClaw's own last."""
_RENEW_DAYS = 30
_DAY_S = 86400.0
_UNFINISHED = ".new"


class Certificate(NamedTuple):
    """A certificate in use."""

    context: ssl.SSLContext
    """Speaks TLS 1.2 and 1.3 with it, and asks clients for none."""
    der: bytes
    """What clients may pin."""
    renew_at_s: float | None
    """Seconds since 1970 from when on another is to be made; ``None`` for one that is not ours to make."""


def provide(tls: Tls) -> Certificate:
    """
    Return the certificate that the settings name, made first if there is none and they say so.

    Args:
        tls: Where it is, and whether it may be made.

    Raises:
        ConfigurationError: One of the two files is missing or no PEM, they don't belong together, or
            one is to be made and the library for that is not there.
        StorageError: It can't be written.
    """
    if tls.auto_generate:
        _finish(tls)
        if (not os.path.lexists(tls.certificate) and not os.path.lexists(tls.key)) or _is_ending(
            tls
        ):
            _make(tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for name, path in (("certPath", tls.certificate), ("keyPath", tls.key), ("caPath", tls.ca)):
        if path is not None:
            _check_readable(name, path, may_be_made=tls.auto_generate)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        problem = f"{tls.certificate} and {tls.key} are no certificate and its key, in PEM: {error}"
        raise ConfigurationError("file", "gateway.tls", problem) from None
    if tls.ca is not None:
        # What is in the store completes the chain that is shown. SSL_CTX_set_mode(3), SSL_MODE_NO_AUTO_CHAIN.
        try:
            context.load_verify_locations(tls.ca)
        except ssl.SSLError as error:
            problem = f"{tls.ca} holds no certificates in PEM: {error}"
            raise ConfigurationError("file", "gateway.tls.caPath", problem) from None
    return Certificate(context, _first(tls.certificate), _renewal(tls))


def _no_password() -> str:
    # Else OpenSSL would ask for it on the terminal.
    raise ValueError("the key is encrypted: give one that is not, with mode 0600")


def _check_readable(name: str, path: str, *, may_be_made: bool) -> None:
    try:
        with open(path, "rb"):
            return
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = (
                "one of the two is there: remove it and both are made anew" if may_be_made else ""
            )
            hint = hint or "give the paths of both, or set gateway.tls.autoGenerate to true"
        problem = f"cannot read {path}: {os.strerror(error.errno or 0)}"
        raise ConfigurationError("file", f"gateway.tls.{name}", problem, hint=hint) from None


def _first(path: str) -> bytes:
    """Return the first certificate of a file, which is the one that is shown, in DER."""
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    body = text[text.index(begin) : text.index(end) + len(end)]
    return ssl.PEM_cert_to_DER_cert(body)


def _renewal(tls: Tls) -> float | None:
    ends_s = _end_of_ours(tls) if tls.auto_generate else None
    return None if ends_s is None else ends_s - _RENEW_DAYS * _DAY_S


def _is_ending(tls: Tls) -> bool:
    renew_at_s = _renewal(tls)
    return renew_at_s is not None and time.time() >= renew_at_s


def _end_of_ours(tls: Tls) -> float | None:
    """Return when a certificate ends that we made, or OpenClaw did, in seconds since 1970; ``None`` for others'."""
    try:
        from cryptography import x509

        with open(tls.certificate, "rb") as file:
            found = x509.load_pem_x509_certificate(file.read())
    except (ImportError, OSError, ValueError):
        return None
    ours = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    if found.subject != ours or found.issuer != ours:
        return None
    from datetime import UTC

    # Its newer name, not_valid_after_utc, is not in Debian 12's 38.0.
    ends = getattr(found, "not_valid_after_utc", None) or found.not_valid_after.replace(tzinfo=UTC)
    return float(ends.timestamp())


def _finish(tls: Tls) -> None:
    """Finish what a start did not come to that died between its two last steps: see ``_make``."""
    unfinished = tls.certificate + _UNFINISHED
    if os.path.lexists(tls.key) and not os.path.lexists(tls.certificate):
        with suppress(FileNotFoundError):
            os.rename(unfinished, tls.certificate)


def _make(tls: Tls) -> None:
    """
    Make a certificate for this machine's own names, and its key.

    1. Both are written whole under other names. 2. The key takes its name. 3. The certificate does. A
    crash before 2 leaves what the next start overwrites; one before 3 what it finishes.
    """
    try:
        certificate, key = _generate()
    except ImportError:
        raise ConfigurationError(
            "file",
            "gateway.tls",
            f"there is no certificate at {tls.certificate}, and no library to make one",
            hint='install it ("apt install python3-cryptography", or pip\'s "cryptography"), '
            "or name a certificate and its key in gateway.tls.certPath and keyPath",
        ) from None
    for path, content in ((tls.key, key), (tls.certificate, certificate)):
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            _write(path + _UNFINISHED, content)
        except OSError as error:
            raise StorageError(path, os.strerror(error.errno or 0), errno=error.errno) from error
    os.rename(tls.key + _UNFINISHED, tls.key)
    os.rename(tls.certificate + _UNFINISHED, tls.certificate)


def _write(path: str, content: bytes) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _generate() -> tuple[bytes, bytes]:
    """Return a certificate and its key in PEM. RFC 5280; RFC 6125 for the names."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("127.0.0.1")),
        x509.IPAddress(ip_address("::1")),
    ]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour ago: clocks of other machines may be behind ours.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
