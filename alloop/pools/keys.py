"""The TLS keys of a campaign: who holds them may connect to its scheduler, nobody else.

A scheduler runs what it is sent, so an open port would be an open account. The keys are made once per campaign; the
key of the authority that signed them is thrown away.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

VALID_YEARS = 10


def campaign_keys(folder: Path, campaign_id: str) -> Path:
    """Return the folder with ``ca.pem``, ``cert.pem`` and ``key.pem`` (mode 0600), made if it is not there."""
    if not (folder / "key.pem").exists():
        aside = folder.with_name(f".tmp.{folder.name}.{uuid.uuid4().hex[:8]}")
        aside.mkdir(parents=True, mode=0o700)
        for name, content in _make(campaign_id).items():
            file = aside / name
            file.touch(0o600)
            file.write_bytes(content)
        with contextlib.suppress(OSError):  # another process was first
            aside.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def security(folder: Path) -> Any:
    """Return the `distributed.Security` of these keys: encrypted, and both ends known to each other."""
    from distributed import Security

    ca, cert, key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    return Security(
        require_encryption=True,
        tls_ca_file=ca,
        tls_client_cert=cert,
        tls_client_key=key,
        tls_scheduler_cert=cert,
        tls_scheduler_key=key,
        tls_worker_cert=cert,
        tls_worker_key=key,
    )


def _make(campaign_id: str) -> dict[str, bytes]:
    """Return an authority's certificate, and a certificate and key signed by it (X.509 v3, P-256)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.now(UTC)

    def name(role: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"alloop {role} {campaign_id[:12]}")])

    def certificate(role: str, public_key: Any, signing_key: Any, *, authority: bool) -> x509.Certificate:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
        usage = dict.fromkeys(("content_commitment", "data_encipherment", "encipher_only", "decipher_only"), False)
        usage |= {"digital_signature": True, "key_encipherment": False, "key_agreement": not authority}
        return (
            x509.CertificateBuilder()
            .subject_name(name(role))
            .issuer_name(name("authority"))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))  # clocks of nodes differ
            .not_valid_after(now + timedelta(days=365 * VALID_YEARS))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(issuer, critical=False)
            .add_extension(x509.KeyUsage(key_cert_sign=authority, crl_sign=authority, **usage), critical=True)
            .sign(signing_key, hashes.SHA256())
        )

    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = serialization.Encoding.PEM
    return {
        "ca.pem": certificate("authority", authority_key.public_key(), authority_key, authority=True).public_bytes(pem),
        "cert.pem": certificate("member", key.public_key(), authority_key, authority=False).public_bytes(pem),
        "key.pem": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    }
