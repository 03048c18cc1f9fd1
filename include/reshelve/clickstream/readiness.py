"""Whether a night may begin: what is known of a partition, for those who wait for it."""

from __future__ import annotations

from datetime import date
from typing import Any

from reshelve.clickstream.verdicts import Decision, Verdict, landed_digest, landed_objects, read_verdict
from reshelve.errors import DataError, TryAgainError
from reshelve.store.objects import object_store


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
            raise TryAgainError(f"{source} {partition}: landed, and not validated yet", again)
        headline = f"{source} {partition}: nothing has landed"
        found = Verdict(verdict=Decision.MISSING, headline=headline, source=source, partition=partition)
    elif found.landed and objects and found.landed != landed_digest(store, objects):
        raise TryAgainError(f"{source} {partition}: files came or changed after it was validated", again)
    if found.verdict is Decision.STOP:
        raise DataError(f"stopped by validation: {found.headline}")
    return found.result()
