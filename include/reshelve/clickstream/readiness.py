"""Whether a night may begin: what is known of a partition, for those who wait for it."""

from __future__ import annotations

from datetime import date
from typing import Any

from reshelve.clickstream.events import landed_prefix
from reshelve.clickstream.verdicts import Decision, Verdict, read_verdict
from reshelve.errors import DataError, TryAgainError
from reshelve.store.objects import object_store


def readiness(source: str, partition: date) -> dict[str, Any]:
    """The verdict on a partition: pass, warn, or missing where nothing has landed.

    Raises TryAgainError while it has landed and is not yet judged, DataError where the verdict is stop.
    """
    store = object_store()
    found = read_verdict(store, source, partition)
    if found is None:
        if next(store.list(landed_prefix(source, partition)), None):
            raise TryAgainError(
                f"{source} {partition}: landed, and not validated yet",
                f"reshelve validate -s {source} -p {partition}",
            )
        headline = f"{source} {partition}: nothing has landed"
        found = Verdict(verdict=Decision.MISSING, headline=headline, source=source, partition=partition)
    if found.verdict is Decision.STOP:
        raise DataError(f"stopped by validation: {found.headline}")
    return found.result()
