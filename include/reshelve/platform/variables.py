"""The `RESHELVE_*` environment variables that something reads: a misspelt one would be ignored without a word."""

from __future__ import annotations

import os
from difflib import get_close_matches

from reshelve.modelserver.server_options import ServerOptions
from reshelve.platform.configuration import Ports
from reshelve.platform.identities import IDENTITIES
from reshelve.settings import Settings

# Read by no form of settings.
_OTHERS = (
    "RESHELVE_DIE_WITH_PARENT", "RESHELVE_LAUNCHER", "RESHELVE_LOG", "RESHELVE_PROJECT", "RESHELVE_START_DATE",
    # the set-up, and the compose file
    "RESHELVE_GATEWAY_PORT", "RESHELVE_GATEWAY_TOKENS", "RESHELVE_GPU_BASE", "RESHELVE_GPU_IMAGE", "RESHELVE_GRAFANA_PORT", "RESHELVE_HOROVOD",
    "RESHELVE_IMAGE", "RESHELVE_MODEL_SERVER_THREADS", "RESHELVE_OIDC_IMAGE", "RESHELVE_PROMETHEUS_PORT", "RESHELVE_PYTHON", "RESHELVE_WHEELS",
    "RESHELVE_MEMORY", "RESHELVE_NIGHTS_MEMORY", "RESHELVE_SERVING_MEMORY",
    *(f"RESHELVE_S3_{name.upper()}_{half}" for name in IDENTITIES for half in ("KEY", "SECRET")),
    # the tests
    "RESHELVE_CRASHES", "RESHELVE_FAULTS", "RESHELVE_FAULTS_SEED", "RESHELVE_KILLS", "RESHELVE_MLFLOW",
    "RESHELVE_MODEL_SERVER_COMMAND",
    "RESHELVE_SCREENSHOTS",
)  # fmt: skip


def known_variables() -> list[str]:
    """All of them, sorted."""
    fields = [
        f"{form.model_config['env_prefix']}{name.upper()}"
        for form in (Settings, Ports, ServerOptions)
        for name in form.model_fields
    ]
    return sorted({*fields, *_OTHERS})


def unknown_variables() -> list[str]:
    """A sentence for each variable of this process that nothing reads, with the nearest one that is."""
    known = known_variables()
    found = []
    for name in sorted(os.environ):
        if name.startswith("RESHELVE_") and name not in known:
            near = get_close_matches(name, known, n=1)
            guess = f"; did you mean {near[0]}?" if near else "; docs/reference/settings.md lists them"
            found.append(f"{name} is not a setting of Reshelve and is ignored{guess}")
    return found
