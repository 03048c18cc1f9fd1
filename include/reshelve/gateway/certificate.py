"""A certificate for machines that have none: for this host alone, signed by itself, so no caller trusts it by default."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reshelve.errors import ConfigurationError
from reshelve.files import digest_of_file

_DAYS = 365
_SIGNS_ONLY_HANDSHAKES = x509.KeyUsage(
    digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def self_signed(directory: Path) -> tuple[Path, Path]:
    """`certificate.pem` and `key.pem` (mode 0600) in `directory`, for localhost and 127.0.0.1.

    Made where missing, and made anew when less than a tenth of their time is left or when they could sign others.
    """
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if not (certificate.is_file() and key.is_file() and _stays(certificate)):
        _make(certificate, key)
    return certificate, key


def hosts_of(certificate: Path) -> tuple[str, ...]:
    """The names and addresses that a certificate is for. Raises ConfigurationError where it is none, or has none."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise ConfigurationError(
            f"{certificate}: no certificate with the names of its hosts",
            f"expected PEM with subjectAltName, or the names by --host ({type(error).__name__})",
        ) from error
    addresses = names.get_values_for_type(x509.IPAddress)
    return (
        *names.get_values_for_type(x509.DNSName),
        *(f"[{address}]" if address.version == 6 else str(address) for address in addresses),
    )


def digest_of(certificate: Path, key: Path) -> str:
    """What changes when either of the two does. Raises OSError where one cannot be read."""
    return hashlib.sha256("".join(map(digest_of_file, (certificate, key))).encode()).hexdigest()


def _stays(certificate: Path) -> bool:
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    constraints = found.extensions.get_extension_for_class(x509.BasicConstraints).value
    return left > datetime.timedelta(days=_DAYS / 10) and not constraints.ca


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
        # Whoever trusts it trusts this host alone: its key signs no certificate for another one.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_SIGNS_ONLY_HANDSHAKES, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()), critical=False
        )
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
