"""The gateway's self-signed certificate: for this host alone, and no authority."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reshelve.gateway.certificate import hosts_of, self_signed


def test_a_certificate_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    before = certificate.read_bytes()
    assert self_signed(tmp_path) == (certificate, key) and certificate.read_bytes() == before
    assert key.stat().st_mode & 0o777 == 0o600
    ssl.create_default_context(cafile=str(certificate))


def test_the_self_signed_certificate_signs_nothing(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert hosts_of(certificate) == ("localhost", "127.0.0.1")
    forged = _signed_by(certificate, key, "bank.example")
    assert _trusted(certificate, certificate, key, "localhost")
    assert not _trusted(certificate, *forged, "bank.example")


def test_a_certificate_that_could_sign_is_made_anew(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    own = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    old = _certificate("localhost", own, own, x509.BasicConstraints(ca=True, path_length=0), "localhost")
    certificate.write_bytes(old.public_bytes(serialization.Encoding.PEM))
    self_signed(tmp_path)
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def _certificate(host: str, private: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey,
                 constraints: x509.BasicConstraints, issuer: str) -> x509.Certificate:  # fmt: skip
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=300))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(constraints, critical=True)
        .sign(signer, hashes.SHA256())
    )


def _signed_by(certificate: Path, key: Path, host: str) -> tuple[Path, Path]:
    """A chain for another host, signed with the certificate's key."""
    signer = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    private = ec.generate_private_key(ec.SECP256R1())
    made = _certificate(host, private, signer, x509.BasicConstraints(ca=False, path_length=None), "localhost")
    chain, own = certificate.with_name("forged.pem"), certificate.with_name("forged.key")
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM) + certificate.read_bytes())
    own.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return chain, own


def _trusted(anchor: Path, chain: Path, key: Path, host: str) -> bool:
    """Whether a caller who trusts `anchor` takes that chain for that host: a handshake in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.create_default_context(cafile=str(anchor))
    sides = [
        trusting.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in sides:
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return len(done) == 2
