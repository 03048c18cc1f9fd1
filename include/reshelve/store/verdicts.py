"""The gate's signature on its verdict: of these very files, apart from the key that publishes them.

Who holds the build's key alone can then neither publish a verdict that no gate gave, nor put other files under one. It
travels in the manifest as `gate_signature`. A manifest from before there were roles has none: there the key that signed
it has to count as the gate's, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from reshelve.errors import DataError
from reshelve.store.roles import Role
from reshelve.store.signatures import (
    SIGNATURE,
    Signed,
    Trust,
    TrustedKey,
    check_signature,
    key_name,
    key_to_sign,
    signed,
    signing_key,
    signing_key_path,
    trust,
)

GATE_SIGNATURE = "gate_signature"


def sign_verdict(ranker: str, files: Mapping[str, str], verdict: Mapping[str, Any]) -> dict[str, str] | None:
    """The gate's signature of a verdict on files (path → sha256); None where signatures are off, or the build's key counts.

    Raises ConfigurationError where this host has no key whose word on a verdict counts.
    """
    if not signing_key_path(Role.GATE).is_file() and _build_counts():
        return None
    at = datetime.now(UTC).isoformat()
    found = signed(_statement(ranker, files, verdict, at), key_to_sign(Role.GATE), Signed.VERDICT).get(
        SIGNATURE
    )
    return None if found is None else {**found, "at": at}


def check_verdict(document: Mapping[str, Any], signer: TrustedKey | None, what: str, trusted: Trust) -> None:
    """Raises DataError where the gate did not give the verdict of a manifest whose own signature `signer` made."""
    found = document.get(GATE_SIGNATURE)
    if found is None:
        if signer is None or Role.GATE in signer.roles:
            return
        raise DataError(f"{what}: its verdict is not signed by the gate", "expected a key of the role gate")
    try:
        at = datetime.fromisoformat(found["at"])
        files = {path: file["sha256"] for path, file in document["files"].items()}
        statement = _statement(document["ranker"], files, document["gate"], found["at"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{what}: the gate's signature is damaged", f"{error!r}") from error
    check_signature(
        {**statement, SIGNATURE: found},
        f"{what}: the gate's verdict",
        trusted,
        (Role.GATE,),
        Signed.VERDICT,
        signed_at=at if at.tzinfo else None,
    )


def signed_manifest(document: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest signed by the build's key of this host, and by the gate's where no gate has signed its verdict yet."""
    whole = dict(document)
    if whole.get(GATE_SIGNATURE) is None:
        files = {path: file["sha256"] for path, file in whole["files"].items()}
        whole[GATE_SIGNATURE] = sign_verdict(whole["ranker"], files, whole["gate"])
    return signed(whole, signing_key())


def _statement(ranker: str, files: Mapping[str, str], verdict: Mapping[str, Any], at: str) -> dict[str, Any]:
    return {"ranker": ranker, "files": dict(files), "gate": dict(verdict), "at": at}


def _build_counts() -> bool:
    """Whether the build's key here is from before there were roles."""
    if not signing_key_path().is_file():
        return False
    key = trust().keys.get(key_name(signing_key().public_key()))
    return key is not None and Role.GATE in key.roles
