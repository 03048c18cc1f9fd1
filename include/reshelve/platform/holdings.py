"""What each process of the local platform is given: its own variables and the key of its own identity, and nothing else.

Airflow's processes get the whole shell of whoever started the platform, because tasks and connections are
configured there; the log-in is the simple one. The others get the few variables that programs need anywhere, and our
settings that are no secret.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import SecretStr

from reshelve.platform import seaweedfs
from reshelve.settings import Settings

if TYPE_CHECKING:
    from reshelve.platform.configuration import Machine

IDENTITY: Mapping[str, str | None] = {
    "postgres": None,
    "object-store": None,
    "api-server": "pages",
    "scheduler": "nights",
    "dag-processor": None,
    "triggerer": None,
    "model-server": None,
    "agent": "agent",
}
"""The identity in the bucket of each service; None: it never asks the store."""

AIRFLOWS = ("api-server", "scheduler", "dag-processor", "triggerer")

_ANYWHERE = (
    "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NO_PROXY", "no_proxy",
)  # fmt: skip
_ANYWHERE_PREFIXES = ("LC_", "OMP_", "OPENBLAS_", "MKL_", "TF_", "MALLOC_", "COV_", "COVERAGE_")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
_ONLY_AIRFLOWS = {
    f"RESHELVE_{name.upper()}" for name, field in Settings.model_fields.items() if field.annotation is SecretStr
} | {
    "RESHELVE_SIGNING_KEY", "RESHELVE_GATE_KEY", "RESHELVE_RELEASE_KEY", "RESHELVE_PERSON_KEY",
    "RESHELVE_GATEWAY_TOKENS",  # of an older shell: nobody takes them any more
}  # fmt: skip


def environment_of(service: str, machine: Machine) -> dict[str, str]:
    """The whole environment of a service."""
    identity = IDENTITY[service]
    if service in AIRFLOWS:
        found = {**os.environ, **machine.environment()}
    else:
        found = {**_harmless(os.environ), **_harmless(machine.environment())}
    for name in _KEYS:
        found.pop(name, None)
    if identity is not None:
        found |= seaweedfs.environment(machine.ports.s3_port, seaweedfs.credentials(machine.store, identity))
    return found


def _harmless(variables: Mapping[str, str]) -> dict[str, str]:
    """Those that a process without secrets may have."""
    return {
        name: value
        for name, value in variables.items()
        if name in _ANYWHERE
        or name.startswith(_ANYWHERE_PREFIXES)
        or (name.startswith("RESHELVE_") and name not in _ONLY_AIRFLOWS)
    }
