"""Let rows out of quarantine: a person found a partition's fault mended, or that it is none.

A release names quarantine rules for one partition. It is kept, append-only, beside the verdicts; the partition
is then judged again with those rules only warning, so that rows which broke nothing else are good rows of a new
verdict. Landed data and the old verdict stay as they are, and the new verdict's digest is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from reshelve.errors import ConfigurationError, DataError
from reshelve.raw.sources import load_source
from reshelve.store.objects import ObjectStore, PreconditionFailedError, object_store
from reshelve.validation.rules import load_rules
from reshelve.validation.verdicts import read_verdict


def released_prefix(source: str, partition: date) -> str:
    """Where it is kept what a person let out of a day's quarantine."""
    return f"released/{source}/dt={partition.isoformat()}/"


def released_rules(store: ObjectStore, source: str, partition: date) -> tuple[str, ...]:
    """The names of the quarantine rules that were released for a partition, sorted."""
    found: set[str] = set()
    for key, _ in store.list(released_prefix(source, partition)):
        found.update((store.get_json(key) or {}).get("rules", ()))
    return tuple(sorted(found))


def release_quarantine(
    source: str, partition: date, rules: Sequence[str], *, by: str = "cli", reason: str = ""
) -> dict[str, Any]:
    """Release the rows that break only `rules`, and judge again; returns the new verdict and `released_rows`.

    Releasing what is released is a no-op. Raises ConfigurationError for a name that is no quarantine rule,
    DataError where the partition has no verdict.
    """
    from reshelve.validation.validate import validate

    store = object_store()
    known = [rule.name for rule in load_rules(load_source(source).rules).quarantine]
    unknown = [name for name in rules if name not in known]
    if unknown or not rules:
        raise ConfigurationError(
            f"{', '.join(unknown) or 'nothing'} is not a quarantine rule of {source}",
            f"known: {', '.join(known)}",
        )
    before = read_verdict(store, source, partition)
    if before is None:
        raise DataError(f"{source} {partition} has no verdict", "validate it first")
    if set(rules) - set(released_rules(store, source, partition)):
        _record(store, source, partition, {"rules": sorted(set(rules)), "by": by, "reason": reason})
    after = validate(source, partition)
    return {**after, "released_rows": int(after["rows_good"]) - before.rows_good}


def _record(store: ObjectStore, source: str, partition: date, entry: dict[str, Any]) -> None:
    """Append one release. Two at once get two numbers."""
    number = len(list(store.list(released_prefix(source, partition))))
    while True:
        key = f"{released_prefix(source, partition)}{number:06d}.json"
        try:
            store.put_json(key, {**entry, "at": datetime.now(UTC).isoformat()}, if_absent=True)
            return
        except PreconditionFailedError:
            number += 1
