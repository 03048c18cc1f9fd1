"""Whether a night may begin: what is known of a partition, for those who wait for it."""

from __future__ import annotations

from datetime import date
from typing import Any

from reshelve.errors import DataError, TryAgainError
from reshelve.store.objects import object_store
from reshelve.validation.verdicts import (
    PartitionDecision,
    PartitionVerdict,
    landed_digest,
    landed_objects,
    read_verdict,
)


def readiness(source: str, partition: date) -> dict[str, Any]:
    """The verdict on a partition: pass, warn, or missing where nothing has landed.

    Raises TryAgainError while it has landed and is not yet judged, or files came after it was judged;
    DataError where the verdict is stop.
    """
    store = object_store()
    found = read_verdict(store, source, partition)
    objects = landed_objects(store, source, partition)
    again = f"reshelve validate -s {source} -p {partition}"
    if found is None:
        if objects:
            raise TryAgainError(f"{source} {partition}: landed but not validated yet", again)
        headline = f"{source} {partition}: nothing has landed"
        found = PartitionVerdict(
            verdict=PartitionDecision.MISSING, headline=headline, source=source, partition=partition
        )
    elif found.landed and objects and found.landed != landed_digest(store, objects):
        raise TryAgainError(f"{source} {partition}: files arrived or changed after it was validated", again)
    if found.verdict is PartitionDecision.STOP:
        raise DataError(f"stopped by validation: {found.headline}")
    return found.result()
