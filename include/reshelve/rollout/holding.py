"""What the verbs `hold` and `lift` do."""

from __future__ import annotations

from typing import Any

from reshelve.deployments import freeze
from reshelve.errors import ConfigurationError
from reshelve.logs import logger
from reshelve.store.objects import object_store


def hold(name: str, *, by: str, reason: str) -> dict[str, Any]:
    """Hold releases in a person's name. Raises ConfigurationError without a name or a reason."""
    if not by or not reason:
        raise ConfigurationError("a release freeze needs a name and a reason", "say --by NAME --reason WHY")
    found = freeze.hold(object_store(), name, by=by, reason=reason)
    logger(ranker=name).info("releases are frozen", by=found.by, reason=found.reason)
    return {"state": "held", **found.model_dump(mode="json")}


def lift(name: str, *, by: str) -> dict[str, Any]:
    """Let releases are resumed; nothing held is no error."""
    found = freeze.lift(object_store(), name)
    logger(ranker=name).info("releases are resumed", by=by, was="" if found is None else found.reason)
    was = None if found is None else found.model_dump(mode="json")
    if found is not None and found.waiting is not None:
        logger(ranker=name).info(
            "a version is waiting to be released",
            version=found.waiting,
            next=f"reshelve release --ranker {name} --version {found.waiting}",
        )
    return {"ranker": name, "state": "unchanged" if found is None else "lifted", "was": was}
