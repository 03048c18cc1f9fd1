"""Delete what a source keeps no longer: landed rows and everything that was judged of them.

Rows hold pseudonyms and what people typed, so a source can say how many days they are kept. Models that were trained
on a day that is gone still name its verdict's digest; what they were trained on can then no longer be read.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from reshelve.clickstream.events import landed_prefix, validated_prefix
from reshelve.errors import TryAgainError
from reshelve.logs import logger
from reshelve.raw.sources import ClickstreamSource, load_source
from reshelve.store.conditions import leftovers
from reshelve.store.deletions import Left, what_stayed
from reshelve.store.objects import ObjectStore, object_store
from reshelve.validation.verdicts import partitions_below
from reshelve.validation.waivers import released_prefix


def oldest_kept(source: ClickstreamSource) -> date | None:
    """The first day that is kept, counted from today (UTC); None where everything is."""
    if source.keep_days is None:
        return None
    return datetime.now(UTC).date() - timedelta(days=source.keep_days)


def expire(source: str, *, dry_run: bool) -> dict[str, Any]:
    """Delete the days older than `keep_days` of the source: landed files, verdicts, good and quarantined rows.

    Answers the `days` that went as a whole (or would go) and how many `objects` did. Where some stayed also how many
    (`left`), the `problem`, and whether a retry may mend it (`again`). A day's landed files go last: cut off half-way, the
    day is still seen, and the next time goes on.
    """
    store = object_store()
    oldest = oldest_kept(load_source(source))
    doomed = {} if oldest is None else _before(store, source, oldest)
    left: Left = {} if dry_run else store.delete_each([key for keys in doomed.values() for key in keys])
    gone = [day for day, keys in doomed.items() if not left.keys() & set(keys)]
    total = sum(map(len, doomed.values()))
    if not dry_run and oldest is not None:
        store.delete_each(
            [key for kind in ("clickstream", "released") for key in leftovers(store, f"{kind}/{source}/")]
        )
    logger(source=source).info(
        "expired", days=len(gone), objects=total - len(left), left=len(left), dry_run=dry_run
    )
    found: dict[str, Any] = {
        "source": source,
        "dry_run": dry_run,
        "keeps_from": None if oldest is None else oldest.isoformat(),
        "days": [day.isoformat() for day in gone],
        "objects": total - len(left),
    }
    if left:
        problem = what_stayed(left, total)
        found |= {"left": len(left), "problem": str(problem), "again": isinstance(problem, TryAgainError)}
    return found


def _before(store: ObjectStore, source: str, oldest: date) -> dict[date, list[str]]:
    """Every object of the days before `oldest`, oldest day first. A day's folder may outlive its objects."""
    kinds = (validated_prefix, released_prefix, landed_prefix)
    days = {day for kind in kinds for day in partitions_below(store, kind(source, date.min)) if day < oldest}
    found = {day: [key for kind in kinds for key, _ in store.list(kind(source, day))] for day in sorted(days)}
    return {day: keys for day, keys in found.items() if keys}
