"""What doctor reads of a certificate: whether its subject has a common name."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.admin.look.cluster import _has_common_name, subject

needs_openssl = pytest.mark.skipif(which("openssl") is None, reason="needs openssl")


def made(path: Path, name: str) -> Path:
    """Make a certificate whose issuer, itself, has the same subject."""
    certificate = path / "cert.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-subj", name, "-keyout", path / "key.pem", "-out", certificate, "-days", "2",
            "-addext", "subjectAltName=DNS:gw-a",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate


@needs_openssl
@pytest.mark.parametrize(
    ("name", "has_one"),
    [("/CN=gw-a", True), ("/O=us/CN=gw-a", True), ("/O=us", False), ("/O=us/OU=CN", False)],
)
def test_common_name_is_seen(tmp_path: Path, name: str, has_one: bool) -> None:
    assert _has_common_name(str(made(tmp_path, name))) is has_one


@needs_openssl
def test_issuers_common_name_is_not_the_subjects(tmp_path: Path) -> None:
    """As of every certificate that an authority made."""
    made(tmp_path, "/CN=the authority")
    (tmp_path / "ca").mkdir()
    for words in (
        "openssl req -newkey rsa:2048 -nodes -subj /O=us -keyout ca/key.pem -out ca/csr.pem",
        "openssl x509 -req -in ca/csr.pem -CA cert.pem -CAkey key.pem -CAcreateserial "
        "-out ca/cert.pem -days 2",
    ):
        subprocess.run(words.split(), check=True, capture_output=True, cwd=tmp_path)
    assert _has_common_name(str(tmp_path / "ca/cert.pem")) is False


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate_has_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cert.pem").write_text(text)
    assert _has_common_name(str(tmp_path / "cert.pem")) is False
    assert _has_common_name(str(tmp_path / "nothing")) is False
    assert _has_common_name(None) is False


@needs_openssl
def test_cut_certificate_is_none(tmp_path: Path) -> None:
    der = ssl.PEM_cert_to_DER_cert(made(tmp_path, "/CN=gw-a").read_text())
    assert b"gw-a" in subject(der)
    for length in range(len(der)):
        with pytest.raises(IndexError):
            subject(der[:length])


@given(st.binary(max_size=64))
def test_any_bytes_end_in_a_subject_or_one_of_two_errors(der: bytes) -> None:
    with contextlib.suppress(IndexError, ValueError):
        subject(der)
