"""Delete what a source keeps no longer: landed rows and everything that was judged of them.

Rows hold pseudonyms and what people typed, so a source can say how many days they are kept. Models that were trained
on a day that is gone still name its verdict's digest; what they were trained on can then no longer be read.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from reshelve.clickstream.events import landed_prefix, validated_prefix
from reshelve.clickstream.releases import released_prefix
from reshelve.clickstream.sources import ClickstreamSource, load_source
from reshelve.clickstream.verdicts import partitions_below
from reshelve.logs import logger
from reshelve.store.objects import ObjectStore, object_store


def oldest_kept(source: ClickstreamSource) -> date | None:
    """The first day that is kept, counted from today (UTC); None where everything is."""
    if source.keep_days is None:
        return None
    return datetime.now(UTC).date() - timedelta(days=source.keep_days)


def expire(source: str, *, dry_run: bool) -> dict[str, Any]:
    """Delete the days older than `keep_days` of the source: landed files, verdicts, good and quarantined rows.

    Answers the `days` that went (or would go) and how many `objects`. A day's landed files go last: cut off half-way,
    the day is still seen, and the next time goes on.
    """
    store = object_store()
    oldest = oldest_kept(load_source(source))
    doomed = {} if oldest is None else _before(store, source, oldest)
    for keys in doomed.values() if not dry_run else ():
        store.delete(keys)
    objects = sum(map(len, doomed.values()))
    logger(source=source).info("expired", days=len(doomed), objects=objects, dry_run=dry_run)
    return {
        "source": source,
        "dry_run": dry_run,
        "keeps_from": None if oldest is None else oldest.isoformat(),
        "days": [day.isoformat() for day in doomed],
        "objects": objects,
    }


def _before(store: ObjectStore, source: str, oldest: date) -> dict[date, list[str]]:
    """Every object of the days before `oldest`, oldest day first. A day's folder may outlive its objects."""
    kinds = (validated_prefix, released_prefix, landed_prefix)
    days = {day for kind in kinds for day in partitions_below(store, kind(source, date.min)) if day < oldest}
    found = {day: [key for kind in kinds for key, _ in store.list(kind(source, day))] for day in sorted(days)}
    return {day: keys for day, keys in found.items() if keys}
