"""The doors of SeaweedFS that are not S3: master, volumes, filer and admin, HTTP and gRPC, open only to each other.

Out of the box they ask nobody who they are, and whoever reaches one reads, writes and deletes below S3's identities. All of
them run in one process, so one certificate serves: each side shows it, and accepts what its authority has signed. The
authority signs once, and its key is not kept.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reshelve.files import write_private

CONFIGURATION = "security.toml"
"""SeaweedFS looks for it in its working directory."""

_DAYS = 3650
_HTTP = ("master", "volume", "filer", "admin")
_GRPC = (*_HTTP, "s3", "worker", "msg_broker", "msg_agent", "mq", "client")
_Key = ec.EllipticCurvePrivateKey


def close_inner_doors(directory: Path) -> None:
    """Write the certificate and `security.toml` (mode 0600) into the store's directory, where they are missing."""
    if (directory / CONFIGURATION).is_file():
        return
    directory.mkdir(parents=True, exist_ok=True)
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca, certificate, private = (directory / f"inner-{name}.pem" for name in ("ca", "certificate", "key"))
    write_private(ca, _pem(_signed("SeaweedFS, inner authority", authority.public_key(), authority, ca=True)))
    write_private(certificate, _pem(_signed("SeaweedFS, inner", key.public_key(), authority, ca=False)))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    write_private(private, key.private_bytes(serialization.Encoding.PEM, form, plain).decode())
    write_private(directory / CONFIGURATION, _configuration(ca, certificate, private))


def _configuration(ca: Path, certificate: Path, key: Path) -> str:
    """`weed scaffold -config=security` explains each. The tokens are a second lock on the filer and the volumes."""
    pair = f'cert = "{certificate.absolute()}"\nkey = "{key.absolute()}"\n'
    authority = f'ca = "{ca.absolute()}"\n'
    parts = [
        f'[{name}]\nkey = "{secrets.token_hex(32)}"\n'
        for name in ("jwt.signing", "jwt.filer_signing", "jwt.filer_signing.read")
    ]
    parts += ["[filer.expose_directory_metadata]\nenabled = false\n", f"[grpc]\n{authority}"]
    parts += [f"[grpc.{name}]\n{pair}" for name in _GRPC]
    parts += [f"[https.{name}]\n{pair}{authority}" for name in _HTTP]
    parts += [f"[https.client]\nenabled = true\n{pair}{authority}"]
    return "\n".join(parts)


def _signed(name: str, public: ec.EllipticCurvePublicKey, signer: _Key, *, ca: bool) -> x509.Certificate:
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "SeaweedFS, inner authority")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
    )
    if not ca:
        hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = made.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        made = made.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return made.sign(signer, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
