"""A certificate for machines that have none: for this host alone, signed by itself, so no caller trusts it by default."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAYS = 365


def self_signed(directory: Path) -> tuple[Path, Path]:
    """`certificate.pem` and `key.pem` (mode 0600) in `directory`, for localhost and 127.0.0.1.

    Made where missing, and made anew when less than a tenth of their time is left.
    """
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if not (certificate.is_file() and key.is_file() and _lasts(certificate)):
        _make(certificate, key)
    return certificate, key


def _lasts(certificate: Path) -> bool:
    end = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    return end - datetime.datetime.now(datetime.UTC) > datetime.timedelta(days=_DAYS / 10)


def _make(certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    _replace(key, private.private_bytes(serialization.Encoding.PEM, form, plain))
    _replace(certificate, made.public_bytes(serialization.Encoding.PEM))


def _replace(path: Path, body: bytes) -> None:
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(body)
    fresh.replace(path)
